//! What the test harness needs of this crate. Not for anyone else: it changes without notice.

pub mod fuzzing;

pub use crate::{base::tree, guest::hold};
