//! The host's side of the agent channel.

pub(crate) mod command_log;
pub mod exit_status;

mod channel;
mod first_words;
mod held;
mod pulse;
mod streams;

pub use channel::{Channel, ChannelError, Opening, Operation};
pub(crate) use first_words::{FirstWords, OfferedFiles, first_words};
pub use held::{Held, hold};
pub(crate) use pulse::Pulse;
pub use streams::{GuestReader, GuestWriter};
