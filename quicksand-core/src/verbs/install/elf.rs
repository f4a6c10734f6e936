//! What an ELF program says that it needs, and what a library says that it has. The libraries are a guest's: what they claim is
//! bounded before it is followed.

use std::collections::{BTreeMap, BTreeSet};

use elf::{
    ElfBytes, abi,
    endian::AnyEndian,
    gnu_symver::{VerDefIterator, VerNeedIterator},
};

/// The longest name, and how many libraries, versions and so on are read.
const NAME: usize = 1024;
const COUNT: usize = 10_000;

/// What a program or library says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its architecture, by the number that ELF has for it.
    pub(crate) machine: u16,
    /// Whether its addresses have 64 bits.
    pub(crate) is_64: bool,
    /// The loader that it names, if it is to have one.
    pub(crate) loader: Option<String>,
    /// The shared libraries that it names.
    pub(crate) libraries: Vec<String>,
    /// Directories in which these are looked for first. `$ORIGIN` is the program's own.
    pub(crate) directories: Vec<String>,
    /// The versions that it needs of symbols, by library.
    pub(crate) needs: BTreeMap<String, BTreeSet<String>>,
    /// The versions that its own symbols have.
    pub(crate) has: BTreeSet<String>,
}

/// Whether a file claims to be of this kind.
pub(crate) fn is_elf(content: &[u8]) -> bool {
    content.starts_with(&abi::ELFMAGIC)
}

/// Reads all of it. Fails where it is damaged.
pub(crate) fn read(content: &[u8]) -> Result<Object, elf::ParseError> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(content)?;
    let mut object =
        Object { machine: file.ehdr.e_machine, is_64: file.ehdr.class == elf::file::Class::ELF64, ..Object::default() };
    for segment in file.segments().into_iter().flat_map(|segments| segments.iter()) {
        if segment.p_type == abi::PT_INTERP {
            object.loader = name(file.segment_data(&segment)?, 0);
        }
    }
    let Some(table) = file.dynamic()? else { return Ok(object) };
    let entries: Vec<(i64, u64)> = table
        .iter()
        .take(COUNT)
        .take_while(|entry| entry.d_tag != abi::DT_NULL)
        .map(|e| (e.d_tag, e.d_val()))
        .collect();
    let find = |tag| entries.iter().find(|(found, _)| *found == tag).map(|(_, value)| *value);
    // What is named by its address in memory is in a segment that is loaded there.
    let at = |address: u64| {
        let mut segments = file.segments()?.iter().filter(|segment| segment.p_type == abi::PT_LOAD);
        segments.find_map(|segment| {
            let inside = address.checked_sub(segment.p_vaddr).filter(|inside| *inside < segment.p_filesz)?;
            content.get(usize::try_from(segment.p_offset.checked_add(inside)?).ok()?..)
        })
    };
    let Some(strings) = find(abi::DT_STRTAB).and_then(at) else { return Ok(object) };
    let text = |offset: u64| name(strings, usize::try_from(offset).ok()?);
    for (tag, value) in &entries {
        match *tag {
            abi::DT_NEEDED => object.libraries.extend(text(*value)),
            abi::DT_RPATH | abi::DT_RUNPATH => {
                let list = text(*value).unwrap_or_default();
                object.directories.extend(list.split(':').filter(|directory| !directory.is_empty()).map(str::to_owned));
            }
            _ => {}
        }
    }
    let (endian, class) = (file.ehdr.endianness, file.ehdr.class);
    if let (Some(table), Some(count)) = (find(abi::DT_VERNEED).and_then(at), find(abi::DT_VERNEEDNUM)) {
        for (needed, versions) in VerNeedIterator::new(endian, class, count, 0, table).take(COUNT) {
            let Some(library) = text(needed.vn_file.into()) else { continue };
            let of_library = object.needs.entry(library).or_default();
            // The loader does without what is needed weakly.
            let firmly = versions.take(COUNT).filter(|version| version.vna_flags & abi::VER_FLG_WEAK == 0);
            of_library.extend(firmly.filter_map(|version| text(version.vna_name.into())));
        }
    }
    if let (Some(table), Some(count)) = (find(abi::DT_VERDEF).and_then(at), find(abi::DT_VERDEFNUM)) {
        for (defined, mut names) in VerDefIterator::new(endian, class, count, 0, table).take(COUNT) {
            // The first of these is the name of the library itself.
            if defined.vd_flags & abi::VER_FLG_BASE == 0 {
                object.has.extend(names.next().and_then(|name| text(name.vda_name.into())));
            }
        }
    }
    Ok(object)
}

/// The text that begins there, up to a zero.
fn name(strings: &[u8], at: usize) -> Option<String> {
    let rest = strings.get(at..)?;
    let end = rest.iter().take(NAME).position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn own() -> Vec<u8> {
        fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    /// The host's C library, as the loader found it for this very program.
    fn c_library() -> Vec<u8> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
        fs::read(path.into_iter().find(|path| path.contains("libc.so.6")).expect("this program has one")).unwrap()
    }

    #[test]
    fn a_program_tells_what_it_needs_and_a_library_what_it_has() {
        let program = read(&own()).unwrap();
        assert!(program.is_64 && program.loader.as_deref().is_some_and(|loader| loader.contains("/ld-linux")));
        assert!(program.libraries.iter().any(|library| library == "libc.so.6"), "{program:?}");
        let library = read(&c_library()).unwrap();
        assert_eq!(library.machine, program.machine);
        assert!(program.needs["libc.so.6"].is_subset(&library.has), "{:?} of {:?}", program.needs, library.has);
        assert!(!library.has.contains("libc.so.6") && library.has.contains("GLIBC_2.2.5"));
    }

    #[test]
    fn what_is_cut_off_is_damaged_or_says_less() {
        let library = c_library();
        let whole = read(&library).unwrap();
        for len in (0..library.len()).step_by(library.len() / 97) {
            if let Ok(object) = read(&library[..len]) {
                assert!(object.has.is_subset(&whole.has) && object.has != whole.has, "{len}");
            }
        }
    }

    proptest! {
        /// Whatever a guest's file says, it is read, or refused, in no time.
        #[test]
        fn no_library_is_too_hostile(changes in prop::collection::vec((0usize..0x3_0000, any::<u8>()), 1..60)) {
            thread_local!(static LIBRARY: Vec<u8> = c_library());
            let mut library = LIBRARY.with(Clone::clone);
            for (at, byte) in changes {
                // Most of them where the tables are that lead on.
                let at = if at % 3 == 0 { at % 0x400 } else { at };
                library[at] = byte;
            }
            let _ = read(&library);
        }
    }
}
