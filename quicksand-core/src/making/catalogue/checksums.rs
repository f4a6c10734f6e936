//! Lists of digests as publishers write them, and which names of a directory fit a pattern.

/// The digits that a list gives for a file. Lists are of the kinds `DIGITS  NAME` and `DIGITS *NAME`, `SHA256 (NAME) = DIGITS`,
/// and the digits alone where the list is for one file.
pub(crate) fn digits_of<'a>(list: &'a str, file: &str) -> Option<&'a str> {
    let of_line = |line: &'a str| {
        let line = line.trim();
        if let Some((head, digits)) = line.split_once(" = ") {
            let name = head.split_once(" (")?.1.strip_suffix(')')?;
            return (name == file).then_some(digits.trim());
        }
        let (digits, name) = line.split_once(char::is_whitespace)?;
        let name = name.trim().trim_start_matches('*').trim_start_matches("./");
        (name == file).then_some(digits)
    };
    let alone = || Some(list.trim()).filter(|text| is_digits(text));
    list.lines().find_map(of_line).filter(|digits| is_digits(digits)).or_else(alone)
}

fn is_digits(text: &str) -> bool {
    matches!(text.len(), 64 | 128) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The names that the HTML of a directory's listing links to, directories with a slash at their end.
pub(crate) fn listed(html: &str) -> Vec<String> {
    let links = html.split("href=").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''))?;
        rest[1..].split(quote).next()
    });
    let names = links.map(|link| link.trim_start_matches("./"));
    let plain = |name: &&str| {
        let name = name.strip_suffix('/').unwrap_or(name);
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+~".contains(&b)) && name != ".."
    };
    names.filter(plain).map(str::to_owned).collect()
}

/// Whether a name fits a pattern. A `*` stands for what starts with a digit: versions and dates do, `latest` does not.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            let Some(rest) = name.strip_prefix(before) else { return false };
            rest.starts_with(|first: char| first.is_ascii_digit())
                && (1..=rest.len()).any(|end| rest.is_char_boundary(end) && fits(after, &rest[end..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_publishers_list_is_read() {
        let (one, two) = ("a".repeat(64), "b".repeat(128));
        let list = format!(
            "# comment: x.img\n{one} *x.img\n{two}  ./y.qcow2\n-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n\
             # z.qcow2: 5 bytes\nSHA256 (z.qcow2) = {one}\nnothing x.bad\n"
        );
        assert_eq!(digits_of(&list, "x.img"), Some(one.as_str()));
        assert_eq!(digits_of(&list, "y.qcow2"), Some(two.as_str()));
        assert_eq!(digits_of(&list, "z.qcow2"), Some(one.as_str()));
        for missing in ["x.im", "x.bad", "", "img"] {
            assert_eq!(digits_of(&list, missing), None, "{missing}");
        }
        assert_eq!(digits_of(&format!("{two}\n"), "any"), Some(two.as_str()));
        assert_eq!(digits_of("<html>", "any"), None);
    }

    #[test]
    fn listings_are_read() {
        let html = r#"<a href="../">..</a> <a href="?C=N;O=D">N</a> <a href='20250101-1/'>x</a>
                      <a href="./9.5/">9.5</a> <a href="/abs/">x</a> <a href="https://x/">x</a> <a href="a%20b">x</a>
                      <a href="x-1.qcow2">x-1.qcow2</a> <a href=""#;
        assert_eq!(listed(html), ["20250101-1/", "9.5/", "x-1.qcow2"]);
    }

    #[test]
    fn patterns() {
        assert!(fits("release-*", "release-20250101"));
        assert!(fits("Rocky-*-Base-*.qcow2", "Rocky-9-Base-9.5-20241118.0.qcow2"));
        assert!(fits("x", "x"));
        for (pattern, name) in
            [("release-*", "release"), ("*", "latest"), ("*", ""), ("a-*.qcow2", "a-1.qcow2.sha256"), ("x", "xy")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
