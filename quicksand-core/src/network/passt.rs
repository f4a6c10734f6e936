//! The way out by passt: a program beside QEMU that has the host's own sockets do what the guest's packets ask for.
//!
//! QEMU's built-in network gives a guest every service on the host's loopback; passt, behind a [filter](super::filter), gives it
//! none. Frames pass through this process, which is where the filter is: two threads for each machine, so that no runtime that is
//! busy with a test holds up a guest's network.
//!
//! passt ends when its socket is closed, which happens with this process however that ends.

use std::{
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, Shutdown},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    filter::{self, Filter, Verdict},
    wire::{self, Frames},
};
use crate::{
    host::{Host, on_path},
    qemu::Process,
};

/// The addresses of QEMU's user network, which passt is told to have as well: a guest keeps them from one to the other.
pub(crate) const GUEST_ADDRESS: [u8; 4] = [10, 0, 2, 15];
pub(crate) const PREFIX: u8 = 24;
pub(crate) const GATEWAY: [u8; 4] = [10, 0, 2, 2];
pub(crate) const DNS: [u8; 4] = [10, 0, 2, 3];
/// The gateway's hardware address there, which a frozen guest remembers.
const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
/// That of a guest's card unless it is told otherwise.
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// How long passt may take until it answers. It takes about 15 ms where it works.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why passt does not work here, once that is known to this process.
static WHY_NOT: Mutex<Option<String>> = Mutex::new(None);
/// Whether the user was told.
static WARNED: AtomicBool = AtomicBool::new(false);

/// A passt, and the threads that lead to it. Dropping it ends all of that.
#[derive(Debug)]
#[must_use = "dropping this ends passt: keep it for as long as the machine runs"]
pub(crate) struct Passt {
    /// Our ends of the sockets.
    sockets: [UnixStream; 2],
    _process: Process,
    answered: Option<oneshot::Receiver<io::Result<()>>>,
    log: PathBuf,
}

impl Passt {
    /// Starts passt for a machine, and returns QEMU's end of its socket with it. Whether it works is told by
    /// [`works`](Passt::works).
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) async fn start(host: &Host, run_dir: &Path) -> Result<(Passt, OwnedFd), String> {
        if let Some(why) = known_fault() {
            return Err(why);
        }
        let program = on_path(&host.passt).ok_or_else(|| format!("there is no program {}", host.passt.display()))?;
        let begun = async {
            let (ours, theirs) = UnixStream::pair()?;
            let log = run_dir.join("passt.log");
            let arguments = arguments(theirs.as_raw_fd(), &nameserver());
            tracing::debug!(target: "quicksand::network", program = %program.display(), ?arguments, "launch");
            let process = Process::launch(&program, arguments, vec![theirs.into()], &log).await;
            let process = process.map_err(io::Error::other)?;
            let (guest, qemu) = UnixStream::pair()?;
            let sockets = [guest.try_clone()?, ours.try_clone()?];
            let answered = Some(relay(guest, ours)?);
            Ok((Passt { sockets, _process: process, answered, log }, qemu.into()))
        };
        begun.await.map_err(|e: io::Error| remember_fault(format!("{} can't be started: {e}", program.display())))
    }

    /// Waits until it has answered.
    ///
    /// # Errors
    ///
    /// Why it does not work, by its own words.
    pub(crate) async fn works(&mut self) -> Result<(), String> {
        let Some(answered) = self.answered.take() else { return Ok(()) };
        let error = match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => "its thread ended".to_owned(),
            Err(_) => format!("no answer for {} s", PATIENCE.as_secs()),
        };
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let said = said.lines().rfind(|line| !line.trim().is_empty() && !line.contains("syslog")).unwrap_or(&error);
        Err(remember_fault(format!("passt does not work here: {}", said.trim())))
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        // The threads have their own handles of the sockets; this ends what they wait for.
        for socket in &self.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Says once in this process that guests reach more than they should, and returns what to say of a machine.
pub(crate) fn warn(why: &str) -> String {
    let warning = format!(
        "the guest reaches every service on this host's loopback, at {}: {why}; with passt (a package of that name) it reaches \
         none but what allow_host_port names",
        Ipv4Addr::from(GATEWAY)
    );
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(target: "quicksand::network", "{warning}");
    }
    warning
}

fn known_fault() -> Option<String> {
    WHY_NOT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// So that further machines need not try.
fn remember_fault(why: String) -> String {
    *WHY_NOT.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
    why
}

fn arguments(socket: i32, nameserver: &Option<Ipv4Addr>) -> Vec<OsString> {
    let address = |octets: [u8; 4]| Ipv4Addr::from(octets).to_string();
    let mac = GATEWAY_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let mut arguments: Vec<OsString> =
        ["--foreground", "--quiet", "--ipv4-only", "--no-map-gw"].map(Into::into).to_vec();
    let options = [
        ("--fd", socket.to_string()),
        ("--address", address(GUEST_ADDRESS)),
        ("--netmask", PREFIX.to_string()),
        ("--gateway", address(GATEWAY)),
        ("--mac-addr", mac),
        ("--dns-forward", address(DNS)),
        ("--tcp-ports", "none".to_owned()),
        ("--udp-ports", "none".to_owned()),
    ];
    let dns = nameserver.map(|server| ("--dns", server.to_string()));
    arguments.extend(options.into_iter().chain(dns).flat_map(|(name, value)| [name.into(), value.into()]));
    arguments
}

/// A name server to name to passt, where the host's own list begins with one on its loopback: versions before 2024 pass over
/// those. systemd-resolved, the usual one there, tells which servers it asks itself.
fn nameserver() -> Option<Ipv4Addr> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if nameservers(&read("/etc/resolv.conf")).next().is_some_and(|server| !server.is_loopback()) {
        return None;
    }
    nameservers(&read("/run/systemd/resolve/resolv.conf")).find(|server| !server.is_loopback())
}

fn nameservers(resolv_conf: &str) -> impl Iterator<Item = Ipv4Addr> {
    let addresses = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    addresses.filter_map(|address| address.trim().parse().ok())
}

/// Starts the threads that carry frames between a guest and passt, and tells when passt has answered.
fn relay(guest: UnixStream, passt: UnixStream) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (answer, answered) = oneshot::channel();
    // Two threads write to the guest, whole frames each.
    let to_guest = Arc::new(Mutex::new(guest.try_clone()?));
    let (refusals, guest_end, passt_end) = (Arc::clone(&to_guest), guest.try_clone()?, passt.try_clone()?);
    let outward = move || {
        let result = carry_out(guest, &passt_end, &refusals);
        over("to passt", result, [&guest_end, &passt_end]);
    };
    let inward = move || {
        let ends = [passt.try_clone(), to_guest.lock().unwrap_or_else(PoisonError::into_inner).try_clone()];
        let result = carry_in(passt, &to_guest, answer);
        if let [Ok(passt), Ok(guest)] = &ends {
            over("from passt", result, [passt, guest]);
        }
    };
    for (name, work) in
        [("quicksand-out", Box::new(outward) as Box<dyn FnOnce() + Send>), ("quicksand-in", Box::new(inward))]
    {
        thread::Builder::new().name(name.into()).spawn(work)?;
    }
    Ok(answered)
}

/// Where one way has ended, so has the other.
fn over(way: &str, result: io::Result<()>, ends: [&UnixStream; 2]) {
    tracing::debug!(target: "quicksand::network", way, error = result.err().map(tracing::field::display), "over");
    for end in ends {
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// From the guest, what the filter lets through.
fn carry_out(guest: UnixStream, passt: &UnixStream, refusals: &Mutex<UnixStream>) -> io::Result<()> {
    let filter = Filter::for_this_host();
    let (mut frames, mut pass, mut refuse) = (Frames::new(guest), Vec::new(), Vec::new());
    while let Some(batch) = frames.next_batch()? {
        pass.clear();
        refuse.clear();
        for frame in batch.frames() {
            match filter.judge(frame) {
                Verdict::Pass => wire::append(frame, &mut pass),
                Verdict::Drop => {}
                Verdict::Refuse(answer) => wire::append(&answer, &mut refuse),
            }
        }
        wire::send(passt, &pass)?;
        if !refuse.is_empty() {
            wire::send(&refusals.lock().unwrap_or_else(PoisonError::into_inner), &refuse)?;
        }
    }
    Ok(())
}

/// To the guest, what comes and is sound, after passt has answered us.
fn carry_in(passt: UnixStream, guest: &Mutex<UnixStream>, answer: oneshot::Sender<io::Result<()>>) -> io::Result<()> {
    let mut question = Vec::new();
    wire::append(&who_has_gateway(), &mut question);
    let asked = wire::send(&passt, &question);
    let mut frames = Frames::new(passt);
    let first = asked.and_then(|()| match frames.next_batch() {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(io::Error::other("it ended")),
        Err(error) => Err(error),
    });
    // Whoever is to hear it may have given up.
    let works = first.is_ok();
    let _ = answer.send(first);
    if !works {
        return Ok(());
    }
    let mut sound = Vec::new();
    while let Some(batch) = frames.next_batch()? {
        let mut bytes = batch.as_bytes();
        if batch.frames().any(filter::is_flagless) {
            sound.clear();
            batch
                .frames()
                .filter(|frame| !filter::is_flagless(frame))
                .for_each(|frame| wire::append(frame, &mut sound));
            bytes = &sound;
        }
        wire::send(&guest.lock().unwrap_or_else(PoisonError::into_inner), bytes)?;
    }
    Ok(())
}

/// A question that passt answers by itself once it works (ARP, RFC 826).
fn who_has_gateway() -> Vec<u8> {
    let kind = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &GUEST_MAC, &kind, &GUEST_MAC, &GUEST_ADDRESS, &[0; 6], &GATEWAY].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_warned_once() {
        struct Warnings(Arc<std::sync::atomic::AtomicUsize>);
        impl tracing::Subscriber for Warnings {
            fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
                *metadata.level() == tracing::Level::WARN
            }
            fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
                tracing::span::Id::from_u64(1)
            }
            fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
            fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
            fn event(&self, _: &tracing::Event<'_>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            fn enter(&self, _: &tracing::span::Id) {}
            fn exit(&self, _: &tracing::span::Id) {}
        }
        let count = Arc::default();
        tracing::subscriber::with_default(Warnings(Arc::clone(&count)), || {
            for _ in 0..3 {
                assert!(
                    warn("there is no program passt").contains("at 10.0.2.2: there is no program passt; with passt")
                );
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nameservers_are_found() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver 127.0.0.53\n nameserver fe80::1\nnameserver\t9.9.9.9\n";
        let found: Vec<_> = nameservers(text).collect();
        assert_eq!(found, [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(9, 9, 9, 9)]);
    }

    #[test]
    fn the_relay_filters_one_way_and_ends_with_either_end() {
        let ((guest, qemu), (ours, passt)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let answered = relay(guest, ours).unwrap();
        let (mut from_qemu, mut from_passt) =
            (Frames::new(qemu.try_clone().unwrap()), Frames::new(passt.try_clone().unwrap()));
        let next = |which: &mut Frames| which.next_batch().unwrap().map(|batch| batch.as_bytes().to_vec());

        // passt is asked, and its answer is ours.
        let question = next(&mut from_passt).unwrap();
        assert_eq!(question[4..], who_has_gateway());
        wire::send(&passt, &question).unwrap();
        assert!(answered.blocking_recv().unwrap().is_ok());

        let packet = |destination: [u8; 4]| {
            let mut frame =
                [&GATEWAY_MAC[..], &GUEST_MAC, &[8, 0, 0x45], &[0; 11], &GUEST_ADDRESS, &destination, &[0; 20]]
                    .concat();
            wire::append(&std::mem::take(&mut frame), &mut frame);
            frame
        };
        let (out, local) = (packet([192, 0, 2, 99]), packet([127, 0, 0, 1]));
        wire::send(&qemu, &[&local[..], &out].concat()).unwrap();
        assert_eq!(next(&mut from_passt).unwrap(), out);
        // The refusal, from the gateway to the guest.
        assert_eq!(next(&mut from_qemu).unwrap()[30..38], [GATEWAY, GUEST_ADDRESS].concat());
        // The other way addresses are nothing to us, and a segment of TCP's without any flag is left out.
        let mut flagless = packet(GUEST_ADDRESS);
        flagless[4 + 14 + 9] = 6;
        wire::send(&passt, &[&flagless[..], &local, &flagless].concat()).unwrap();
        assert_eq!(next(&mut from_qemu).unwrap(), local);

        drop((passt, from_passt));
        assert!(from_qemu.next_batch().unwrap().is_none());
    }
}
