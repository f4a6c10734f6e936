//! Capabilities, access control lists, extended attributes and flags, in words.

use quicksand_protocol::index::Attributes;

/// Something that a file has beside its content, owner and mode.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attribute {
    /// `capabilities`, `ACL`, `default ACL`, `flags`, or the name of an extended attribute.
    pub name: String,
    /// As `getcap`, `getfacl` with numbers and `lsattr` have it in short: `cap_net_raw=ep`, `user::rw-,user:65534:r--,…`, `immutable`. Of an
    /// extended attribute its text, or how long it is.
    pub value: String,
}

/// Capabilities by their numbers, without `cap_`.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];
/// Longest text of an extended attribute that is shown.
const LONGEST: usize = 64;

/// All that there is to tell.
pub(crate) fn told(attributes: &Attributes) -> Vec<Attribute> {
    let mut told = Vec::new();
    for (name, value) in &attributes.extended {
        let (name, words) = match &**name {
            b"security.capability" => ("capabilities".to_owned(), capabilities(value)),
            b"system.posix_acl_access" => ("ACL".to_owned(), list(value)),
            b"system.posix_acl_default" => ("default ACL".to_owned(), list(value)),
            other => (String::from_utf8_lossy(other).into_owned(), None),
        };
        told.push(Attribute { name, value: words.unwrap_or_else(|| text(value)) });
    }
    let names = [
        (Attributes::IMMUTABLE, "immutable"),
        (Attributes::APPEND_ONLY, "append-only"),
        (Attributes::NO_DUMP, "no-dump"),
    ];
    let flags: Vec<_> = names.iter().filter(|(flag, _)| attributes.flags & flag != 0).map(|(_, name)| *name).collect();
    if !flags.is_empty() {
        told.push(Attribute { name: "flags".into(), value: flags.join(",") });
    }
    told
}

fn text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= LONGEST && !text.contains(char::is_control) => format!("{text:?}"),
        _ => format!("{} B", value.len()),
    }
}

/// Little-endian words.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// A header, and pairs of permitted and inheritable ones, 32 at a time.
fn capabilities(value: &[u8]) -> Option<String> {
    let words: Vec<u32> = words(value).collect();
    let (head, sets) = words.split_first()?;
    let set = |at: usize| u64::from(*sets.get(at).unwrap_or(&0)) | u64::from(*sets.get(at + 2).unwrap_or(&0)) << 32;
    let (permitted, inheritable) = (set(0), set(1));
    let part = |which: u64, flags: &str| {
        let name = |number: u32| match CAPABILITIES.get(number as usize) {
            Some(name) => format!("cap_{name}"),
            None => number.to_string(),
        };
        let names: Vec<_> = (0..64).filter(|number| which >> number & 1 == 1).map(name).collect();
        (!names.is_empty()).then(|| format!("{}={flags}", names.join(",")))
    };
    // The lowest bit says that what is permitted is effective at once.
    let e = if head & 1 == 1 { "e" } else { "" };
    let parts = [
        part(permitted & inheritable, &format!("{e}ip")),
        part(permitted & !inheritable, &format!("{e}p")),
        part(inheritable & !permitted, "i"),
    ];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

/// A version, and entries of a tag, permissions and an id.
fn list(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != 2 || !entries.len().is_multiple_of(8) {
        return None;
    }
    let entry = |entry: &[u8]| {
        let [tag_low, tag_high, bits, _, a, b, c, d] = *entry else { return None };
        let id = u32::from_le_bytes([a, b, c, d]);
        let who = match u16::from_le_bytes([tag_low, tag_high]) {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let bit = |bit: u8, letter| if bits & bit != 0 { letter } else { '-' };
        Some(format!("{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')))
    };
    Some(entries.chunks(8).map(entry).collect::<Option<Vec<_>>>()?.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &[u8], value: &[u8]) -> String {
        let told = told(&Attributes { flags: 0, extended: vec![(name.to_vec(), value.to_vec())] });
        format!("{} {}", told[0].name, told[0].value)
    }

    #[test]
    fn attributes_are_told_in_words() {
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let capability = |words: &[u32]| of(b"security.capability", &bytes(words));
        assert_eq!(capability(&[0x0200_0001, 1 << 10, 0, 0, 0]), "capabilities cap_net_bind_service=ep");
        assert_eq!(
            capability(&[0x0200_0000, 0b11, 0b10, 1 << 8, 0]),
            "capabilities cap_dac_override=ip cap_chown,cap_checkpoint_restore=p"
        );
        assert_eq!(capability(&[]), "capabilities \"\"");
        let acl = bytes(&[
            2,
            0x0006_0001,
            u32::MAX,
            0x0004_0002,
            65_534,
            0x0004_0004,
            u32::MAX,
            0x0004_0010,
            u32::MAX,
            0x20,
            u32::MAX,
        ]);
        let wanted = "ACL user::rw-,user:65534:r--,group::r--,mask::r--,other::---";
        assert_eq!(of(b"system.posix_acl_access", &acl), wanted);
        assert_eq!(of(b"system.posix_acl_default", &acl[..7]), "default ACL 7 B");
        assert_eq!(of(b"user.x", b"1"), "user.x \"1\"");
        assert_eq!(of(b"user.x", b"\x1b[2J"), "user.x 4 B");
        let flags = told(&Attributes { flags: Attributes::IMMUTABLE | Attributes::NO_DUMP, extended: vec![] });
        assert_eq!(flags[0].value, "immutable,no-dump");
    }
}
