//! The same without `async`: for programs and tests that have no runtime and want none.
//!
//! Everything is called as it is elsewhere in this crate, and blocks its thread until it is done. Threads may share a sandbox.
//! What a sandbox does by itself, such as carrying connections, goes on meanwhile: on a runtime of the process, which starts with
//! the first sandbox.
//!
//! Nothing of this may be called on a thread that is busy with a future, as within an `async fn`; tokio panics there.
//!
//! - `sandbox`, `builder`: [`Sandbox`] and its options;
//! - `command`: [`Command`] and [`Child`], whose streams are those of [`std::io`];
//! - `changes`: [`FindChanges`];
//! - `terminal`: [`Terminal`];
//! - [`Wait`]: a wait, which begins with [`done`](Wait::done).

mod builder;
mod changes;
mod command;
mod sandbox;
mod terminal;

use std::{
    future::{Future, IntoFuture},
    sync::LazyLock,
    time::Duration,
};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::Result;

pub use builder::SandboxBuilder;
pub use changes::FindChanges;
pub use command::{Child, Command, Reader, Writer};
pub use sandbox::Sandbox;
pub use terminal::{Terminal, TerminalCommand};

/// Threads of the runtime, on which next to nothing is computed.
const WORKERS: usize = 2;

/// Where sandboxes live that are started without a runtime.
fn own_runtime() -> Handle {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(WORKERS).thread_name("quicksand").enable_all();
        builder.build().expect("a process can have two more threads")
    });
    RUNTIME.handle().clone()
}

/// A wait. It begins with [`done`](Wait::done):
///
/// ```no_run
/// # use std::time::Duration;
/// # fn f(sb: quicksand_core::blocking::Sandbox) -> quicksand_core::Result<()> {
/// sb.wait_for_port(80).done()?;
/// sb.wait_for_unit("nginx").timeout(Duration::from_secs(5)).done()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a wait does nothing until `.done()?`"]
pub struct Wait<'a, T = ()> {
    inner: crate::verbs::wait::Wait<'a, T>,
    runtime: Handle,
}

impl<'a, T> Wait<'a, T> {
    fn new(inner: crate::verbs::wait::Wait<'a, T>, runtime: &Handle) -> Wait<'a, T> {
        Wait { inner, runtime: runtime.clone() }
    }

    /// How long to wait. Default: [`DEFAULT_WAIT_TIMEOUT`](crate::DEFAULT_WAIT_TIMEOUT).
    pub fn timeout(self, timeout: Duration) -> Wait<'a, T> {
        Wait { inner: self.inner.timeout(timeout), ..self }
    }

    /// Waits.
    ///
    /// # Errors
    ///
    /// [`Error::WaitTimeout`](crate::Error::WaitTimeout), and those of what is waited for.
    pub fn done(self) -> Result<T> {
        let wait = self.inner;
        // In a future of its own: the time begins to run within the runtime, whose clock it is.
        self.runtime.block_on(async move { wait.into_future().await })
    }
}

/// Methods that block for what the method of the same name does that is `async`, then methods that are the same, then waits.
macro_rules! methods {
    (
        of $of:literal;
        block { $(fn $blocking:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)* }
        same { $(fn $same:ident(&self $(, $same_argument:ident: $same_type:ty)*) $(-> $same_result:ty)?;)* }
        wait { $(fn $wait:ident(&self $(, $wait_argument:ident: $wait_type:ty)*) -> $found:ty;)* }
    ) => {
        $(
            #[doc = concat!("See [`", $of, "::", stringify!($blocking), "`](crate::", $of, "::", stringify!($blocking), ").")]
            ///
            /// # Errors
            ///
            /// As there.
            pub fn $blocking(&self $(, $argument: $type)*) -> $result {
                self.runtime.block_on(self.inner.$blocking($($argument),*))
            }
        )*
        $(
            #[doc = concat!("See [`", $of, "::", stringify!($same), "`](crate::", $of, "::", stringify!($same), ").")]
            pub fn $same(&self $(, $same_argument: $same_type)*) $(-> $same_result)? {
                self.inner.$same($($same_argument),*)
            }
        )*
        $(
            #[doc = concat!("See [`", $of, "::", stringify!($wait), "`](crate::", $of, "::", stringify!($wait), ").")]
            pub fn $wait(&self $(, $wait_argument: $wait_type)*) -> crate::blocking::Wait<'_, $found> {
                crate::blocking::Wait::new(self.inner.$wait($($wait_argument),*), &self.runtime)
            }
        )*
    };
}
use methods;

/// Options, which are set as those of the same name.
macro_rules! options {
    (of $of:literal; $(fn $name:ident(self $(, $argument:ident: $type:ty)*);)*) => {
        $(
            #[doc = concat!("See [`", $of, "::", stringify!($name), "`](crate::", $of, "::", stringify!($name), ").")]
            pub fn $name(self $(, $argument: $type)*) -> Self {
                Self { inner: self.inner.$name($($argument),*), ..self }
            }
        )*
    };
}
use options;

/// Carries out something that is `async`.
fn run<T>(runtime: &Handle, work: impl Future<Output = T>) -> T {
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use syn::{ImplItem, Item, Type, Visibility};

    /// Public methods of a type that are not hidden, wherever they are written.
    fn methods_of(directory: &Path, of: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("blocking") {
                continue;
            }
            if path.is_dir() {
                methods_of(&path, of, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
                for item in &file.items {
                    let Item::Impl(block) = item else { continue };
                    let Type::Path(of_block) = &*block.self_ty else { continue };
                    if block.trait_.is_some() || of_block.path.segments.last().is_none_or(|last| last.ident != of) {
                        continue;
                    }
                    for item in &block.items {
                        let ImplItem::Fn(method) = item else { continue };
                        let hidden = method.attrs.iter().any(|attribute| {
                            attribute.path().is_ident("doc")
                                && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "hidden")
                        });
                        if matches!(method.vis, Visibility::Public(_)) && !hidden {
                            found.insert(method.sig.ident.to_string());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_forgotten() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for (of, file) in [
            ("Sandbox", "sandbox.rs"),
            ("SandboxBuilder", "builder.rs"),
            ("Command", "command.rs"),
            ("Child", "command.rs"),
            ("TerminalCommand", "terminal.rs"),
            ("Terminal", "terminal.rs"),
            ("Wait", "mod.rs"),
            ("FindChanges", "changes.rs"),
        ] {
            let mut methods = BTreeSet::new();
            methods_of(&sources, of, &mut methods);
            assert!(!methods.is_empty(), "no methods of {of} were found");
            let blocking = fs::read_to_string(sources.join("blocking").join(file)).unwrap();
            let missing: Vec<_> = methods
                .iter()
                .filter(|name| !["(", "<"].iter().any(|after| blocking.contains(&format!("fn {name}{after}"))))
                .collect();
            assert!(missing.is_empty(), "blocking::{of} lacks {missing:?}");
        }
    }
}
