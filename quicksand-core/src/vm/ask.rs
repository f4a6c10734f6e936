//! Short questions to a guest: what is in a file, what a program prints.

use std::{future::Future, time::Duration};

use nix::libc;
use quicksand_protocol::message::{Done, Exec, Exit, Request};
use tokio::{io::AsyncReadExt, time::timeout};

use super::Vm;
use crate::{
    base::size::Size,
    error::{Error, Result},
    guest::{ChannelError, GuestReader, Operation, exit_status::ExitStatus},
};

/// How long a guest may take for one file or command.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longest `/etc/passwd` and its like.
const LONGEST_TEXT: Size = Size::from_mib(1);

/// What a program left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs a program to its end and takes what it prints, up to that much of each stream.
pub(crate) async fn run(vm: &Vm, exec: Exec, patience: Duration, limit: Size) -> Result<Ran> {
    let words: Vec<_> = exec.argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let command = words.join(" ");
    let work = async {
        let mut operation = vm.channel().start(&Request::Exec(exec))?;
        let (out, err) = (operation.stdout.take(), operation.stderr.take());
        let what = format!("the output of {command}");
        let (stdout, stderr) = tokio::join!(take(out, &what, limit), take(err, &what, limit));
        let (stdout, stderr) = (stdout?, stderr?);
        let status = match reply(vm, operation).await? {
            Done::Exited(Exit::Signal(signal)) => ExitStatus::Signal(signal),
            Done::Exited(Exit::Code(code)) => ExitStatus::Code(code),
            _ => ExitStatus::Code(0),
        };
        Ok(Ran { status, stdout, stderr })
    };
    timeout(patience, work).await.unwrap_or_else(|_| {
        let (stdout, stderr) = (String::new(), String::new());
        Err(Error::CommandTimeout { command: command.clone(), after: patience, stdout, stderr })
    })
}

/// The text of a small file. `None` where the guest can't read it.
pub(crate) async fn text(vm: &Vm, path: &str) -> Result<Option<String>> {
    let bytes = read(vm, path.as_bytes(), LONGEST_TEXT).await?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The content of a file. `None` where the guest can't read it.
pub(crate) async fn read(vm: &Vm, path: &[u8], limit: Size) -> Result<Option<Vec<u8>>> {
    within(PATIENCE, async {
        let mut operation = vm.channel().start(&Request::ReadFile { path: path.to_vec(), limit: limit.bytes() })?;
        let bytes = take_stdout(&mut operation, &String::from_utf8_lossy(path), limit).await?;
        match reply(vm, operation).await {
            Ok(_) => Ok(Some(bytes)),
            Err(Error::Guest(ChannelError::Guest { errno: libc::EFBIG, message })) => {
                Err(Error::TooLong { what: message, limit })
            }
            Err(Error::Guest(ChannelError::Guest { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Reads the operation's output to its end.
pub(crate) async fn take_stdout(operation: &mut Operation, what: &str, limit: Size) -> Result<Vec<u8>> {
    take(operation.stdout.take(), what, limit).await
}

async fn take(stream: Option<GuestReader>, what: &str, limit: Size) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // A stream that breaks ends here; the reply says why. One byte more, so that what is longer can be told.
        let _ = stream.take(limit.bytes() + 1).read_to_end(&mut bytes).await;
    }
    if bytes.len() as u64 > limit.bytes() {
        return Err(Error::TooLong { what: what.to_owned(), limit });
    }
    Ok(bytes)
}

/// How an operation ended.
pub(crate) async fn reply(vm: &Vm, mut operation: Operation) -> Result<Done> {
    match operation.reply().await {
        Ok(done) => Ok(done),
        Err(error) => Err(vm.explain(error).await),
    }
}

/// Does `work`, for at most that long.
pub(crate) async fn within<T>(patience: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(patience, work).await.unwrap_or(Err(ChannelError::NoAnswer(patience).into()))
}
