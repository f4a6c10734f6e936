//! The command line.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use quicksand_core::{Accel, Kernel, Mount, NetworkMode, PortForward, Size, WithMemory};

/// Clean virtual machines, booted once and cloned in a fraction of a second ever after.
#[derive(Debug, Parser)]
#[command(name = "quicksand", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a machine of its own
    ///
    /// Its input, output and errors are those of this program, and so is its exit code. 125 says that there was no machine,
    /// 127 that the guest could not run the command, 124 that its time was over.
    Run(RunArgs),
    /// Open a shell, or another program, on a terminal of a machine of its own
    ///
    /// What you do there is gone when it ends, unless --save keeps it. Ctrl-] pressed three times leaves a guest that no
    /// longer answers.
    Shell(ShellArgs),
    /// Images: what machines start from
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Saves: machines written down, with what their memory, devices and disks held
    Saves(SavesArgs),
    /// Take a picture of what a machine shows on its display
    Screenshot(ScreenshotArgs),
    /// Show the machines that run now
    Ps(ListArgs),
    /// Remove what can be made or got again and was not used for a while
    ///
    /// Warm states, images, kernels, downloads, layers, machines of failed tests, and what killed processes left. What is in use
    /// stays, and so do images that the quicksand.lock of a project names which used any in the last 90 days.
    Prune(PruneArgs),
    /// Check what machines need of this host, and say how to mend what is missing
    Doctor(DoctorArgs),
    /// Print a key under which CI may keep images, warm states and saves between its runs
    ///
    /// It is another one where they would be made again: with another quicksand, QEMU, accelerator or, under KVM, processor, and
    /// with another quicksand.lock or quicksand.toml.
    CacheKey(CacheKeyArgs),
    /// Measure how fast machines start and commands run on this host
    Bench(BenchArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What machine to start.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// Memory of the guest, such as 512M or 2G
    #[arg(long, value_name = "SIZE", value_parser = Size::from_str)]
    pub(crate) memory: Option<Size>,
    /// Processors of the guest
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// What the guest reaches
    #[arg(long, value_name = "MODE", default_value = "full")]
    pub(crate) network: Network,
    /// A directory of the host in the guest; `:ro` at its end lets the guest only read it, `:rw` is the default
    #[arg(long, value_name = "HOST:GUEST[:ro|:rw][:owner=USER]", value_parser = mount)]
    pub(crate) mount: Vec<Mount>,
    /// A port of the guest on 127.0.0.1 of the host; 0 as the host's port picks a free one and tells it
    #[arg(long, value_name = "HOST:GUEST", value_parser = port)]
    pub(crate) port: Vec<PortForward>,
    /// A port of 127.0.0.1 of the host that the guest may reach, as host.quicksand.internal
    #[arg(long, value_name = "PORT")]
    pub(crate) host_port: Vec<u16>,
    /// Size of the guest's disk, such as 10G
    #[arg(long, value_name = "SIZE", value_parser = Size::from_str)]
    pub(crate) disk: Option<Size>,
    /// What runs the guest's code
    #[arg(long, value_name = "ACCEL")]
    pub(crate) accel: Option<AccelArg>,
    /// Which kernel it boots, where it does boot
    #[arg(long, value_name = "KERNEL", default_value = "guest")]
    pub(crate) kernel: KernelArg,
    /// How long a boot may take, where one is needed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "300s")]
    pub(crate) boot_timeout: Duration,
    /// Where saves are
    #[arg(long, value_name = "DIR", default_value = ".quicksand/sandboxes")]
    pub(crate) saves_dir: PathBuf,
    /// Say nothing of how the start goes
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// An image, a save, or the directory of a save
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Write a save of that name after the command has ended
    #[arg(long, value_name = "NAME")]
    pub(crate) save: Option<String>,
    /// Set a variable for the command
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Run the command as that user of the guest, or user:group, by name or number
    #[arg(long, short, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Run the command in that directory of the guest
    #[arg(long, short = 'C', value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// How long the command may take
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// The command and its arguments; no shell sees them
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// An image, a save, the directory of a save, or a test that failed, whose machine was kept
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Write a save of that name when the program has ended
    #[arg(long, value_name = "NAME")]
    pub(crate) save: Option<String>,
    /// Be that user of the guest, or user:group, by name or number
    #[arg(long, short, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The program in place of the user's login shell, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ScreenshotArgs {
    /// An image, a save, the directory of a save, or a test that failed, whose machine was kept
    pub(crate) source: String,
    /// Where the picture goes, a PNG
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// How long to wait before the picture is taken
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s")]
    pub(crate) after: Duration,
    /// A command to run first, to its end
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// List the images in the cache
    List(ListArgs),
    /// Make or fetch an image, where the cache does not have it; or take one that `images push` put into a registry
    Pull {
        /// A name such as ubuntu:24.04, a reference such as oci:registry/name:tag, or the path of a disk's file
        name: String,
        /// The name that an image gets which `images push` put at that reference, in place of another one of that name
        own: Option<String>,
        #[command(flatten)]
        memory: MemoryArgs,
    },
    /// Put an image into a registry, with its warm states, for other machines to start from
    Push {
        /// The image
        name: String,
        /// Where it goes, registry/name:tag
        reference: String,
        #[command(flatten)]
        memory: MemoryArgs,
    },
    /// Take a disk's file, or an archive of a root file system, as an image of a name of its own
    Import {
        /// The file: qcow2, raw, or a tar
        file: PathBuf,
        /// The name
        name: String,
    },
    /// Show what is known of an image
    Show {
        /// The image
        name: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Remove images from the cache
    ///
    /// Machines that run, warm states and saves keep what they need of them.
    Remove {
        /// The images
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Have quicksand.lock name the newest images
    Update {
        /// The images; all that are in quicksand.lock where none is given
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SavesArgs {
    #[command(subcommand)]
    pub(crate) command: SavesCommand,
    /// Where saves are
    #[arg(long, global = true, value_name = "DIR", default_value = ".quicksand/sandboxes")]
    pub(crate) saves_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SavesCommand {
    /// List the saves
    List(ListArgs),
    /// Show what is known of a save
    Show {
        /// The save
        name: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Remove saves
    Remove {
        /// The saves
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Write a save to one compressed file, without its memory
    Export {
        /// The save
        name: String,
        /// The file
        file: PathBuf,
    },
    /// Take a save from such a file, which need not be trusted
    Import {
        /// The file
        file: PathBuf,
        /// The name that the save gets
        name: String,
    },
    /// Put a save into a registry, with its memory, for other machines to start from
    Push {
        /// The save
        name: String,
        /// Where it goes, registry/name:tag
        reference: String,
        #[command(flatten)]
        memory: MemoryArgs,
    },
    /// Take a save from a registry, where `saves push` put it
    Pull {
        /// Where it is, registry/name:tag or registry/name@sha256:...
        reference: String,
        /// The name that the save gets; that which it had where none is given
        name: Option<String>,
        #[command(flatten)]
        memory: MemoryArgs,
    },
}

/// Whether memory goes along.
#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    /// Leave out what machines start warm from: what is pulled from a stranger is to boot from its disk
    #[arg(long)]
    without_memory: bool,
}

impl From<MemoryArgs> for WithMemory {
    fn from(args: MemoryArgs) -> WithMemory {
        if args.without_memory { WithMemory::Never } else { WithMemory::IfItFits }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove what was not used for that long
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30days")]
    pub(crate) older_than: Duration,
    /// Then remove what was not used for the longest time, until the rest is no larger than this
    #[arg(long, value_name = "SIZE", value_parser = Size::from_str)]
    pub(crate) max_size: Option<Size>,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// An image or a save
    #[arg(default_value = "debian")]
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// How many machines to start
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) runs: u16,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CacheKeyArgs {
    /// Files and directories on which the key depends as well, such as those of the setups
    pub(crate) inputs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Network {
    /// No network interface
    None,
    /// An interface that leads nowhere
    MountsOnly,
    /// The internet
    Full,
}

impl From<Network> for NetworkMode {
    fn from(network: Network) -> NetworkMode {
        match network {
            Network::None => NetworkMode::None,
            Network::MountsOnly => NetworkMode::MountsOnly,
            Network::Full => NetworkMode::Full,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum KernelArg {
    /// The one that the guest's disk asks for, such as one that was installed
    Guest,
    /// The one that belongs to the image
    Image,
}

impl From<KernelArg> for Kernel {
    fn from(kernel: KernelArg) -> Kernel {
        match kernel {
            KernelArg::Guest => Kernel::Guest,
            KernelArg::Image => Kernel::Image,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum AccelArg {
    Auto,
    Kvm,
    Hvf,
    Whpx,
    Tcg,
}

impl From<AccelArg> for Accel {
    fn from(accel: AccelArg) -> Accel {
        match accel {
            AccelArg::Auto => Accel::Auto,
            AccelArg::Kvm => Accel::Kvm,
            AccelArg::Hvf => Accel::Hvf,
            AccelArg::Whpx => Accel::Whpx,
            AccelArg::Tcg => Accel::Tcg,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a time such as 90s, 15min, 12h or 30days".to_owned())
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn mount(text: &str) -> Result<Mount, String> {
    let (text, owner) = match text.rsplit_once(":owner=") {
        Some((rest, owner)) if !owner.is_empty() => (rest, Some(owner)),
        _ => (text, None),
    };
    let (rest, read_only) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    // The guest's directory is absolute; the host's may have colons in its name.
    let (host, guest) = rest.rsplit_once(":/").ok_or("write HOST:GUEST or HOST:GUEST:ro, GUEST an absolute path")?;
    if host.is_empty() {
        return Err("write the host's directory before the colon".to_owned());
    }
    let mut mount = Mount::new(host, format!("/{guest}"));
    if let Some(owner) = owner {
        mount = mount.owner(owner);
    }
    Ok(if read_only { mount.read_only() } else { mount })
}

fn port(text: &str) -> Result<PortForward, String> {
    let ports = text.split_once(':').and_then(|(host, guest)| Some((host.parse().ok()?, guest.parse().ok()?)));
    let (host, guest) = ports.filter(|&(_, guest)| guest != 0).ok_or("write HOST:GUEST, two ports")?;
    Ok(PortForward::new(host, guest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mounts_and_ports_are_read() {
        assert_eq!(mount(".:/src"), Ok(Mount::new(".", "/src")));
        assert_eq!(mount("/a:b/c:/mnt/d:ro"), Ok(Mount::new("/a:b/c", "/mnt/d").read_only()));
        assert_eq!(mount(".:/src:rw"), Ok(Mount::new(".", "/src")));
        assert_eq!(mount(".:/src:ro:owner=1:2"), Ok(Mount::new(".", "/src").read_only().owner("1:2")));
        for wrong in ["", "/src", ":/src", "src:relative", "a:b:ro"] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
        assert_eq!(port("8080:80"), Ok(PortForward::new(8080, 80)));
        for wrong in ["80", "80:", "80:0", "x:1", "70000:1"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_run_is_read() {
        let line = "quicksand run debian --memory 1G --network none -e A=b=c -u nobody -- ls -l --color";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Run(run) = cli.command else { panic!("{cli:?}") };
        assert_eq!(run.command, ["ls", "-l", "--color"]);
        assert_eq!(run.env, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(run.machine.memory, Some(Size::from_mib(1024)));
        for wrong in [
            "quicksand run debian",
            "quicksand run debian -e A -- ls",
            "quicksand run debian --memory x -- ls",
            "quicksand prune --older-than 30",
        ] {
            assert!(Cli::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }
}
