//! Process 1 of the initramfs: modules, the root file system, the agent, the image's init. Of an image without an init it stays
//! process 1, see [`reaper`].

use std::{
    error::Error,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

use crate::{inittab, kernel, reaper, serve};

/// Kernel modules in the order to load them, one path in `/modules` a line.
const MODULE_LIST: &str = "/modules/order";
const NEW_ROOT: &str = "/newroot";
/// How long the root disk may take to appear after its driver is loaded.
const DISK_DEADLINE: Duration = Duration::from_secs(30);

/// Prepares the guest and becomes its init. Returns only if it failed.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(target)?;
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(|e| format!("mount {kind} on {target}: {e}"))?;
    }
    let options = fs::read_to_string("/proc/cmdline")?;
    if options.split_ascii_whitespace().any(|word| word == "quicksand.probe") {
        // All that is asked is whether a kernel comes this far.
        println!("quicksand: probe");
        return Err(format!("switch off: {}", reboot(RebootMode::RB_POWER_OFF).unwrap_err()).into());
    }
    load_modules()?;

    let option = |name: &str| options.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
    let disk = option("quicksand.root=").unwrap_or("/dev/vda");
    let kind = option("quicksand.fstype=").unwrap_or("ext4");
    let flags = option("quicksand.rootflags=");
    wait_for(Path::new(disk))?;
    fs::create_dir_all(NEW_ROOT)?;
    mount(Some(disk), NEW_ROOT, Some(kind), MsFlags::empty(), flags)
        .map_err(|e| format!("mount {disk} as {kind} with {:?}: {e}", flags.unwrap_or_default()))?;

    for directory in ["dev", "proc", "sys"] {
        let target = Path::new(NEW_ROOT).join(directory);
        fs::create_dir_all(&target)?;
        mount(Some(&Path::new("/").join(directory)), &target, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .map_err(|e| format!("move /{directory} to {}: {e}", target.display()))?;
    }
    // The root of an initramfs can't be unmounted. What it holds is memory, so only the running program stays.
    fs::remove_dir_all("/modules")?;
    std::env::set_current_dir(NEW_ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|e| format!("move the root file system to /: {e}"))?;
    nix::unistd::chroot(".").map_err(|e| format!("enter the root file system: {e}"))?;
    std::env::set_current_dir("/")?;

    // Only the first of two boots looks: what it finds is booted by the second.
    let kernel_fault = option("quicksand.kernel=").filter(|word| *word == "guest").and_then(|_| kernel::look(kind));
    let init = match option("quicksand.init=") {
        Some("none") => Init::None,
        _ => Init::find(),
    };
    match init {
        Init::None => reaper::prepare(),
        Init::Systemd(_) => leave_the_card_alone(),
        Init::Other(_) => {}
    }
    // systemd spares processes whose name starts with an @ when it stops the others on the way down.
    let agent = Command::new("/proc/self/exe")
        .arg0("@quicksand-agent")
        .args(matches!(init, Init::None).then_some(reaper::WORD))
        .envs(kernel_fault.map(|fault| (serve::KERNEL_FAULT, fault)))
        .process_group(0)
        .spawn()
        .map_err(|e| format!("start the agent: {e}"))?;
    match init {
        Init::None => reaper::run(&agent),
        Init::Systemd(init) | Init::Other(init) => Err(format!("run {init}: {}", Command::new(init).exec()).into()),
    }
}

/// What starts the image's services.
#[derive(Debug)]
enum Init {
    Systemd(&'static str),
    Other(&'static str),
    /// Nothing, as in images of containers.
    None,
}

impl Init {
    fn find() -> Init {
        let found = ["/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/init"].into_iter();
        let Some((path, program)) = found.filter_map(|path| Some((path, fs::canonicalize(path).ok()?))).next() else {
            return Init::None;
        };
        match program.file_name().and_then(OsStr::to_str) {
            Some("systemd") => Init::Systemd(path),
            // Images of containers bring busybox's init, too, but nothing that it could start.
            Some(name) if name.starts_with("busybox") && !inittab::starts_anything() => Init::None,
            _ => Init::Other(path),
        }
    }
}

/// Tells network managers that the card is not theirs: it gets its address from us, and there is nobody to ask for one at boot.
/// They read this below /run, which systemd leaves as it finds it; nothing of the image is changed. That it fails is no reason
/// not to boot.
fn leave_the_card_alone() {
    let run = mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"));
    if run.is_ok() {
        for (directory, file, content) in [
            ("/run/systemd/network", "00-quicksand.network", "[Match]\nDriver=virtio_net\n[Link]\nUnmanaged=yes\n"),
            (
                "/run/udev/rules.d",
                "00-quicksand.rules",
                "SUBSYSTEM==\"net\", DRIVERS==\"virtio_net\", ENV{NM_UNMANAGED}=\"1\"\n",
            ),
        ] {
            let _ = fs::create_dir_all(directory).and_then(|()| fs::write(Path::new(directory).join(file), content));
        }
    }
}

fn load_modules() -> Result<(), Box<dyn Error>> {
    let list = fs::read_to_string(MODULE_LIST).map_err(|e| format!("read {MODULE_LIST}: {e}"))?;
    for path in list.lines() {
        let module = File::open(path).map_err(|e| format!("open module {path}: {e}"))?;
        match finit_module(&module, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => return Err(format!("load module {path}: {e}").into()),
        }
    }
    Ok(())
}

fn wait_for(disk: &Path) -> io::Result<()> {
    let deadline = Instant::now() + DISK_DEADLINE;
    while !disk.exists() {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("find the root disk {}", disk.display())));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
