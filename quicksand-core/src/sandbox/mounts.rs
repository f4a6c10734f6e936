//! Mounts of a running sandbox: added and taken off at any time, off while it is written down, and put on again after each start.
//!
//! A mount must never be in a frozen state: the numbers by which a guest names files are those of one server, and another server
//! would take them for other files.

use std::{
    borrow::Borrow,
    fs, mem,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::libc;
use quicksand_protocol::message::{self, Request};

use super::{
    Sandbox, SandboxBuilder,
    mount::{self, ActiveMount, Mount},
    running::{Running, lock, to_the_end},
};
use crate::{
    error::{Error, Result},
    guest::ChannelError,
    qemu::Process,
    vm::Vm,
    vm::ask,
};

/// How long a guest may take to mount.
const MOUNT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a guest may take to unmount: what its programs have written to mapped files goes to the host then.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(60);

/// The mounts of a sandbox, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    all: Mutex<Vec<Entry>>,
    /// Numbers that were given to mounts, and to ports.
    numbers: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    mount: Mount,
    id: u64,
    /// `None` while it is off.
    served: Option<Served>,
}

/// What a mount consists of while it is on.
#[derive(Debug)]
struct Served {
    port: String,
    server: Process,
}

impl Entry {
    fn active(&self) -> ActiveMount {
        let Mount { host, guest, read_only, .. } = self.mount.clone();
        ActiveMount { id: self.id, host, guest, read_only }
    }
}

impl Mounts {
    /// Those that a sandbox is to have from its start.
    pub(super) fn wanted(mounts: Vec<Mount>) -> Mounts {
        let wanted = Mounts::default();
        lock(&wanted.all).extend(mounts.into_iter().map(|mount| Entry { mount, id: wanted.number(), served: None }));
        wanted
    }

    /// The same mounts for a twin.
    pub(super) fn for_twin(&self) -> Mounts {
        let entries = lock(&self.all);
        let all =
            entries.iter().map(|entry| Entry { mount: entry.mount.clone(), id: entry.id, served: None }).collect();
        Mounts { all: Mutex::new(all), numbers: AtomicU64::new(self.numbers.load(Ordering::Relaxed)) }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

impl SandboxBuilder {
    /// A directory of the host that the guest has from its start. Saves and checkpoints hold none of it.
    pub fn mount(mut self, mount: Mount) -> SandboxBuilder {
        self.mounts.push(mount);
        self
    }
}

impl Sandbox {
    /// Mounts a directory of the host in the running guest.
    ///
    /// The mount is taken off while the sandbox is saved, checkpointed or forked, which needs a moment in which nothing in the
    /// guest uses it, and put on again. It stays over reboots and returns to checkpoints.
    ///
    /// # Errors
    ///
    /// [`Error::MountSource`] where the host's directory is missing or none; [`Error::BadOption`] where the guest's path is not
    /// absolute or has a mount already; [`Error::Guest`] where the guest can't mount it; [`Error::NotRunning`].
    pub async fn mount(&self, mount: Mount) -> Result<ActiveMount> {
        let running = self.running()?;
        let mount = mount.resolved()?;
        running.ready().await?;
        to_the_end(async move {
            let _change = running.change().await;
            if lock(&running.mounts.all).iter().any(|entry| entry.mount.guest == mount.guest) {
                let why = format!("there is a mount at {} already", mount.guest.display());
                return Err(Error::BadOption { option: "mount", why });
            }
            let served = running.serve(&running.vm(), &mount).await?;
            let entry = Entry { mount, id: running.mounts.number(), served: Some(served) };
            let active = entry.active();
            lock(&running.mounts.all).push(entry);
            Ok(active)
        })
        .await
    }

    /// Takes a mount off.
    ///
    /// # Errors
    ///
    /// [`Error::MountBusy`] where a program of the guest uses it: it then stays; [`Error::NotMounted`]; [`Error::NotRunning`].
    pub async fn unmount(&self, mount: impl Borrow<ActiveMount>) -> Result<()> {
        let running = self.running()?;
        let ActiveMount { id, guest, .. } = mount.borrow().clone();
        running.ready().await?;
        to_the_end(async move {
            let _change = running.change().await;
            let at = |entries: &[Entry]| entries.iter().position(|entry| entry.id == id && entry.mount.guest == guest);
            let found = at(&lock(&running.mounts.all));
            let Some(index) = found else { return Err(Error::NotMounted { guest }) };
            running.take_off(index).await?;
            lock(&running.mounts.all).remove(index);
            Ok(())
        })
        .await
    }

    /// Its mounts, in the order in which they came. Empty unless it runs.
    pub fn active_mounts(&self) -> Vec<ActiveMount> {
        let Ok(running) = self.running() else { return Vec::new() };
        let entries = lock(&running.mounts.all);
        entries.iter().map(Entry::active).collect()
    }
}

impl Running {
    /// Puts on whatever mount is off. One that can't be put on is none any more: the error is that of the first.
    pub(super) async fn put_mounts_on(&self) -> Result<()> {
        let vm = self.vm();
        let mut failed = None;
        let mut index = 0;
        loop {
            let off = {
                let entries = lock(&self.mounts.all);
                let Some(entry) = entries.get(index) else { break };
                entry.served.is_none().then(|| entry.mount.clone())
            };
            let Some(mount) = off else {
                index += 1;
                continue;
            };
            match self.serve(&vm, &mount).await {
                Ok(served) => lock(&self.mounts.all)[index].served = Some(served),
                Err(error) => {
                    lock(&self.mounts.all).remove(index);
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Forgets the servers of a machine that has gone, and puts all mounts on for the one that there is now.
    pub(super) async fn put_mounts_on_anew(&self) -> Result<()> {
        for entry in lock(&self.mounts.all).iter_mut() {
            // Dropped, and with that ended.
            entry.served = None;
        }
        self.put_mounts_on().await
    }

    /// Takes all mounts off, the last first. Where one is in use all are as they were.
    pub(super) async fn take_mounts_off(&self) -> Result<()> {
        let count = lock(&self.mounts.all).len();
        for index in (0..count).rev() {
            if let Err(error) = self.take_off(index).await {
                if let Err(further) = self.put_mounts_on().await {
                    tracing::warn!(%further, "a mount that was taken off could not be put on again");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Ends all servers, after their machine.
    pub(super) async fn end_mounts(&self) {
        let entries = mem::take(&mut *lock(&self.mounts.all));
        for served in entries.into_iter().filter_map(|entry| entry.served) {
            // One that outlives this is killed when it is dropped.
            let _ = served.server.kill().await;
        }
    }

    /// Takes one mount off. The entry stays.
    async fn take_off(&self, index: usize) -> Result<()> {
        let vm = self.vm();
        let (port, guest) = {
            let entries = lock(&self.mounts.all);
            let Some(Served { port, .. }) = &entries[index].served else { return Ok(()) };
            (port.clone(), entries[index].mount.guest.clone())
        };
        match vm.channel().request(&Request::Unmount { port: port.clone() }, UNMOUNT_PATIENCE).await {
            Ok(_) => {}
            Err(ChannelError::Guest { errno: libc::EBUSY, message }) => {
                return Err(Error::MountBusy { guest, users: message });
            }
            Err(error) => return Err(vm.explain(error).await),
        }
        vm.remove_port(&port).await?;
        let served = lock(&self.mounts.all)[index].served.take();
        if let Some(served) = served {
            served.server.kill().await.map_err(Error::io("end the server of", &guest))?;
        }
        Ok(())
    }

    /// Starts a server for a mount, and has the guest mount it.
    async fn serve(&self, vm: &Vm, mount: &Mount) -> Result<Served> {
        let number = self.mounts.number();
        let log = vm.directory().join(format!("mount-{number}.log"));
        let owner = match &mount.owner {
            Some(owner) => Some(find_owner(vm, owner).await?),
            None => None,
        };
        let (server, socket) = mount::start(mount, owner, &log).await?;
        let port = format!("quicksand.mount.{number}");
        vm.add_port(&port, std::os::fd::AsFd::as_fd(&socket)).await?;
        // QEMU has its own copy; the server must see the end of it when QEMU closes that.
        drop(socket);
        let request = Request::Mount(message::Mount {
            port: port.clone(),
            path: bytes(&mount.guest),
            read_only: mount.read_only,
            cached: mount.cached,
        });
        let Err(error) = vm.channel().request(&request, MOUNT_PATIENCE).await else {
            return Ok(Served { port, server });
        };
        let said = fs::read_to_string(&log).unwrap_or_default();
        let error = match said.trim() {
            "" => vm.explain(error).await,
            said => Error::MountServer { path: mount.host.clone(), said: said.to_owned() },
        };
        if let Err(further) = vm.remove_port(&port).await {
            tracing::debug!(%further, port, "a port is left");
        }
        Err(error)
    }
}

/// The numbers of a mount's owner, in the guest.
async fn find_owner(vm: &Vm, owner: &str) -> Result<(u32, u32)> {
    let numbers = owner.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    if let Some(numbers) = numbers {
        return Ok(numbers);
    }
    let passwd = ask::text(vm, "/etc/passwd").await?.unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        ((name == owner) || number == owner).then_some((number.parse().ok()?, fields.next()?.parse().ok()?))
    };
    passwd.lines().find_map(line).or_else(|| owner.parse().ok().map(|number| (number, number))).ok_or_else(|| {
        let why = format!("the guest has no user {owner:?}: mount it once there is one, or write numbers, user:group");
        Error::BadOption { option: "mount's owner", why }
    })
}

fn bytes(path: &Path) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec()
}
