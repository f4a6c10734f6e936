//! Ports and files. The agent looks at them in the guest, by one request, without starting a process.

use std::{os::unix::ffi::OsStrExt, path::PathBuf, time::Duration};

use quicksand_protocol::message::{Await, Condition, Done, Request};
use tokio::time::timeout;

use super::{Deadline, Wait};
use crate::{
    base::printed::printable,
    error::{Error, Result},
    guest::ChannelError,
    sandbox::Sandbox,
};

/// How much longer than its time the guest may take to say that this is over.
const SLACK: Duration = Duration::from_secs(15);

impl Sandbox {
    /// Waits until something listens in the guest at this TCP port, at any address, IPv4's or IPv6's. A socket of systemd's counts.
    ///
    /// Nobody is connected to: a server's first visitor is the test's own. What listens in a network namespace of its own, as a
    /// container does, is not seen; use [`wait_until_succeeds`](Sandbox::wait_until_succeeds) for that.
    ///
    /// # Errors
    ///
    /// [`Error::BadOption`] for port 0, at once.
    pub fn wait_for_port(&self, port: u16) -> Wait<'_> {
        Wait::new(async move |deadline| {
            if port == 0 {
                return Err(never("the port", "nothing listens on port 0; use the one that the server was given"));
            }
            look(self, format!("port {port} of the guest"), Condition::Port(port), deadline).await
        })
    }

    /// Waits until the guest has something under that absolute path: a file, a directory, a socket, a link.
    ///
    /// # Errors
    ///
    /// [`Error::BadOption`] for a path that is not absolute, at once.
    pub fn wait_for_file(&self, path: impl Into<PathBuf>) -> Wait<'_> {
        let path: PathBuf = path.into();
        Wait::new(async move |deadline| {
            if !path.is_absolute() {
                return Err(never("the file", &format!("{} is not an absolute path of the guest", path.display())));
            }
            let condition = Condition::File(path.as_os_str().as_bytes().to_vec());
            look(self, format!("{} in the guest", path.display()), condition, deadline).await
        })
    }
}

/// Of what can't come true.
fn never(option: &'static str, why: &str) -> Error {
    Error::BadOption { option, why: why.to_owned() }
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
