//! The order of versions, which is not that of their letters.

use std::cmp::Ordering;

/// Compares names so that `9` comes before `10`.
pub(super) fn by_version(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let number = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        match (one.is_empty(), other.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        let (digits, others) = (number(one), number(other));
        let (len, other_len) = if digits > 0 && others > 0 {
            (digits, others)
        } else {
            let first = |text: &str| text.chars().next().map_or(0, char::len_utf8);
            (first(one), first(other))
        };
        let (head, other_head) = (&one[..len], &other[..other_len]);
        let order = if digits > 0 && others > 0 {
            let (head, other_head) = (head.trim_start_matches('0'), other_head.trim_start_matches('0'));
            head.len().cmp(&other_head.len()).then_with(|| head.cmp(other_head))
        } else {
            head.cmp(other_head)
        };
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = (&one[len..], &other[other_len..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_order() {
        let mut names = vec!["v3.9", "v3.22", "9", "10.0", "10", "20250519-2117", "20250519-30", "9.5", "a", "é"];
        names.sort_by(|one, other| by_version(one, other));
        assert_eq!(names, ["9", "9.5", "10", "10.0", "20250519-30", "20250519-2117", "a", "v3.9", "v3.22", "é"]);
    }
}
