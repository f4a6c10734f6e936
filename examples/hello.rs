//! Starts a Debian, asks it who it is, and says how long each step took.

use std::time::Instant;

use quicksand::{Sandbox, StartKind};

#[tokio::main(flavor = "current_thread")]
async fn main() -> quicksand::Result<()> {
    let begun = Instant::now();
    let sb =
        Sandbox::builder("debian").on_progress(|p| eprintln!("{}: {}/{}", p.stage, p.current, p.total)).start().await?;
    let started = begun.elapsed();
    let first = Instant::now();
    print!("{}", sb.execute("uname -sr; . /etc/os-release; echo \"$PRETTY_NAME\"").await?.stdout);
    let first = first.elapsed();
    let ping = sb.ping().await?;
    let report = sb.start_report().expect("the sandbox runs");
    let how = match report.kind {
        StartKind::Warm => "cloned from its warm state",
        _ => "booted, and kept as a warm state for the next time",
    };
    println!(
        "{how}: ready after {:.3} s, first command {:.3} s, ping {:.4} s",
        started.as_secs_f64(),
        first.as_secs_f64(),
        ping.as_secs_f64()
    );
    sb.stop().await
}
