//! The guest's networks, set up without help from the image: it may have no `ip` and no DHCP client.

use std::{
    fs,
    io::{self, ErrorKind},
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use quicksand_protocol::{
    message::{Done, Failure, Network},
    network::{Card, FIRST_PRIVATE_SLOT, MOST_PRIVATE_CARDS, OWN_SLOT},
};

use crate::{
    interface::{self, Interface},
    resolver,
};

/// How long a card may take to appear once its bus was looked over.
const CARD_PATIENCE: Duration = Duration::from_secs(10);

/// Gives the guest the network that it is to have. An error is a warning: the rest of the guest is as it should be.
pub(crate) fn apply(network: &Network) -> Result<(), String> {
    let failed = |error: io::Error| format!("the network is not set up: {error}");
    match *network {
        Network::Keep => Ok(()),
        // The card leads nowhere on the host's side either; this is so that the guest sees none.
        Network::None => {
            let card = interface::at_slot(OWN_SLOT).map_err(failed)?;
            card.map_or(Ok(()), |card| card.remove()).map_err(failed)
        }
        Network::Static { address, prefix, of_image } => {
            if of_image {
                resolver::remember_images();
            }
            give_address(address.into(), prefix).map_err(failed)
        }
        Network::Online { gateway, dns } => {
            interface::add_default_route(gateway.into()).map_err(failed)?;
            resolver::point_to(dns.into())
        }
    }
}

fn give_address(address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    // The image's init does this, too, where it has one.
    interface::bring_up("lo")?;
    let card =
        interface::at_slot(OWN_SLOT)?.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "there is no virtio card"))?;
    interface::configure(card.name(), address, prefix)
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
