//! A guest's display without a window: its picture, its keyboard, its pointer, and viewers.
//!
//! - `screenshot`: the picture;
//! - `keyboard`: texts and keys;
//! - `pointer`: the mouse;
//! - `vnc`: the sockets at which viewers see it.

mod keyboard;
mod pointer;
mod screenshot;

use std::{sync::Arc, time::Duration};

use quicksand_protocol::message::Request;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    sandbox::Sandbox,
    vm::Vm,
};

pub use keyboard::{Chord, Key};
pub use pointer::MouseButton;

/// How long the guest may take to have read what was typed. One that is past answering is typed to nevertheless.
const READ_PATIENCE: Duration = Duration::from_millis(300);

/// The machine, where it has a display.
async fn shown(sandbox: &Sandbox) -> Result<Arc<Vm>> {
    let vm = sandbox.vm().await?;
    if vm.machine().display { Ok(vm) } else { Err(Error::NoDisplay) }
}

/// Has keys or buttons go down and up, and waits until the guest has read that: a keyboard keeps 16 bytes, and drops the rest.
async fn input(vm: &Vm, events: Vec<Value>) -> Result<()> {
    vm.qmp().execute("input-send-event", json!({ "events": events })).await?;
    // Its kernel reads a key at once, before any program of its runs, and so before the agent answers.
    let _ = vm.channel().request(&Request::Ping, READ_PATIENCE).await;
    Ok(())
}
