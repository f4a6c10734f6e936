use std::{
    fs::{self, File},
    path::Path,
};

use super::*;
use crate::{
    base::cache::{Unfinished, hold},
    image::{
        Image,
        project::{Locked, Project},
        project_list,
    },
};

const DAY: Duration = Duration::from_secs(86_400);

fn cache() -> (tempfile::TempDir, Cache) {
    let temp = tempfile::tempdir().unwrap();
    let cache = Cache::at(&temp.path().join("cache")).unwrap();
    (temp, cache)
}

fn age(path: &Path, days: u32) {
    File::open(path).unwrap().set_modified(SystemTime::now() - days * DAY).unwrap();
}

/// A directory with a file of so many KiB, not used for so many days.
fn directory(path: &Path, kib: usize, days: u32) {
    fs::create_dir(path).unwrap();
    fs::write(path.join("file"), vec![1; kib << 10]).unwrap();
    age(path, days);
}

fn file(path: &Path, days: u32) {
    fs::write(path, "x").unwrap();
    age(path, days);
}

fn rule(days: Option<u32>, max_kib: Option<u64>) -> Rule {
    Rule { older_than: days.map(|days| days * DAY), max_size: max_kib.map(|kib| Size::from_bytes(kib << 10)) }
}

fn names(pruned: &Pruned) -> Vec<&str> {
    pruned.removed.iter().map(|removal| removal.thing.name.as_str()).collect()
}

fn look(cache: &Cache, rule: &Rule) -> Pruned {
    Plan::new(cache, rule).unwrap().look()
}

#[test]
fn the_old_go_and_then_the_least_used() {
    let (_temp, cache) = cache();
    for (name, days) in [("b", 20), ("a", 10), ("c", 40)] {
        directory(&cache.states().join(name), 64, days);
    }
    directory(&cache.images().join("d"), 64, 30);
    assert_eq!(names(&look(&cache, &rule(None, None))), [""; 0]);
    assert_eq!(names(&look(&cache, &rule(Some(30), None))), ["c", "d"]);
    assert_eq!(names(&look(&cache, &rule(Some(41), Some(200)))), ["c"]);
    assert_eq!(names(&look(&cache, &rule(Some(35), Some(70)))), ["c", "d", "b"]);
    let pruned = look(&cache, &rule(None, Some(0)));
    assert_eq!(names(&pruned), ["c", "d", "b", "a"]);
    assert!(pruned.freed().bytes() >= (4 * 64) << 10 && pruned.kept_size.bytes() == 0);
    assert_eq!(pruned.of_kind(Kind::WarmState).0, 3);
    assert_eq!(pruned.of_kind(Kind::Image).0, 1);
}

#[test]
fn what_a_state_shares_with_its_image_is_freed_with_the_last_of_them() {
    let (_temp, cache) = cache();
    let (image, state) = (cache.images().join("i"), cache.states().join("s"));
    directory(&image, 256, 50);
    fs::create_dir(&state).unwrap();
    fs::hard_link(image.join("file"), state.join("file")).unwrap();
    age(&state, 40);
    let one = look(&cache, &rule(Some(45), None));
    assert_eq!((names(&one), one.freed().bytes()), (vec!["i"], 0));
    assert!(one.kept_size.bytes() >= 256 << 10);
    let both = look(&cache, &rule(Some(30), None));
    assert_eq!(both.removed[0].frees.bytes(), 0);
    assert!(both.removed[1].frees.bytes() >= 256 << 10);
}

#[test]
fn every_kind_goes_and_what_is_told_is_what_happens() {
    let (_temp, cache) = cache();
    let directories = [cache.states(), cache.images(), cache.kernels(), cache.failed()];
    directories.iter().for_each(|at| directory(&at.join("old"), 4, 90));
    let files = [cache.initramfs(), cache.overlays(), cache.downloads(), cache.blobs(), cache.tags()];
    files.iter().for_each(|at| file(&at.join("old"), 90));
    file(&cache.downloads().join("old.part"), 90);
    let told = look(&cache, &rule(Some(30), None));
    assert_eq!(told.removed.len(), 10);
    let done = Plan::new(&cache, &rule(Some(30), None)).unwrap().carry_out().unwrap();
    assert_eq!((names(&told), told.freed()), (names(&done), done.freed()));
    assert!(done.kept.is_empty());
    for kind in Kind::ALL {
        let expected = usize::from(kind != Kind::Leftover) + usize::from(kind == Kind::Download);
        assert_eq!(done.of_kind(kind).0, expected, "{kind}");
    }
    for at in directories.iter().chain(&files) {
        assert_eq!(fs::read_dir(at).unwrap().count(), 0, "{}", at.display());
    }
    assert_eq!(fs::read_dir(cache.locks()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let (temp, cache) = cache();
    let all = rule(Some(0), Some(0));
    Image::sample(&cache.images().join("held"));
    Image::sample(&cache.images().join("named"));
    let state = cache.states().join("state");
    directory(&state, 4, 90);
    for name in ["sha256-ab", "sha256-ab.part", "sha256-ab.json"] {
        file(&cache.downloads().join(name), 90);
    }
    file(&cache.blobs().join("ab"), 90);
    file(&cache.tags().join("asked"), 0);

    let project = Project::at(temp.path().to_owned());
    project.set_locked(&cache, "named", Locked::today("packages of bookworm", None)).await.unwrap();
    project_list::note(&cache, &project);
    let image = Image::find(&cache, "held").unwrap().unwrap();
    let state_held = hold(&state).unwrap().unwrap();
    let downloading = cache.lock("download-sha256-ab", Duration::ZERO).await.unwrap();
    let pulling = cache.lock("blob-ab", Duration::ZERO).await.unwrap();
    let pruned = Plan::new(&cache, &all).unwrap().carry_out().unwrap();
    assert_eq!(names(&pruned), [""; 0]);
    let kept = |name: &str| pruned.kept.iter().find(|thing| thing.name == name).unwrap().kept.clone().unwrap();
    for name in ["held", "state", "sha256-ab", "sha256-ab.part", "ab"] {
        assert_eq!(kept(name), Kept::InUse, "{name}");
    }
    assert_eq!(kept("named"), Kept::Project(temp.path().to_owned()));
    assert_eq!(kept("asked"), Kept::New);

    drop((image, state_held, downloading, pulling));
    let pruned = Plan::new(&cache, &all).unwrap().carry_out().unwrap();
    assert_eq!(pruned.removed.len(), 6);
    fs::remove_file(temp.path().join("quicksand.lock")).unwrap();
    assert_eq!(names(&Plan::new(&cache, &all).unwrap().carry_out().unwrap()), ["named"]);
    assert!(Image::find(&cache, "named").unwrap().is_none());
}

#[tokio::test]
async fn what_comes_into_use_after_the_plan_stays() {
    let (_temp, cache) = cache();
    for name in ["one", "two"] {
        directory(&cache.states().join(name), 64, 90);
    }
    let plan = Plan::new(&cache, &rule(Some(30), None)).unwrap();
    let _held = hold(&cache.states().join("one")).unwrap().unwrap();
    let pruned = plan.carry_out().unwrap();
    assert_eq!(names(&pruned), ["two"]);
    assert_eq!(pruned.kept[0].kept, Some(Kept::InUse));
    assert!(cache.states().join("one/file").exists());
}

#[tokio::test]
async fn leftovers_go_unless_somebody_is_at_it() {
    let (temp, cache) = cache();
    let none = rule(None, None);
    let lock = cache.lock("image-i", Duration::ZERO).await.unwrap();
    let unfinished = Unfinished::beside(&cache.images().join("i")).unwrap();
    fs::write(unfinished.path().join("half"), "x").unwrap();
    let aside = cache.states().join(".old-0");
    directory(&aside, 4, 0);
    let user = hold(&aside).unwrap().unwrap();
    fs::create_dir(cache.run().join("dead")).unwrap();
    let gone = Project::at(temp.path().join("gone"));
    project_list::note(&cache, &gone);
    file(&cache.tags().join(".new-0"), 1);
    let pruned = Plan::new(&cache, &none).unwrap().carry_out().unwrap();
    assert_eq!(pruned.of_kind(Kind::Leftover).0, 3);
    assert!(unfinished.path().exists() && aside.exists() && !cache.run().join("dead").exists());

    // Killed: the lock goes, and nobody removes what it made.
    std::mem::forget(unfinished);
    drop((lock, user));
    let pruned = Plan::new(&cache, &none).unwrap().carry_out().unwrap();
    assert_eq!(pruned.removed.len(), 2);
    assert!(pruned.kept.is_empty() && !aside.exists());
}
