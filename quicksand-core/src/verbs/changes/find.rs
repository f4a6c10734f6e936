//! Finding out what has changed.

use std::{
    collections::HashMap,
    ffi::OsStr,
    future::{Future, IntoFuture},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    pin::Pin,
};

use quicksand_protocol::{index::Attributes, network::without_own_hosts};

use super::{
    Attribute, Changes, FileChange, FileKind, FileState, attribute, baseline,
    compare::{self, Content, Difference},
    content,
    files::{File, OwnKind},
    ignore::Patterns,
    owners::Names,
    packages,
    survey::{self, Facts, Survey},
    units,
};
use crate::{
    base::size::Size,
    error::Result,
    network::passt::DNS,
    qemu::machine::NetworkMode,
    sandbox::{Sandbox, subject::Subject},
    vm::{Vm, ask},
};

/// A question for what has changed. It is asked when it is awaited:
///
/// ```no_run
/// # async fn f(sb: quicksand_core::Sandbox) -> quicksand_core::Result<()> {
/// let changes = sb.changes().await?;
/// let changes = sb.changes().ignore(["/opt/tool/cache", "**/*.pyc"]).await?;
/// let all = sb.changes().ignore_only::<&str>([]).await?;
/// # Ok(())
/// # }
/// ```
///
/// Patterns are globs of absolute paths: `*` and `?` stand for what is in one name, `**` for directories, `{a,b}` for either. One
/// that fits a directory covers all that is below it.
#[derive(Debug, Clone)]
#[must_use = "nothing is compared until this is awaited: add `.await?`"]
pub struct FindChanges<'a> {
    sandbox: &'a Sandbox,
    ignored: Patterns,
}

impl Sandbox {
    /// What has changed in the guest since the sandbox started: files, directories and links that were added, changed or removed;
    /// packages; units. Compared with the state that it started from: that of the image, or the save; also after a
    /// [reboot](Sandbox::reboot) and a [return](Sandbox::revert) to a checkpoint. A [twin](Sandbox::fork) is compared with the state that
    /// the sandbox started from of which it is one.
    ///
    /// Files are those of the guest's disks, on whichever file systems: what is in memory alone, as in `/run`, and what is mounted
    /// from the host is left out, and so are [`DEFAULT_IGNORED`](crate::verbs::changes::DEFAULT_IGNORED) logs and caches. A file that was touched, or
    /// written again with what was in it, has not changed.
    ///
    /// It costs nothing until it is asked for. The first time that it is asked for a state, that state is cloned and its files are
    /// listed, once for all sandboxes that start from it.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`](crate::Error::NotRunning); [`Error::Guest`](crate::Error::Guest) where the guest does not answer; [`Error::HostileIndex`](crate::Error::HostileIndex) where what it sends is no
    /// list of files, or one of more than a million; [`Error::Packages`](crate::Error::Packages); and what keeps a machine from being cloned.
    pub fn changes(&self) -> FindChanges<'_> {
        FindChanges::new(self)
    }
}

impl<'a> FindChanges<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox) -> FindChanges<'a> {
        FindChanges { sandbox, ignored: Patterns::default_ones() }
    }

    /// Leaves out what fits these patterns, too.
    pub fn ignore<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> FindChanges<'a> {
        self.ignored.extend(patterns);
        self
    }

    /// Leaves out what fits these patterns, and nothing of [`DEFAULT_IGNORED`](super::DEFAULT_IGNORED).
    pub fn ignore_only<T: Into<String>>(self, patterns: impl IntoIterator<Item = T>) -> FindChanges<'a> {
        FindChanges { ignored: Patterns::new(patterns), ..self }
    }
}

impl<'a> IntoFuture for FindChanges<'a> {
    type Output = Result<Changes>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Changes>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { find(&self.sandbox.subject().await?, &self.ignored, self.sandbox).await })
    }
}

async fn find(subject: &Subject, ignored: &Patterns, sandbox: &Sandbox) -> Result<Changes> {
    let Subject { vm, host, begun, network } = subject;
    let reporter = sandbox.reporter();
    let (before, index) = tokio::join!(baseline::of(host, begun, &reporter), survey::index(vm));
    let before = before?;
    let after = survey::complete(vm, index?, Some(&before)).await?;

    let resolver_is_ours = *network == NetworkMode::Full && is_our_resolver(vm, &after).await?;
    let hosts_are_ours = own_hosts(&before.facts) == own_hosts(&after.facts);
    let ours = |path: &[u8]| match path {
        b"/etc/resolv.conf" => resolver_is_ours,
        b"/etc/hosts" => hosts_are_ours,
        _ => false,
    };
    let mut differences = compare::differences(&before, &after, |path| ours(path) || ignored.cover(path));
    content::find_out(&mut differences, vm, host, begun).await?;

    // Of what is new, and of what something was done to.
    let asked = |difference: &&Difference<'_>| {
        let after = difference.after.is_some_and(File::may_have_attributes);
        after && (difference.before.is_none() || difference.touched)
    };
    let asked: Vec<&[u8]> = differences.iter().filter(asked).map(|difference| &*difference.file().path).collect();
    let now = if asked.is_empty() { Vec::new() } else { survey::attributes(vm, &asked).await? };
    let now: HashMap<&[u8], &Attributes> = asked.iter().copied().zip(&now).collect();
    let then: HashMap<&[u8], &Attributes> = before.facts.attributes.iter().map(|(path, it)| (&**path, it)).collect();
    let of =
        |path: &[u8], all: &HashMap<&[u8], &Attributes>| all.get(path).map_or_else(Vec::new, |it| attribute::told(it));
    let attributes = |difference: &Difference<'_>| {
        let path = &*difference.file().path;
        let before = of(path, &then);
        // What nothing was done to has what it had.
        let after = if now.contains_key(path) { of(path, &now) } else { before.clone() };
        (before, after)
    };

    let (names_before, names_after) = (Owners::of(&before.facts), Owners::of(&after.facts));
    let change = |difference: &Difference<'_>| {
        let content = difference.content == Content::Other;
        let (attributes_before, attributes_after) = attributes(difference);
        if !(content || difference.differs_outside() || attributes_before != attributes_after) {
            return None;
        }
        Some(FileChange {
            path: difference.file().path().to_owned(),
            before: difference.before.map(|file| names_before.state(file, attributes_before)),
            after: difference.after.map(|file| names_after.state(file, attributes_after)),
            content,
        })
    };
    Ok(Changes {
        files: differences.iter().filter_map(change).collect(),
        packages: packages::compare(&before.facts.packages, &after.facts.packages),
        units: units::compare(&before.files, &after.files),
        image: begun.image().name().to_owned(),
    })
}

/// Whether the name server's file is the one that a guest with the network `full` is given when it wakes.
async fn is_our_resolver(vm: &Vm, after: &Survey) -> Result<bool> {
    let path = "/etc/resolv.conf";
    let text = format!("nameserver {}\n", std::net::Ipv4Addr::from(DNS));
    if after.files.get(path).and_then(File::size) != Some(text.len() as u64) {
        return Ok(false);
    }
    let content = ask::read(vm, path.as_bytes(), Size::from_bytes(text.len() as u64)).await?;
    Ok(content.is_some_and(|content| content == text.as_bytes()))
}

/// What others wrote into `/etc/hosts`. No file is as good as an empty one.
fn own_hosts(facts: &Facts) -> String {
    without_own_hosts(facts.hosts.as_deref().unwrap_or_default())
}

/// The names of a guest's users and groups.
struct Owners {
    users: Names,
    groups: Names,
}

impl Owners {
    fn of(facts: &Facts) -> Owners {
        Owners { users: Names::parse(&facts.passwd), groups: Names::parse(&facts.group) }
    }

    fn state(&self, file: &File, attributes: Vec<Attribute>) -> FileState {
        FileState {
            kind: kind(&file.kind),
            mode: file.mode.into(),
            owner: self.users.of(file.uid),
            group: self.groups.of(file.gid),
            attributes,
        }
    }
}

fn kind(kind: &OwnKind) -> FileKind {
    match kind {
        OwnKind::File(size) => FileKind::File { size: *size },
        OwnKind::Symlink(target) => FileKind::Symlink { target: PathBuf::from(OsStr::from_bytes(target)) },
        OwnKind::Fifo => FileKind::Fifo,
        OwnKind::Socket => FileKind::Socket,
        OwnKind::BlockDevice(_) => FileKind::BlockDevice,
        OwnKind::CharacterDevice(_) => FileKind::CharacterDevice,
        // Of a mount no change is told.
        OwnKind::Directory | OwnKind::Mount => FileKind::Directory,
    }
}
