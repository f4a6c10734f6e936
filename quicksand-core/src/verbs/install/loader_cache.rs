//! The file `/etc/ld.so.cache` of glibc's loader, in its form since 2.32: where the system's libraries are.

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// The longest name or path.
const NAME: usize = 4096;

/// The paths that the cache has for a library, the preferred first. None where the cache is of another form.
pub(crate) fn paths(cache: &[u8], library: &str) -> Vec<String> {
    if !cache.starts_with(MAGIC) {
        return Vec::new();
    }
    let count = number(cache, MAGIC.len()).unwrap_or(0);
    let entries = cache.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY).take(count);
    let named = |entry: &[u8], at| text(cache, number(entry, at)?);
    let fitting = entries.filter(|entry| named(entry, 4) == Some(library.as_bytes()));
    fitting.filter_map(|entry| Some(String::from_utf8_lossy(named(entry, 8)?).into_owned())).take(16).collect()
}

/// It is written in the order of the guest's processor, which is that of the host's.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?)).ok()
}

fn text(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().take(NAME).position(|byte| *byte == 0)?;
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut cache = MAGIC.to_vec();
        cache.extend((entries.len() as u32).to_ne_bytes());
        cache.resize(HEADER, 0);
        let mut strings = Vec::new();
        let start = HEADER + entries.len() * ENTRY;
        for (name, path) in entries {
            let mut entry = [0u32; 6];
            for (field, text) in [(1, name), (2, path)] {
                entry[field] = (start + strings.len()) as u32;
                strings.extend(text.bytes().chain([0]));
            }
            cache.extend(entry.iter().flat_map(|number| number.to_ne_bytes()));
        }
        cache.extend(strings);
        cache
    }

    #[test]
    fn paths_are_found_and_rubbish_is_none() {
        let cache = cache(&[("libz.so.1", "/lib64/libz.so.1"), ("libc.so.6", "/a"), ("libc.so.6", "/b")]);
        assert_eq!(paths(&cache, "libc.so.6"), ["/a", "/b"]);
        assert_eq!(paths(&cache, "libc.so"), [""; 0]);
        for len in 0..cache.len() {
            assert!(paths(&cache[..len], "libc.so.6").len() <= 2);
        }
        let mut lying = cache.clone();
        lying[MAGIC.len()..MAGIC.len() + 4].fill(0xff);
        lying[HEADER + 4..HEADER + 8].fill(0xff);
        assert_eq!(paths(&lying, "libc.so.6").len(), 2);
    }
}
