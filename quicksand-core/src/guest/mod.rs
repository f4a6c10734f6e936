//! The host's side of the agent channel.

mod channel;
mod streams;

pub use channel::{Channel, ChannelError, Opening, Operation};
pub use streams::{GuestReader, GuestWriter};
