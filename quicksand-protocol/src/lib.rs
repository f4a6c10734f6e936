//! What a quicksand host and the agent in its guest say to each other.
//!
//! Plain data and a codec, no I/O: the host's side lives in `quicksand-core`, the guest's in `quicksand-agent`.
//!
//! Both sides speak over one ordered byte channel (a virtio-serial port). On it travel [frames](frame): a fixed header and
//! a bounded payload. A frame belongs to an *operation*, named by an id that the host picks. An operation starts with a
//! [`Request`](message::Request) and ends with exactly one [`Reply`](message::Reply); between the two its streams carry raw
//! bytes, each limited by [credit](flow) that its receiver grants. Operations run at the same time and answer in any order.
//!
//! A guest is not trusted: every length has a limit that is checked before anything is allocated, and every decoder
//! answers arbitrary bytes with a value or an error, never a panic.
//!
//! # Sessions
//!
//! A host opens a session with [`Hello`](message::Hello), which carries a fresh nonce; the agent answers with
//! [`Welcome`](message::Welcome) and the same nonce. Whatever stood in the channel before is of an earlier session: the host
//! skips bytes until it meets its nonce, and writes [`frame::flush_padding`] first where the guest may have been stopped
//! in the middle of a frame. This is what makes a clone's first words safe, although its channel was copied in use.
#![forbid(unsafe_code)]

pub mod facts;
pub mod flow;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod index;
pub mod kernel;
pub mod message;
pub mod modules;
pub mod network;

/// The version of everything in this crate, exchanged in the hello. Raised with every change that an older peer would
/// misread, as docs/on-disk.md says; a host refuses an agent of another version, and the state that holds such an agent is made again.
pub const VERSION: u16 = 2;
