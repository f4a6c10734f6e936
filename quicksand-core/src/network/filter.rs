//! What a guest may send to passt: nothing that is addressed to this host. And what it gets from there: nothing that harms it.
//!
//! passt connects to whatever address a packet has, and with it to 127.0.0.1 or 0.0.0.0 for a guest that writes such a packet by
//! hand; `--no-map-gw` closes one door only. So no such packet gets as far as passt.
//!
//! passt of 2023-03-09, as Debian 12 has it, sends TCP segments without any flag. A guest passes over those of its own connections. Of those that it
//! forwards, as a container's, it knows none that such a segment belongs to: it resets them.

use std::net::Ipv4Addr;

use super::passt::GATEWAY;

/// Where an Ethernet frame says what it carries, and where the IPv4 packet in it begins.
const TYPE_AT: usize = 12;
const PACKET_AT: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
/// Length of an IPv4 header without options, and where its place in a larger packet, its protocol and its addresses are.
const HEADER: usize = 20;
const FRAGMENT_AT: usize = 6;
const PROTOCOL_AT: usize = 9;
const SOURCE_AT: usize = 12;
const DESTINATION_AT: usize = 16;

const TCP: u8 = 6;
/// Where a TCP header has its flags, and those of which each segment has one: FIN, SYN, RST, ACK.
const FLAGS_AT: usize = 13;
const FLAGS: u8 = 0x17;

/// What is to become of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may go on.
    Pass,
    /// It goes no further.
    Drop,
    /// It goes no further, and its sender is told by this frame.
    Refuse(Vec<u8>),
}

/// The addresses that are this host's.
#[derive(Debug)]
pub(super) struct Filter {
    own: Vec<Ipv4Addr>,
}

impl Filter {
    /// A filter for the addresses that the host has now.
    pub(super) fn for_this_host() -> Filter {
        let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let own = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip())).collect();
        Filter { own }
    }

    /// Judges a frame from the guest.
    pub(super) fn judge(&self, frame: &[u8]) -> Verdict {
        match frame.get(TYPE_AT..PACKET_AT).unwrap_or_default() {
            kind if kind == ARP => Verdict::Pass,
            kind if kind == IPV4 => match address(frame, DESTINATION_AT) {
                Some(destination) if self.is_here(destination) => {
                    unreachable(frame).map_or(Verdict::Drop, Verdict::Refuse)
                }
                Some(_) => Verdict::Pass,
                None => Verdict::Drop,
            },
            // We ask passt for IPv4 alone.
            _ => Verdict::Drop,
        }
    }

    /// Whether a packet with this destination would reach the host itself. A broadcast, as DHCP uses, goes no further than passt.
    fn is_here(&self, destination: Ipv4Addr) -> bool {
        destination.is_loopback() || destination.octets()[0] == 0 || self.own.contains(&destination)
    }
}

/// Whether a frame is a TCP segment without any flag, which no connection has.
pub(super) fn is_flagless(frame: &[u8]) -> bool {
    let flags = || {
        let packet = frame.get(TYPE_AT..)?.strip_prefix(&IPV4)?;
        let fragment = u16::from_be_bytes(*packet.get(FRAGMENT_AT..)?.first_chunk()?) & 0x1fff;
        if packet[0] >> 4 != 4 || *packet.get(PROTOCOL_AT)? != TCP || fragment != 0 {
            return None;
        }
        let segment = packet.get(usize::from(packet[0] & 0x0f) * 4..)?;
        segment.get(FLAGS_AT).copied()
    };
    flags().is_some_and(|flags| flags & FLAGS == 0)
}

fn address(frame: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets = frame.get(PACKET_AT + at..)?.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*octets))
}

/// The answer to a packet that is not let through (ICMP, "destination unreachable, administratively prohibited").
fn unreachable(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(PACKET_AT..)?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if header < HEADER || packet.len() < header {
        return None;
    }
    // As RFC 792 has it: the header and eight bytes of what follows.
    let quoted = &packet[..packet.len().min(header + 8)];
    let mut message = vec![3, 13, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(quoted);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);

    let mut answer = vec![0x45, 0];
    answer.extend_from_slice(&((HEADER + message.len()) as u16).to_be_bytes());
    answer.extend_from_slice(&[0, 0, 0, 0, 64, 1, 0, 0]);
    // From the gateway, as its router: a guest believes nothing that comes from 127.0.0.1 by its card.
    answer.extend_from_slice(&GATEWAY);
    answer.extend_from_slice(&packet[SOURCE_AT..SOURCE_AT + 4]);
    let sum = checksum(&answer);
    answer[10..12].copy_from_slice(&sum);
    answer.extend_from_slice(&message);

    let (to, from) = (&frame[6..12], &frame[..6]);
    Some([to, from, &IPV4, &answer].concat())
}

/// The checksum of the internet protocols (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(destination: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xaa; 6];
        frame.extend([0xbb; 6]);
        frame.extend(IPV4);
        frame.extend([0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15]);
        frame.extend(destination);
        frame.extend([7; 20]);
        frame
    }

    #[test]
    fn nothing_for_this_host_passes() {
        let filter = Filter { own: vec![Ipv4Addr::new(192, 0, 2, 7)] };
        for destination in [[127, 0, 0, 1], [127, 9, 9, 9], [0, 0, 0, 0], [0, 1, 2, 3], [192, 0, 2, 7]] {
            assert!(matches!(filter.judge(&packet(destination)), Verdict::Refuse(_)), "{destination:?}");
        }
        for destination in [[10, 0, 2, 2], [192, 0, 2, 8], [8, 8, 8, 8], [255, 255, 255, 255]] {
            assert_eq!(filter.judge(&packet(destination)), Verdict::Pass, "{destination:?}");
        }
    }

    #[test]
    fn what_is_cut_short_or_of_another_kind_is_dropped() {
        let filter = Filter { own: vec![] };
        let whole = packet([127, 0, 0, 1]);
        for len in 0..PACKET_AT + HEADER {
            assert_eq!(filter.judge(&whole[..len]), Verdict::Drop, "{len} bytes");
        }
        let other = |kind: [u8; 2]| [&whole[..TYPE_AT], &kind, &whole[PACKET_AT..]].concat();
        assert_eq!(filter.judge(&other(ARP)), Verdict::Pass);
        // IPv6, and a packet in a VLAN's frame, whose address stands elsewhere.
        for kind in [[0x86, 0xdd], [0x81, 0x00]] {
            assert_eq!(filter.judge(&other(kind)), Verdict::Drop);
        }
        // A header that claims more than there is.
        let mut long = whole.clone();
        long[PACKET_AT] = 0x4f;
        long.truncate(PACKET_AT + HEADER + 4);
        assert_eq!(filter.judge(&long), Verdict::Drop);
    }

    #[test]
    fn segments_without_any_flag_are_told_from_others() {
        let segment = |flags: u8| {
            let mut frame = packet([10, 0, 2, 15]);
            frame[PACKET_AT + HEADER + FLAGS_AT] = flags;
            frame
        };
        // Those of congestion, urgency and haste alone make none.
        for (flags, flagless) in [(0, true), (0xe8, true), (0x10, false), (0x02, false), (0x14, false), (0x11, false)] {
            assert_eq!(is_flagless(&segment(flags)), flagless, "{flags:#x}");
        }
        // One with options in its header, a later piece of a packet, another protocol, and frames that are cut short.
        let whole = segment(0);
        let mut long = [&whole[..PACKET_AT + HEADER], &[1; 4], &whole[PACKET_AT + HEADER..]].concat();
        long[PACKET_AT] = 0x46;
        assert!(is_flagless(&long));
        for (at, byte) in [(FRAGMENT_AT + 1, 9), (PROTOCOL_AT, 17), (0, 0x65)] {
            let mut other = whole.clone();
            other[PACKET_AT + at] = byte;
            assert!(!is_flagless(&other), "{at}");
        }
        for len in 0..=PACKET_AT + HEADER + FLAGS_AT {
            assert!(!is_flagless(&whole[..len]), "{len} bytes");
        }
    }

    #[test]
    fn the_refusal_is_a_packet_for_its_sender() {
        let frame = packet([127, 0, 0, 1]);
        let answer = unreachable(&frame).unwrap();
        assert_eq!((&answer[..6], &answer[6..12]), (&[0xbb; 6][..], &[0xaa; 6][..]));
        assert_eq!(
            (address(&answer, SOURCE_AT), address(&answer, DESTINATION_AT)),
            (Some(GATEWAY.into()), Some(Ipv4Addr::new(10, 0, 2, 15)))
        );
        // A checksum over what holds its own is zero.
        assert_eq!(checksum(&answer[PACKET_AT..PACKET_AT + HEADER]), [0, 0]);
        assert_eq!(checksum(&answer[PACKET_AT + HEADER..]), [0, 0]);
        assert_eq!(answer[PACKET_AT + HEADER + 8..], frame[PACKET_AT..PACKET_AT + HEADER + 8]);
    }
}
