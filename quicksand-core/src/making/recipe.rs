//! Images that a project describes itself: `quicksand.toml` says from what image each starts, what is copied into it and what is run in it.
//!
//! ```toml
//! [images.mytools]
//! from = "debian"
//! copy = [["tools", "/opt/tools"]]
//! run = ["apt-get update", "apt-get install -y jq"]
//! env = { TOOLS = "/opt/tools" }
//! ```
//!
//! It is built in a machine, once for each content: the image is keyed by the one that it is from, by the files and by the commands.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use quicksand_protocol::message::Exec;
use serde_json::json;

use super::{Parts, import::origin, making, tool::Tool};
use crate::{
    base::{blocking::blocking, cache::Cache, digest::short_key, progress::Reporter, size::Size, tree},
    error::Error,
    host::Host,
    image::{
        Image, RecipeError, check_name,
        error::ImageError,
        metadata::{Boot, StoredFile, add_defaults},
        project::Project,
        recipe::Recipe,
    },
    launch::{Launched, Order, kernel::Boots, launch, source::Source},
    qemu::machine::NetworkMode,
    vm::{DiskAlone, Outside, Rest, Vm, ask},
};

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// Where in the image's directory the machine is written down, for as long as it takes.
const WORK: &str = "work";
/// How much of a command's output is taken.
const LONGEST_OUTPUT: Size = Size::from_mib(256);
/// How much of what a failing command printed an error carries.
const LAST_LINES: usize = 40;

type Recipes = BTreeMap<String, Recipe>;

/// A recipe, and where it is from.
#[derive(Debug)]
pub(crate) struct Found {
    name: String,
    directory: PathBuf,
    recipe: Recipe,
}

/// The recipe of that name, if the project has one.
pub(crate) fn find(name: &str) -> Result<Option<Found>, ImageError> {
    let Some(project) = Project::find() else { return Ok(None) };
    let mut recipes = project.config()?.images.recipes;
    check(&recipes)?;
    check_chain(name, &recipes)?;
    let directory = project.root().to_owned();
    Ok(recipes.remove(name).map(|recipe| Found { name: name.to_owned(), directory, recipe }))
}

/// The images that the project has recipes for.
pub(crate) fn names() -> Vec<String> {
    let config = Project::find().and_then(|project| project.config().ok());
    config.map(|config| config.images.recipes.into_keys().collect()).unwrap_or_default()
}

/// Checks what the file alone can't say.
fn check(recipes: &Recipes) -> Result<(), ImageError> {
    for (name, recipe) in recipes {
        check_name(name)?;
        let wrong = |why: String| Err(RecipeError::Malformed { name: name.clone(), why }.into());
        if let Some((_, to)) = recipe.copy.iter().find(|(_, to)| !to.starts_with('/')) {
            return wrong(format!("it copies to {to:?}, which is not an absolute path"));
        }
        let plain = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        if let Some(variable) = recipe.env.keys().find(|variable| !plain(variable)) {
            return wrong(format!("it sets {variable:?}, which is no name of a variable"));
        }
    }
    Ok(())
}

fn check_chain(name: &str, recipes: &Recipes) -> Result<(), RecipeError> {
    let mut chain = vec![name.to_owned()];
    let mut at = name;
    while let Some(recipe) = recipes.get(at) {
        at = &recipe.from;
        let seen = chain.iter().any(|name| name == at);
        chain.push(at.to_owned());
        if seen {
            return Err(RecipeError::Cycle { name: name.to_owned(), chain });
        }
    }
    Ok(())
}

impl Found {
    /// The image, built where the cache does not have it.
    // Boxed, since a recipe may start from another.
    pub(crate) fn ensure<'a>(
        self,
        cache: &'a Cache,
        reporter: &'a Reporter,
    ) -> Pin<Box<dyn Future<Output = Result<Image, ImageError>> + Send + 'a>> {
        Box::pin(async move {
            let path = self.directory.join(&self.recipe.from);
            let base = if self.recipe.from.contains('/') && path.exists() && !path.is_dir() {
                super::ensure_disk(cache, &path, reporter).await
            } else {
                super::ensure(cache, &self.recipe.from, reporter).await
            };
            let base = base.map_err(|error| RecipeError::From {
                name: self.name.clone(),
                from: self.recipe.from.clone(),
                source: Box::new(error),
            })?;
            let (this, of) = (self.clone_for_thread(), base.identity());
            let key = blocking(move || this.key(&of)).await?;
            let name = format!("recipe-{key}");
            if let Some(image) = Image::find(cache, &name)? {
                return Ok(image);
            }
            making(cache, &name, async |directory| self.build(cache, &base, &directory, reporter).await, reporter).await
        })
    }

    fn clone_for_thread(&self) -> Found {
        Found { name: self.name.clone(), directory: self.directory.clone(), recipe: self.recipe.clone() }
    }

    /// Tells what would be built from whatever else might.
    fn key(&self, base: &str) -> Result<String, ImageError> {
        let mut copies = Vec::new();
        for (from, to) in &self.recipe.copy {
            let path = self.directory.join(from);
            let digest = tree::digest(&path).map_err(|(path, source)| self.unreadable(path, source))?;
            copies.push((to, digest));
        }
        let parts =
            json!({ "version": 2, "from": base, "copy": copies, "run": self.recipe.run, "env": self.recipe.env });
        Ok(short_key(&parts.to_string()))
    }

    fn unreadable(&self, path: PathBuf, source: io::Error) -> RecipeError {
        RecipeError::Copy { name: self.name.clone(), path, source }
    }

    async fn build(
        &self,
        cache: &Cache,
        base: &Image,
        directory: &Path,
        reporter: &Reporter,
    ) -> Result<Parts, ImageError> {
        let (disk, disk_size, built) = self.run(cache, base, directory, reporter).await?;
        flatten(&disk, directory).await?;
        drop(built);
        let work = directory.join(WORK);
        fs::remove_dir_all(&work).map_err(ImageError::io("remove", &work))?;

        let mut defaults = base.defaults().clone();
        defaults.environment.retain(|(name, _)| !self.recipe.env.contains_key(name));
        defaults.environment.extend(self.recipe.env.clone());
        let origin = Some(origin(format!("the recipe of {} in {}", self.name, self.directory.display()), None));
        let (file_system, root) = (base.file_system().to_owned(), base.root().clone());
        Ok(Parts { disk_size, file_system, root, origin, defaults, boot: take_boot(base, directory)? })
    }

    /// Does in a machine what the recipe says. Returns the files of its disk, which go with the machine, and the disk's size. Of the
    /// machine the disk alone is of use: an image is what boots, and nothing that happened to run while it was built.
    async fn run(
        &self,
        cache: &Cache,
        base: &Image,
        directory: &Path,
        reporter: &Reporter,
    ) -> Result<(Vec<PathBuf>, u64, Launched), RecipeError> {
        let failed = |error| self.failed(error);
        let host = Host::with(cache).map_err(failed)?;
        let outside = Outside { source: base.name().to_owned(), network: NetworkMode::Full, ..Outside::default() };
        let order = Order { outside, ..Order::plain(base.name(), Boots::default(), reporter) };
        let launched = launch(&host, &Source::Image(base.clone()), &order).await.map_err(failed)?;
        let vm = &launched.vm;
        let steps = (self.recipe.copy.len() + self.recipe.run.len()) as u64;
        for (number, (from, to)) in self.recipe.copy.iter().enumerate() {
            reporter.report("build image", number as u64, steps);
            vm.upload(&self.directory.join(from), Path::new(to), Reporter::silent()).await.map_err(failed)?;
        }
        for (number, line) in self.recipe.run.iter().enumerate() {
            reporter.report("build image", (self.recipe.copy.len() + number) as u64, steps);
            self.run_line(vm, base, line).await?;
        }
        reporter.report("build image", steps, steps);
        let work = directory.join(WORK);
        fs::create_dir(&work).map_err(Error::io("create", &work)).map_err(failed)?;
        let frozen = vm.freeze(&host, &work, DiskAlone::Whole, Rest::Short).await.map_err(failed)?;
        vm.process().kill().await.map_err(Error::io("end the machine of", &work)).map_err(failed)?;
        let disk = [base.disk()].into_iter().chain(frozen.layers).collect();
        Ok((disk, frozen.disk_size, launched))
    }

    async fn run_line(&self, vm: &Vm, base: &Image, line: &str) -> Result<(), RecipeError> {
        let bytes = |text: &String| text.clone().into_bytes();
        let argv = ["/bin/sh", "-c", line].map(|word| word.as_bytes().to_vec()).to_vec();
        let env = self.recipe.env.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        let mut exec = Exec { argv, env, ..Exec::default() };
        add_defaults(&mut exec, base.defaults());
        let ran = ask::run(vm, exec, PATIENCE, LONGEST_OUTPUT).await.map_err(|error| self.failed(error))?;
        if ran.status.success() {
            return Ok(());
        }
        let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        let lines: Vec<_> = stdout.lines().chain(stderr.lines()).collect();
        let said = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        let (name, command, exit_code) = (self.name.clone(), line.to_owned(), ran.status.exit_code());
        Err(RecipeError::Command { name, command, exit_code, said })
    }

    fn failed(&self, source: Error) -> RecipeError {
        RecipeError::Machine { name: self.name.clone(), source: Box::new(source) }
    }
}

/// Makes one disk of a machine's layers, each of which names the one below by where it lies and not by what its header says.
async fn flatten(disk: &[PathBuf], directory: &Path) -> Result<(), ImageError> {
    let node = disk.iter().fold(serde_json::Value::Null, |below, path| {
        let file = json!({ "driver": "file", "filename": path.to_string_lossy() });
        json!({ "driver": "qcow2", "file": file, "backing": below })
    });
    let from = format!("json:{node}");
    let target = directory.join(crate::image::DISK_FILE);
    let arguments = ["convert", "-O", "qcow2", &from].map(str::to_owned);
    Tool::new("qemu-img", directory).args(arguments).args([&target]).run(|_| {}).await
}

/// Gives the kernel of the image below and its modules to the new image.
fn take_boot(base: &Image, directory: &Path) -> Result<Boot, ImageError> {
    let modules_directory = directory.join("modules");
    fs::create_dir(&modules_directory).map_err(ImageError::io("create", &modules_directory))?;
    let take = |path: PathBuf| {
        let relative = path.strip_prefix(base.directory()).unwrap_or(&path).to_owned();
        let target = directory.join(&relative);
        if fs::hard_link(&path, &target).is_err() {
            fs::copy(&path, &target).map_err(ImageError::io("copy to", &target))?;
        }
        let size = target.metadata().map_err(ImageError::io("look at", &target))?.len();
        Ok::<_, ImageError>(StoredFile { path: relative, size })
    };
    let modules = base.modules().into_iter().map(take).collect::<Result<_, _>>()?;
    Ok(Boot { kernel: take(base.kernel())?, lent: !base.has_own_kernel(), modules })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn parsed(text: &str) -> Result<Recipes, String> {
        let recipes: Recipes = toml::from_str(text).map_err(|error| error.to_string())?;
        check(&recipes).map_err(|error| error.to_string())?;
        Ok(recipes)
    }

    #[test]
    fn mistakes_are_answered_with_what_is_accepted() {
        parsed("[x]\nfrom = 'debian'\nrun = ['true']\ncopy = [['a', '/b']]\nenv = { A = '1' }\n").unwrap();
        for (text, words) in [
            ("[x]\nfrom = 'debian'\nruns = []", "expected one of `from`, `copy`, `run`, `env`"),
            ("[x]\nrun = []", "missing field `from`"),
            ("[x]\nfrom = 'debian'\ncopy = [['a', 'b']]", "\"b\", which is not an absolute path"),
            ("[x]\nfrom = 'debian'\nenv = { 'A=B' = '1' }", "no name of a variable"),
            ("['X y']\nfrom = 'debian'", "as an image's name"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn chains_end_and_cycles_are_told() {
        let recipes = parsed("[a]\nfrom = 'b'\n[b]\nfrom = 'c'\n[c]\nfrom = 'b'\n[d]\nfrom = 'debian'\n");
        let recipes = recipes.unwrap();
        check_chain("d", &recipes).unwrap();
        check_chain("none", &recipes).unwrap();
        let error = check_chain("a", &recipes).unwrap_err().to_string();
        assert!(error.contains("a from b from c from b"), "{error}");
    }

    #[test]
    fn the_key_changes_with_all_that_goes_in() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/f"), "1").unwrap();
        let found = |text: &str| Found {
            name: "x".into(),
            directory: directory.path().to_owned(),
            recipe: parsed(text).unwrap().remove("x").unwrap(),
        };
        let text = "[x]\nfrom = 'debian'\nrun = ['true']\ncopy = [['d', '/d']]\nenv = { A = '1' }\n";
        let key = |text: &str, base: &str| found(text).key(base).unwrap();
        let first = key(text, "base");
        assert_eq!(key(text, "base"), first);
        assert_ne!(key(text, "other"), first);
        for (from, to) in [("true", "false"), ("'1'", "'2'"), ("/d'", "/e'")] {
            assert_ne!(key(&text.replace(from, to), "base"), first, "{to}");
        }
        fs::write(path("d/f"), "2").unwrap();
        assert_ne!(key(text, "base"), first);
        fs::write(path("d/f"), "1").unwrap();
        assert_eq!(key(text, "base"), first);
        fs::set_permissions(path("d/f"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_ne!(key(text, "base"), first);
        // What can't be copied is refused by name, at once: to read a pipe would never end.
        nix::unistd::mkfifo(&path("d/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refusal = || match found(text).key("base").unwrap_err() {
            ImageError::Recipe(RecipeError::Copy { path, source, .. }) => (path, source.to_string()),
            error => panic!("{error}"),
        };
        assert_eq!(refusal(), (path("d/pipe"), "it is a pipe, neither a file nor a directory".to_owned()));
        fs::remove_file(path("d/pipe")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(path("d/socket")).unwrap();
        assert_eq!(refusal(), (path("d/socket"), "it is a socket, neither a file nor a directory".to_owned()));
        fs::remove_dir_all(path("d")).unwrap();
        let error = found(text).key("base").unwrap_err().to_string();
        assert!(error.contains("into the image \"x\""), "{error}");
    }
}
