//! What listens in the guest, from the kernel's tables in `/proc/net`.

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use quicksand_protocol::facts::{Listener, Port};

use super::{read, text};

/// The tables, whether they are UDP's, and the state of a socket that listens: UDP's have no other end.
const TABLES: [(&str, bool, &str); 4] =
    [("tcp", false, "0A"), ("tcp6", false, "0A"), ("udp", true, "07"), ("udp6", true, "07")];
/// The largest of these tables that is read.
const TABLE_LIMIT: u64 = 16 << 20;
/// How many sockets are told of. Those of the port that was asked for come first.
const LISTENERS: usize = 400;

/// All that listens, and which process does at this port.
pub(super) fn look(port: u16, root: &Path) -> Port {
    let mut sockets = Vec::new();
    for (table, udp, listening) in TABLES {
        // A kernel without IPv6 lacks two of them.
        let content = text(&read(&root.join("proc/net").join(table), TABLE_LIMIT).unwrap_or_default());
        sockets.extend(content.lines().skip(1).filter_map(|line| socket(line, udp, listening)));
    }
    sockets.sort_by_key(|(listener, _)| (listener.port != port, listener.udp, listener.port));
    sockets.truncate(LISTENERS);
    let wanted: HashSet<u64> =
        sockets.iter().filter(|(listener, _)| listener.port == port).map(|(_, inode)| *inode).collect();
    let owners = if wanted.is_empty() { Vec::new() } else { owners(wanted, root) };
    let mut listeners: Vec<Listener> = Vec::new();
    for (mut listener, inode) in sockets {
        let owner = owners.iter().find(|(owned, ..)| *owned == inode);
        listener.process = owner.map(|(_, pid, name)| (*pid, name.clone()));
        // Several sockets may share a port.
        if !listeners.contains(&listener) {
            listeners.push(listener);
        }
    }
    Port { listeners }
}

/// Whether anything listens at a port over TCP. Nobody is connected to: a server may take one visitor only.
pub(crate) fn is_listening(port: u16, root: &Path) -> io::Result<bool> {
    let (mut unread, mut any) = (None, false);
    for (table, _, listening) in TABLES.into_iter().filter(|(_, udp, _)| !udp) {
        match read(&root.join("proc/net").join(table), TABLE_LIMIT) {
            Ok(content) => {
                any = true;
                let content = text(&content);
                let mut sockets = content.lines().skip(1).filter_map(|line| socket(line, false, listening));
                if sockets.any(|(listener, _)| listener.port == port) {
                    return Ok(true);
                }
            }
            // A kernel without IPv6 lacks one of them.
            Err(error) => unread = unread.or(Some(error)),
        }
    }
    unread.filter(|_| !any).map_or(Ok(false), Err)
}

/// A line such as `0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000 101 0 17183 1 ..`.
fn socket(line: &str, udp: bool, listening: &str) -> Option<(Listener, u64)> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    let (_, other_port) = fields.get(2)?.split_once(':')?;
    if fields.get(3) != Some(&listening) || other_port != "0000" {
        return None;
    }
    let listener =
        Listener { udp, address: self::address(address)?, port: u16::from_str_radix(port, 16).ok()?, process: None };
    Some((listener, fields.get(9)?.parse().ok()?))
}

/// An address in the form of the kernel's tables: words of 32 bits in the order of the processor.
fn address(hex: &str) -> Option<IpAddr> {
    if !hex.is_ascii() {
        return None;
    }
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
        }
        _ => None,
    }
}

/// Processes that have sockets of these inodes, the first of each, and their names.
fn owners(mut wanted: HashSet<u64>, root: &Path) -> Vec<(u64, u32, String)> {
    let mut found = Vec::new();
    let processes = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let mut processes: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    processes.sort_unstable();
    for pid in processes {
        let process = root.join("proc").join(pid.to_string());
        for descriptor in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let Ok(link) = fs::read_link(descriptor.path()) else { continue };
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| wanted.remove(inode)) {
                let name = text(fs::read(process.join("comm")).unwrap_or_default().trim_ascii());
                found.push((inode, pid, name));
            }
        }
        if wanted.is_empty() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::facts::tests::root;

    const HEADER: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn sockets_that_listen_are_told_with_their_process() {
        let tcp = format!(
            "{HEADER}   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0\n\
             1: 0100007F:0016 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 112 1 0 20 4\n"
        );
        let tcp6 = format!(
            "{HEADER}   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 113 1\n"
        );
        let udp = format!(
            "{HEADER} 5: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000 101 0 114 2 0 0\n"
        );
        let root = root(&[
            ("proc/net/tcp", &tcp),
            ("proc/net/tcp6", &tcp6),
            ("proc/net/udp", &udp),
            ("proc/41/comm", "sshd\n"),
            ("proc/41/fd/0", ""),
        ]);
        symlink("socket:[111]", root.join("proc/41/fd/3")).unwrap();
        let listeners = look(22, &root).listeners;
        assert_eq!(listeners.len(), 3, "{listeners:?}");
        let ssh = &listeners[0];
        assert_eq!((ssh.address, ssh.port, ssh.udp), (Ipv4Addr::UNSPECIFIED.into(), 22, false));
        assert_eq!(ssh.process, Some((41, "sshd".into())));
        assert_eq!((listeners[1].address, listeners[1].port), (Ipv6Addr::LOCALHOST.into(), 8080));
        let dns = &listeners[2];
        assert_eq!((dns.address, dns.udp, dns.port), (Ipv4Addr::new(127, 0, 0, 53).into(), true, 53));
        let listens = |port| is_listening(port, &root).unwrap();
        assert_eq!([22, 8080, 53, 40_000].map(listens), [true, true, false, false], "UDP and connections do not count");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn lines_of_no_such_form_are_passed_over() {
        for line in [
            "",
            "x",
            "0: é:0016 0:0000 0A",
            "0: 00000000:10016 0:0000 0A a b c d e 1",
            "0: 0000:0016 0:0000 0A 0 0 0 0 0 1",
        ] {
            assert_eq!(socket(line, false, "0A").map(|(listener, _)| listener), None, "{line}");
        }
    }
}
