//! The host's side of the agent channel.

mod channel;
mod held;
mod streams;

pub use channel::{Channel, ChannelError, Opening, Operation};
pub use held::{Held, hold};
pub use streams::{GuestReader, GuestWriter};
