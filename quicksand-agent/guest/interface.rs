//! The kernel's network interfaces: which is which, and the requests that set them up.

use std::{
    fs, io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use nix::libc;

/// A network interface of a virtio card.
#[derive(Debug)]
pub(crate) struct Interface {
    name: String,
    /// The card, in sysfs.
    pci: PathBuf,
}

impl Interface {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Removes the card from the guest.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::write(self.pci.join("remove"), "1")
    }
}

/// The interface of the card in a slot of the first PCI bus, whatever the guest named it.
pub(crate) fn at_slot(slot: u8) -> io::Result<Option<Interface>> {
    let address = format!("0000:00:{slot:02x}.0");
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        // Of a virtual interface there is no device; of one that goes meanwhile, no longer.
        let Ok(virtio) = fs::canonicalize(entry.path().join("device")) else { continue };
        let pci = virtio.parent().unwrap_or(Path::new(""));
        if pci.ends_with(&address) {
            let name = entry.file_name().to_string_lossy().into_owned();
            return Ok(Some(Interface { name, pci: pci.to_owned() }));
        }
    }
    Ok(None)
}

/// Gives an interface its address and brings it up.
pub(crate) fn configure(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let bits = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    let mut own = request(name)?;
    own.ifr_ifru.ifru_addr = ipv4(address);
    call(libc::SIOCSIFADDR, &mut own, "set its address")?;
    let mut mask = request(name)?;
    mask.ifr_ifru.ifru_netmask = ipv4(Ipv4Addr::from_bits(bits));
    call(libc::SIOCSIFNETMASK, &mut mask, "set its netmask")?;
    bring_up(name)
}

/// Brings an interface up.
pub(crate) fn bring_up(name: &str) -> io::Result<()> {
    let mut flags = request(name)?;
    flags.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    call(libc::SIOCSIFFLAGS, &mut flags, "bring it up")
}

/// Gives an interface its hardware address, unless it has that.
pub(crate) fn set_mac(name: &str, mac: [u8; 6]) -> io::Result<()> {
    let text = mac.map(|byte| format!("{byte:02x}")).join(":");
    if fs::read_to_string(format!("/sys/class/net/{name}/address"))?.trim() == text {
        return Ok(());
    }
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    let mut own = request(name)?;
    own.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: data };
    call(libc::SIOCSIFHWADDR, &mut own, "set its hardware address")
}

/// Sends what has no other way out to a gateway.
#[allow(unsafe_code)]
pub(crate) fn add_default_route(gateway: Ipv4Addr) -> io::Result<()> {
    // SAFETY: rtentry is plain numbers and pointers, for all of which zero is a value ("none").
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = ipv4(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = ipv4(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = ipv4(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    match call(libc::SIOCADDRT, &mut route, "add the default route") {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[allow(unsafe_code)]
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the interface name {name} is too long")));
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

#[allow(unsafe_code)]
fn call<T>(number: libc::c_ulong, argument: &mut T, what: &str) -> io::Result<()> {
    // Interface requests are made on any socket.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: every caller passes the structure that the request's number stands for, alive for the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), number, std::ptr::from_mut(argument)) } {
        0.. => Ok(()),
        _ => {
            let error = io::Error::last_os_error();
            Err(io::Error::new(error.kind(), format!("{what}: {error}")))
        }
    }
}
