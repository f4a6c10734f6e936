//! Lists for people and for programs.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use quicksand_core::Size;
use serde_json::Value;

use crate::failure::Result;

/// Prints rows under their titles, in columns.
pub(crate) fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let mut widths = titles.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [titles.map(str::to_owned)].iter().chain(rows) {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    print(&text)
}

/// Prints a value as JSON.
pub(crate) fn json(value: &Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

/// Prints a text. Whoever reads it may have had enough, as `head` does.
pub(crate) fn print(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A size for people.
pub(crate) fn size(size: Size) -> String {
    match size.bytes() {
        bytes @ 0..1024 => format!("{bytes} B"),
        bytes @ 1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        bytes @ 0x10_0000..0x2_8000_0000 => format!("{} MiB", bytes >> 20),
        bytes => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// How long ago something was, for people.
pub(crate) fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A time for programs.
pub(crate) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [5, 5000, 5 << 20, 12 << 30].map(|bytes| size(Size::from_bytes(bytes)));
        assert_eq!(sizes, ["5 B", "4 KiB", "5 MiB", "12.0 GiB"]);
        let before = |seconds| ago(SystemTime::now() - std::time::Duration::from_secs(seconds));
        assert_eq!([5, 150, 7200, 864_000].map(before), ["5 s ago", "2 min ago", "2 h ago", "10 days ago"]);
    }
}
