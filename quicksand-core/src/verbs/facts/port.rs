//! Ports.

use std::{fmt, net::IpAddr};

use quicksand_protocol::facts::{Listener as Heard, Port as Answer, Question};

use super::{Query, assert_fact, listed, shown};

/// Asks what listens at a port over TCP.
pub fn port(number: u16) -> Query<Port> {
    Query::of(Question::Port { port: number })
}

/// Asks what listens at a port over UDP.
pub fn udp_port(number: u16) -> Query<Port> {
    port(number).of_udp()
}

/// A port of the guest, over TCP or UDP, and what listens there. `to_string()` tells all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Whether it is UDP's, else TCP's.
    pub udp: bool,
    /// What listens there. Empty where nothing does.
    pub listeners: Vec<Listener>,
    others: Vec<Heard>,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// The address. `0.0.0.0` are all of IPv4's; `::` are all of IPv6's and, unless the program wanted it otherwise, of IPv4's.
    pub address: IpAddr,
    /// The first process that has the socket.
    pub pid: Option<u32>,
    /// The name of that process: `sshd`. With a socket of systemd's it is `systemd` until somebody connects.
    pub program: Option<String>,
}

impl Port {
    pub(crate) fn new(number: u16, udp: bool, answer: Answer) -> Port {
        let (here, others): (Vec<_>, Vec<_>) =
            answer.listeners.into_iter().partition(|heard| heard.port == number && heard.udp == udp);
        let listeners = here.into_iter().map(|Heard { address, process, .. }| {
            let (pid, program) = process.unzip();
            Listener { address, pid, program }
        });
        Port { number, udp, listeners: listeners.collect(), others }
    }

    /// Whether anything listens there.
    pub fn is_listening(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Panics unless something listens there, at any address.
    #[track_caller]
    pub fn assert_listening(&self) -> &Port {
        assert_fact(self, self.is_listening(), format_args!("something listens at {}", self.name()));
        self
    }

    /// Panics if anything listens there.
    #[track_caller]
    pub fn assert_free(&self) -> &Port {
        assert_fact(self, !self.is_listening(), format_args!("nothing listens at {}", self.name()));
        self
    }

    /// Panics unless something listens there at this very address: `"127.0.0.1"`, `"0.0.0.0"`, `"::"`. That what listens at all
    /// addresses is reached at this one does not count.
    ///
    /// It panics, too, where the address is none.
    #[track_caller]
    pub fn assert_address(&self, address: &str) -> &Port {
        let wanted: IpAddr = address.parse().unwrap_or_else(|_| panic!("{address:?} is not an IP address"));
        let holds = self.listeners.iter().any(|listener| listener.address == wanted);
        assert_fact(self, holds, format_args!("something listens at {wanted}, {}", self.name()));
        self
    }

    /// Panics unless all that listens there listens at addresses of the guest's loopback, and something does.
    #[track_caller]
    pub fn assert_local(&self) -> &Port {
        let holds = self.is_listening() && self.listeners.iter().all(|listener| listener.address.is_loopback());
        assert_fact(self, holds, format_args!("something listens at {} of the loopback alone", self.name()));
        self
    }

    /// Panics unless a program of this name listens there.
    #[track_caller]
    pub fn assert_program(&self, program: &str) -> &Port {
        let holds = self.listeners.iter().any(|listener| listener.program.as_deref() == Some(program));
        assert_fact(self, holds, format_args!("{program} listens at {}", self.name()));
        self
    }

    fn name(&self) -> String {
        format!("{} port {}", if self.udp { "UDP" } else { "TCP" }, self.number)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        if self.is_listening() {
            let told = self.listeners.iter().map(|Listener { address, pid, program }| match (pid, program) {
                (Some(pid), Some(program)) => format!("{address} ({program}, process {pid})"),
                _ => address.to_string(),
            });
            return write!(f, "listens at {}", listed(told));
        }
        let told = self.others.iter().map(|Heard { udp, address, port, .. }| {
            let address = std::net::SocketAddr::new(*address, *port);
            format!("{} {address}", if *udp { "UDP" } else { "TCP" })
        });
        write!(
            f,
            "nothing listens; elsewhere {}",
            match shown(&listed(told)) {
                others if others == "nothing" => "nothing does".to_owned(),
                others => format!("listen {others}"),
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn a_failure_shows_what_listens() {
        let heard = |udp, address: &str, port, process: Option<(u32, &str)>| Heard {
            udp,
            address: address.parse().unwrap(),
            port,
            process: process.map(|(pid, name)| (pid, name.to_owned())),
        };
        let answer = Answer {
            listeners: vec![
                heard(false, "127.0.0.1", 22, Some((7, "sshd"))),
                heard(true, "0.0.0.0", 22, None),
                heard(false, "::1", 8080, None),
            ],
        };
        let ssh = Port::new(22, false, answer.clone());
        ssh.assert_listening().assert_local().assert_program("sshd").assert_address("127.0.0.1");
        assert_eq!(
            said(|| ssh.assert_address("0.0.0.0")),
            "expected: something listens at 0.0.0.0, TCP port 22\n   \
             found: TCP port 22: listens at 127.0.0.1 (sshd, process 7)"
        );
        assert!(said(|| ssh.assert_free()).starts_with("expected: nothing listens at TCP port 22"));
        let web = Port::new(80, false, answer.clone());
        web.assert_free();
        assert_eq!(
            said(|| web.assert_listening()),
            "expected: something listens at TCP port 80\n   \
             found: TCP port 80: nothing listens; elsewhere listen TCP 127.0.0.1:22, UDP 0.0.0.0:22, TCP [::1]:8080"
        );
        assert!(
            said(|| _ = Port::new(22, true, answer).assert_local())
                .starts_with("expected: something listens at UDP port 22")
        );
        assert!(
            said(|| _ = Port::new(1, true, Answer::default()).assert_listening()).ends_with("elsewhere nothing does")
        );
    }
}
