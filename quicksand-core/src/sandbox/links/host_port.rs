//! From the guest to the host: a port of the host's loopback that the guest was given by name.
//!
//! The agent listens in the guest and tells of each connection; here it is connected to the one port that it was made for. So a
//! guest that says what it likes reaches no other.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use quicksand_protocol::message::Request;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::Semaphore, task::JoinSet, time::timeout};

use super::{Current, MOST_CONNECTIONS, Task, carry};
use crate::{
    error::Result,
    guest::{ChannelError, GuestReader, Operation},
    vm::Vm,
};

/// How long the agent may take to listen.
const LISTEN_PATIENCE: Duration = Duration::from_secs(10);
/// How long the host's server may take to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// A port of the host that the guest reaches. Dropping it ends that, with its connections.
#[derive(Debug)]
pub(crate) struct HostPort {
    _task: Task,
}

impl HostPort {
    /// Has the agent of a machine listen.
    pub(crate) async fn open(port: u16, vm: &Arc<Vm>, current: Current) -> Result<HostPort> {
        match listen(port, vm).await {
            Ok((operation, arrivals)) => Ok(HostPort { _task: Task::spawn(serve(port, operation, arrivals, current)) }),
            Err(error) => Err(vm.explain(error).await),
        }
    }
}

async fn listen(port: u16, vm: &Vm) -> Result<(Operation, GuestReader), ChannelError> {
    let mut operation = vm.channel().start(&Request::Listen { port })?;
    let mut arrivals = operation.stdout.take().ok_or(ChannelError::Closed)?;
    let listening = async {
        match arrivals.read_u32_le().await {
            Ok(0) => Ok(()),
            Ok(_) => Err(ChannelError::Violation("it told of a connection before it listened".into())),
            // What kept it from listening.
            Err(_) => Err(operation.reply().await.err().unwrap_or(ChannelError::Closed)),
        }
    };
    timeout(LISTEN_PATIENCE, listening).await.map_err(|_| ChannelError::NoAnswer(LISTEN_PATIENCE))??;
    Ok((operation, arrivals))
}

/// Takes connections for as long as the session lasts.
async fn serve(port: u16, listening: Operation, mut arrivals: GuestReader, current: Current) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    // Ends all of them with this task.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // First, so that a guest that tells of more than there is room for waits.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        let Ok(connection) = arrivals.read_u32_le().await else { break };
        let Some(vm) = current.vm() else { break };
        let Ok(operation) = vm.channel().start(&Request::Accept { connection }) else { break };
        drop(vm);
        connections.spawn(async move {
            match connect(port).await {
                Ok(host) => carry::carry(host, operation).await,
                // Dropping the operation resets the guest's connection.
                Err(error) => tracing::debug!(target: "quicksand::network", port, %error, "the host's port refused"),
            }
            drop(permit);
        });
    }
    drop(listening);
}

/// Connects to the host's server, which may be at one of the two loopback addresses only.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let attempt = async {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Err(refused) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| refused),
            connected => connected,
        }
    };
    timeout(CONNECT_PATIENCE, attempt).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}
