//! Which frozen state serves a start, and the way from there to a machine that runs.

pub(crate) mod accel;
pub(crate) mod kernel;
pub(crate) mod source;
