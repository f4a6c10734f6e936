//! Saves in a registry.

use std::{fs, path::PathBuf};

use super::{
    PATIENCE, Save, Saves,
    archive::{Entry, MANIFEST},
    artifact::{
        Artifact, Pulled, Pushed, Wanted, WithMemory, fit,
        format::{Kind, Maker, is_memory},
        push,
    },
    export,
    image_share::likely_files,
    import::{As, check_content, check_space},
};
use crate::{
    base::{
        blocking::blocking,
        cache::{Cache, Unfinished},
        progress::Reporter,
        size::Size,
    },
    error::{Error, Result},
    host::Host,
    image::state::{Manifest, State},
    sandbox::{make_saves_dir, save::check_name, save_lock_name},
};

impl Saves {
    /// Pushes a save to a registry, `registry/name:tag`, with its memory where that fits this host still. What the registry has
    /// already, of this save or of another one in the same repository, is not sent again.
    ///
    /// `reporter` hears of the stages `digest` and `push`, in bytes.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Saves::open); [`Error::Registry`] where it can't be reached or refuses. There is nothing of that tag then, or
    /// what there was before.
    pub async fn push(&self, name: &str, reference: &str, memory: WithMemory, reporter: &Reporter) -> Result<Pushed> {
        let (save, host) = (self.open(name)?, Host::discover()?);
        let (memory, left_out) = memory_to_push(&host, &save.state, memory);
        let mut files = export::files(&save.state);
        let warm = memory.len().min(1);
        files.extend(memory);
        let pushed = push(reference, Kind::Save, name, Maker::here(&host), files, reporter).await?;
        Ok(Pushed { warm, left_out, ..pushed })
    }

    /// Pulls a save from a registry, `registry/name:tag` or `registry/name@sha256:…`, under a name of its own or that which it had where
    /// it was pushed. It is then the same save: where its setup and all that it is made from are the same, too, the harness takes it for
    /// its own.
    ///
    /// Memory that fits this host comes along, and the save starts warm at once. Where it does not fit, [`Pulled::left_out`] says why,
    /// and the first start boots from the disk. Digests are verified before anything is used, and what is here already is not fetched.
    ///
    /// Who may push to that repository decides what QEMU reads and what boots: pull memory from those whom you trust. With
    /// [`WithMemory::Never`] nobody is: what comes is a save of its own, as one that was [imported](Saves::import).
    ///
    /// `reporter` hears of the stages `pull` and `digest`, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`]; [`Error::SaveExists`] where there is another one of that name; [`Error::NoSpace`]; [`Error::Registry`] and
    /// [`Error::Archive`] where the registry fails, or sends what is cut short, damaged or hostile. Nothing of it stays then.
    pub async fn pull(
        &self,
        reference: &str,
        name: Option<&str>,
        memory: WithMemory,
        reporter: &Reporter,
    ) -> Result<Pulled<Save>> {
        name.map_or(Ok(()), check_name)?;
        let host = Host::discover()?;
        let artifact = Artifact::find(reference, Kind::Save).await?;
        let name = name.unwrap_or(&artifact.contents.name).to_owned();
        check_name(&name)?;
        let place = PathBuf::from(&artifact.reference);
        let manifest = artifact.small_file(MANIFEST).await?;
        let manifest = Manifest::parse(&place, &manifest)?;
        let (with_memory, left_out) = memory_to_pull(&host, &manifest, &artifact.contents.maker, memory);

        let directory = std::path::absolute(self.directory.join(&name)).map_err(Error::io("find", &self.directory))?;
        make_saves_dir(&directory)?;
        let lock = host.cache.lock(&save_lock_name(&directory), PATIENCE).await?;
        let done = |save, fetched| Pulled {
            item: save,
            reference: artifact.reference.clone(),
            fetched: Size::from_bytes(fetched),
            warm: usize::from(with_memory),
            left_out: left_out.clone().into_iter().collect(),
        };
        if directory.exists() {
            return match self.open(&name) {
                Ok(save) if save.state.manifest.id == manifest.id && (save.has_memory() || !with_memory) => {
                    Ok(done(save, 0))
                }
                _ => Err(Error::SaveExists { name, directory }),
            };
        }
        // A stranger's is not to pass for one that is known here.
        let who = match memory {
            WithMemory::Never => As::Stranger,
            WithMemory::IfItFits => As::Itself { memory: with_memory },
        };
        let files = || artifact.contents.files.iter().filter(|file| with_memory || !is_memory(&file.entry.path));
        check_space(&directory, Artifact::data_size(files()))?;
        let unfinished = Unfinished::beside(&directory)?;
        let mut wanted = Vec::new();
        for file in files() {
            let target = unfinished.path().join(&file.entry.path);
            let parent = target.parent().unwrap_or(unfinished.path());
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
            let likely = self.likely(&host.cache, &file.entry.path);
            wanted.push(Wanted { file, target, likely });
        }
        let fetched = artifact.fetch(&wanted, reporter).await?;
        let entries: Vec<Entry> = files().map(|file| file.entry.clone()).collect();
        blocking(move || {
            let _lock = lock;
            check_content(&place, unfinished.path(), &entries, who)?;
            Ok::<_, Error>(unfinished.finish()?)
        })
        .await?;
        Ok(done(self.open(&name)?, fetched))
    }

    /// Where the same file may be: in the images of the cache, and in the other saves.
    fn likely(&self, cache: &Cache, path: &str) -> Vec<PathBuf> {
        let mut likely = likely_files(cache, path);
        if !is_memory(path) {
            let saves = fs::read_dir(&self.directory).into_iter().flatten().flatten();
            likely.extend(saves.map(|save| save.path().join(path)));
        }
        likely
    }
}

/// The files of a state's memory that are to be pushed, by their names, or why there are none.
pub(crate) fn memory_to_push(
    host: &Host,
    state: &State,
    memory: WithMemory,
) -> (Vec<(String, PathBuf)>, Option<String>) {
    let fault = match memory {
        WithMemory::Never => Some("it was not asked for".to_owned()),
        WithMemory::IfItFits if !state.manifest.has_memory => Some("there is none".to_owned()),
        WithMemory::IfItFits => state.memory_fault().or_else(|| fit::fault(host, &state.manifest, None)),
    };
    if fault.is_some() {
        return (Vec::new(), fault);
    }
    (state.named_memory(), None)
}

/// Whether a machine's memory is to come along, or why not.
pub(crate) fn memory_to_pull(
    host: &Host,
    manifest: &Manifest,
    maker: &Maker,
    memory: WithMemory,
) -> (bool, Option<String>) {
    let fault = match memory {
        WithMemory::Never => Some("it was not asked for".to_owned()),
        WithMemory::IfItFits if !manifest.has_memory => Some("it was pushed without".to_owned()),
        WithMemory::IfItFits => fit::fault(host, manifest, Some(maker)),
    };
    (fault.is_none(), fault)
}
