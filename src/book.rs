//! The pages of the book that have Rust code, and the README, which the documentation tests compile.

macro_rules! pages {
    ($($name:ident = $text:expr;)*) => {
        $(#[doc = $text] mod $name {})*
    };
}

pages! {
    readme = include_str!("../README.md");
    background = include_str!("../docs/background.md");
    cases = include_str!("../docs/cases.md");
    changes = include_str!("../docs/changes.md");
    checkpoints = include_str!("../docs/checkpoints.md");
    containers = include_str!("../docs/containers.md");
    facts = include_str!("../docs/facts.md");
    host_directories = include_str!("../docs/host-directories.md");
    install = include_str!("../docs/install.md");
    oci = include_str!("../docs/oci.md");
    own_images = include_str!("../docs/own-images.md");
    package_upgrades = include_str!("../docs/package-upgrades.md");
    private_networks = include_str!("../docs/private-networks.md");
    runner = include_str!("../docs/runner.md");
    sandboxes = include_str!("../docs/sandboxes.md");
    services = include_str!("../docs/services.md");
    setups = include_str!("../docs/setups.md");
    sharing_saves = include_str!("../docs/sharing-saves.md");
    snapshots = include_str!("../docs/snapshots.md");
    terminals = include_str!("../docs/terminals.md");
    tutorial = include_str!("../docs/tutorial.md");
    waiting = include_str!("../docs/waiting.md");
    writing_tests = include_str!("../docs/writing-tests.md");
}
