//! The guest's networks, set up without help from the image: it may have no `ip` and no DHCP client.

use std::{
    fs,
    io::{self, ErrorKind},
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use quicksand_protocol::{
    message::{Done, Failure, Network},
    network::{Card, FIRST_PRIVATE_SLOT, MOST_PRIVATE_CARDS, OWN_SLOT},
};

use crate::interface::{self, Interface};

/// How long a card may take to appear once its bus was looked over.
const CARD_PATIENCE: Duration = Duration::from_secs(10);

/// Gives the guest the network that it is to have.
pub(crate) fn apply(network: &Network) -> io::Result<()> {
    match *network {
        Network::Keep => Ok(()),
        Network::None => match interface::at_slot(OWN_SLOT)? {
            // The card leads nowhere on the host's side either; this is so that the guest sees none.
            Some(card) => card.remove(),
            None => Ok(()),
        },
        Network::Static { address, prefix } => {
            // The image's init does this, too, where it has one.
            interface::bring_up("lo")?;
            let card = interface::at_slot(OWN_SLOT)?
                .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "there is no virtio card"))?;
            interface::configure(card.name(), address.into(), prefix)
        }
        Network::Online { gateway, dns } => {
            interface::add_default_route(gateway.into())?;
            write_resolv_conf(dns.into())
        }
    }
}

/// Sets up the cards of private networks, and removes those that are not wanted.
pub(crate) fn set_cards(cards: &[Card]) -> Result<Done, Failure> {
    let wanted = |slot| cards.iter().any(|card| card.slot == slot);
    let work = || {
        for slot in (FIRST_PRIVATE_SLOT..FIRST_PRIVATE_SLOT + MOST_PRIVATE_CARDS).filter(|&slot| !wanted(slot)) {
            if let Some(card) = interface::at_slot(slot)? {
                card.remove()?;
            }
        }
        // A card that was not there when the guest was frozen is found only when it is looked for.
        if cards.iter().any(|card| !matches!(interface::at_slot(card.slot), Ok(Some(_)))) {
            fs::write("/sys/bus/pci/rescan", "1")?;
        }
        let deadline = Instant::now() + CARD_PATIENCE;
        cards.iter().try_for_each(|card| set_card(card, deadline))
    };
    work().map(|()| Done::Nothing).map_err(|e: io::Error| Failure {
        errno: e.raw_os_error().unwrap_or(0),
        message: format!("set up the cards of private networks: {e}"),
    })
}

fn set_card(card: &Card, deadline: Instant) -> io::Result<()> {
    let configure = |found: &Interface| {
        interface::set_mac(found.name(), card.mac)?;
        interface::configure(found.name(), card.address.into(), card.prefix)
    };
    loop {
        let done = match interface::at_slot(card.slot)? {
            Some(found) => configure(&found),
            None => Err(io::Error::new(ErrorKind::NotFound, format!("there is no card in slot {:#04x}", card.slot))),
        };
        match done {
            // It may be on its way, or be given another name between our look and our call.
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            done => return done,
        }
    }
}

fn write_resolv_conf(dns: Ipv4Addr) -> io::Result<()> {
    let path = Path::new("/etc/resolv.conf");
    // A link leads to a resolver's own file, which that resolver would write again.
    if path.is_symlink() {
        fs::remove_file(path)?;
    }
    fs::write(path, format!("nameserver {dns}\n"))
}
