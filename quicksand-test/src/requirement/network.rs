//! Whether there is a network: by the host's own settings, and in a moment.
//!
//! There is one where the kernel has a way out, and a name server that the host is set to use answers a question for the root of all
//! names, which every resolver can answer that is connected. Tests of the same run ask once.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    process,
    time::{Duration, SystemTime},
};

use quicksand_core::{Error, cache::Cache};
use serde::{Deserialize, Serialize};

use crate::this_run::ThisRun;

/// How long all name servers together may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often each is asked: a datagram may get lost.
const TRIES: u32 = 2;
/// As many name servers as the C library uses.
const SERVERS: usize = 3;

/// What was found out in a run.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    run: String,
    fault: Option<String>,
}

/// Why there is no network, if there is none.
pub(super) fn fault() -> Result<Option<String>, Error> {
    let cache = Cache::from_environment()?;
    let path = cache.root().join("network.json");
    let run = &ThisRun::get().id;
    let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Known>(&bytes).ok());
    if let Some(known) = known.filter(|known| known.run == *run) {
        return Ok(known.fault);
    }
    let known = Known { run: run.clone(), fault: probe().err() };
    cache.publish(&path, &serde_json::to_vec(&known).unwrap_or_default())?;
    Ok(known.fault)
}

fn probe() -> Result<(), String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if !has_route(&read("/proc/net/route"), &read("/proc/net/ipv6_route")) {
        return Err("the host has no default route".to_owned());
    }
    let servers = servers(&read("/etc/resolv.conf"));
    if servers.is_empty() {
        return Err("/etc/resolv.conf names no name server".to_owned());
    }
    let patience = PATIENCE / TRIES / u32::try_from(servers.len()).unwrap_or(1);
    let mut said = Vec::new();
    for server in servers {
        match (0..TRIES).map(|_| ask(server, patience)).find_map(Result::ok) {
            Some(Answer::Given) => return Ok(()),
            Some(Answer::Refused(code)) => said.push(format!("the name server {server} answers with error {code}")),
            None => said.push(format!("the name server {server} does not answer")),
        }
    }
    Err(said.join(", "))
}

/// Whether a table of routes has one to everywhere.
fn has_route(ipv4: &str, ipv6: &str) -> bool {
    let field = |line: &str, at: usize| line.split_whitespace().nth(at).map(str::to_owned).unwrap_or_default();
    let flags = |text: String| u32::from_str_radix(&text, 16).unwrap_or_default();
    const UP: u32 = 1;
    const REJECT: u32 = 0x200;
    let usable = |flags: u32| flags & UP != 0 && flags & REJECT == 0;
    let four =
        |line: &str| field(line, 1) == "00000000" && field(line, 7) == "00000000" && usable(flags(field(line, 3)));
    let zeros = |text: String| !text.is_empty() && text.bytes().all(|digit| digit == b'0');
    let six = |line: &str| {
        zeros(field(line, 0)) && zeros(field(line, 1)) && field(line, 9) != "lo" && usable(flags(field(line, 8)))
    };
    ipv4.lines().any(four) || ipv6.lines().any(six)
}

fn servers(resolv_conf: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    };
    resolv_conf.lines().filter_map(server).take(SERVERS).collect()
}

/// What a name server said.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Given,
    /// With that code.
    Refused(u8),
}

/// Asks for the name servers of the root.
fn ask(server: IpAddr, patience: Duration) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(patience))?;
    // Only a stray answer to an earlier question must not fit.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let id = (now.subsec_micros() ^ process::id()).to_le_bytes();
    // Recursion desired; one question: the root, NS, IN.
    let question = [id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    socket.send(&question)?;
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply)?;
    answer(&reply[..length], [id[0], id[1]]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn answer(reply: &[u8], id: [u8; 2]) -> Option<Answer> {
    let [first, second, flags, code, ..] = *reply else { return None };
    if [first, second] != id || flags & 0x80 == 0 {
        return None;
    }
    // Those say that the resolver itself got nowhere; that a name is not there would be an answer like any other.
    const SERVER_FAILURE: u8 = 2;
    const REFUSED: u8 = 5;
    match code & 0xf {
        code @ (SERVER_FAILURE | REFUSED) => Some(Answer::Refused(code)),
        _ => Some(Answer::Given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    #[test]
    fn a_way_out_is_found() {
        let four = |line: &str| has_route(&format!("{HEADER}{line}"), "");
        assert!(four("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"));
        assert!(!four("eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"), "a neighbourhood");
        assert!(!four("eth0\t00000000\t010200C0\t0203\t0\t0\t0\t00000000\t0\t0\t0\n"), "a rejection");
        let zeros = "0".repeat(32);
        let six = |flags: &str, device: &str| {
            has_route("", &format!("{zeros} 00 {zeros} 00 {zeros} 00000400 00000001 00000000 {flags} {device}\n"))
        };
        assert!(six("00000003", "eth0") && !six("00200200", "lo"));
        assert!(!has_route("", ""));
    }

    #[test]
    fn name_servers_are_found() {
        let text = "# none\nsearch example\nnameserver 10.0.0.1\n nameserver ::1 \nnameserver x\nnameserver";
        assert_eq!(servers(text), ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    }

    #[test]
    fn an_answer_is_told_from_a_failure() {
        assert_eq!(answer(&[1, 2, 0x81, 0x80, 0], [1, 2]), Some(Answer::Given));
        assert_eq!(answer(&[1, 2, 0x81, 0x83, 0], [1, 2]), Some(Answer::Given), "no such name");
        assert_eq!(answer(&[1, 2, 0x81, 0x82, 0], [1, 2]), Some(Answer::Refused(2)));
        for stray in [&[1, 3, 0x81, 0x80][..], &[1, 2, 0x01, 0x80], &[1, 2]] {
            assert_eq!(answer(stray, [1, 2]), None);
        }
    }
}
