//! Short questions to a guest: what is in a file, what a program prints.

use std::{future::Future, time::Duration};

use nix::libc;
use quicksand_protocol::message::{Done, Exec, Request};
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
    let command = command_line(&exec.argv);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let work = async {
        let mut operation = vm.channel().start(&Request::Exec(exec))?;
        let (out, err) = (operation.stdout.take(), operation.stderr.take());
        let (out, err) = tokio::join!(collect(out, &mut stdout, limit), collect(err, &mut stderr, limit));
        if !(out && err) {
            return Err(Error::TooLong { what: format!("the output of {command}"), limit });
        }
        reply(vm, operation).await
    };
    match timeout(patience, work).await {
        Ok(done) => Ok(Ran { status: ExitStatus::of(&done?), stdout, stderr }),
        Err(_) => {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            Err(Error::CommandTimeout { command, after: patience, stdout: text(stdout), stderr: text(stderr) })
        }
    }
}

/// A command as a person writes it: a line of shell as it was given, else the words joined by spaces.
pub(crate) fn command_line(argv: &[Vec<u8>]) -> String {
    if let [shell, flag, line] = argv
        && shell == b"/bin/sh"
        && flag == b"-c"
    {
        return String::from_utf8_lossy(line).into_owned();
    }
    let words: Vec<_> = argv.iter().map(|word| String::from_utf8_lossy(word)).collect();
    words.join(" ")
}

/// Reads a stream to its end. Returns whether it stayed within the limit.
pub(crate) async fn collect(stream: Option<GuestReader>, into: &mut Vec<u8>, limit: Size) -> bool {
    let Some(mut stream) = stream else { return true };
    // One byte more than allowed, so that what is longer can be told.
    let read = (&mut stream).take(limit.bytes().saturating_add(1)).read_to_end(into).await;
    read.is_ok() && (into.len() as u64) <= limit.bytes()
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

/// Reads the operation's output to its end. A stream that breaks ends here; the reply says why.
pub(crate) async fn take_stdout(operation: &mut Operation, what: &str, limit: Size) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    collect(operation.stdout.take(), &mut bytes, limit).await;
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
