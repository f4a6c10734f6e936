//! Private networks: sandboxes of this process that reach each other by name, and nothing else by that.

use std::{
    fmt, io,
    net::{Ipv4Addr, Shutdown},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::switch::{Mac, Port, Ports};
use crate::error::{Error, Result};

/// The numbers of the hosts of a network. Those before are left for whoever wants to have a fixed one.
const FIRST_HOST: u8 = 10;
const LAST_HOST: u8 = 254;
/// Length of the network prefix.
pub(crate) const PREFIX: u8 = 24;
/// Stands for a member whose guest does not run yet, or has left.
const NOT_TO_BE_TOLD: u64 = u64::MAX;
/// How long the guests of a network may take to hear of a new one.
const NEWS_PATIENCE: Duration = Duration::from_secs(5);

/// A network of which sandboxes of this process are members.
///
/// Each has a card and an address on it, and a name by which the others reach it: the names stand in each guest's `/etc/hosts`, which
/// is kept up to date. Nothing else is reached by the network: not this host, not another network, not the internet. A guest may be on
/// several networks, and have any [`NetworkMode`](crate::NetworkMode) beside them.
///
/// Cloning gives another handle of the same network. It lasts as long as a handle or a member.
///
/// ```no_run
/// # async fn example() -> quicksand_core::Result<()> {
/// use quicksand_core::{Network, Sandbox};
///
/// let network = Network::new();
/// let db = Sandbox::builder("debian").join(&network, "db").start().await?;
/// let web = Sandbox::builder("debian").join(&network, "web").start().await?;
/// web.execute("curl http://db:8080/").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a network has no members by itself: give it to `SandboxBuilder::join(..)`"]
pub struct Network(Arc<Inner>);

struct Inner {
    /// The third number of its addresses.
    number: u8,
    members: Mutex<Members>,
    /// Counts the changes of the members.
    changes: watch::Sender<u64>,
    /// Where their frames go.
    ports: Arc<Ports>,
}

#[derive(Debug, Default)]
struct Members {
    all: Vec<Arc<Member>>,
    last_host: u8,
}

/// A sandbox on a network.
#[derive(Debug)]
struct Member {
    name: String,
    host: u8,
    /// The last change that its guest was told of.
    told: watch::Sender<u64>,
}

impl Default for Network {
    fn default() -> Network {
        Network::new()
    }
}

impl Network {
    /// A network without members.
    pub fn new() -> Network {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        Network(Arc::new(Inner {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            members: Mutex::default(),
            changes: watch::Sender::new(0),
            ports: Arc::default(),
        }))
    }

    /// The names of its members and their addresses, in the order in which they joined.
    pub fn members(&self) -> Vec<(String, Ipv4Addr)> {
        self.members_now().all.iter().map(|member| (member.name.clone(), self.address(member.host))).collect()
    }

    /// Makes a member of that name.
    pub(crate) fn join(&self, name: &str) -> Result<Membership> {
        check_name(name)?;
        let mut members = self.members_now();
        if members.all.iter().any(|member| member.name.eq_ignore_ascii_case(name)) {
            return Err(Error::NameTaken { name: name.to_owned() });
        }
        let host = members.free_host().ok_or_else(|| Error::BadOption {
            option: "join",
            why: format!("the network has {} members, and there is room for no more", members.all.len()),
        })?;
        let member = Arc::new(Member { name: name.to_owned(), host, told: watch::Sender::new(NOT_TO_BE_TOLD) });
        members.all.push(Arc::clone(&member));
        members.last_host = host;
        drop(members);
        self.0.changes.send_modify(|changes| *changes += 1);
        Ok(Membership(Arc::new(Joined { network: self.clone(), member, plug: AtomicU64::new(0) })))
    }

    /// Makes a member of the first free name of `name`, `name-2`, `name-3` and so on.
    pub(crate) fn join_like(&self, name: &str) -> Result<Membership> {
        let mut number = 2;
        let mut wanted = name.to_owned();
        loop {
            match self.join(&wanted) {
                Err(Error::NameTaken { .. }) => wanted = format!("{name}-{number}"),
                joined => return joined,
            }
            number += 1;
        }
    }

    pub(crate) fn is(&self, other: &Network) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether a guest could not tell their addresses apart.
    pub(crate) fn looks_like(&self, other: &Network) -> bool {
        self.0.number == other.0.number
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.0.number, host)
    }

    fn members_now(&self) -> MutexGuard<'_, Members> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("members", &self.members()).finish()
    }
}

impl Members {
    /// A number that nobody has, and as few as possible had lately: neighbours remember whose it was.
    fn free_host(&self) -> Option<u8> {
        let first = self.last_host.saturating_add(1).clamp(FIRST_HOST, LAST_HOST);
        let mut candidates = (first..=LAST_HOST).chain(FIRST_HOST..first);
        candidates.find(|host| self.all.iter().all(|member| member.host != *host))
    }
}

/// A place on a network. The last handle of it gives it up.
#[derive(Debug, Clone)]
pub(crate) struct Membership(Arc<Joined>);

#[derive(Debug)]
struct Joined {
    network: Network,
    member: Arc<Member>,
    /// Tells the cards that it had one after the other.
    plug: AtomicU64,
}

impl Membership {
    pub(crate) fn network(&self) -> &Network {
        &self.0.network
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.member.name
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.0.network.address(self.0.member.host)
    }

    /// The hardware address of its card. No two of a network have the same, nor two of a guest's.
    pub(crate) fn mac(&self) -> Mac {
        self.0.mac()
    }

    /// Whether it is still there.
    pub(crate) fn is_member(&self) -> bool {
        self.0.network.members_now().all.iter().any(|member| Arc::ptr_eq(member, &self.0.member))
    }

    /// Gives the place up.
    pub(crate) fn leave(&self) {
        self.0.leave();
    }

    /// Makes a socket for a card, which is what leads to the network from now on. With it comes what ends that.
    pub(crate) fn plug(&self) -> io::Result<(OwnedFd, Plugged)> {
        let (ours, theirs) = UnixStream::pair()?;
        let end = ours.try_clone()?;
        let number = self.0.plug.fetch_add(1, Ordering::Relaxed) + 1;
        let port = Port { mac: self.mac(), number };
        self.0.network.0.ports.open(port, ours)?;
        Ok((theirs.into(), Plugged { ports: Arc::clone(&self.0.network.0.ports), port, end }))
    }

    /// Waits for a change of the network's members after that of this number.
    pub(crate) async fn changed(&self, since: u64) -> u64 {
        let mut changes = self.0.network.0.changes.subscribe();
        // The sender is in the network, which is held.
        changes.wait_for(|changes| *changes > since).await.map_or(since, |changes| *changes)
    }

    /// The last change that its guest was told of.
    pub(crate) fn told_of(&self) -> u64 {
        Some(*self.0.member.told.borrow()).filter(|told| *told != NOT_TO_BE_TOLD).unwrap_or_default()
    }

    /// How often the members have changed.
    pub(crate) fn changes(&self) -> u64 {
        *self.0.network.0.changes.borrow()
    }

    /// Its guest was told of that change, or can't be told. From the first time on it is one of those that others wait for.
    pub(crate) fn told(&self, change: u64) {
        let change = if self.is_member() { change } else { NOT_TO_BE_TOLD };
        self.0.member.told.send_replace(change);
    }

    /// Waits until the guests of all members were told of the last change. One that does not answer is not waited for longer than
    /// the others may take.
    pub(crate) async fn all_told(&self) {
        let change = self.changes();
        let all = self.0.network.members_now().all.clone();
        let everyone = async {
            for member in &all {
                let mut told = member.told.subscribe();
                let _ = told.wait_for(|told| *told >= change).await;
            }
        };
        if timeout(NEWS_PATIENCE, everyone).await.is_err() {
            tracing::warn!(target: "quicksand::network", name = self.name(), "not all members of a network know its new one yet");
        }
    }
}

impl Joined {
    fn leave(&self) {
        let mut members = self.network.members_now();
        let before = members.all.len();
        members.all.retain(|member| !Arc::ptr_eq(member, &self.member));
        let left = members.all.len() < before;
        drop(members);
        if left {
            self.member.told.send_replace(NOT_TO_BE_TOLD);
            self.network.0.ports.close(self.mac(), None);
            self.network.0.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn mac(&self) -> Mac {
        [0x52, 0x54, 0x4d, self.network.0.number, 0, self.member.host]
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A card that is plugged in. Dropping it unplugs it, unless another has taken its place.
#[derive(Debug)]
#[must_use = "dropping this unplugs the card: keep it for as long as the machine runs"]
pub(crate) struct Plugged {
    ports: Arc<Ports>,
    port: Port,
    end: UnixStream,
}

impl Drop for Plugged {
    fn drop(&mut self) {
        self.ports.close(self.port.mac, Some(self.port.number));
        let _ = self.end.shutdown(Shutdown::Both);
    }
}

/// Whether a name may stand in a hosts file and be looked up (RFC 1123), and is not one that means something else.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let taken =
        ["localhost", quicksand_protocol::network::HOST_NAME].iter().any(|other| name.eq_ignore_ascii_case(other));
    let number = name.parse::<Ipv4Addr>().is_ok();
    if name.len() <= 253 && name.split('.').all(label) && !taken && !number {
        return Ok(());
    }
    let why = format!("{name:?} is no name for a member: use letters, digits and '-', in parts with '.' between them");
    Err(Error::BadOption { option: "join", why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_names_and_addresses_of_their_own() {
        let network = Network::new();
        let (a, b) = (network.join("a").unwrap(), network.join("b.example").unwrap());
        assert!(a.address() != b.address() && a.mac() != b.mac());
        assert_eq!(network.members(), [("a".to_owned(), a.address()), ("b.example".to_owned(), b.address())]);
        assert!(matches!(network.join("A"), Err(Error::NameTaken { .. })));
        assert_eq!(network.join_like("a").unwrap().name(), "a-2");

        let address = a.address();
        let other = a.clone();
        drop(a);
        assert!(other.is_member());
        drop(other);
        assert_eq!(network.members().len(), 1);
        // The name is free, the address not at once: the others remember whose it was.
        assert_ne!(network.join("a").unwrap().address(), address);

        b.leave();
        assert!(!b.is_member() && network.members().is_empty());
    }

    #[test]
    fn a_network_has_room_for_two_hundred() {
        let network = Network::new();
        let all: Vec<_> = (0..=LAST_HOST - FIRST_HOST).map(|n| network.join(&format!("m{n}")).unwrap()).collect();
        let addresses: std::collections::BTreeSet<_> = all.iter().map(Membership::address).collect();
        assert_eq!(addresses.len(), all.len());
        assert!(matches!(network.join("one-more"), Err(Error::BadOption { .. })));
    }

    #[test]
    fn names_are_checked() {
        for good in ["db", "DB-1", "a.b.c", "1st", &"x".repeat(63)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "-a", "a-", "a..b", "é", "a_b", "localhost", "10.0.0.1", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name(quicksand_protocol::network::HOST_NAME).is_err());
    }

    #[tokio::test]
    async fn a_join_waits_for_those_who_can_be_told() {
        let network = Network::new();
        let a = network.join("a").unwrap();
        let b = network.join("b").unwrap();
        let told = tokio::spawn({
            let b = b.clone();
            async move { b.all_told().await }
        });
        told.await.unwrap();
        // Those that run are waited for.
        for member in [&a, &b] {
            member.told(1);
        }
        let told = tokio::spawn({
            let b = b.clone();
            async move { b.all_told().await }
        });
        for member in [&a, &b] {
            assert_eq!(member.changed(1).await, 2);
            assert!(!told.is_finished());
            member.told(2);
        }
        told.await.unwrap();
        // One that has left is not, whatever it hears.
        a.told(1);
        a.leave();
        a.told(2);
        b.told(3);
        tokio::time::timeout(NEWS_PATIENCE / 2, b.all_told()).await.unwrap();
    }
}
