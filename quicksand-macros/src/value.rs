//! Amounts of memory and time as people write them, checked while the test is compiled.

const MIB: u64 = 1 << 20;

/// The least memory that the images start in.
const LEAST_MEMORY: u64 = 64 * MIB;

/// The largest disk that a machine may have.
const MOST_DISK: u64 = MIB << 24;

/// Bytes of an amount of memory: `"512M"`, `"2GiB"`, `"1.5 GiB"`. The units are those of `quicksand_core::Size`.
///
/// # Errors
///
/// What is wrong with it, to follow the text in a sentence.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes < LEAST_MEMORY {
        return Err(format!("is too little memory: at least {}M are needed", LEAST_MEMORY / MIB));
    }
    if bytes % MIB != 0 {
        return Err("is not a whole number of MiB".to_owned());
    }
    Ok(bytes)
}

/// Bytes of a disk, in whole MiB.
///
/// # Errors
///
/// What is wrong with it, to follow the text in a sentence.
pub(crate) fn disk_size(text: &str) -> Result<u64, String> {
    let bytes = bytes(text).filter(|bytes| *bytes > 0);
    let bytes = bytes.ok_or("is no size of a disk: write a number and one of B, K, M, G, T")?;
    if bytes > MOST_DISK {
        return Err(format!("is too large a disk: at most {}T are possible", MOST_DISK / (MIB << 20)));
    }
    if bytes % MIB != 0 {
        return Err("is not a whole number of MiB".to_owned());
    }
    Ok(bytes)
}

/// Bytes of any amount of memory but none.
///
/// # Errors
///
/// What is wrong with it, to follow the text in a sentence.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bytes = bytes(text).ok_or("is no amount of memory: write a number and one of B, K, M, G, T")?;
    if bytes == 0 { Err("is no memory at all".to_owned()) } else { Ok(bytes) }
}

fn bytes(text: &str) -> Option<u64> {
    amount(text, |unit| {
        Some(match unit {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => MIB,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return None,
        })
    })
}

/// Milliseconds of a time: `"30s"`, `"500ms"`, `"1.5m"`.
///
/// # Errors
///
/// What is wrong with it, to follow the text in a sentence.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let milliseconds = amount(text, |unit| {
        Some(match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        })
    })
    .ok_or("is no time: write a number and one of ms, s, m, h")?;
    if milliseconds == 0 { Err("leaves no time".to_owned()) } else { Ok(milliseconds) }
}

/// Seconds of an age: `"7d"`, `"12h"`, `"1.5w"`.
///
/// # Errors
///
/// What is wrong with it, to follow the text in a sentence.
pub(crate) fn age(text: &str) -> Result<u64, String> {
    let seconds = amount(text, |unit| {
        Some(match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return None,
        })
    })
    .ok_or("is no age: write a number and one of s, m, h, d, w")?;
    if seconds == 0 { Err("is no age at all".to_owned()) } else { Ok(seconds) }
}

/// A number and a unit, exactly: nothing where the result is not whole.
fn amount(text: &str, unit: impl FnOnce(&str) -> Option<u64>) -> Option<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, name) = text.split_at(unit_at);
    let unit = u128::from(unit(&name.trim().to_ascii_lowercase())?);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = whole.parse::<u128>().ok()?.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?;
    let scaled = scaled.checked_mul(unit)?;
    if scaled % scale != 0 {
        return None;
    }
    u64::try_from(scaled / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_disks() {
        assert_eq!((disk_size("10G"), disk_size("16T")), (Ok(10 << 30), Ok(16 << 40)));
        for (text, why) in [
            ("17T", "is too large a disk: at most 16T"),
            ("1.5k", "is not a whole"),
            ("0", "is no size of a disk"),
            ("big", "is no size of a disk"),
        ] {
            let error = disk_size(text).unwrap_err();
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }

    #[test]
    fn reads_memory() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("2g", 2 << 30),
            ("1.5 GiB", 3 << 29),
            (" 65536 kb ", 64 << 20),
            ("1T", 1 << 40),
            ("67108864", 64 << 20),
            ("67108864B", 64 << 20),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_other_memory() {
        for (text, reason) in [
            ("", "no amount of memory"),
            ("M", "no amount of memory"),
            ("-1M", "no amount of memory"),
            ("1.2.3M", "no amount of memory"),
            ("1.M", "no amount of memory"),
            ("12X", "no amount of memory"),
            ("512 M B", "no amount of memory"),
            ("99999999999T", "no amount of memory"),
            ("99999999999999999999999999999999999999999M", "no amount of memory"),
            ("0.00000000000000000000000000000000000000001M", "no amount of memory"),
            ("63M", "at least 64M"),
            ("0", "no memory at all"),
            ("65537K", "whole number of MiB"),
        ] {
            let error = memory(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn reads_times() {
        for (text, milliseconds_of_it) in [("30s", 30_000), ("500ms", 500), ("1.5m", 90_000), ("2 H", 7_200_000)] {
            assert_eq!(milliseconds(text), Ok(milliseconds_of_it), "{text}");
        }
    }

    #[test]
    fn refuses_other_times() {
        for (text, reason) in [
            ("", "no time"),
            ("30", "no time"),
            ("s", "no time"),
            ("1d", "no time"),
            ("0.5ms", "no time"),
            ("-1s", "no time"),
            ("0s", "leaves no time"),
        ] {
            let error = milliseconds(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn reads_ages() {
        for (text, seconds) in [("7d", 604_800), ("1.5w", 907_200), ("12h", 43_200), ("1m", 60), ("3 S", 3)] {
            assert_eq!(age(text), Ok(seconds), "{text}");
        }
        for (text, reason) in [("7", "no age"), ("1ms", "no age"), ("0d", "no age at all"), ("0.5s", "no age")] {
            let error = age(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
