//! The book in `docs/`: every page is in its table of contents, and every page with Rust code is compiled.

use std::{collections::BTreeSet, fs, path::Path};

const SUMMARY: &str = "SUMMARY.md";

/// The pages of the book, by their file names, with their text.
fn pages() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut pages = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            pages.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    pages.sort();
    pages
}

/// The languages of a page's blocks of code, as the lines that open them say. A longer fence holds shorter ones.
fn languages(page: &str) -> BTreeSet<&str> {
    let mut open: Option<&str> = None;
    let mut languages = BTreeSet::new();
    for line in page.lines().map(str::trim) {
        let fence = &line[..line.len() - line.trim_start_matches('`').len()];
        match open {
            Some(opened) if fence.len() >= opened.len() && line == fence => open = None,
            None if fence.len() >= 3 => {
                open = Some(fence);
                languages.insert(line[fence.len()..].trim());
            }
            _ => {}
        }
    }
    assert_eq!(open, None, "a block of code has no end");
    languages
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let pages = pages();
    let (_, summary) = pages.iter().find(|(name, _)| name == SUMMARY).unwrap();
    for (name, _) in pages.iter().filter(|(name, _)| name != SUMMARY) {
        assert!(summary.contains(&format!("]({name})")), "docs/{SUMMARY} does not list {name}");
    }
}

#[test]
fn every_page_with_rust_code_is_compiled() {
    let compiled = include_str!("../src/book.rs");
    for (name, text) in pages() {
        let languages = languages(&text);
        let has_rust = languages.iter().any(|language| language.split(',').next() == Some("rust"));
        let is_listed = compiled.contains(&format!("include_str!(\"../docs/{name}\")"));
        assert_eq!(has_rust, is_listed, "src/book.rs must list docs/{name} exactly if that page has Rust code");
        // A block that is ignored, or that names no language and holds Rust, is never compiled.
        assert!(
            !languages.iter().any(|language| language.contains("ignore") && language.starts_with("rust")),
            "{name}"
        );
        assert!(!languages.contains(""), "docs/{name}: name the language of each block of code");
    }
}
