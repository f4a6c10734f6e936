//! The attributes of quicksand, a framework that gives each test a virtual machine of its own.
//!
//! Depend on the package `quicksand`, which exports them: what they generate refers to it.
//!
//! - [`macro@sandbox_test`] makes a test of an `async fn` that takes a machine, or of a plain `fn`.
//! - [`macro@sandbox_setup`] makes a function prepare machines, once for many tests.

#![forbid(unsafe_code)]

mod args;
mod expand;
mod fingerprint;
mod report;
mod source;
mod tokens;
mod value;

use std::path::PathBuf;

use expand::Runner;
use proc_macro::{Span, TokenStream};

/// Makes a test of an `async fn` that takes a machine; a plain `fn` takes a `blocking::Sandbox`.
///
/// ```ignore
/// use quicksand::{Sandbox, sandbox_test};
///
/// #[sandbox_test(image = "debian", memory = "1G")]
/// async fn has_a_shell(sb: Sandbox) -> Result<(), quicksand::Error> {
///     assert_eq!(sb.execute("echo hello").await?.stdout, "hello\n");
///     Ok(())
/// }
/// ```
///
/// The result is an ordinary `#[test]`: it runs under `cargo test` and cargo-nextest, and may return whatever a test
/// may. Other attributes, such as `#[ignore]`, `#[should_panic]` and `#[cfg(…)]`, keep their meaning.
/// `#[test_log::test]` may stand below it; other attributes that make tests may not.
///
/// # Keys
///
/// Each comes at most once, in any order. All values are checked while the test is compiled.
///
/// | Key | Meaning | Without it |
/// |-----|---------|------------|
/// | `image = "debian"` | the image to start from | that of the `save` |
/// | `images = ["debian", ignore("ubuntu", "reason")]` | the images, for each of which there is a test | |
/// | `save = "base"` | start from the prepared machine of this name, which the [setup](macro@sandbox_setup) of this name makes, or else as `image` starts: up to 64 letters, digits, `.`, `_` and `-` | start from the image |
/// | `setup = path::to::function` | a setup of the test's own; needs `save` | |
/// | `setup("command", "command")` | the same as lines of shell, literals or constants | |
/// | `from = "base"` | the save that the test's own setup builds on, in place of an image | |
/// | `inputs("install.sh", "dist")` | files and directories of the package that the test's own setup depends on | |
/// | `max_age = "7d"` | how old the save of the test's own setup may become, in s, m, h, d or w | for ever |
/// | `memory = "512M"` | memory in B, K, M, G or T, whole MiB, at least 64 | the default of `Sandbox` |
/// | `cpus = 2` | processors, 1 to 255 | the default of `Sandbox` |
/// | `network = "none"`, `"mounts-only"`, `"full"` | what the guest reaches | the default of `Sandbox` |
/// | `accel = "auto"`, `"kvm"`, `"hvf"`, `"whpx"`, `"tcg"` | what runs the guest's code | the default of `Sandbox` |
/// | `kernel = "guest"`, `"image"` | which kernel is booted at a reboot: the one that the guest's disk asks for, as where it was installed, or the image's | `"guest"` |
/// | `timeout = "30s"` | how long the test may take, in ms, s, m or h | the default of the harness |
/// | `requires(kvm, network, memory = "4G", cpus = 4, command = "passt")` | what the host must have, any of these | nothing |
/// | `disk_size = "10G"` | the disk and its root file system, in B, K, M, G or T, whole MiB, at most 16T, and at least what it starts from | that of what it starts from |
/// | `display = true`, `false` | whether the machine has a display, for screenshots and keys | as the save has it, or none |
/// | `retries = 2` | how often it is tried again where it fails, 1 to 255, by the runner of `quicksand::main!` alone | 0 |
/// | `flavor = "current_thread"`, `"multi_thread"` | tokio's runtime | two threads beside the test's own |
/// | `worker_threads = 2` | threads of the flavor `"multi_thread"` | one for each processor |
///
/// # Several images
///
/// Each image's test is called after it: `name::debian`, and `name::debian_12` of `debian:12`. Of a path only the last part
/// counts. Two images that would give the same name are an error. A save that the test itself makes is one for each image.
///
/// # rstest
///
/// `#[rstest]` stands below the attribute, which hands itself on to each test that rstest makes; above it, rstest misses an
/// attribute that makes tests. The machine is the argument of the type `Sandbox`; cases, values and fixtures,
/// async ones as well, give the others. Cases and images multiply: `name::case_1::debian`.
///
/// ```ignore
/// #[sandbox_test(image = "debian", save = "base")]
/// #[rstest]
/// #[case("root", "/root\n")]
/// #[case("nobody", "/nonexistent\n")]
/// async fn has_a_home(#[case] user: &str, #[case] home: &str, sb: Sandbox) { /* … */ }
/// ```
///
/// # Skips
///
/// A test that requires what the host lacks passes, with a line `SKIP name: reason` on standard error, or fails where
/// `QUICKSAND_REQUIRE` is 1, as it is by default where `CI` is set. It may return whatever `main` may.
///
/// # A setup of the test's own
///
/// It is an `async fn(sb: &Sandbox)`, or a `fn(sb: &blocking::Sandbox)`, that returns `()` or a `Result<(), E>`. It runs once; every test with that `save` starts
/// from a copy of what it left.
///
/// ```ignore
/// async fn with_nginx(sb: &Sandbox) -> Result<(), quicksand::Error> {
///     sb.execute("apt-get install -y nginx").await?;
///     Ok(())
/// }
///
/// #[sandbox_test(image = "debian", save = "nginx", setup = with_nginx, network = "full")]
/// async fn serves(sb: Sandbox) { /* … */ }
/// ```
///
/// The save is made again when the setup changes: its code or that of any function, constant, type or macro **of the
/// same file** that it mentions, directly or not, or a file that these include by `include_str!` or `include_bytes!`.
/// Comments, formatting and the rest of the file don't count. Of other files those count that `inputs(..)` names.
///
/// A setup in another file needs [`macro@sandbox_setup`]. Without it the compiler finds no module of the setup's name
/// (``cannot find `base` in `common` ``) and points at the path after `setup =`. The same goes for a path that starts
/// with `crate` and for a setup that a macro makes.
#[proc_macro_attribute]
pub fn sandbox_test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let runner = if cfg!(feature = "runner") { Runner::Either } else { Runner::Libtest };
    expand::sandbox_test(arguments.into(), item.into(), source_file().as_deref(), runner).into()
}

/// Makes a setup of a function: what prepares machines once, for many tests.
///
/// ```ignore
/// // tests/common/mod.rs
/// #[sandbox_setup(image = "debian", save = "base", network = "full")]
/// async fn base(sb: &Sandbox) -> Result<(), quicksand::Error> {
///     sb.execute("apt-get update").await?;
///     Ok(())
/// }
///
/// // Lines of shell need no body.
/// #[sandbox_setup(from = "base", save = "with-git", network = "full", setup("apt-get install -y git"))]
/// fn with_git();
///
/// // tests/git.rs
/// mod common;
///
/// #[sandbox_test(save = "with-git")]
/// async fn clones(sb: Sandbox) { /* … */ }
/// ```
///
/// Tests, and setups that build on it, find it by the name of its save, wherever in the test program it is. The name is that
/// of one setup in a program.
///
/// It may be a plain `fn base(sb: &blocking::Sandbox)` as well.
///
/// # Keys
///
/// | Key | Meaning | Without it |
/// |-----|---------|------------|
/// | `image = "debian"` | the image to start from | an error, unless it is one of the next two |
/// | `images = ["debian", "ubuntu"]` | the images, of each of which there is a save: tests choose by `image` or `images` | |
/// | `from = "base"` | the save of another setup to build on | |
/// | `save = "with-git"` | the name of the save | an error |
/// | `setup("command", "command")` | lines of shell, literals or constants, each of which must succeed | the function's body |
/// | `inputs("install.sh", "dist")` | files and directories of the package that it depends on; commands start where these are | nothing |
/// | `max_age = "7d"` | how old the save may become, in s, m, h, d or w | for ever |
/// | `memory`, `cpus`, `network`, `accel`, `kernel`, `disk_size`, `display` | as those of a test; what is saved has that memory, those processors, that disk and display | the default of `Sandbox` |
/// | `timeout = "30m"` | how long it may take, in ms, s, m or h | 15 minutes |
///
/// The save is made again, and with it all that build on it, when its image or the save below, the values of these keys, a
/// file of `inputs(..)` or the setup's code changes, as with [`macro@sandbox_test`].
///
/// # Without arguments
///
/// `#[sandbox_setup]` alone marks a function that tests in other files name: `setup = common::base`. The function stays as it
/// is. Beside it comes a hidden module of the same name with the fingerprint that tells when the save must be made again, so no
/// other module may have that name. `use common::base` imports both. In the file of its tests a setup needs no mark.
#[proc_macro_attribute]
pub fn sandbox_setup(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::sandbox_setup(arguments.into(), item.into(), source_file().as_deref()).into()
}

/// The file that the attribute stands in. Unknown to editors that expand macros by themselves.
fn source_file() -> Option<PathBuf> {
    Span::call_site().local_file()
}
