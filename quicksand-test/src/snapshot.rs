//! Snapshots of what commands did, for [insta].
//!
//! [`assert_sandbox_snapshot!`](crate::assert_sandbox_snapshot) writes a command, its exit code and its output as one text, and
//! leaves the rest to insta. What changes from run to run is put in brackets first.

use insta::Settings;
use quicksand_core::{Changes, Output};

use crate::filters::FILTERS;

/// Settings of insta with the default filters, on top of those that are in force.
pub fn snapshot_settings() -> Settings {
    let mut settings = Settings::clone_current();
    for (pattern, replacement) in FILTERS {
        settings.add_filter(pattern, *replacement);
    }
    settings
}

/// What a snapshot can be taken of.
pub trait Tidy: std::fmt::Display {
    /// The settings for it: a snapshot for each image.
    fn settings(&self) -> Settings;
}

impl Tidy for Output {
    fn settings(&self) -> Settings {
        of_image(snapshot_settings(), &self.image)
    }
}

impl Tidy for Changes {
    /// Nothing of it changes from run to run, and a version may well look like an address.
    fn settings(&self) -> Settings {
        of_image(Settings::clone_current(), &self.image)
    }
}

impl<T: Tidy> Tidy for &T {
    fn settings(&self) -> Settings {
        (**self).settings()
    }
}

fn of_image(mut settings: Settings, image: &str) -> Settings {
    settings.set_snapshot_suffix(image.replace(['/', ':'], "-"));
    settings.set_omit_expression(true);
    settings
}

/// Compares the [`Output`] of a command with its snapshot: the command, its exit code or signal, its standard output and
/// standard error in one text, which [insta] keeps, shows and reviews (`cargo insta review`).
///
/// What changes from run to run is replaced first: times, addresses, machine and boot ids, process ids, the sizes and
/// speeds of apt, colours. The snapshot's name ends with the image, so that each image has its own. Settings of insta that
/// are in force, as by `Settings::bind`, count as well.
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
            .bind(|| $crate::__private::insta::assert_snapshot!(output.to_string()));
    }};
    ($name:expr, $output:expr $(,)?) => {{
        let output = &$output;
        $crate::__private::Tidy::settings(output)
            .bind(|| $crate::__private::insta::assert_snapshot!($name, output.to_string()));
    }};
}
