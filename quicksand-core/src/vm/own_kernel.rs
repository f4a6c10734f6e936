//! Booting a machine from its disk: by the image's kernel, and where the guest asks for another one, by that.
//!
//! Which kernel the guest would boot by itself stands on its disk, which only a kernel can read. So the image's kernel boots first and
//! our init looks. Where the guest asks for the kernel that runs, the boot goes on, and nothing was lost. Else the init sends us the
//! other one, this QEMU ends, and the next one boots that. A kernel that does not come up costs its time and is told; the machine is
//! then booted by the image's.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use quicksand_protocol::kernel::{HEAD, banner};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{
    Outside, Vm,
    boot::Boot,
    cards::Cards,
    files::empty_memory,
    launch::{Answered, Launched, launch},
    run_dir::RunDir,
    warnings::Warnings,
    way_out::WayOut,
};
use crate::{
    base::{blocking::blocking, compression::unpacked, printed::printable},
    error::{
        Error,
        start::{Stage, StartCause},
    },
    guest::{Channel, FirstWords, OfferedFiles, Opening, first_words},
    host::Host,
    image::initramfs::archive as initramfs_archive,
    qemu::machine::{Begin, Machine},
};

/// What our init reads on the command line where it is to look which kernel the guest would boot; see `quicksand-agent/guest/init.rs`.
const ASK: &str = "quicksand.kernel=guest";
/// The guest's own kernel comes up in about the time that the image's took to look for it. It is given so many times that, and at least
/// so long, for it may be larger; and no more of what is left than leaves time to boot the image's.
const TIMES: u32 = 8;
const LEAST_PATIENCE: Duration = Duration::from_secs(60);
const SHARE_OF_THE_REST: f64 = 0.75;
/// How long QEMU may take to end.
const QUIT_PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes that the modules of an offered kernel have, unpacked.
const LARGEST_MODULES: u64 = 128 << 20;

/// Boots a machine until its agent answers. Of `disk` the last file will be written, the others not.
pub(super) async fn boot_disk(
    host: &Host,
    machine: &Machine,
    run_dir: Arc<RunDir>,
    (disk, disk_size): (Vec<PathBuf>, u64),
    boot: &Boot,
    outside: &Outside,
) -> Result<Vm, Error> {
    let (begun, deadline) = (Instant::now(), Instant::now() + boot.timeout);
    let attempt = Attempt { host, machine, run_dir: &run_dir, disk: &disk, disk_size, outside };
    let of_image = |command_line| Begin::Boot { kernel: &boot.kernel, initramfs: &boot.initramfs, command_line };
    if !boot.guests_choice {
        return attempt.bring_up(of_image(&boot.command_line), None, deadline).await;
    }
    let directory = run_dir.own_kernel();
    // From a boot that was broken off.
    let _ = fs::remove_dir_all(&directory);
    let asking = format!("{} {ASK}", boot.command_line);
    let (release, files) = match attempt.boot(of_image(&asking), Some(&directory), None, deadline).await? {
        Came::Up(vm) => return Ok(*vm),
        Came::WithOffer { release, files } => (printable(&release), files),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let patience = (TIMES * begun.elapsed()).max(LEAST_PATIENCE).min(left.mul_f64(SHARE_OF_THE_REST));
    tracing::info!(target: "quicksand::vm", release, ?patience, "the guest asks for a kernel of its own");
    let booted = match files {
        Ok(files) => attempt.by_own_kernel(files, &boot.command_line, &directory, Instant::now() + patience).await,
        Err(why) => Err(why),
    };
    // QEMU has read them.
    let _ = fs::remove_dir_all(&directory);
    match booted {
        Ok(vm) => Ok(vm),
        Err(why) => attempt.bring_up(of_image(&boot.command_line), Some(not_booted(&release, &why)), deadline).await,
    }
}

/// What is told of a kernel that the guest asked for in vain.
fn not_booted(release: &str, why: &str) -> String {
    format!("the guest asks for the kernel {release}, and its image's was booted: {}", why.lines().next().unwrap_or(""))
}

/// How a boot came along.
#[derive(Debug)]
enum Came {
    /// The agent answers.
    Up(Box<Vm>),
    /// The guest asks for another kernel. Its machine has ended.
    WithOffer { release: String, files: Result<OfferedFiles, String> },
}

/// What all boots of one machine have in common.
#[derive(Debug, Clone, Copy)]
struct Attempt<'a> {
    host: &'a Host,
    machine: &'a Machine,
    run_dir: &'a Arc<RunDir>,
    disk: &'a [PathBuf],
    disk_size: u64,
    outside: &'a Outside,
}

impl Attempt<'_> {
    /// Boots by what the guest offered, or says why that is not to be.
    async fn by_own_kernel(
        self,
        files: OfferedFiles,
        command_line: &str,
        directory: &Path,
        deadline: Instant,
    ) -> Result<Vm, String> {
        let initramfs = directory.join("initramfs");
        let (kernel, to) = (files.kernel.clone(), initramfs.clone());
        blocking(move || pack(&files, &to)).await?;
        let begin = Begin::Boot { kernel: &kernel, initramfs: &initramfs, command_line };
        self.bring_up(begin, None, deadline).await.map_err(|error| format!("failed to {error}"))
    }

    /// Boots without asking for another kernel.
    async fn bring_up(self, begin: Begin<'_>, kernel_fault: Option<String>, deadline: Instant) -> Result<Vm, Error> {
        match self.boot(begin, None, kernel_fault, deadline).await? {
            Came::Up(vm) => Ok(*vm),
            Came::WithOffer { release, .. } => unreachable!("{release} was offered, which is a breach of the protocol"),
        }
    }

    async fn boot(
        self,
        begin: Begin<'_>,
        offers: Option<&Path>,
        kernel_fault: Option<String>,
        deadline: Instant,
    ) -> Result<Came, Error> {
        let Attempt { host, machine, run_dir, disk, disk_size, outside } = self;
        let memory_file = empty_memory(run_dir, machine)?;
        let mut way_out = WayOut::begin(host, outside.network, false, run_dir.path()).await;
        let cards = Cards::new(&outside.memberships, 0)?;
        let (network, disk) = ((way_out.plug(), cards), (disk.to_owned(), disk_size));
        let launched = launch(host, machine, Arc::clone(run_dir), memory_file, disk, network, begin).await?;
        let Launched { body, qmp, mut agent } = launched;
        let opened = body.watch(&qmp, Stage::Boot, deadline, async {
            let way_out = way_out.finish(&qmp).await.map_err(StartCause::Qmp)?;
            match first_words(&mut agent, offers).await.map_err(StartCause::Channel)? {
                FirstWords::Announced { kernel_fault } => {
                    let patience = deadline.saturating_duration_since(Instant::now());
                    let channel = Channel::open(agent, Opening::Booted, patience).await;
                    Ok(Ok((channel.map_err(StartCause::Channel)?, way_out, kernel_fault)))
                }
                FirstWords::Offered { release, files } => Ok(Err((release, files))),
            }
        });
        let (channel, way_out, fault_of_guest) = match opened.await? {
            Ok(opened) => opened,
            Err((release, files)) => {
                // QEMU closes the disk's files in good order before it ends, unlike when it is killed.
                let quits = qmp.execute("quit", json!({})).await.is_ok();
                if !quits || timeout(QUIT_PATIENCE, body.process.ended()).await.is_err() {
                    body.process.kill().await.map_err(Error::io("end", Path::new("QEMU")))?;
                }
                return Ok(Came::WithOffer { release, files });
            }
        };
        let warnings = Arc::new(Warnings::for_good(kernel_fault.or(fault_of_guest)));
        let vm = body.into_vm(Answered { qmp, channel, warnings, way_out, origin: None });
        Ok(Came::Up(Box::new(vm)))
    }
}

/// Writes the initramfs of an offered kernel, and sees to it that QEMU takes the kernel for a Linux and for nothing else that it knows.
fn pack(files: &OfferedFiles, to: &Path) -> Result<(), String> {
    let mut head = Vec::new();
    let read = fs::File::open(&files.kernel).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    read.map_err(|error| format!("it can't be read: {error}"))?;
    banner(&head).ok_or("it is no Linux kernel that can be booted directly")?;
    let mut left = LARGEST_MODULES;
    let modules = files.modules.iter().map(|(name, path)| {
        let mut content = Vec::new();
        let read = fs::File::open(path).and_then(|file| std::io::copy(&mut unpacked(file, left)?, &mut content));
        left -= read.map_err(|error| format!("its module {name} can't be read: {error}"))?;
        Ok::<_, String>((name.clone(), content))
    });
    fs::write(to, initramfs_archive(modules)?).map_err(|error| format!("its initramfs can't be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_linux_is_booted_and_modules_are_unpacked_up_to_a_limit() {
        let temp = tempfile::tempdir().unwrap();
        let kernel = temp.path().join("kernel");
        let mut head = vec![0; 0x800];
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x20f] = 1;
        head[0x300..0x309].copy_from_slice(b"6.9 (a) b");
        fs::write(&kernel, &head).unwrap();
        let files = |content: &[u8]| {
            let path = temp.path().join("x.ko");
            fs::write(&path, content).unwrap();
            OfferedFiles { kernel: kernel.clone(), modules: vec![("000-x.ko".to_owned(), path)] }
        };
        let to = temp.path().join("initramfs");
        pack(&files(b"module"), &to).unwrap();
        let archive = fs::read(&to).unwrap();
        let holds = |text: &[u8]| archive.windows(text.len()).any(|window| window == text);
        assert!(holds(b"/modules/000-x.ko\n") && holds(b"module"));
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), LARGEST_MODULES + 1), &mut packed).unwrap();
        let error = pack(&files(&packed.finish().unwrap()), &to).unwrap_err();
        assert!(error.contains("000-x.ko"), "{error}");
        assert!(pack(&files(b"\xfd7zXZ\0broken"), &to).is_err());
        fs::write(&kernel, "\x7fELF").unwrap();
        assert!(pack(&files(b"module"), &to).unwrap_err().contains("no Linux kernel"));
    }

    #[test]
    fn a_fault_is_one_line() {
        assert_eq!(
            not_booted("6.9", "failed to boot the guest: it did not\n  what to do: nothing"),
            "the guest asks for the kernel 6.9, and its image's was booted: failed to boot the guest: it did not"
        );
    }
}
