//! What a sandbox's guest reaches, and by what it is reached, while it runs.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use quicksand_protocol::{
    message::Request,
    network::{Card, FIRST_PRIVATE_SLOT, MOST_PRIVATE_CARDS},
};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    Running, Sandbox, SandboxBuilder,
    links::{Current, HostPort, Listener, Names, PortForward, Task},
    running::lock,
};
use crate::{
    error::{Error, Result},
    network::private::{self, Membership, Network},
    vm::{Outside, Vm},
};

/// How long a guest may take to find its cards and to set them up.
const CARDS_PATIENCE: Duration = Duration::from_secs(30);

/// What connects a running sandbox. It outlasts its machine, which a reboot or a return to a checkpoint replaces.
#[derive(Debug)]
pub(super) struct Links {
    /// To be opened at the next [`attach`](Links::attach).
    wanted: Mutex<Vec<PortForward>>,
    forwards: Mutex<Vec<Listener>>,
    /// `None` where the machine is yet to listen. Locked for as long as it is being told.
    host_ports: AsyncMutex<BTreeMap<u16, Option<HostPort>>>,
    names: Arc<Names>,
    /// Tell the guest who comes and goes on its private networks.
    news: Mutex<Vec<Task>>,
}

impl Links {
    pub(super) fn new(options: &SandboxBuilder, outside: &Outside) -> Links {
        Links::of(options.forwards.clone(), options.host_ports.iter().copied(), outside)
    }

    /// Those of a twin: the same, but from ports of the host that are free.
    pub(super) async fn twin(&self, outside: &Outside) -> Links {
        let forwards = lock(&self.forwards).iter().map(|listener| listener.forward().unpicked()).collect();
        Links::of(forwards, self.host_ports.lock().await.keys().copied(), outside)
    }

    fn of(forwards: Vec<PortForward>, host_ports: impl Iterator<Item = u16>, outside: &Outside) -> Links {
        Links {
            wanted: Mutex::new(forwards),
            forwards: Mutex::default(),
            host_ports: AsyncMutex::new(host_ports.map(|port| (port, None)).collect()),
            names: Arc::new(Names::new(outside.memberships.clone())),
            news: Mutex::default(),
        }
    }

    /// Gives a machine that has just been started what it is to have.
    pub(super) async fn attach(running: &Running) -> Result<()> {
        let links = &running.links;
        let wanted = std::mem::take(&mut *lock(&links.wanted));
        for forward in wanted {
            let listener = Listener::open(forward, running.current()).await?;
            lock(&links.forwards).push(listener);
        }
        let vm = running.vm();
        let cards = set_cards(running, &vm);
        let ports = async {
            let mut host_ports = links.host_ports.lock().await;
            for (&port, open) in host_ports.iter_mut() {
                *open = Some(HostPort::open(port, &vm, running.current()).await?);
                links.names.add_host();
            }
            Ok(!host_ports.is_empty())
        };
        let (has_cards, has_ports) = tokio::try_join!(cards, ports)?;
        if !has_cards && !has_ports {
            return Ok(());
        }
        links.names.tell(&vm).await?;
        let memberships = &running.outside.memberships;
        if lock(&links.news).is_empty() {
            let follow = |membership: &Membership| {
                Task::spawn(follow_news(membership.clone(), Arc::clone(&links.names), running.current()))
            };
            *lock(&links.news) = memberships.iter().map(follow).collect();
        }
        for membership in memberships {
            membership.all_told().await;
        }
        Ok(())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // Its tasks hold the places on its networks for a moment longer.
        self.names.leave_networks();
    }
}

/// Has the guest set up the cards of its private networks. Tells whether it has or had any.
async fn set_cards(running: &Running, vm: &Vm) -> Result<bool> {
    if vm.cards() == 0 {
        return Ok(false);
    }
    let slots = FIRST_PRIVATE_SLOT..;
    let present = slots.zip(&running.outside.memberships).filter(|(_, membership)| membership.is_member());
    let cards = present.map(|(slot, membership)| Card {
        slot,
        mac: membership.mac(),
        address: membership.address().octets(),
        prefix: private::PREFIX,
    });
    match vm.channel().request(&Request::Cards { cards: cards.collect() }, CARDS_PATIENCE).await {
        Ok(_) => Ok(true),
        Err(error) => Err(vm.explain(error).await),
    }
}

/// Tells the guest of every change of a network's members.
async fn follow_news(membership: Membership, names: Arc<Names>, current: Current) {
    let mut told = membership.told_of();
    loop {
        let change = membership.changed(told).await;
        let Some(vm) = current.vm() else { return };
        if let Err(error) = names.tell(&vm).await {
            // It reboots, or does not answer; after a start it is told anew.
            tracing::debug!(target: "quicksand::network", %error, "a guest was not told of a network's members");
        }
        told = change;
    }
}

impl SandboxBuilder {
    /// Lets a port of the host lead to one of the guest, in every network mode. Host port 0 picks a free one; see
    /// [`Sandbox::port_forwards`].
    pub fn port_forward(mut self, forward: PortForward) -> SandboxBuilder {
        self.forwards.push(forward);
        self
    }

    /// Lets the guest reach a TCP port of the host's loopback, in every network mode, as [`HOST_NAME`]`:port`. See
    /// [`Sandbox::allow_host_port`].
    ///
    /// [`HOST_NAME`]: crate::HOST_NAME
    pub fn allow_host_port(mut self, port: u16) -> SandboxBuilder {
        self.host_ports.push(port);
        self
    }

    /// Makes the sandbox a member of a private network, by this name.
    ///
    /// The guest gets a card and an address on the network, and knows all members by their names, as they know it. A sandbox can be on
    /// up to eight networks. The name is given up when the sandbox stops.
    pub fn join(mut self, network: &Network, name: impl Into<String>) -> SandboxBuilder {
        self.networks.push((network.clone(), name.into()));
        self
    }

    pub(super) fn check_networks(&self) -> Result<()> {
        let bad = |why: String| Err(Error::BadOption { option: "join", why });
        if self.networks.len() > usize::from(MOST_PRIVATE_CARDS) {
            return bad(format!("a sandbox can be on {MOST_PRIVATE_CARDS} networks at the most"));
        }
        for (at, (network, name)) in self.networks.iter().enumerate() {
            private::check_name(name)?;
            for (other, _) in &self.networks[..at] {
                if other.is(network) {
                    return bad("a sandbox can be on a network once".to_owned());
                }
                if other.looks_like(network) {
                    return bad("the two networks have the same addresses; make one of them anew".to_owned());
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_ports(&self) -> Result<()> {
        self.forwards.iter().try_for_each(PortForward::check)?;
        self.host_ports.iter().try_for_each(|&port| check_host_port(port))
    }
}

impl Sandbox {
    /// Lets a port of the host lead to one of the guest, whatever the guest's network mode. Returns the forward with the port that
    /// was picked. It lasts as long as the sandbox runs.
    ///
    /// Connections are carried by tasks of the runtime in which this is called: code that waits for one without `await` needs a
    /// runtime of more than one thread, as that of `#[sandbox_test]` is.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] where the port is taken; [`Error::BadOption`], [`Error::NotRunning`].
    pub async fn forward_port(&self, forward: PortForward) -> Result<PortForward> {
        forward.check()?;
        let running = self.running()?;
        let listener = Listener::open(forward, running.current()).await?;
        let forward = listener.forward();
        lock(&running.links.forwards).push(listener);
        Ok(forward)
    }

    /// Ends a forward, with the connections that it carries. Ending one that there is not does nothing.
    pub fn unforward_port(&self, forward: PortForward) {
        if let Ok(running) = self.running() {
            lock(&running.links.forwards).retain(|listener| listener.forward() != forward);
        }
    }

    /// The forwards that are at work, with the ports that were picked, in the order in which they were asked for.
    pub fn port_forwards(&self) -> Vec<PortForward> {
        let Ok(running) = self.running() else { return Vec::new() };
        let forwards = lock(&running.links.forwards);
        forwards.iter().map(Listener::forward).collect()
    }

    /// Lets the guest reach a TCP port of the host's loopback, whatever its network mode.
    ///
    /// In the guest the port is at [`HOST_NAME`], an address of its own on the guest's loopback, so that a service of the guest on
    /// 127.0.0.1 may have the same port. One that listens at all addresses may not.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] where something in the guest has the port at all addresses; [`Error::BadOption`], [`Error::NotRunning`].
    ///
    /// [`HOST_NAME`]: crate::HOST_NAME
    pub async fn allow_host_port(&self, port: u16) -> Result<()> {
        check_host_port(port)?;
        let running = self.running()?;
        let mut host_ports = running.links.host_ports.lock().await;
        if host_ports.contains_key(&port) {
            return Ok(());
        }
        let open = HostPort::open(port, &running.ready().await?, running.current()).await?;
        running.links.names.add_host();
        let vm = running.ready().await?;
        running.links.names.tell(&vm).await?;
        host_ports.insert(port, Some(open));
        Ok(())
    }

    /// Takes a port of the host from the guest again, with its connections.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]
    pub async fn disallow_host_port(&self, port: u16) -> Result<()> {
        self.running()?.links.host_ports.lock().await.remove(&port);
        Ok(())
    }
}

impl Sandbox {
    /// Its name and its address on a private network. `None` where it is not on it, or unless it runs.
    pub fn on_network(&self, network: &Network) -> Option<(String, Ipv4Addr)> {
        let running = self.running().ok()?;
        let membership = running.outside.memberships.iter().find(|it| it.network().is(network) && it.is_member())?;
        Some((membership.name().to_owned(), membership.address()))
    }

    /// Takes it off a private network: the guest's card goes, and the others forget its name. Leaving a network that it is not on does
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], [`Error::Guest`]. It is off the network in any case.
    pub async fn leave(&self, network: &Network) -> Result<()> {
        let running = self.running()?;
        let mut memberships = running.outside.memberships.iter();
        let Some(membership) = memberships.find(|it| it.network().is(network) && it.is_member()) else { return Ok(()) };
        membership.leave();
        let vm = running.ready().await?;
        set_cards(&running, &vm).await?;
        running.links.names.tell(&vm).await
    }

    /// What the guest reaches of this host though it should not, for people. `None` where it does not, or unless it runs.
    ///
    /// With [`NetworkMode::Full`](crate::NetworkMode::Full) and without passt that is every service on the host's loopback, of which
    /// a warning is given once in a process, too.
    pub fn network_warning(&self) -> Option<String> {
        self.running().ok()?.vm().network_warning().map(str::to_owned)
    }
}

fn check_host_port(port: u16) -> Result<()> {
    if port == 0 {
        return Err(Error::BadOption { option: "allow_host_port", why: "the port must be 1 to 65535".into() });
    }
    Ok(())
}
