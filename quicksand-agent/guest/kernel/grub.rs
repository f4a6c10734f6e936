//! GRUB's choice: the default entry of `grub.cfg` as `grub-mkconfig` writes it, with what `grubenv` says.
//!
//! The configuration is a program. This reads what distributions' programs say and carries none of it out.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{bls, choose::named, text};

/// Most entries, and levels of menus, that are read.
const MOST_ENTRIES: usize = 1000;
const MOST_LEVELS: usize = 8;
/// What an environment block begins with, and how long it may be in bytes.
const BLOCK: &str = "# GRUB Environment Block\n";
const LARGEST_BLOCK: usize = 64 << 10;

/// An entry of a menu.
#[derive(Debug, Default, Clone)]
pub(super) struct Entry {
    pub(super) title: String,
    pub(super) id: String,
    /// The kernel, as the entry names it.
    pub(super) kernel: Option<String>,
    /// Of a submenu.
    pub(super) entries: Vec<Entry>,
}

/// The kernel of the default entry.
pub(super) fn choose(root: &Path) -> Option<PathBuf> {
    let directory = ["boot/grub2", "boot/grub"].map(|place| root.join(place));
    let directory = directory.into_iter().find(|directory| directory.join("grub.cfg").is_file())?;
    let menu = Menu::parse(&text(&directory.join("grub.cfg")).ok()?);
    let environment_file = directory.join("grubenv");
    let environment = text(&environment_file).unwrap_or_default();
    let variable = |name: &str| {
        let lines = environment.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).next_back()
    };
    let next = variable("next_entry").filter(|value| !value.is_empty() && menu.knows_next);
    let wanted = match (&next, menu.default.as_str()) {
        (Some(next), _) => next.clone(),
        (None, "${saved_entry}" | "$saved_entry") => variable("saved_entry").unwrap_or_default(),
        (None, plain) => plain.to_owned(),
    };
    if next.is_some() {
        // It is for one boot, which this is.
        forget_next(&environment_file, &environment);
    }
    let mut entries = if menu.has_bls { bls::for_grub(root) } else { Vec::new() };
    entries.extend(menu.entries);
    let kernel = pick(&entries, &wanted).or_else(|| first_kernel(&entries))?;
    named(root, &directory, &kernel)
}

#[derive(Debug, Default)]
struct Menu {
    entries: Vec<Entry>,
    /// The entry that is booted, as it is named; a variable's name stands for itself.
    default: String,
    /// Whether it heeds the entry that is to be booted once.
    knows_next: bool,
    /// Whether it has entries in files of their own.
    has_bls: bool,
}

impl Menu {
    fn parse(text: &str) -> Menu {
        let mut menu = Menu::default();
        // What is open: entries and menus, and `None` for other blocks.
        let mut open: Vec<Option<Entry>> = Vec::new();
        let mut count = 0;
        for line in text.lines().map(str::trim) {
            let words = words(line);
            match words.first().map(String::as_str) {
                Some("menuentry" | "submenu") if line.ends_with('{') && count < MOST_ENTRIES => {
                    count += 1;
                    let is_id = |word: &String| word == "--id" || word.contains("menuentry_id_option");
                    let id = words.iter().position(is_id).and_then(|at| words.get(at + 1)).cloned().unwrap_or_default();
                    let title = words.get(1).cloned().unwrap_or_default();
                    open.push(Some(Entry { title, id, ..Entry::default() }));
                }
                Some("linux" | "linux16" | "linuxefi") => {
                    if let Some(Some(entry)) = open.iter_mut().rev().find(|block| block.is_some()) {
                        entry.kernel = words.get(1).cloned();
                    }
                }
                Some("set") => {
                    for value in words[1..].iter().filter_map(|word| word.strip_prefix("default=")) {
                        match value {
                            "${next_entry}" | "$next_entry" => menu.knows_next = true,
                            other => menu.default = other.to_owned(),
                        }
                    }
                }
                Some("blscfg") => menu.has_bls = true,
                Some("}") => {
                    if let Some(Some(closed)) = open.pop() {
                        match open.iter_mut().rev().flatten().next() {
                            Some(parent) => parent.entries.push(closed),
                            None => menu.entries.push(closed),
                        }
                    }
                }
                _ if line.ends_with('{') => open.push(None),
                _ => {}
            }
            open.truncate(MOST_LEVELS * 4);
        }
        menu
    }
}

/// A line's words, as a shell takes them apart.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(character);
            }
            (None, '#') if word.is_none() => break,
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// The kernel of the entry that is named by its number, title or id, below menus that are named before a `>` each.
fn pick(entries: &[Entry], wanted: &str) -> Option<String> {
    let (first, rest) = match wanted.split_once('>') {
        Some((first, rest)) => (first, Some(rest)),
        None => (wanted, None),
    };
    let by_name = || entries.iter().find(|entry| !first.is_empty() && (entry.title == first || entry.id == first));
    let entry = first.parse::<usize>().ok().and_then(|number| entries.get(number)).or_else(by_name)?;
    match rest {
        Some(rest) => pick(&entry.entries, rest).or_else(|| first_kernel(&entry.entries)),
        None => entry.kernel.clone().or_else(|| first_kernel(&entry.entries)),
    }
}

fn first_kernel(entries: &[Entry]) -> Option<String> {
    entries.iter().find_map(|entry| entry.kernel.clone().or_else(|| first_kernel(&entry.entries)))
}

/// Empties the entry that is booted once, as GRUB does: in place, and at the same length.
fn forget_next(path: &Path, environment: &str) {
    if !environment.starts_with(BLOCK) || environment.len() > LARGEST_BLOCK {
        return;
    }
    let lines = environment[BLOCK.len()..].lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(|line| if line.starts_with("next_entry=") { "next_entry=" } else { line });
    let mut block = lines.fold(BLOCK.to_owned(), |block, line| block + line + "\n");
    block.extend(std::iter::repeat_n('#', environment.len().saturating_sub(block.len())));
    // A file system that can't be written keeps it, with GRUB as well.
    let _ = fs::OpenOptions::new().write(true).open(path).and_then(|file| file.write_all_at(block.as_bytes(), 0));
}
