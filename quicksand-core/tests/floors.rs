//! Holds the layout of the sources: the folders of `src` are floors, and each uses only those below it. See docs/architecture.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The floors, bottom first. A new top-level folder of `src` has its place here, and in the documentation of `lib.rs`.
const FLOORS: [&str; 16] = [
    "base", "qemu", "guest", "image", "error", "host", "network", "vm", "launch", "making", "sandbox", "verbs",
    "saves", "care", "blocking", "harness",
];
/// How many files of one floor may import each other in a circle.
const LARGEST_CIRCLE: usize = 10;

/// A path in a source that starts at the crate.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    line: usize,
    path: Vec<String>,
}

fn floor_of(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| *floor == name)
}

/// The module of a source, by its path below `src`.
fn module_of(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        path.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if matches!(names.last().map(String::as_str), Some("mod" | "lib")) {
        names.pop();
    }
    names
}

/// All paths of a source that begin with `crate` or `super`, in imports and in code, as they read from the crate.
fn uses(tokens: TokenStream, module: &[String]) -> Vec<Use> {
    let mut found = Vec::new();
    walk(tokens, module, &mut found);
    found
}

fn walk(tokens: TokenStream, module: &[String], found: &mut Vec<Use>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) if word == "mod" => {
                if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                {
                    let inner: Vec<String> = module.iter().cloned().chain([name.to_string()]).collect();
                    walk(body.stream(), &inner, found);
                    at += 2;
                }
            }
            TokenTree::Ident(word) if (word == "crate" || word == "super") && is_colons(&tokens, at + 1) => {
                at = tree(&tokens, at, &[], module, found);
                continue;
            }
            TokenTree::Group(group) => walk(group.stream(), module, found),
            _ => {}
        }
        at += 1;
    }
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    colon(tokens.get(at)) && colon(tokens.get(at + 1))
}

/// Takes the path, or tree of paths, that stands at `at`, and returns where it ends.
fn tree(tokens: &[TokenTree], mut at: usize, head: &[String], module: &[String], found: &mut Vec<Use>) -> usize {
    let (mut path, mut line) = (head.to_vec(), 0);
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) => {
                line = word.span().start().line;
                path.push(word.to_string());
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let mut next = 0;
                while next < inner.len() {
                    next = tree(&inner, next, &path, module, found).max(next + 1);
                    while matches!(inner.get(next), Some(TokenTree::Punct(mark)) if mark.as_char() != '*')
                        || matches!(inner.get(next), Some(TokenTree::Ident(word)) if word == "as")
                    {
                        next += if matches!(&inner[next], TokenTree::Ident(_)) { 2 } else { 1 };
                    }
                }
                return at + 1;
            }
            _ => {}
        }
        at += 1;
        if !is_colons(tokens, at) {
            break;
        }
        at += 2;
    }
    if let Some(path) = absolute(&path, module) {
        found.push(Use { line, path });
    }
    at
}

/// A path as it reads from the crate.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "super" => {
            let ups = path.iter().take_while(|word| *word == "super").count();
            let stem = &module[..module.len().checked_sub(ups)?];
            Some(stem.iter().chain(&path[ups..]).cloned().collect())
        }
        _ => None,
    }
}

/// What is wrong with the paths of a source.
fn faults(file: &Path, source: &str) -> Vec<String> {
    let module = module_of(file);
    let Some(own) = module.first().and_then(|name| floor_of(name)) else { return Vec::new() };
    let tokens: TokenStream = source.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let told = |used: Use| {
        let (name, place) = (used.path.first()?, format!("{}:{}", file.display(), used.line));
        match floor_of(name) {
            Some(floor) if floor <= own => None,
            Some(_) => Some(format!(
                "{place}: the floor {} uses crate::{} of the floor {name}, which is above it",
                FLOORS[own],
                used.path.join("::")
            )),
            None => Some(format!("{place}: crate::{} does not say which floor it is of", used.path.join("::"))),
        }
    };
    uses(tokens, &module).into_iter().filter_map(told).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    fn collect(directory: &Path, root: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, root, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push((path.strip_prefix(root).unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    found.sort();
    found
}

#[test]
fn no_path_points_up() {
    let faults: Vec<String> = sources().iter().flat_map(|(file, source)| faults(file, source)).collect();
    assert!(faults.is_empty(), "see docs/architecture.md for where a thing belongs:\n{}", faults.join("\n"));
}

#[test]
fn every_folder_is_a_floor() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let there: BTreeSet<String> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    let wanted = FLOORS.iter().map(|floor| (*floor).to_owned()).chain(["lib.rs".to_owned()]).collect();
    assert_eq!(there, wanted, "src holds what is no floor, or lacks one: give it its place in FLOORS and in lib.rs");
    let documentation = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let told: Vec<usize> = FLOORS.iter().filter_map(|floor| documentation.find(&format!(". [`{floor}`]: "))).collect();
    assert_eq!(told.len(), FLOORS.len(), "lib.rs tells each floor in a sentence");
    assert!(told.is_sorted(), "lib.rs tells the floors from the bottom up");
}

#[test]
fn circles_are_small() {
    let sources = sources();
    let modules: BTreeSet<Vec<String>> = sources.iter().map(|(file, _)| module_of(file)).collect();
    let home = |path: &[String]| (1..=path.len()).rev().map(|len| path[..len].to_vec()).find(|it| modules.contains(it));
    let mut graph: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (file, source) in &sources {
        let module = module_of(file);
        if module.is_empty() {
            continue;
        }
        let of_tests = source.find("\n#[cfg(test)]\nmod ").unwrap_or(source.len());
        let last_line = source[..of_tests].lines().count();
        let used = uses(source.parse().unwrap(), &module).into_iter().filter(|used| used.line <= last_line);
        graph.entry(module).or_default().extend(used.filter_map(|used| home(&used.path)));
    }
    let reached = |from: &Vec<String>| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = next.pop() {
            for to in graph.get(&at).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<_, _> = graph.keys().map(|module| (module.clone(), reached(module))).collect();
    for (module, seen) in &reach {
        let circle: Vec<_> =
            seen.iter().filter(|other| reach.get(*other).is_some_and(|back| back.contains(module))).collect();
        assert!(circle.len() <= LARGEST_CIRCLE, "{} files import each other in a circle: {circle:?}", circle.len());
    }
}

#[test]
fn a_path_that_points_up_is_told_with_its_place() {
    let file = Path::new("vm/boot.rs");
    let told = |source: &str| faults(file, source);
    assert_eq!(
        told("use crate::{\n    base::size::Size,\n    verbs::{command::Command, files},\n};\n"),
        [
            "vm/boot.rs:3: the floor vm uses crate::verbs::command::Command of the floor verbs, which is above it",
            "vm/boot.rs:3: the floor vm uses crate::verbs::files of the floor verbs, which is above it",
        ]
    );
    assert_eq!(told("fn f() -> crate::saves::Save { x!(super::super::launch::y) }").len(), 2);
    assert_eq!(told("use super::{Vm, start};\nmod tests { use super::*; use super::super::end; }"), [""; 0]);
    assert_eq!(told("fn f() -> crate::Error {}"), ["vm/boot.rs:1: crate::Error does not say which floor it is of"]);
    assert!(told("/// See [`Sandbox`](crate::Sandbox).\nfn f() {}").is_empty());
}
