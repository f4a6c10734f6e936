//! The streams of an operation, as asynchronous readers and writers under flow control.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use quicksand_protocol::{
    flow::{FlowError, ReceiveCredit, SendCredit},
    frame::{Kind, MAX_PAYLOAD},
    message::stream,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{channel::Shared, held};

/// The receiving end of a stream out of the guest, as the session's reading task sees it.
#[derive(Debug)]
pub(super) struct Incoming(Arc<Mutex<Buffer>>);

#[derive(Debug, Default)]
struct Buffer {
    bytes: VecDeque<u8>,
    credit: ReceiveCredit,
    ended: bool,
    /// Nobody will read; what comes is dropped.
    unread: bool,
    reader: Option<Waker>,
}

/// A stream out of the guest. It ends where the guest ended it, or with the session.
#[derive(Debug)]
pub struct GuestReader {
    id: u32,
    stream: u8,
    buffer: Arc<Mutex<Buffer>>,
    shared: Arc<Shared>,
}

impl Incoming {
    pub(super) fn new(id: u32, stream: u8, shared: &Arc<Shared>) -> (Incoming, GuestReader) {
        let buffer = Arc::<Mutex<Buffer>>::default();
        (Incoming(Arc::clone(&buffer)), GuestReader { id, stream, buffer, shared: Arc::clone(shared) })
    }

    /// Takes bytes from the guest. Returns the credit to grant at once, where nobody will read them.
    pub(super) fn data(&mut self, bytes: Vec<u8>) -> Result<Option<[u8; 4]>, FlowError> {
        let mut buffer = lock(&self.0);
        buffer.credit.receive(bytes.len())?;
        if buffer.unread {
            return Ok(buffer.credit.consume(bytes.len()));
        }
        buffer.bytes.extend(bytes);
        wake(&mut buffer.reader);
        Ok(None)
    }

    /// Takes the end of the stream from the guest.
    pub(super) fn end(&mut self) {
        let mut buffer = lock(&self.0);
        buffer.ended = true;
        wake(&mut buffer.reader);
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.end();
    }
}

impl AsyncRead for GuestReader {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut buffer = lock(&self.buffer);
        if buffer.bytes.is_empty() {
            if buffer.ended {
                return Poll::Ready(Ok(()));
            }
            buffer.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (first, _) = buffer.bytes.as_slices();
        let len = first.len().min(out.remaining());
        out.put_slice(&first[..len]);
        buffer.bytes.drain(..len);
        if let Some(grant) = buffer.credit.consume(len) {
            self.shared.send(Kind::Credit, self.stream, self.id, &grant);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for GuestReader {
    fn drop(&mut self) {
        // A process in the guest is not to block on a stream that nobody reads.
        let mut buffer = lock(&self.buffer);
        buffer.unread = true;
        let left = std::mem::take(&mut buffer.bytes).len();
        if let Some(grant) = buffer.credit.consume(left) {
            self.shared.send(Kind::Credit, self.stream, self.id, &grant);
        }
    }
}

/// The sending end of a stream into the guest, as the session's reading task sees it.
#[derive(Debug, Default)]
pub(super) struct Outgoing(Mutex<Sender>);

#[derive(Debug, Default)]
struct Sender {
    credit: SendCredit,
    closed: bool,
    writer: Option<Waker>,
}

impl Outgoing {
    pub(super) fn grant(&self, payload: &[u8]) -> Result<(), FlowError> {
        let mut sender = lock(&self.0);
        sender.credit.grant(payload)?;
        wake(&mut sender.writer);
        Ok(())
    }

    /// The operation is over: what is written from now on is refused.
    fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }

    pub(super) fn close(&self) {
        let mut sender = lock(&self.0);
        sender.closed = true;
        wake(&mut sender.writer);
    }
}

/// A stream into the guest. Shutting it down or dropping it ends the stream there.
#[derive(Debug)]
pub struct GuestWriter {
    id: u32,
    sender: Arc<Outgoing>,
    shared: Arc<Shared>,
    ended: bool,
}

impl GuestWriter {
    pub(super) fn new(id: u32, sender: Arc<Outgoing>, shared: &Arc<Shared>) -> GuestWriter {
        GuestWriter { id, sender, shared: Arc::clone(shared), ended: false }
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.shared.send(Kind::Eof, stream::STDIN, self.id, &[]);
        }
    }
}

impl AsyncWrite for GuestWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut sender = lock(&self.sender.0);
        if sender.closed || self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let len = sender.credit.take(bytes.len().min(MAX_PAYLOAD));
        if len == 0 {
            sender.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        drop(sender);
        self.shared.send(Kind::Data, stream::STDIN, self.id, &bytes[..len]);
        Poll::Ready(Ok(len))
    }

    /// Nothing is held back here, so there is nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for GuestWriter {
    fn drop(&mut self) {
        // Once the operation is over, there is nobody to be told, and telling costs the guest an interrupt.
        if !self.ended && !self.sender.is_closed() {
            held::send_or_hold(&self.shared, Kind::Eof, stream::STDIN, self.id);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
