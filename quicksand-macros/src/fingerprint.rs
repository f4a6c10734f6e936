//! What a saved machine's setup looked like, as a hash: when it changes, the save is made again.
//!
//! The hash covers the setup function, everything of its source file that it mentions, directly or through other items,
//! and the files that these include. It does not follow calls into other files.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
};

use syn::ItemFn;

use crate::{
    source::{Role, Source, function_code},
    tokens::{Code, Hasher},
};

/// A setup's fingerprint, or who knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fingerprint {
    Known(String),
    /// The function is in another file, where `#[sandbox_setup]` makes a constant.
    Elsewhere,
}

impl Fingerprint {
    /// That of the setup at `path`, which an attribute on `test` in `file` names.
    pub(crate) fn of_path(path: &syn::Path, test: &ItemFn, file: Option<&Path>) -> Fingerprint {
        // Only editors that expand macros by themselves know no file. They run no tests, so any text will do.
        let Some(file) = file else { return Fingerprint::Known("unknown".to_owned()) };
        let Some(source) = Source::read(file) else { return Fingerprint::Elsewhere };
        match source.resolve(path, test) {
            setups if setups.is_empty() => Fingerprint::Elsewhere,
            setups => Fingerprint::Known(of_entries(&source, setups)),
        }
    }
}

/// The fingerprint of a setup that stands in `file`. The same as [`Fingerprint::of_path`] tells in that file.
pub(crate) fn of_function(setup: &ItemFn, file: Option<&Path>) -> String {
    if let Some(source) = file.and_then(Source::read) {
        let setups = source.find(setup);
        if !setups.is_empty() {
            return of_entries(&source, setups);
        }
    }
    // A macro made the function, so that there is nothing to look for in the file.
    text(function_code(setup).hash)
}

/// The fingerprint of some of a file's functions and all that they depend on there.
fn of_entries(source: &Source, setups: Vec<usize>) -> String {
    let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, entry) in source.entries.iter().enumerate().filter(|(_, entry)| entry.role != Role::Test) {
        entry.names.iter().for_each(|name| by_name.entry(name).or_default().push(at));
    }
    let mut reached: BTreeSet<usize> = setups.iter().copied().collect();
    let mut next = setups.clone();
    while let Some(at) = next.pop() {
        let mentioned = source.entries[at].code.mentions.iter().filter_map(|name| by_name.get(name.as_str()));
        next.extend(mentioned.flatten().filter(|at| reached.insert(**at)));
    }
    // Sets of hashes, so that items may move about in the file.
    let hash = |at: usize| hash_with_includes(&source.entries[at].code, &source.directory);
    let starts: BTreeSet<u64> = setups.into_iter().map(hash).collect();
    let all: BTreeSet<u64> = reached.into_iter().map(hash).collect();
    let mut hasher = Hasher::new();
    for set in [starts, all] {
        hasher.add(&set.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>());
    }
    text(hasher.finish())
}

fn hash_with_includes(code: &Code, directory: &Path) -> u64 {
    let mut hasher = Hasher::new();
    hasher.add(&code.hash.to_le_bytes());
    // One that can't be read is for the compiler to complain of.
    for content in code.includes.iter().filter_map(|file| fs::read(directory.join(file)).ok()) {
        hasher.add(&content);
    }
    hasher.finish()
}

fn text(hash: u64) -> String {
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r##"
        use quicksand::Sandbox;
        use crate::limits::SMALL as LIMIT;

        /// Prepares.
        pub async fn base(sb: &Sandbox) -> Result<(), Error> {
            // Twice, since once is not enough.
            helper(sb).await?;
            sb.execute(&format!("echo {GREETING}")).await?;
            sb.write_file("/x", include_bytes!("x.bin")).await?;
            Ok(())
        }

        async fn helper(sb: &Sandbox) -> Result<(), Error> {
            if LIMIT > 1 { again(sb).await?; }
            step!(sb);
            sb.polish().await;
            Ok(())
        }

        async fn again(sb: &Sandbox) -> Result<(), Error> { Box::pin(helper(sb)).await }

        macro_rules! step { ($sb:expr) => { Step::new(VERSION).run($sb) } }

        const GREETING: &str = "hello";
        static VERSION: u32 = 1;
        struct Step(u32);
        impl Step { fn new(version: u32) -> Step { Step(version) } }
        impl<T> Polish for T { async fn polish(&self) { 7; } }

        const UNRELATED: u32 = 5;
        fn unrelated() { base; }

        #[sandbox_test(image = "debian", save = "base", setup = base)]
        async fn execute(sb: Sandbox) { 8; }
    "##;

    /// The fingerprint of `base` in a file, which is the same by its path and by itself.
    fn fingerprint(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        fingerprint_in(directory.path(), text)
    }

    fn fingerprint_in(directory: &Path, text: &str) -> String {
        let file = directory.join("test.rs");
        fs::write(&file, text).unwrap();
        let function = |name: &str| {
            let items = syn::parse_file(text).unwrap().items;
            let named = |item| match item {
                syn::Item::Fn(function) if function.sig.ident == name => Some(function),
                _ => None,
            };
            items.into_iter().find_map(named).unwrap()
        };
        let by_path = Fingerprint::of_path(&syn::parse_quote!(base), &function("execute"), Some(&file));
        let by_itself = of_function(&function("base"), Some(&file));
        assert_eq!(by_path, Fingerprint::Known(by_itself.clone()));
        by_itself
    }

    fn changed(from: &str, to: &str) -> bool {
        assert_eq!(FILE.matches(from).count(), 1, "{from}");
        fingerprint(FILE) != fingerprint(&FILE.replace(from, to))
    }

    #[test]
    fn it_is_kept_between_versions() {
        // Where this changes, every save of every user is made again.
        assert_eq!(fingerprint(FILE), "98dfd2d313e5a80d");
    }

    #[test]
    fn the_look_of_the_code_is_nothing() {
        for (from, to) in [
            ("// Twice, since once is not enough.", ""),
            ("/// Prepares.", "/// Makes ready."),
            (
                "helper(sb).await?;
",
                "helper( sb, ) . await ? ;",
            ),
            ("pub async fn base", "#[sandbox_setup] pub(crate) async fn base"),
        ] {
            assert!(!changed(from, to), "{from}");
        }
        let (first, second) = FILE.split_once("const GREETING").unwrap();
        let moved = format!("const GREETING{second}{first}");
        assert_eq!(fingerprint(&moved), fingerprint(FILE));
    }

    #[test]
    fn everything_that_runs_is_in_it() {
        for (from, to) in [
            ("\"/x\"", "\"/y\""),
            ("sb.polish().await;", "sb.polish().await; sb.polish().await;"),
            ("Box::pin(helper(sb))", "Pin::new(helper(sb))"),
            ("\"hello\"", "\"good morning\""),
            ("VERSION: u32 = 1", "VERSION: u32 = 2"),
            ("Step::new(VERSION)", "Step::new(VERSION + 1)"),
            ("Step(version)", "Step(version + 1)"),
            ("7;", "6;"),
            ("limits::SMALL", "limits::LARGE"),
        ] {
            assert!(changed(from, to), "{from}");
        }
    }

    #[test]
    fn the_rest_of_the_file_is_not() {
        for (from, to) in [
            ("UNRELATED: u32 = 5", "UNRELATED: u32 = 6"),
            ("fn unrelated() { base; }", ""),
            // A test that is called as a method of the machine is still no helper.
            ("8;", "9;"),
        ] {
            assert!(!changed(from, to), "{from}");
        }
    }

    #[test]
    fn included_files_are_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut seen = BTreeSet::from([fingerprint_in(directory.path(), FILE)]);
        for content in ["one", "two"] {
            fs::write(directory.path().join("x.bin"), content).unwrap();
            assert!(seen.insert(fingerprint_in(directory.path(), FILE)), "{content}");
        }
    }

    #[test]
    fn a_setup_of_another_file_is_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("test.rs");
        let test = syn::parse_quote!(
            async fn test(sb: Sandbox) {}
        );
        let of = |file| Fingerprint::of_path(&syn::parse_quote!(common::base), &test, file);
        assert_eq!(of(Some(file.as_path())), Fingerprint::Elsewhere, "no such file");
        fs::write(&file, "mod common;").unwrap();
        assert_eq!(of(Some(file.as_path())), Fingerprint::Elsewhere);
        assert_eq!(of(None), Fingerprint::Known("unknown".to_owned()));
    }

    #[test]
    fn a_function_that_no_file_has_stands_for_itself() {
        let one = of_function(
            &syn::parse_quote!(
                async fn base(sb: &Sandbox) {
                    1;
                }
            ),
            None,
        );
        let two = of_function(
            &syn::parse_quote!(
                async fn base(sb: &Sandbox) {
                    2;
                }
            ),
            None,
        );
        assert_ne!(one, two);
        let again = syn::parse_quote!(
            #[doc = "x"]
            pub async fn base(sb: &Sandbox) {
                1;
            }
        );
        assert_eq!(of_function(&again, None), one);
    }
}
