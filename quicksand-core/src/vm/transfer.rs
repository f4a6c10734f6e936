//! Files on their way between host and guest, as streams of the agent's.

use std::{
    future::Future,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::libc;
use quicksand_protocol::message::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
    time::timeout,
};

use super::Vm;
use crate::{
    base::{blocking::blocking, progress::Reporter, size::Size, tree},
    error::{Error, Result},
    guest::{ChannelError, GuestReader, GuestWriter, Operation},
};

/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(60);

impl Vm {
    /// The content of a file in the guest that is not longer than that.
    pub(crate) async fn read_file(&self, path: &Path, limit: Size) -> Result<Vec<u8>> {
        let request = Request::ReadFile { path: path.as_os_str().as_bytes().to_vec(), limit: limit.bytes() };
        let mut operation = self.channel().start(&request)?;
        let mut content = Vec::new();
        if let Some(mut stream) = operation.stdout.take() {
            while step(stream.read_buf(&mut content)).await? > 0 {
                if content.len() as u64 > limit.bytes() {
                    return Err(Error::TooLong { what: path.display().to_string(), limit });
                }
            }
        }
        match finish(self, operation).await {
            // Its failure names the file and how long it is.
            Err(Error::Guest(ChannelError::Guest { errno: libc::EFBIG, message })) => {
                Err(Error::TooLong { what: message, limit })
            }
            done => done.map(|()| content),
        }
    }

    /// Copies a file or directory of the host to `to` in the guest.
    pub(crate) async fn upload(&self, from: &Path, to: &Path, reporter: Reporter) -> Result<()> {
        let from = from.to_owned();
        self.upload_archive(to, move |writer| pack(&from, writer), reporter).await
    }

    /// Sends an archive whose root becomes `to`. What goes wrong on the host comes with the file that it is about.
    pub(crate) async fn upload_archive(
        &self,
        to: &Path,
        pack: impl FnOnce(Counted<BlockingWriter>) -> Result<(), (PathBuf, io::Error)> + Send + 'static,
        reporter: Reporter,
    ) -> Result<()> {
        let path = to.as_os_str().as_bytes().to_vec();
        let mut operation = self.channel().start(&Request::Upload { path })?;
        let Some(stream) = operation.stdin.take() else { return Err(Error::NotRunning) };
        let writer = BlockingWriter { stream, handle: Handle::current() };
        let writer = Counted::new(writer, "upload", reporter);
        match blocking(move || pack(writer)).await {
            // Where the stream broke, the guest's reply says why.
            Err((file, error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("upload", &file)(error)),
            _ => finish(self, operation).await,
        }
    }
}

/// One step of a transfer.
pub(crate) async fn step<T>(step: impl Future<Output = io::Result<T>>) -> Result<T> {
    match timeout(STALL, step).await {
        Ok(done) => done.map_err(|_| ChannelError::Closed.into()),
        Err(_) => Err(ChannelError::NoAnswer(STALL).into()),
    }
}

pub(crate) async fn finish(vm: &Vm, mut operation: Operation) -> Result<()> {
    match timeout(STALL, operation.reply()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(vm.explain(error).await),
        Err(_) => Err(ChannelError::NoAnswer(STALL).into()),
    }
}

/// A guest's stream for code that blocks, on a thread where that is allowed.
pub(crate) struct BlockingReader {
    pub(crate) stream: GuestReader,
    pub(crate) handle: Handle,
}

impl Read for BlockingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.handle.block_on(async { timeout(STALL, self.stream.read(buffer)).await? })
    }
}

pub(crate) struct BlockingWriter {
    pub(crate) stream: GuestWriter,
    pub(crate) handle: Handle,
}

impl Write for BlockingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.block_on(async { timeout(STALL, self.stream.write(bytes)).await? })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells how many bytes of a transfer have passed, and at its end that these are all.
pub(crate) struct Counted<T> {
    inner: T,
    stage: &'static str,
    reporter: Reporter,
    bytes: u64,
}

impl<T> Counted<T> {
    pub(crate) fn new(inner: T, stage: &'static str, reporter: Reporter) -> Counted<T> {
        reporter.report(stage, 0, 0);
        Counted { inner, stage, reporter, bytes: 0 }
    }

    fn count(&mut self, len: usize) {
        self.bytes += len as u64;
        self.reporter.report(self.stage, self.bytes, 0);
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        self.reporter.report(self.stage, self.bytes, self.bytes);
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.count(len);
        Ok(len)
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.count(len);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a file or directory as a tar whose root it is, holes as holes. An error comes with the file that it is about.
pub(crate) fn pack(from: &Path, to: impl Write) -> Result<(), tree::Fault> {
    let mut builder = tar::Builder::new(io::BufWriter::with_capacity(64 * 1024, to));
    builder.follow_symlinks(false);
    tree::walk(from, tree::SpecialFiles::LeaveOut, |found| {
        let is_root = found.name.as_os_str().is_empty();
        // With a slash at its end a file would be a directory.
        let name = if is_root { PathBuf::from(".") } else { Path::new(".").join(&found.name) };
        builder.append_path_with_name(&found.path, name)
    })?;
    builder.into_inner().and_then(|mut writer| writer.flush()).map_err(|error| (from.to_owned(), error))
}
