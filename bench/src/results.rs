//! Figures, and how they are shown.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Map, Value, json};

use crate::{
    keys::{KEYS, Key, Target},
    options::Options,
};

/// One figure and how many measurements it is the median of.
#[derive(Debug, Clone, Copy)]
struct Figure {
    value: f64,
    count: usize,
}

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Results {
    figures: BTreeMap<&'static str, Figure>,
    setting: String,
    notes: Vec<String>,
}

impl Results {
    /// Takes the measurements of one figure, and keeps their median.
    pub(crate) fn add(&mut self, name: &'static str, measurements: &[f64]) {
        debug_assert!(KEYS.iter().any(|key| key.name == name), "{name}");
        if let Some(value) = median(measurements) {
            self.figures.insert(name, Figure { value, count: measurements.len() });
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        Some(self.figures.get(name)?.value)
    }

    /// Says where it was measured.
    pub(crate) fn setting(&mut self, setting: String) {
        self.setting = setting;
    }

    /// Adds a line below the table.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    fn wanted(&self, options: &Options) -> impl Iterator<Item = (&'static Key, Figure)> {
        let wanted = |key: &&Key| options.wants(&[key.name]);
        KEYS.iter().filter(wanted).filter_map(|key| Some((key, *self.figures.get(key.name)?)))
    }

    /// The limit that a target means in this run. `None` where there is none, or the figure that it refers to was not measured.
    fn limit(&self, target: Target) -> Option<f64> {
        match target {
            Target::None => None,
            Target::AtMost(limit) | Target::AtLeast(limit) => Some(limit),
            Target::AtMostTimes(factor, other) => Some(factor * self.get(other)?),
        }
    }

    fn met(&self, key: &Key, figure: Figure) -> Option<bool> {
        let limit = self.limit(key.target)?;
        Some(if matches!(key.target, Target::AtLeast(_)) { figure.value >= limit } else { figure.value <= limit })
    }

    /// Whether no target was missed.
    pub(crate) fn all_met(&self, options: &Options) -> bool {
        self.wanted(options).all(|(key, figure)| self.met(key, figure) != Some(false))
    }

    /// One flat object, with the keys that were measured.
    pub(crate) fn json(&self, options: &Options) -> Value {
        let round = |value: f64| (value * 1e6).round() / 1e6;
        self.wanted(options)
            .map(|(key, figure)| (key.name.to_owned(), json!(round(figure.value))))
            .collect::<Map<_, _>>()
            .into()
    }

    /// A table that is also Markdown.
    pub(crate) fn table(&self, options: &Options) -> String {
        let mut rows =
            vec![["key", "what", "median", "unit", "n", "target", "met", "peer", "peer/ours"].map(str::to_owned)];
        for (key, figure) in self.wanted(options) {
            let target = match (key.target, self.limit(key.target)) {
                (Target::AtLeast(_), Some(limit)) => format!("≥ {}", shown(limit)),
                (Target::AtMostTimes(factor, other), Some(limit)) => format!("≤ {} ({factor} × {other})", shown(limit)),
                (_, Some(limit)) => format!("≤ {}", shown(limit)),
                (_, None) => String::new(),
            };
            let met = self.met(key, figure).map_or("", |met| if met { "yes" } else { "NO" });
            let peer = key.peer.and_then(|peer| self.get(peer));
            rows.push([
                key.name.to_owned(),
                key.what.to_owned(),
                shown(figure.value),
                key.unit().to_owned(),
                figure.count.to_string(),
                target,
                met.to_owned(),
                peer.map(shown).unwrap_or_default(),
                peer.map(|peer| format!("{:.1}", peer / figure.value)).unwrap_or_default(),
            ]);
        }
        // No column for a peer that was not asked.
        let columns = if rows[1..].iter().any(|row| !row[7].is_empty()) { 9 } else { 7 };
        let widths: Vec<usize> =
            (0..columns).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
        let mut text = format!("{}\n\n", self.setting);
        for (number, row) in rows.iter().enumerate() {
            for (cell, &width) in row.iter().zip(&widths) {
                let _ = write!(text, "| {cell:width$} ");
            }
            text += "|\n";
            if number == 0 {
                widths.iter().for_each(|&width| text += &format!("| {} ", "-".repeat(width)));
                text += "|\n";
            }
        }
        text += "\n";
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        text
    }
}

/// A figure with about three digits that mean something.
fn shown(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 3,
        _ => 5,
    };
    format!("{value:.digits$}")
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(measurements: &[f64]) -> Option<f64> {
    let mut sorted = measurements.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[upper]),
        _ => Some(f64::midpoint(sorted[upper - 1], sorted[upper])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Request, parse};

    fn options(line: &str) -> Options {
        match parse(line.split_whitespace().map(str::to_owned)).unwrap() {
            Request::Run(options) => options,
            Request::Help => panic!("it asks for no help"),
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn the_json_is_flat_and_holds_what_was_asked_for() {
        let mut results = Results::default();
        results.add("floor_s", &[0.08, 0.1, 0.09]);
        results.add("ping_s", &[0.000_412_34]);
        results.add("exec_true_s", &[]);
        assert_eq!(results.json(&options("")), json!({ "floor_s": 0.09, "ping_s": 0.000_412 }));
        assert_eq!(results.json(&options("--only ping_s")), json!({ "ping_s": 0.000_412 }));
    }

    #[test]
    fn targets_are_judged_and_shown() {
        let mut results = Results::default();
        results.add("warm_ready_s", &[0.2]);
        assert!(results.all_met(&options("")), "there is nothing to judge it by");
        results.add("floor_s", &[0.1]);
        results.add("upload_mb_s", &[30.0]);
        results.add("peer_start_from_save_s", &[34.0]);
        assert!(!results.all_met(&options("")) && results.all_met(&options("--only upload_mb_s")));
        let table = results.table(&options(""));
        let row = |name: &str| table.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap().to_owned();
        for part in ["≤ 0.150 (1.5 × floor_s)", "NO", "34.0", "170.0"] {
            assert!(row("warm_ready_s").contains(part), "{part} in {table}");
        }
        assert!(row("upload_mb_s").contains("yes"), "{table}");
        assert!(!results.table(&options("--only floor_s")).contains("peer"), "{table}");
    }
}
