//! Carrying a connection between a socket of the host and an operation of the agent.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::guest::{ChannelError, GuestReader, GuestWriter, Operation};

const BUFFER: usize = 64 * 1024;

/// An operation whose bytes are carried.
struct Inner {
    operation: Operation,
    stdin: GuestWriter,
    done: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.done {
            // Before the end of its input, which the guest would else take for one that was meant.
            self.operation.cancel();
        }
    }
}

/// Carries bytes both ways until both ways have ended. The end of one way alone is passed on; where either end fails, the
/// other's connection is reset.
pub(crate) async fn carry(mut host: TcpStream, mut operation: Operation) {
    let (Some(stdin), Some(stdout)) = (operation.stdin.take(), operation.stdout.take()) else { return };
    // Small messages are answered at once, as they would be without us.
    let _ = host.set_nodelay(true);
    let mut inner = Inner { operation, stdin, done: false };
    let (mut reader, mut writer) = host.split();
    let inward = into_guest(&mut reader, &mut inner.stdin);
    let outward = async {
        out_of_guest(stdout, &mut writer).await?;
        let reply = tokio::select! {
            biased;
            // It stands before the end of the stream where the connection failed, and behind it where one way alone has ended.
            reply = inner.operation.reply() => reply,
            () = std::future::ready(()) => {
                writer.shutdown().await?;
                inner.operation.reply().await
            }
        };
        reply.map_err(broken)
    };
    match tokio::try_join!(inward, outward) {
        Ok(_) => inner.done = true,
        Err(error) => {
            tracing::debug!(target: "quicksand::network", %error, "a connection was reset");
            reset_on_close(&host);
        }
    }
}

async fn into_guest(reader: &mut (impl AsyncReadExt + Unpin), stdin: &mut GuestWriter) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let len = reader.read(&mut buffer).await?;
        if len == 0 {
            return stdin.shutdown().await;
        }
        if stdin.write_all(&buffer[..len]).await.is_err() {
            // The operation is over, and its reply says how.
            return Ok(());
        }
    }
}

async fn out_of_guest(mut stdout: GuestReader, writer: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stdout.read(&mut buffer).await? {
            0 => return Ok(()),
            len => writer.write_all(&buffer[..len]).await?,
        }
    }
}

fn broken(error: ChannelError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

/// Has a connection be reset rather than ended when it is closed: its other end is not to take what came for all there is.
pub(crate) fn reset_on_close(connection: &TcpStream) {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = nix::sys::socket::setsockopt(connection, nix::sys::socket::sockopt::Linger, &at_once);
}
