//! The names that a guest knows by us: of the host's ports, and of the members of its private networks.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use quicksand_protocol::{
    message::Request,
    network::{HOST_ADDRESS, HOST_NAME},
};
use tokio::sync::Mutex as AsyncMutex;

use crate::{error::Result, network::private::Membership, vm::Vm};

/// How long an agent may take to write them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The names that a guest is to know.
#[derive(Debug)]
pub(crate) struct Names {
    host: AtomicBool,
    memberships: Vec<Membership>,
    /// Held for as long as the guest is being told, so that what it hears last is the latest.
    telling: AsyncMutex<()>,
}

impl Names {
    pub(crate) fn new(memberships: Vec<Membership>) -> Names {
        Names { host: AtomicBool::new(false), memberships, telling: AsyncMutex::default() }
    }

    /// From now on the host is among them.
    pub(crate) fn add_host(&self) {
        self.host.store(true, Ordering::SeqCst);
    }

    /// Gives up its place on each network.
    pub(crate) fn leave_networks(&self) {
        self.memberships.iter().for_each(Membership::leave);
    }

    /// Tells the guest of a machine.
    pub(crate) async fn tell(&self, vm: &Vm) -> Result<()> {
        let _telling = self.telling.lock().await;
        // Before the names are asked for: what changes after that is told again.
        let changes: Vec<u64> = self.memberships.iter().map(Membership::changes).collect();
        let told = vm.channel().request(&Request::Hosts { entries: self.entries() }, PATIENCE).await;
        for (membership, change) in self.memberships.iter().zip(changes) {
            membership.told(change);
        }
        match told {
            Ok(done) => {
                vm.warnings().add(done);
                Ok(())
            }
            Err(error) => Err(vm.explain(error).await),
        }
    }

    fn entries(&self) -> Vec<([u8; 4], String)> {
        let host = self.host.load(Ordering::SeqCst).then(|| (HOST_ADDRESS, HOST_NAME.to_owned()));
        let networks = self.memberships.iter().filter(|membership| membership.is_member()).map(Membership::network);
        let members = networks.flat_map(crate::network::private::Network::members);
        host.into_iter().chain(members.map(|(name, address): (String, Ipv4Addr)| (address.octets(), name))).collect()
    }
}
