//! Progress is told: named stages, each from its beginning to its end, with real counts.

use std::sync::{Arc, Mutex};

use quicksand::{Progress, Sandbox};

type Seen = Arc<Mutex<Vec<Progress>>>;

/// The reports of one stage, as `(current, total)`.
fn of(seen: &Seen, stage: &str) -> Vec<(u64, u64)> {
    let seen = seen.lock().unwrap();
    seen.iter().filter(|progress| progress.stage == stage).map(|progress| (progress.current, progress.total)).collect()
}

#[tokio::test]
async fn a_start_a_save_and_transfers_are_told() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let seen = Seen::default();
    let keep = Arc::clone(&seen);
    let builder = Sandbox::builder("debian").saves_dir(temp.path().join("saves"));
    let sb = builder.on_progress(move |progress| keep.lock().unwrap().push(progress.clone())).start().await.unwrap();
    assert_eq!(of(&seen, "clone"), [(0, 1), (1, 1)], "{seen:?}");

    let file = temp.path().join("file");
    std::fs::write(&file, vec![7; 3_000_000]).unwrap();
    sb.upload(&file, "/root/file").await.unwrap();
    sb.download("/root/file", temp.path().join("back")).await.unwrap();
    for stage in ["upload", "download"] {
        let counts = of(&seen, stage);
        assert_eq!(counts.first(), Some(&(0, 0)), "{stage}");
        assert!(counts.len() > 10 && counts.is_sorted(), "{stage}: {counts:?}");
        let &(current, total) = counts.last().unwrap();
        assert!(current == total && (3_000_000..3_100_000).contains(&total), "{stage}: {current} of {total}");
    }
    sb.save("s").await.unwrap();
    assert_eq!(of(&seen, "save"), [(0, 1), (1, 1)]);
}

/// A save whose memory can't be used is booted, which is told as well.
#[tokio::test]
async fn a_boot_is_told() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = |source: &str| Sandbox::builder(source).saves_dir(temp.path());
    let sb = builder("debian").save("s").start().await.unwrap();
    sb.stop().await.unwrap();
    std::fs::remove_file(temp.path().join("s/memory")).unwrap();
    let seen = Seen::default();
    let keep = Arc::clone(&seen);
    drop(builder("s").on_progress(move |progress| keep.lock().unwrap().push(progress.clone())).start().await.unwrap());
    for stage in ["boot", "freeze"] {
        assert_eq!(of(&seen, stage), [(0, 1), (1, 1)], "{seen:?}");
    }
    assert_eq!(of(&seen, "clone").last(), Some(&(1, 1)));
}
