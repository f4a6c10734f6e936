//! Process 1 of the initramfs: modules, the root file system, the agent, the image's init.

use std::{
    error::Error,
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
    wait_for(Path::new(disk))?;
    fs::create_dir_all(NEW_ROOT)?;
    mount(Some(disk), NEW_ROOT, Some(kind), MsFlags::empty(), None::<&str>)
        .map_err(|e| format!("mount {disk} as {kind}: {e}"))?;

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

    // systemd spares processes whose name starts with an @ when it stops the others on the way down.
    Command::new("/proc/self/exe")
        .arg0("@quicksand-agent")
        .process_group(0)
        .spawn()
        .map_err(|e| format!("start the agent: {e}"))?;
    let init = ["/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or("find an init in the image")?;
    Err(format!("run {init}: {}", Command::new(init).exec()).into())
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
