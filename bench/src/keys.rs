//! What is measured: keys, units and targets.

/// One figure.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name on the command line and in the JSON, which says the unit: `_s` seconds, `_mb` 10^6 bytes, `_mb_s` 10^6 bytes a
    /// second.
    pub(crate) name: &'static str,
    /// What it is, in the table.
    pub(crate) what: &'static str,
    pub(crate) target: Target,
    /// The peer's figure for the same thing.
    pub(crate) peer: Option<&'static str>,
}

/// What a figure is meant to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    None,
    AtMost(f64),
    AtLeast(f64),
    /// At the most so many times another figure of the same run.
    AtMostTimes(f64, &'static str),
}

/// All figures, in the order of the table.
pub(crate) const KEYS: [Key; 45] = {
    use Target::{AtLeast, AtMost, AtMostTimes, None as Untold};
    const fn key(name: &'static str, what: &'static str, target: Target) -> Key {
        Key { name, what, target, peer: None }
    }
    const fn beside(peer: &'static str, key: Key) -> Key {
        Key { peer: Some(peer), ..key }
    }
    [
        key("floor_s", "QEMU alone: process start to state loaded", Untold),
        beside(
            "peer_start_from_save_s",
            key("warm_ready_s", "start of a clone until its agent has answered", AtMostTimes(1.5, "floor_s")),
        ),
        beside(
            "peer_first_command_s",
            key("warm_first_command_s", "start of a clone until its first command has exited", AtMost(0.40)),
        ),
        key("pool_wait_s", "what a test in a row waits for its machine", AtMost(0.05)),
        key("suite50_wall_s", "cargo test of 50 tests of one command each", AtMost(12.0)),
        key("ping_s", "answer of the agent", AtMost(0.001)),
        beside("peer_execute_s", key("exec_true_s", "/bin/true in a warm guest", AtMost(0.040))),
        key("save_pause_s", "pause of a guest that is saved", AtMost(0.10)),
        key("checkpoint_s", "checkpoint of a running guest", AtMost(0.30)),
        key("revert_s", "return to it until the agent has answered", AtMost(0.30)),
        key("fork_s", "a twin of a running guest until its agent has answered", AtMost(0.50)),
        key("disk_grow_s", "what a disk of 40G adds to a start", AtMost(1.0)),
        key("grow_ext4_s", "what 10G add to a start where the root is an ext4 of 1G on a partition", AtMost(1.0)),
        key("grow_xfs_s", "the same with an xfs of 320M", AtMost(1.0)),
        key("grow_btrfs_s", "the same with a btrfs of 160M", AtMost(1.0)),
        key("reboot_s", "reboot until all is up again", AtMost(40.0)),
        key("changes_s", "what has changed in a guest since it started", AtMost(2.0)),
        key("clone_private_mb", "memory of a clone's own after one command", AtMost(60.0)),
        key("upload_mb_s", "100 MB into a clone's /dev/shm", AtLeast(30.0)),
        key("download_mb_s", "100 MB out of it", AtLeast(30.0)),
        key("mount_ready_s", "mount asked for until the guest has it", AtMost(0.20)),
        key("mount_ls_10000_s", "ls of 10,000 files on a mount", AtMost(0.47)),
        key("mount_read_mb_s", "100 MB read from a mount", AtLeast(57.0)),
        key("mount_write_mb_s", "50 MB written to a mount, with fsync", AtLeast(56.0)),
        key("image_import_400mb_s", "a disk of 400 MB taken as an image", Untold),
        key("busybox_boot_s", "first boot of a disk with busybox's init, with its import", Untold),
        key("busybox_warm_s", "warm start of it until its first command has exited", Untold),
        key("no_init_boot_s", "first boot of a disk without an init, with its import", Untold),
        key("no_init_warm_s", "warm start of it until its first command has exited", Untold),
        key("import_oci_s", "a container image of 10 layers, 150 MB, taken as an image", Untold),
        key("debian12_boot_s", "first boot of Debian 12, with systemd, until its first command has exited", Untold),
        key("debian12_warm_s", "warm start of it until its first command has exited", AtMost(0.40)),
        key("debian13_boot_s", "first boot of Debian 13, with systemd", Untold),
        key("debian13_warm_s", "warm start of it until its first command has exited", AtMost(0.40)),
        key("openrc_boot_s", "first boot of a Debian 12 with OpenRC, one of whose services takes 6 s", Untold),
        key("openrc_warm_s", "warm start of it until its first command has exited", AtMost(0.40)),
        key("run_true_s", "quicksand run debian -- true, the whole process", AtMost(0.60)),
        key("forward_connect_s", "connection by a forwarded port, until a server's byte is back", AtMost(0.020)),
        key("forward_mb_s", "100 MB out of the guest by a forwarded port", AtLeast(30.0)),
        key("full_ready_s", "start of a clone with the network full", Untold),
        key("private_ready_s", "start of a clone on a private network, until it has its address", Untold),
        key("peer_start_from_save_s", "the peer: start from its own save", Untold),
        key("peer_first_command_s", "the peer: start until its first command has exited", Untold),
        key("peer_execute_s", "the peer: /bin/true in a warm guest", Untold),
        key("peer_start_ratio", "the peer's start from a save to ours", AtLeast(100.0)),
    ]
};

impl Key {
    /// The unit that the name says.
    pub(crate) fn unit(&self) -> &'static str {
        match self.name {
            name if name.ends_with("_mb_s") => "MB/s",
            name if name.ends_with("_mb") => "MB",
            name if name.ends_with("_ratio") => "times",
            _ => "s",
        }
    }
}
