//! What a user does with a sandbox: commands, files, terminals, waits, facts, changes, the display, installs and users.

pub mod changes;
pub(crate) mod command;
pub(crate) mod display;
pub mod facts;
pub(crate) mod files;
pub(crate) mod install;
pub(crate) mod pattern;
pub(crate) mod terminal;
pub(crate) mod users;
pub(crate) mod wait;
