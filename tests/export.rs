//! Saves that travel as a file, and files that are none or mean harm.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::{Arc, Mutex},
};

use quicksand::{ArchiveError, Error, Reporter, Sandbox, Saves, StartKind};

/// A directory on the same file system as the build.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

#[tokio::test]
async fn a_save_goes_elsewhere_as_one_file() {
    let (here, elsewhere) = (directory(), directory());
    let sb = Sandbox::builder("debian").saves_dir(here.path()).disk_size("7G").save("one").start().await.unwrap();
    shell(&sb, "head -c 5000000 /dev/urandom > /root/data; sha256sum < /root/data > /root/sum; echo m > /dev/shm/m")
        .await;
    sb.stop().await.unwrap();
    let sb = Sandbox::builder("one").saves_dir(here.path()).save("two").start().await.unwrap();
    shell(&sb, "echo second layer > /root/second").await;
    sb.stop().await.unwrap();
    drop(sb);

    let seen = Arc::new(Mutex::new(Vec::new()));
    let reporter = Reporter::new({
        let seen = Arc::clone(&seen);
        move |progress| seen.lock().unwrap().push((progress.stage, progress.current, progress.total))
    });
    let saves = Saves::at(here.path());
    let names: Vec<String> = saves.list().unwrap().iter().map(|save| save.name().to_owned()).collect();
    assert_eq!(names, ["one", "two"]);
    let two = saves.open("two").unwrap();
    assert_eq!((two.image(), two.cpus(), two.has_memory()), ("debian", 1, true));
    assert_eq!((two.memory().to_string(), two.disk_size().to_string()), ("512M".into(), "7G".into()));
    let file = elsewhere.path().join("two.tar.gz");
    fs::write(&file, "what was there before").unwrap();
    saves.export("two", &file, &reporter).await.unwrap();
    let packed = file.metadata().unwrap().len();
    for stage in ["digest", "pack"] {
        let last = seen.lock().unwrap().iter().rfind(|(of, ..)| *of == stage).copied().unwrap();
        assert!(last.1 == last.2 && packed < last.2, "{last:?}, {packed}");
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1, "no half of a file stays");
    drop(two);
    saves.remove("two").unwrap();
    assert!(matches!(saves.open("two").unwrap_err(), Error::NoSuchSave { .. }));
    assert!(matches!(saves.remove("two").unwrap_err(), Error::NoSuchSave { .. }));

    let saves = Saves::at(elsewhere.path().join("saves"));
    let save = saves.import(&file, "three", &reporter).await.unwrap();
    assert!(!save.has_memory());
    assert_eq!(save.disk_size().to_string(), "7G");
    let error = saves.import(&file, "three", &reporter).await.unwrap_err();
    assert!(matches!(error, Error::SaveExists { .. }), "{error}");

    let builder = || Sandbox::builder("three").saves_dir(elsewhere.path().join("saves"));
    let check = async |sb: &Sandbox| {
        let line =
            "sha256sum < /root/data | cmp - /root/sum; cat /root/second; ls /dev/shm; blockdev --getsize64 /dev/vda";
        assert_eq!(shell(sb, line).await, format!("second layer\n{}\n", 7u64 << 30));
    };
    let sb = builder().start().await.unwrap();
    let report = sb.start_report().unwrap();
    assert_eq!(report.kind, StartKind::Disk, "{report:?}");
    assert!(report.reasons[0].contains("no memory"), "{report:?}");
    check(&sb).await;
    let sb = builder().start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm, "{:?}", sb.start_report());
    check(&sb).await;
    // And it can be saved with its memory again.
    shell(&sb, "echo m > /dev/shm/m").await;
    sb.save("four").await.unwrap();
    let sb = Sandbox::builder("four").saves_dir(elsewhere.path().join("saves")).start().await.unwrap();
    assert_eq!(shell(&sb, "cat /dev/shm/m /root/second").await, "m\nsecond layer\n");
}

/// A save of a few kilobytes, as an export: its files by name, to be spoiled.
struct Forged {
    directory: tempfile::TempDir,
    files: Vec<(String, Vec<u8>)>,
}

const DISK: u64 = 1 << 20;

fn qcow2(directory: &Path, options: &[&str]) -> Vec<u8> {
    let path = directory.join("disk");
    let mut qemu_img = std::process::Command::new("qemu-img");
    qemu_img.args(["create", "-q", "-f", "qcow2"]).args(options).arg(&path).arg(DISK.to_string());
    assert!(qemu_img.status().unwrap().success());
    fs::read(path).unwrap()
}

impl Forged {
    fn new() -> Forged {
        let directory = directory();
        let disk = qcow2(directory.path(), &[]);
        let image = format!(
            r#"{{"version": 1, "digest": "{}", "disk": {{"path": "disk.qcow2", "size": {}}}, "disk_size": {DISK},
                "file_system": "ext4", "kernel": {{"path": "kernel", "size": 6}}, "modules": []}}"#,
            "0".repeat(64),
            disk.len(),
        );
        let manifest = r#"{"version": 1, "id": "0", "image": "debian", "machine_key": "", "layers": 1, "user_network": false,
            "in_frame": false, "machine": {"memory": 536870912, "cpus": 1, "accelerator": "tcg", "extra_arguments": []}}"#;
        let files = [
            ("manifest.json", manifest.as_bytes().to_vec()),
            ("image/image.json", image.into_bytes()),
            ("image/disk.qcow2", disk.clone()),
            ("image/kernel", b"kernel".to_vec()),
            // With a hole behind it, as QEMU leaves some.
            ("layers/0.qcow2", [disk, vec![0; 8 << 20]].concat()),
        ];
        Forged { directory, files: files.into_iter().map(|(name, content)| (name.to_owned(), content)).collect() }
    }

    fn file(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.files.iter_mut().find(|(of, _)| of == name).unwrap().1
    }

    /// The index, as it should be.
    fn index(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        for (name, content) in &self.files {
            let path = self.directory.path().join("digest");
            fs::write(&path, content).unwrap();
            let output = std::process::Command::new("sha256sum").arg(path).output().unwrap().stdout;
            let digest = String::from_utf8(output[..64].to_vec()).unwrap();
            let size = content.len();
            write!(text, r#",{{"path": "{name}", "size": {size}, "sha256": "{digest}"}}"#).unwrap();
        }
        format!(r#"{{"version": 1, "files": [{}]}}"#, text.trim_start_matches(','))
    }

    /// A plain tar with the index and the files; `change` spoils headers.
    fn tar(&self, index: &str, change: impl Fn(&str, &mut tar::Header)) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let files = [("export.json", index.as_bytes())].into_iter();
        for (name, content) in files.chain(self.files.iter().map(|(name, content)| (name.as_str(), &content[..]))) {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            change(name, &mut header);
            header.set_cksum();
            archive.append(&header, content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    /// Imports a tar and returns the error. Nothing may stay, here or elsewhere.
    async fn import(&self, tar: &[u8]) -> Result<(), Error> {
        let file = self.directory.path().join("x.tar.gz");
        let mut gzip = std::process::Command::new("gzip")
            .arg("-c1")
            .stdin(std::process::Stdio::piped())
            .stdout(File::create(&file).unwrap())
            .spawn()
            .unwrap();
        gzip.stdin.take().unwrap().write_all(tar).unwrap();
        assert!(gzip.wait().unwrap().success());
        self.import_file(&file).await
    }

    async fn import_file(&self, file: &Path) -> Result<(), Error> {
        let saves = self.directory.path().join("saves");
        let imported = Saves::at(&saves).import(file, "s", &Reporter::silent()).await;
        if imported.is_err() {
            assert_eq!(fs::read_dir(&saves).unwrap().count(), 0, "nothing half-made stays");
        } else {
            // What a disk has not is not stored.
            let disk = fs::metadata(saves.join("s/layers/0.qcow2")).unwrap();
            assert!(disk.blocks() * 512 <= disk.len() / 2, "{} blocks for {} bytes", disk.blocks(), disk.len());
            fs::remove_dir_all(&saves).unwrap();
        }
        imported.map(drop)
    }

    async fn refused(&self, tar: &[u8], why: &str) {
        let error = self.import(tar).await.unwrap_err();
        let text = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(matches!(error, Error::Archive(_)) && text.contains(why) && text.contains("x.tar.gz"), "{why}: {text}");
    }
}

#[tokio::test]
async fn what_is_cut_short_damaged_or_another_thing_is_told() {
    let forged = Forged::new();
    let whole = forged.tar(&forged.index(), |_, _| {});
    forged.import(&whole).await.unwrap();

    let file = forged.directory.path().join("x.tar.gz");
    for len in [0, 1, file.metadata().unwrap().len() / 2, file.metadata().unwrap().len() - 40] {
        forged.import(&whole).await.unwrap();
        File::options().write(true).open(&file).unwrap().set_len(len).unwrap();
        let error = forged.import_file(&file).await.unwrap_err();
        let told = matches!(
            &error,
            Error::Archive(ArchiveError::Broken { file: of, .. } | ArchiveError::NotAnExport { file: of, .. }) if *of == file
        );
        assert!(told, "{len}: {error}");
    }
    // A byte that was changed on the way: in the file, which gzip or the digests notice, and in an entry.
    forged.import(&whole).await.unwrap();
    let len = file.metadata().unwrap().len();
    File::options().write(true).open(&file).unwrap().write_all_at(b"\xff\xff\xff", len / 2).unwrap();
    assert!(matches!(forged.import_file(&file).await.unwrap_err(), Error::Archive(_)));
    let mut changed = whole.clone();
    let at = changed.windows(6).rposition(|window| window == b"kernel").unwrap();
    changed[at] = b'K';
    let error = forged.import(&changed).await.unwrap_err();
    assert!(matches!(&error, Error::Archive(ArchiveError::Digest { entry, .. }) if entry == "image/kernel"), "{error}");

    forged.refused(b"no tar", "no exported save").await;
    forged.refused(&forged.tar("[]", |_, _| {}), "no exported save").await;
    forged.refused(&forged.tar(r#"{"version": 9}"#, |_, _| {}), "use a newer one").await;
    fs::write(&file, "no gzip").unwrap();
    assert!(matches!(forged.import_file(&file).await, Err(Error::Archive(ArchiveError::NotAnExport { .. }))));
    assert!(matches!(forged.import_file(Path::new("/nowhere")).await, Err(Error::Archive(ArchiveError::Io { .. }))));
}

#[tokio::test]
async fn what_means_harm_is_refused() {
    let forged = Forged::new();
    let index = forged.index();
    // Entries of other kinds and names than the index says.
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Char, tar::EntryType::Fifo] {
        let tar = forged.tar(&index, |name, header| {
            if name == "layers/0.qcow2" {
                header.set_entry_type(kind);
                header.set_link_name("/etc/passwd").unwrap();
            }
        });
        forged.refused(&tar, "layers/0.qcow2").await;
    }
    let tar = forged.tar(&index, |name, header| {
        if name == "image/kernel" {
            header.as_mut_bytes()[..12].copy_from_slice(b"../../kernel");
        }
    });
    forged.refused(&tar, "another one comes in its place").await;
    for name in ["../x", "/etc/cron.d/x", "layers/../../x", "memory", "devices"] {
        let mut forged = Forged::new();
        forged.files.push((name.to_owned(), b"x".to_vec()));
        forged.refused(&forged.tar(&forged.index(), |_, _| {}), "no save has a file of that name").await;
        forged.files.pop();
        forged.files.push(("image/stray".into(), b"x".to_vec()));
        forged.refused(&forged.tar(&forged.index(), |_, _| {}), "does not name it").await;
    }
    // More than the index says, and more than the disk holds.
    let tar = forged.tar(&index.replace(r#""image/kernel", "size": 6"#, r#""image/kernel", "size": 5"#), |_, _| {});
    forged.refused(&tar, "another one comes in its place").await;
    let huge = index.replace(r#""image/kernel", "size": 6"#, &format!(r#""image/kernel", "size": {}"#, 1u64 << 60));
    let error = forged.import(&forged.tar(&huge, |_, _| {})).await.unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    let mut more = Forged::new();
    more.files.push(("image/more".into(), vec![0; 10]));
    more.refused(&more.tar(&index, |_, _| {}), "the index names no more").await;

    // Disks that name other files, and such as do not fit.
    let mut other = Forged::new();
    let base = other.directory.path().join("base");
    fs::write(&base, vec![0; DISK as usize]).unwrap();
    let backing = format!("backing_file={},backing_fmt=raw", base.display());
    let data = format!("data_file={}", other.directory.path().join("data").display());
    for (options, why) in [(backing, "backing file"), (data, "data is in another file")] {
        *other.file("layers/0.qcow2") = qcow2(other.directory.path(), &["-o", &options]);
        other.refused(&other.tar(&other.index(), |_, _| {}), why).await;
    }
    *other.file("layers/0.qcow2") = vec![0; 4096];
    other.refused(&other.tar(&other.index(), |_, _| {}), "no qcow2").await;

    // Descriptions that lie.
    for (name, from, to, why) in [
        ("manifest.json", r#""layers": 1"#, r#""layers": 2"#, "2 layers"),
        ("manifest.json", r#""cpus": 1"#, r#""cpus": 0"#, "no such machine"),
        ("manifest.json", r#""image""#, r#""disk_size": 9999360, "image""#, "bytes"),
        ("image/image.json", r#""path": "kernel""#, r#""path": "../../kernel""#, "leads out"),
        ("image/image.json", r#""disk_size": 1048576"#, r#""disk_size": 4096"#, "does not belong"),
    ] {
        let mut forged = Forged::new();
        let text = String::from_utf8(forged.file(name).clone()).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        *forged.file(name) = text.replace(from, to).into_bytes();
        forged.refused(&forged.tar(&forged.index(), |_, _| {}), why).await;
    }
}
