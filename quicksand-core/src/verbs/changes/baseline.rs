//! The survey of a state that sandboxes start from. It is made once, on a clone of the state that is thrown away, and kept in the
//! cache under a name that comes of the state's id.
//!
//! ```text
//! {"version": 1, "state": …, "directory": …, "digest": …, "facts": …}     one line
//! the index, as the guest sent it
//! ```

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::survey::{self, Facts, Survey};
use crate::{
    base::{cache::Cache, digest::short_key, progress::Reporter, random::hex},
    error::{Error, Result},
    host::{
        Host,
        admission::{Demand, Slot, Turn, admit},
    },
    image::state::State,
    vm::{Identity, Outside, Vm},
};

/// The version of the file. Raised with every change that an older reader would misread, and whenever a survey comes to hold more.
const VERSION: u32 = 2;
/// How long another process may take to make one.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// What the file begins with.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The id of the state.
    state: String,
    /// Where that is: once it is not there any more, the baseline is of no use.
    directory: PathBuf,
    /// SHA-256 of the index.
    digest: String,
    facts: Facts,
}

/// That of a state: from the cache, else made.
pub(crate) async fn of(host: &Host, state: &State, reporter: &Reporter) -> Result<Survey> {
    // An id may be a stranger's word, with a save that came from elsewhere.
    let (id, key) = (&state.manifest.id, short_key(&state.manifest.id));
    let path = host.cache.baselines().join(&key);
    if let Some(survey) = read(&path, id).await {
        return Ok(survey);
    }
    let _lock = host.cache.lock(&format!("baseline-{key}"), PATIENCE).await?;
    if let Some(survey) = read(&path, id).await {
        return Ok(survey);
    }
    reporter.report("list files", 0, 1);
    let (vm, slot) = clone(host, state).await?;
    let mut survey = survey::complete(&vm, survey::index(&vm).await?, None).await?;
    survey::add_attributes(&vm, &mut survey).await?;
    vm.process().kill().await.map_err(Error::io("end the machine of", state.directory()))?;
    drop((vm, slot));
    let text = encode(state, &survey).map_err(Error::io("write", &path))?;
    host.cache.publish(&path, &text)?;
    sweep(&host.cache);
    reporter.report("list files", 1, 1);
    Ok(survey)
}

/// A machine as it was when sandboxes began that start from the state; to be thrown away.
pub(crate) async fn clone(host: &Host, state: &State) -> Result<(Vm, Slot)> {
    let machine = &state.manifest.machine;
    // On top of others, like every machine that somebody starts who has one.
    let demand = Demand { memory: machine.memory, cpus: machine.cpus };
    let (slot, _) = admit(host, demand, Turn::Never, &Reporter::silent()).await?;
    let vm = Vm::restore(host, state, &Outside::default(), Identity::Same).await?;
    Ok((vm, slot))
}

/// Removes those whose states have gone.
pub(crate) fn sweep(cache: &Cache) {
    for entry in fs::read_dir(cache.baselines()).into_iter().flatten().flatten() {
        let head = first_line(&entry.path()).ok();
        let stale = head.is_some_and(|line| match read_head(&line) {
            Some(head) => {
                let state = State::read(&head.directory).ok().flatten();
                state.is_none_or(|state| state.manifest.id != head.state)
            }
            // One that is being written has another name until it is whole, but for a moment.
            None => entry.metadata().is_ok_and(|metadata| metadata.modified().is_ok_and(is_old)),
        });
        if stale {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(fs::File::open(path)?).read_until(b'\n', &mut line)?;
    Ok(line)
}

fn is_old(modified: std::time::SystemTime) -> bool {
    modified.elapsed().is_ok_and(|age| age > PATIENCE)
}

fn encode(state: &State, survey: &Survey) -> io::Result<Vec<u8>> {
    let directory = std::path::absolute(state.directory())?;
    let digest = hex(&Sha256::digest(&survey.index));
    let head =
        Head { version: VERSION, state: state.manifest.id.clone(), directory, digest, facts: survey.facts.clone() };
    Ok([&serde_json::to_vec(&head)?[..], b"\n", &survey.index].concat())
}

/// Reads one. `None` where it is not there, damaged or of another version: it can be made again.
async fn read(path: &Path, id: &str) -> Option<Survey> {
    let bytes = fs::read(path).ok()?;
    let (head, index) = split(&bytes)?;
    if head.state != id || head.digest != hex(&Sha256::digest(index)) {
        return None;
    }
    let (files, index) = survey::decode(index.to_vec()).await.ok()?;
    Some(Survey { files, facts: head.facts, index })
}

fn split(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((read_head(&bytes[..end])?, &bytes[end + 1..]))
}

fn read_head(line: &[u8]) -> Option<Head> {
    let head: Head = serde_json::from_slice(line).ok()?;
    (head.version == VERSION).then_some(head)
}
