//! The attributes of quicksand, a framework that gives each test a virtual machine of its own.
//!
//! Depend on the package `quicksand`, which exports them: what they generate refers to it.
//!
//! - [`macro@sandbox_test`] makes a test of an `async fn` that takes a machine.
//! - [`macro@sandbox_setup`] marks a function that prepares machines for tests in other files.

#![forbid(unsafe_code)]

mod args;
mod expand;
mod fingerprint;
mod report;
mod source;
mod tokens;
mod value;

use std::path::PathBuf;

use proc_macro::{Span, TokenStream};

/// Makes a test of an `async fn` that takes a machine.
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
/// | Key | Value | Meaning | Without it |
/// |-----|-------|---------|------------|
/// | `image` | `"debian"` | the image to start from | an error |
/// | `save` | `"base"` | start from the prepared machine of this name, made by the first test that needs it: up to 64 letters, digits, `.`, `_` and `-` | start from the image |
/// | `setup` | `path::to::function` | prepares the machine that is saved; needs `save` | the machine is saved as the image starts it |
/// | `memory` | `"512M"` | memory in B, K, M, G or T, whole MiB, at least 64 | the default of `Sandbox` |
/// | `cpus` | `2` | processors, 1 to 255 | the default of `Sandbox` |
/// | `network` | `"none"`, `"mounts-only"`, `"full"` | what the guest reaches | the default of `Sandbox` |
/// | `accel` | `"auto"`, `"kvm"`, `"hvf"`, `"whpx"`, `"tcg"` | what runs the guest's code | the default of `Sandbox` |
/// | `timeout` | `"30s"` | how long the test may take, in ms, s, m or h | the default of the harness |
///
/// # Setups
///
/// A setup is a function `async fn(sb: &Sandbox)` that returns `()` or a `Result<(), E>`. It runs once; every test with
/// that `save` starts from a copy of what it left.
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
/// Comments, formatting and the rest of the file don't count. Changes in other files are not seen; remove the save from
/// `.quicksand/sandboxes` after them.
///
/// A setup in another file needs [`macro@sandbox_setup`]. Without it the compiler finds no module of the setup's name
/// (``cannot find `base` in `common` ``) and points at the path after `setup =`. The same goes for a path that starts
/// with `crate` and for a setup that a macro makes.
#[proc_macro_attribute]
pub fn sandbox_test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::sandbox_test(arguments.into(), item.into(), source_file().as_deref()).into()
}

/// Marks a function that prepares machines for tests in other files.
///
/// ```ignore
/// // tests/common/mod.rs
/// #[sandbox_setup]
/// pub async fn base(sb: &Sandbox) -> Result<(), quicksand::Error> {
///     sb.write_file("/etc/motd", b"hello").await
/// }
///
/// // tests/motd.rs
/// mod common;
///
/// #[sandbox_test(image = "debian", save = "base", setup = common::base)]
/// async fn greets(sb: Sandbox) { /* … */ }
/// ```
///
/// The function stays as it is. Beside it comes a hidden module of the same name with the fingerprint that tells when
/// the save must be made again, so no other module may have that name. `use common::base` imports both.
///
/// In the file of its tests a setup needs no mark, and having one changes nothing. The attribute takes no arguments.
#[proc_macro_attribute]
pub fn sandbox_setup(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::sandbox_setup(arguments.into(), item.into(), source_file().as_deref()).into()
}

/// The file that the attribute stands in. Unknown to editors that expand macros by themselves.
fn source_file() -> Option<PathBuf> {
    Span::call_site().local_file()
}
