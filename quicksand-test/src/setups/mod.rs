//! Setups as layers: each makes a save from an image or from the save of another, once, and again when what it is made from changed.
//!
//! - `registry`: which layers a test's machine stands on;
//! - `recipe`: what a layer is made from, so that a change is noticed;
//! - `make`: making a layer once among all processes that want it;
//! - `call`: calling a setup that is a function;
//! - `work`: what a setup does to its machine;
//! - `record`: what became of a layer in the run that made it last.

mod call;
mod make;
mod recipe;
mod record;
mod registry;
mod work;

pub(crate) use call::Abandoned;
pub use call::{Called, SetupFunction, call_setup};
pub(crate) use make::{SetupFailure, make};
pub(crate) use recipe::InputError;
pub(crate) use registry::{Layer, Unresolved, image, layers};
