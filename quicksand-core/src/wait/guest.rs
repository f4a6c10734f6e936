//! Ports and files. The agent looks at them in the guest, by one request, without starting a process.

use std::{os::unix::ffi::OsStrExt, path::PathBuf, time::Duration};

use quicksand_protocol::message::{Await, Condition, Done, Request};
use tokio::time::timeout;

use super::{Deadline, Wait};
use crate::{Result, Sandbox, guest::ChannelError, vm::printable};

/// How much longer than its time the guest may take to say that this is over.
const SLACK: Duration = Duration::from_secs(15);

impl Sandbox {
    /// Waits until a TCP connection can be made, in the guest, to this port of one of its own addresses.
    pub fn wait_for_port(&self, port: u16) -> Wait<'_> {
        Wait::new(move |deadline| look(self, format!("port {port} of the guest"), Condition::Port(port), deadline))
    }

    /// Waits until the guest has something under that absolute path: a file, a directory, a socket, a link.
    pub fn wait_for_file(&self, path: impl Into<PathBuf>) -> Wait<'_> {
        let path: PathBuf = path.into();
        let condition = Condition::File(path.as_os_str().as_bytes().to_vec());
        Wait::new(move |deadline| look(self, format!("{} in the guest", path.display()), condition, deadline))
    }
}

async fn look(sandbox: &Sandbox, what: String, condition: Condition, deadline: Deadline) -> Result<()> {
    let vm = deadline.machine(sandbox).await?;
    let left = deadline.left();
    let within_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let mut operation = vm.channel().start(&Request::Await(Await { condition, within_ms }))?;
    let patience = left + SLACK;
    match timeout(patience, operation.reply()).await {
        Ok(Ok(Done::NotYet { seen })) => Err(deadline.missed(what, printable(&seen))),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(vm.explain(error).await),
        Err(_) => Err(ChannelError::NoAnswer(patience).into()),
    }
}
