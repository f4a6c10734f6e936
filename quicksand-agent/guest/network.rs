//! The guest's network card, set up without help from the image: it may have no `ip` and no DHCP client.

use std::{
    fs,
    io::{self, ErrorKind},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use nix::libc;
use quicksand_protocol::message::Network;

/// Gives the guest the network that it is to have.
pub(crate) fn apply(network: &Network) -> io::Result<()> {
    match *network {
        Network::Keep => Ok(()),
        Network::None => match find_card()? {
            // The card has no backend on the host's side either; this is so that the guest sees none.
            Some(card) => fs::write(card.pci_device()?.join("remove"), "1"),
            None => Ok(()),
        },
        Network::Static { address, prefix } => {
            let card = find_card()?.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "there is no virtio card"))?;
            request::configure(&request::socket()?, &card.name, address.into(), prefix)
        }
        Network::Online { gateway, dns } => {
            request::add_default_route(&request::socket()?, gateway.into())?;
            write_resolv_conf(dns.into())
        }
    }
}

/// Brings up an interface that needs no address of ours.
pub(crate) fn bring_up(name: &str) -> io::Result<()> {
    request::bring_up(&request::socket()?, name)
}

struct Card {
    name: String,
    device: PathBuf,
}

impl Card {
    fn pci_device(&self) -> io::Result<PathBuf> {
        let virtio = fs::canonicalize(&self.device)?;
        virtio.parent().map(Path::to_path_buf).ok_or_else(|| io::Error::other("the card has no bus"))
    }
}

/// The first interface whose driver is virtio's, whatever the guest named it.
fn find_card() -> io::Result<Option<Card>> {
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        let device = entry.path().join("device");
        let driver = fs::read_link(device.join("driver")).unwrap_or_default();
        if driver.file_name().is_some_and(|name| name == "virtio_net") {
            return Ok(Some(Card { name: entry.file_name().to_string_lossy().into_owned(), device }));
        }
    }
    Ok(None)
}

fn write_resolv_conf(dns: Ipv4Addr) -> io::Result<()> {
    let path = Path::new("/etc/resolv.conf");
    // A link leads to a resolver's own file, which that resolver would write again.
    if path.is_symlink() {
        fs::remove_file(path)?;
    }
    fs::write(path, format!("nameserver {dns}\n"))
}

/// The kernel's interface requests.
#[allow(unsafe_code)]
mod request {
    use super::*;
    use std::{net::UdpSocket, os::fd::AsRawFd};

    /// What interface requests are made on.
    pub(super) fn socket() -> io::Result<UdpSocket> {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
    }

    pub(super) fn configure(socket: &UdpSocket, name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let bits = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        let mut own = interface(name)?;
        own.ifr_ifru.ifru_addr = ipv4(address);
        call(socket, libc::SIOCSIFADDR, &mut own, "set its address")?;
        let mut mask = interface(name)?;
        mask.ifr_ifru.ifru_netmask = ipv4(Ipv4Addr::from_bits(bits));
        call(socket, libc::SIOCSIFNETMASK, &mut mask, "set its netmask")?;
        bring_up(socket, name)
    }

    pub(super) fn bring_up(socket: &UdpSocket, name: &str) -> io::Result<()> {
        let mut flags = interface(name)?;
        flags.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        call(socket, libc::SIOCSIFFLAGS, &mut flags, "bring it up")
    }

    pub(super) fn add_default_route(socket: &UdpSocket, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: rtentry is plain numbers and pointers, for all of which zero is a value ("none").
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = ipv4(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = ipv4(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = ipv4(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        match call(socket, libc::SIOCADDRT, &mut route, "add the default route") {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn interface(name: &str) -> io::Result<libc::ifreq> {
        // SAFETY: ifreq is plain numbers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("the interface name {name} is too long")));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(request)
    }

    fn ipv4(address: Ipv4Addr) -> libc::sockaddr {
        let mut data = [0; 14];
        for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
            *to = from as libc::c_char;
        }
        libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
    }

    fn call<T>(socket: &UdpSocket, number: libc::c_ulong, argument: &mut T, what: &str) -> io::Result<()> {
        // SAFETY: every caller passes the structure that the request's number stands for, alive for the call.
        match unsafe { libc::ioctl(socket.as_raw_fd(), number, std::ptr::from_mut(argument)) } {
            0.. => Ok(()),
            _ => {
                let error = io::Error::last_os_error();
                Err(io::Error::new(error.kind(), format!("{what}: {error}")))
            }
        }
    }
}
