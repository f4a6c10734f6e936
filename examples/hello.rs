//! Starts a Debian, asks it who it is, and says how it came to run and how long each stage took.
//!
//!     cargo run --example hello
//!
//! The first run makes the image and boots it, which takes minutes. Every later one clones the state that the first one
//! kept.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use quicksand::{Progress, Sandbox, StartKind, show_progress};

const WHO_ARE_YOU: &str = r#"uname -sr; . /etc/os-release; echo "$PRETTY_NAME""#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> quicksand::Result<()> {
    let begun = Instant::now();
    let stages = Stages::default();
    let sb = Sandbox::builder("debian").on_progress(stages.watch()).start().await?;
    let started = begun.elapsed();
    let answer = sb.execute(WHO_ARE_YOU).await?;
    let usable = begun.elapsed();
    print!("{}", answer.stdout);

    let report = sb.start_report().expect("it runs");
    let how = match report.kind {
        StartKind::Warm => "cloned from the warm state that an earlier run kept",
        _ => "booted, and kept as a warm state that later runs clone",
    };
    println!("\n{how}:");
    stages.print();
    println!("{:>9.3} s  first command", (usable - started).as_secs_f64());
    println!("{:>9.3} s  from the call to its answer", usable.as_secs_f64());
    if report.kind == StartKind::Warm && usable < Duration::from_secs(1) {
        println!("The virtual machine was usable in under a second.");
    }
    sb.stop().await
}

/// The stages of a start, as far as they have been heard of.
#[derive(Clone, Default)]
struct Stages(Arc<Mutex<Vec<Stage>>>);

struct Stage {
    name: &'static str,
    first_heard: Instant,
    last_heard: Instant,
}

impl Stages {
    /// Shows the stages as they go by, and takes their times.
    fn watch(&self) -> impl Fn(&Progress) + Send + Sync + 'static {
        let (stages, show) = (self.clone(), show_progress());
        move |progress| {
            show(progress);
            let (mut stages, now) = (stages.0.lock().expect("nobody panics meanwhile"), Instant::now());
            match stages.last_mut() {
                Some(stage) if stage.name == progress.stage => stage.last_heard = now,
                _ => stages.push(Stage { name: progress.stage, first_heard: now, last_heard: now }),
            }
        }
    }

    fn print(&self) {
        for stage in self.0.lock().expect("nobody panics meanwhile").iter() {
            println!("{:>9.3} s  {}", (stage.last_heard - stage.first_heard).as_secs_f64(), stage.name);
        }
    }
}
