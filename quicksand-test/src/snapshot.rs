//! Snapshots of what commands did, for [insta].
//!
//! [`assert_sandbox_snapshot!`](crate::assert_sandbox_snapshot) writes a command, its exit code and its output as one text, and
//! leaves the rest to insta. What changes from run to run is put in brackets first.

use insta::Settings;
use quicksand_core::Output;

use crate::filters::FILTERS;

/// Settings of insta with the default filters, on top of those that are in force.
pub fn snapshot_settings() -> Settings {
    let mut settings = Settings::clone_current();
    for (pattern, replacement) in FILTERS {
        settings.add_filter(pattern, *replacement);
    }
    settings
}

/// The settings for a snapshot of an output: a snapshot for each image.
pub fn settings_for(output: &Output) -> Settings {
    let mut settings = snapshot_settings();
    settings.set_snapshot_suffix(output.image.replace(['/', ':'], "-"));
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
/// ```no_run
/// # async fn example(sb: quicksand_core::Sandbox) -> quicksand_core::Result<()> {
/// use quicksand_test::assert_sandbox_snapshot;
///
/// assert_sandbox_snapshot!(sb.execute("systemctl is-enabled ssh").await?);
/// assert_sandbox_snapshot!("a_name", sb.execute("cat /etc/os-release").await?);
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! assert_sandbox_snapshot {
    ($output:expr $(,)?) => {{
        let output: &$crate::__private::Output = &$output;
        $crate::__private::settings_for(output).bind(|| $crate::__private::insta::assert_snapshot!(output.to_string()));
    }};
    ($name:expr, $output:expr $(,)?) => {{
        let output: &$crate::__private::Output = &$output;
        $crate::__private::settings_for(output)
            .bind(|| $crate::__private::insta::assert_snapshot!($name, output.to_string()));
    }};
}
