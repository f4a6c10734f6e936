//! Names of users and groups, from a guest's `/etc/passwd` and `/etc/group`.

use std::collections::HashMap;

/// Longest name that is taken: that of systemd's dynamic users is half as long.
const LONGEST: usize = 64;

/// Names by number. Of several with one number the first counts, as in the guest.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<u32, String>);

impl Names {
    /// Reads lines of `name:password:number:…`, passing over all else.
    pub(crate) fn parse(text: &str) -> Names {
        let mut names = HashMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else { continue };
            let Ok(number) = number.parse() else { continue };
            if !name.is_empty() && name.len() <= LONGEST && !name.contains(char::is_control) {
                names.entry(number).or_insert_with(|| name.to_owned());
            }
        }
        Names(names)
    }

    pub(crate) fn of(&self, number: u32) -> String {
        self.0.get(&number).cloned().unwrap_or_else(|| number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts() {
        let names = Names::parse("root:x:0:0:\ntoor:x:0:0:\nann:x:1000:\n:x:7:\nbad\nx:y\nb\x1b:x:8:\n");
        assert_eq!([0, 1000, 7, 8].map(|number| names.of(number)), ["root", "ann", "7", "8"]);
    }
}
