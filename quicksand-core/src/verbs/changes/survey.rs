//! What a guest has now: its files, packages, users.
//!
//! Whatever the guest sends is bounded: in its size, and in the time that it may take.

use std::time::Duration;

use quicksand_protocol::{
    index::Attributes,
    message::{Done, Exec, Exit, Request},
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::{
    files::Files,
    packages::{Database, Package, RPM_ARGUMENTS},
};
use crate::{
    base::{blocking::blocking, size::Size},
    error::{Error, Result},
    vm::{
        Vm,
        ask::{PATIENCE, read, reply, take_stdout, text, within},
    },
};

/// How long a guest may take for an index. A million files of a disk of which nothing has been read take a minute and a half.
const INDEX_PATIENCE: Duration = Duration::from_secs(300);
/// Longest index in bytes.
const LONGEST_INDEX: Size = Size::from_mib(128);
/// Longest database of packages. That of a full workstation has 10 MB.
const LONGEST_DATABASE: Size = Size::from_mib(128);

/// What a guest has.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) files: Files,
    pub(crate) facts: Facts,
    /// The index as it was sent.
    pub(crate) index: Vec<u8>,
}

/// What a survey has beside the index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) packages: Vec<Package>,
    pub(crate) passwd: String,
    pub(crate) group: String,
    pub(crate) hosts: Option<String>,
    /// The attributes of those files that have any. Of a state that sandboxes start from alone.
    #[serde(default)]
    pub(crate) attributes: Vec<(Vec<u8>, Attributes)>,
}

/// Has the guest send the index of its files.
pub(crate) async fn index(vm: &Vm) -> Result<Vec<u8>> {
    within(INDEX_PATIENCE, async {
        let mut operation = vm.channel().start(&Request::Index)?;
        let bytes = take_stdout(&mut operation, "the index of the guest's files", LONGEST_INDEX).await?;
        reply(vm, operation).await?;
        Ok(bytes)
    })
    .await
}

/// Completes a survey whose index is there. `earlier` is one of the same guest: what has not changed since is taken from it.
pub(crate) async fn complete(vm: &Vm, index: Vec<u8>, earlier: Option<&Survey>) -> Result<Survey> {
    let (files, index) = decode(index).await?;
    let databases = Database::all_of(&files);
    let unchanged = earlier.filter(|earlier| {
        let same = |database: &Database| database.files(&earlier.files) == database.files(&files);
        databases == Database::all_of(&earlier.files) && databases.iter().all(same)
    });
    let mut facts = Facts::default();
    match unchanged {
        Some(earlier) => facts.packages.clone_from(&earlier.facts.packages),
        None => {
            for database in databases {
                facts.packages.extend(read_packages(vm, database).await?);
            }
        }
    }
    facts.passwd = text(vm, "/etc/passwd").await?.unwrap_or_default();
    facts.group = text(vm, "/etc/group").await?.unwrap_or_default();
    facts.hosts = text(vm, "/etc/hosts").await?;
    Ok(Survey { files, facts, index })
}

/// The attributes of these files, in their order.
pub(crate) async fn attributes(vm: &Vm, paths: &[&[u8]]) -> Result<Vec<Attributes>> {
    let what = "the attributes of the guest's files";
    let bytes = within(INDEX_PATIENCE, async {
        let mut operation = vm.channel().start(&Request::Attributes)?;
        let stdin = operation.stdin.take();
        let send = async {
            let Some(mut stream) = stdin else { return };
            for portion in paths.chunks(512) {
                let text = portion.iter().flat_map(|path| path.iter().chain(&[0])).copied().collect::<Vec<u8>>();
                // Where it breaks, the guest's reply says why.
                if stream.write_all(&text).await.is_err() {
                    return;
                }
            }
        };
        let (taken, ()) = tokio::join!(take_stdout(&mut operation, what, LONGEST_INDEX), send);
        let bytes = taken?;
        reply(vm, operation).await?;
        Ok(bytes)
    })
    .await?;
    let hostile = |why: String| Error::HostileIndex { why };
    let mut rest = &bytes[..];
    let mut all = Vec::new();
    for _ in paths {
        let (attributes, after) = Attributes::decode(rest).map_err(|error| hostile(error.to_string()))?;
        all.push(attributes);
        rest = after;
    }
    if rest.is_empty() { Ok(all) } else { Err(hostile("it has attributes of files that were not asked for".into())) }
}

/// Adds the attributes of all files to a survey.
pub(crate) async fn add_attributes(vm: &Vm, survey: &mut Survey) -> Result<()> {
    let paths: Vec<&[u8]> =
        survey.files.iter().filter(|file| file.may_have_attributes()).map(|file| &*file.path).collect();
    let all = attributes(vm, &paths).await?;
    let pairs = paths.iter().zip(all).filter(|(_, attributes)| !attributes.is_empty());
    survey.facts.attributes = pairs.map(|(path, attributes)| (path.to_vec(), attributes)).collect();
    Ok(())
}

/// Reads an index, elsewhere than where futures are carried out.
pub(crate) async fn decode(index: Vec<u8>) -> Result<(Files, Vec<u8>)> {
    let decoded = blocking(move || Files::decode(&index).map(|files| (files, index))).await;
    decoded.map_err(|e| Error::HostileIndex { why: e.to_string() })
}

async fn read_packages(vm: &Vm, database: Database) -> Result<Vec<Package>> {
    let bytes = match database {
        Database::Dpkg(path) | Database::Apk(path) => {
            read(vm, path.as_bytes(), LONGEST_DATABASE).await?.unwrap_or_default()
        }
        Database::Rpm { program, .. } => within(PATIENCE, ask_rpm(vm, program)).await?,
    };
    Ok(database.parse(&String::from_utf8_lossy(&bytes)))
}

async fn ask_rpm(vm: &Vm, program: &str) -> Result<Vec<u8>> {
    let argv = [program].into_iter().chain(RPM_ARGUMENTS).map(|word| word.as_bytes().to_vec()).collect();
    let mut operation = vm.channel().start(&Request::Exec(Exec { argv, ..Exec::default() }))?;
    // What it says of its troubles is not kept, so that they do not hold it up.
    drop(operation.stderr.take());
    let bytes = take_stdout(&mut operation, "the guest's list of packages", LONGEST_DATABASE).await?;
    match reply(vm, operation).await? {
        Done::Exited(Exit::Code(0)) => Ok(bytes),
        done => Err(Error::Packages { said: format!("rpm has ended with {done:?}") }),
    }
}
