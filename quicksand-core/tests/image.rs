//! Makes the image `debian` for real, in the user's cache: once, and the tests that boot machines start from it too.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use quicksand_core::{
    Progress, Reporter,
    cache::Cache,
    image::{Image, initramfs::initramfs},
    making::ensure,
};

#[tokio::test]
async fn debian_is_made_once() {
    let cache = Cache::from_environment().unwrap();
    let was_there = Image::find(&cache, "debian").unwrap().is_some();
    let reports: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let reporter = {
        let reports = Arc::clone(&reports);
        Reporter::new(move |progress| reports.lock().unwrap().push(progress.clone()))
    };

    let image = ensure(&cache, "debian", &reporter).await.unwrap();
    check_reports(&reports.lock().unwrap(), was_there);
    let directory = cache.root().join("images/debian");
    let mut names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["disk.qcow2", "image.json", "kernel", "modules"]);

    let json: serde_json::Value = serde_json::from_slice(&fs::read(directory.join("image.json")).unwrap()).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["digest"], image.digest());
    assert_eq!(image.digest().len(), 64);
    assert_eq!((image.file_system(), image.disk_size()), ("ext4", 4 << 30));
    assert_eq!(fs::read(image.disk()).unwrap()[..4], *b"QFI\xfb");
    assert!(fs::metadata(image.kernel()).unwrap().len() > 1 << 20);

    let modules = image.modules();
    let names: Vec<_> = modules.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names[..2], ["00-virtio_ring.ko", "01-virtio.ko"]);
    assert!(names.last().unwrap().ends_with("fuse.ko"), "{names:?}");
    for module in &modules {
        assert_eq!(fs::read(module).unwrap()[..4], *b"\x7fELF");
    }
    let sizes: u64 = modules.iter().map(|module| fs::metadata(module).unwrap().len()).sum();
    assert!(initramfs(&image).unwrap().len() as u64 > sizes);

    let so_far = reports.lock().unwrap().len();
    let again = ensure(&cache, "debian", &reporter).await.unwrap();
    assert_eq!(reports.lock().unwrap().len(), so_far, "nothing had to be done");
    assert_eq!(again.digest(), image.digest());
}

/// Each stage counts up, keeps its total, and comes to it where it has one.
fn check_reports(reports: &[Progress], was_there: bool) {
    if was_there {
        assert_eq!(reports, []);
        return;
    }
    let mut stages: Vec<(&str, u64, u64)> = Vec::new();
    for report in reports {
        match stages.last_mut() {
            Some((stage, current, total)) if *stage == report.stage => {
                assert!(report.current >= *current && report.total == *total, "{report:?} after {current}/{total}");
                *current = report.current;
            }
            _ => stages.push((report.stage, report.current, report.total)),
        }
    }
    let names: Vec<_> = stages.iter().map(|(stage, ..)| *stage).collect();
    let expected = [
        "fetch package lists",
        "install base packages",
        "install packages",
        "unpack",
        "make file system",
        "convert disk",
        "digest",
    ];
    assert_eq!(names, expected);
    for (stage, current, total) in stages {
        assert_eq!(current, total, "{stage}");
    }
}
