//! Snapshots of what commands did, for [insta].
//!
//! [`assert_sandbox_snapshot!`](crate::assert_sandbox_snapshot) writes a command, its exit code and its output as one text, and
//! leaves the rest to insta. What changes from run to run is put in brackets first.

use insta::Settings;
use quicksand_core::{Changes, CheckedOutput, Output};

use crate::filters::{filtered, rules};

/// Settings of insta with the default filters, on top of those that are in force. To make them takes a moment: make them once for
/// several snapshots.
pub fn snapshot_settings() -> Settings {
    let mut settings = Settings::clone_current();
    for (pattern, replacement) in rules() {
        settings.add_filter(&pattern, replacement);
    }
    settings
}

/// What a snapshot can be taken of.
pub trait Tidy: std::fmt::Display {
    /// The text that is compared. What changes from run to run is replaced in it: by rules that are compiled once, not by insta,
    /// which would compile them for each snapshot.
    fn text(&self) -> String {
        filtered(&self.to_string())
    }

    /// The settings for it: a snapshot for each image.
    fn settings(&self) -> Settings;
}

impl Tidy for Output {
    fn settings(&self) -> Settings {
        of_image(&self.image)
    }
}

impl Tidy for CheckedOutput {
    fn settings(&self) -> Settings {
        of_image(&self.image)
    }
}

impl Tidy for Changes {
    /// Nothing of it changes from run to run, and a version may well look like an address.
    fn text(&self) -> String {
        self.to_string()
    }

    fn settings(&self) -> Settings {
        of_image(&self.image)
    }
}

impl<T: Tidy> Tidy for &T {
    fn text(&self) -> String {
        (**self).text()
    }

    fn settings(&self) -> Settings {
        (**self).settings()
    }
}

fn of_image(image: &str) -> Settings {
    let mut settings = Settings::clone_current();
    settings.set_snapshot_suffix(image.replace(['/', ':'], "-"));
    settings.set_omit_expression(true);
    settings
}

/// Compares the [`Output`] of a command with its snapshot: the command, its exit code or signal, its standard output and
/// standard error in one text, which [insta] keeps, shows and reviews (`cargo insta review`).
///
/// What changes from run to run is replaced first: times, addresses, machine and boot ids, process ids, what is used of memory and
/// disks, sizes and speeds of what is fetched, colours. The documents of case files list what is written for each, and what can't be
/// told from what matters. The snapshot's name ends with the image, so that each image has its own. Settings of insta that are in
/// force, as by `Settings::bind`, count as well; their filters see what is left then.
///
/// [`Changes`] are compared likewise, as they are.
///
/// ```no_run
/// # async fn example(sb: quicksand_core::Sandbox) -> quicksand_core::Result<()> {
/// use quicksand_test::assert_sandbox_snapshot;
///
/// assert_sandbox_snapshot!(sb.execute("systemctl is-enabled ssh").await?);
/// assert_sandbox_snapshot!("a_name", sb.execute("cat /etc/os-release").await?);
/// assert_sandbox_snapshot!("changes", sb.changes().await?);
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! assert_sandbox_snapshot {
    ($output:expr $(,)?) => {{
        let output = &$output;
        $crate::__private::Tidy::settings(output)
            .bind(|| $crate::__private::insta::assert_snapshot!($crate::__private::Tidy::text(output)));
    }};
    ($name:expr, $output:expr $(,)?) => {{
        let output = &$output;
        $crate::__private::Tidy::settings(output)
            .bind(|| $crate::__private::insta::assert_snapshot!($name, $crate::__private::Tidy::text(output)));
    }};
}
