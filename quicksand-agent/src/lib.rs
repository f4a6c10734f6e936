//! The bytes of the program that quicksand runs in its guests.
//!
//! The program stands in `guest/` of this package. It is static, so that it runs before the guest's root file system is there
//! and beside any C library; the [build script](https://doc.rust-lang.org/cargo/reference/build-scripts.html) compiles it
//! for the host's architecture and this library embeds it.
#![forbid(unsafe_code)]

/// The agent: a static ELF executable, `/init` of quicksand's initramfs.
#[cfg(not(feature = "guest"))]
pub const BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quicksand-agent"));

/// Tells this agent from every other build of it. Made when it was built, since hashing it at every start would take longer
/// than the start.
#[cfg(not(feature = "guest"))]
pub const ID: &str = include_str!(concat!(env!("OUT_DIR"), "/quicksand-agent.id"));

#[cfg(all(test, not(feature = "guest")))]
mod tests {
    use super::BYTES;

    /// `PT_INTERP` would name a dynamic loader, which the initramfs does not hold.
    #[test]
    fn is_a_static_executable() {
        const PT_INTERP: u32 = 3;
        assert_eq!(&BYTES[..5], b"\x7fELF\x02", "a 64-bit ELF file");
        let word = |at: usize, len: usize| {
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(&BYTES[at..at + len]);
            u64::from_le_bytes(bytes) as usize
        };
        let (table, size, count) = (word(32, 8), word(54, 2), word(56, 2));
        assert!(count > 0);
        for header in (0..count).map(|n| table + n * size) {
            assert_ne!(word(header, 4) as u32, PT_INTERP);
        }
    }
}
