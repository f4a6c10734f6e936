//! Container images and root file systems of others, started as machines.

mod build;
mod fleet;
mod logins;
mod registry;
mod server;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use build::{Image, Layer, Packing};
use quicksand::{Sandbox, StartKind};
use registry::Registry;
use serde_json::json;
use tar::EntryType;

/// `cap_net_raw=ep`, as the kernel keeps it.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Three layers, each packed in another way, with all that layers can have.
fn image(unique: &str) -> Image {
    let base = Layer::busybox()
        .file("etc/unique", 0o644, unique)
        .file("etc/gone", 0o644, "lower")
        .file("srv/old/deep/file", 0o644, "lower")
        .file("opt/tool", 0o755, "lower")
        .link(EntryType::Link, "opt/twin", "opt/tool")
        .link(EntryType::Symlink, "lib", "usr/lib");
    let middle = Layer::new()
        .file("opt/tool", 0o4750, "middle")
        .owned_file("srv/owned", 0o640, 1000, "mine")
        .attribute("security.capability", CAPABILITY)
        .file("opt/capable/busybox", 0o755, build::busybox())
        .attribute("user.note", b"kept\nwhole")
        .file("opt/noted", 0o644, "x")
        .file("lib/through", 0o644, "a link of a lower layer")
        .owned_file("srv/far", 0o640, 1_516_583_083, "of an owner with ten digits")
        .link(EntryType::Symlink, "opt/up", "../../../srv");
    // Names that begin with a slash, as some makers write them, and a link that means the root directory.
    let top = Layer::new().raw("/etc/.wh.gone").raw("//srv/old/.wh..wh..opq").raw("./opt/up/file");
    let top = top.file("srv/old/new", 0o644, "top");
    let layers = [(base, Packing::Gzip), (middle, Packing::Zstd), (top, Packing::Plain)];
    Image::new(layers, json!({ "Env": ["PATH=/opt:/bin", "COLOUR=blue"], "WorkingDir": "/srv", "User": "app" }))
}

/// What a machine of [`image`] shows of its root file system.
async fn check(sb: &Sandbox, unique: &str) {
    let sh = async |line: &str| {
        let out = sb.execute(line).await.unwrap().check().unwrap();
        out.stdout
    };
    assert_eq!(sh("cat /etc/unique").await, unique);
    assert_eq!(
        sh("cat /opt/tool /opt/twin; stat -c '%a %u' /opt/tool /srv/owned").await,
        "middlelower4750 0\n640 1000\n"
    );
    assert_eq!(
        sh("find /srv/old /etc/gone 2>/dev/null; cat /usr/lib/through").await,
        "/srv/old\n/srv/old/new\na link of a lower layer"
    );
    assert_eq!(sh("readlink /opt/up; stat -c '%n %s' /srv/file").await, "../../../srv\n/srv/file 0\n");
    // An ordinary user has no such id: then it is nobody's.
    let far = sh("stat -c %u:%g /srv/far").await;
    assert!(["1516583083:1516583083\n", "65534:65534\n"].contains(&&*far), "{far}");
    assert_eq!(
        sh("readlink /lib; stat -c %a /tmp; [ /bin/sh -ef /bin/busybox ] && echo same").await,
        "usr/lib\n1777\nsame\n"
    );
    // The kernel that it is lent comes with its modules, here through a /lib that is a link.
    let modules = "cd /lib/modules/$(uname -r) && busybox modprobe br_netfilter && busybox modprobe wireguard && \
                   busybox modprobe nf_tables && busybox modprobe dummy && busybox grep -cE '^(bridge|wireguard|nf_tables|dummy) ' \
                   /proc/modules";
    assert_eq!(sh(modules).await, "4\n");
    // What container engines ask of an init: groups with limits, and mounts that are shared.
    let engines = "cd /sys/fs/cgroup && echo +pids >cgroup.subtree_control && busybox mkdir mine && echo 7 >mine/pids.max && \
                   cat mine/pids.max && busybox grep -cE ' / / .* shared:' /proc/self/mountinfo";
    assert_eq!(sh(engines).await, "7\n1\n");
    // How its configuration has programs run; a command's own word goes before.
    assert_eq!(sh("echo $PATH $COLOUR; pwd; id -u").await, "/opt:/bin blue\n/srv\n0\n");
    let own =
        sb.command("sh").args(["-c", "echo $COLOUR; pwd"]).env("COLOUR", "red").current_dir("/tmp").output().await;
    assert_eq!(own.unwrap().stdout, "red\n/tmp\n");
}

/// Where the image of a sandbox is cached.
fn disk_of(unique: &str) -> PathBuf {
    let cache = std::env::var_os("QUICKSAND_CACHE_DIR").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/quicksand"));
    cache.join("images").join(unique).join("disk.qcow2")
}

#[tokio::test]
async fn a_layout_boots_and_starts_warm() {
    let temp = tempfile::tempdir().unwrap();
    let image = image("layout");
    image.write_layout(temp.path(), "mine:1");
    Image::new([(Layer::busybox(), Packing::Gzip)], json!({})).write_layout(temp.path(), "other");
    let reference = format!("oci-layout:{}:mine:1", temp.path().display());
    let sb = Sandbox::builder(&reference).start().await.unwrap();
    check(&sb, "layout").await;
    drop(sb);

    // By its digest it is the same image, so it starts from the same state.
    let reference = format!("oci-layout:{}@{}", temp.path().display(), image.index().digest());
    let sb = Sandbox::builder(&reference).start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    check(&sb, "layout").await;

    // A file's capabilities work, and its other attributes are on the disk.
    let out =
        sb.command("/opt/capable/busybox").args(["grep", "CapEff", "/proc/self/status"]).user("app").output().await;
    assert_eq!(out.unwrap().stdout, "CapEff:\t0000000000002000\n");
    let raw = temp.path().join("disk.raw");
    let disk = disk_of(&image.index().digest().replace("sha256:", "oci2-"));
    let convert = Command::new("qemu-img").args(["convert", "-O", "raw"]).args([&disk, &raw]).status().unwrap();
    assert!(convert.success());
    let debugfs =
        Command::new("/sbin/debugfs").args(["-R", "ea_get -x /opt/noted user.note"]).arg(&raw).output().unwrap();
    assert!(String::from_utf8_lossy(&debugfs.stdout).contains("6b 65 70 74 0a 77 68 6f 6c 65"), "{debugfs:?}");
}

#[tokio::test]
async fn a_saved_archive_and_a_root_file_system_boot() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("saved.tar");
    image("saved").write_docker_archive(&path, "mine:2");
    let sb = Sandbox::builder(format!("docker-archive:{}:mine:2", path.display())).start().await.unwrap();
    check(&sb, "saved").await;
    drop(sb);

    let (_, middle) = (Layer::new(), Layer::busybox().file("etc/.wh.x", 0o600, "no layer").raw("/etc/absolute"));
    let path = temp.path().join("root.tar.zst");
    fs::write(&path, Packing::Zstd.pack(&middle.into_archive())).unwrap();
    let sb = Sandbox::builder(path.to_str().unwrap()).start().await.unwrap();
    let out = sb.execute("cat /etc/.wh.x /etc/absolute; echo; pwd; ps | head -3").await.unwrap();
    assert!(out.stdout.starts_with("no layer\n/root\n"), "{out:?}");
}

/// As images are that hold one program, and those that are made for any number.
#[tokio::test]
async fn a_user_is_a_number_where_no_file_names_any() {
    let temp = tempfile::tempdir().unwrap();
    let bare = || {
        let busybox = Layer::new().directory("bin/", 0o755).file("bin/busybox", 0o755, build::busybox());
        busybox.link(EntryType::Symlink, "bin/sh", "busybox")
    };
    let path = temp.path().join("rootfs.tar");
    fs::write(&path, bare().into_archive()).unwrap();
    let image = Image::new([(bare(), Packing::Gzip)], json!({ "User": "65532:65532" }));
    image.write_layout(temp.path(), "bare");
    let layout = format!("oci-layout:{}:bare", temp.path().display());
    for (source, user, group) in [(path.to_str().unwrap(), "65532", "0"), (&layout, "65532:65532", "65532")] {
        let sb = Sandbox::builder(source).start().await.unwrap();
        let line = "busybox id -u; busybox id -g; busybox pwd; echo $HOME; ulimit -Sn; ulimit -Hn";
        let out = sb.command("/bin/busybox").args(["sh", "-c", line]).user(user).output().await.unwrap();
        assert_eq!(out.stdout, format!("65532\n{group}\n/\n/\n1024\n1048576\n"), "{out}");
        let out = sb.command("/bin/busybox").args(["id", "-u"]).output().await.unwrap();
        assert_eq!(out.stdout, "0\n");
        let error = sb.command("/bin/busybox").user("app").output().await.unwrap_err();
        assert!(error.to_string().contains("find user \"app\""), "{error}");
    }
}

/// Why an image is refused.
async fn refusal(source: String) -> String {
    let error = Sandbox::builder(source).start().await.unwrap_err();
    let mut text = error.to_string();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        text = format!("{text}: {next}");
        cause = next;
    }
    text
}

#[tokio::test]
async fn what_is_hostile_or_damaged_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let layout = |name: &str| (temp.path().join(name), format!("oci-layout:{}", temp.path().join(name).display()));

    // A layer that leaves its root, and one with a link to nothing.
    for (name, upper, why) in [
        ("up", Layer::new().raw("a/../../x"), "leads out of the root directory"),
        ("nothing", Layer::new().link(EntryType::Link, "h", "none"), "a hard link to \"none\", which is not there"),
    ] {
        let lower = Layer::new().file("x", 0o644, "");
        let (directory, source) = layout(name);
        Image::new([(lower, Packing::Gzip), (upper, Packing::Gzip)], json!({})).write_layout(&directory, "x");
        let text = refusal(source).await;
        assert!(text.contains(why) && text.contains("layer 2"), "{text}");
    }

    // A blob that is not what its digest says, one that is cut short, and one whose archive is another.
    let ordinary = || Image::new([(Layer::new().file("a", 0o644, "a".repeat(5000)), Packing::Gzip)], json!({}));
    let (directory, source) = layout("digest");
    ordinary().write_layout(&directory, "x");
    let blob = ordinary().layer_path(&directory, 0);
    let whole = fs::read(&blob).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&blob, &damaged).unwrap();
    let (expected, found) = (build::digest(&whole), build::digest(&damaged));
    let text = refusal(source.clone()).await;
    assert!(text.contains(&format!("should be {expected} and is {found}")), "{text}");
    fs::write(&blob, &whole[..whole.len() - 3]).unwrap();
    let text = refusal(source).await;
    assert!(text.contains(&format!("should have {} bytes", whole.len())), "{text}");

    let (directory, source) = layout("archive");
    let mut lying = ordinary();
    lying.layers[0].content = Packing::Gzip.pack(&Layer::new().file("a", 0o644, "other").into_archive());
    lying.manifest = Image::manifest_of(&lying.config, &lying.layers);
    lying.write_layout(&directory, "x");
    let text = refusal(source).await;
    assert!(text.contains("the archive in layer 1") && text.contains("should be sha256:"), "{text}");

    // A name that is not there, and something that is no image.
    let (directory, source) = layout("name");
    ordinary().write_layout(&directory, "x");
    let text = refusal(format!("{source}:none")).await;
    assert!(text.contains("no image \"none\"; it has x"), "{text}");
    ordinary().write_layout(&directory, "y");
    let text = refusal(source).await;
    assert!(text.contains("it has several: x, y; add the name of one to its path, as in path:x"), "{text}");
    let (directory, source) = layout("artifact");
    let mut artifact = ordinary();
    artifact.config.media_type = "application/vnd.example.config+json".into();
    artifact.manifest = Image::manifest_of(&artifact.config, &artifact.layers);
    artifact.write_layout(&directory, "x");
    let text = refusal(source).await;
    assert!(
        text.contains("no container image but an artifact of the type \"application/vnd.example.config+json\""),
        "{text}"
    );
}

/// A project of its own, which this process is in until it is dropped.
struct Project {
    directory: tempfile::TempDir,
    back: PathBuf,
}

impl Project {
    fn enter() -> Project {
        let (directory, back) = (tempfile::tempdir().unwrap(), std::env::current_dir().unwrap());
        fs::write(directory.path().join("Cargo.toml"), "").unwrap();
        std::env::set_current_dir(directory.path()).unwrap();
        Project { directory, back }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // The other tests of this process need a directory that is there.
        let _ = std::env::set_current_dir(&self.back);
    }
}

#[tokio::test]
async fn a_registry_is_asked_once() {
    let registry = Registry::start(false);
    registry.push("mine/tools", "1", &image("registry"));
    let reference = format!("oci:{}/mine/tools:1", registry.host());
    // A project's lock says from then on what the tag means.
    let project = Project::enter();
    let sb = Sandbox::builder(&reference).start().await.unwrap();
    check(&sb, "registry").await;
    drop(sb);

    let other = image("another");
    let lock = project.directory.path().join("quicksand.lock");
    let held = fs::read_to_string(&lock).unwrap();
    let digest = image("registry").index().digest();
    assert!(held.contains(&format!("[images.\"{reference}\"]")) && held.contains(&digest), "{held}");

    // The tag means the same tomorrow, and without a registry, too.
    registry.push("mine/tools", "1", &other);
    let sb = Sandbox::builder(&reference).start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    assert_eq!(sb.read_file("/etc/unique").await.unwrap(), b"registry");
    let text = refusal(format!("oci:{}/mine/none:1", registry.host())).await;
    assert!(text.contains("the registry has no such thing"), "{text}");
    // Whatever else this user pulled, it is what the lock says.
    fs::write(&lock, held.replace(&digest, &other.index().digest())).unwrap();
    let sb = Sandbox::builder(&reference).start().await.unwrap();
    assert_eq!(sb.read_file("/etc/unique").await.unwrap(), b"another");
    drop(sb);
    let host = registry.host();
    drop(registry);
    fs::write(&lock, held).unwrap();
    drop(Sandbox::builder(&reference).start().await.unwrap());
    let text = refusal(format!("oci:{host}/mine/tools@{}", image("third").index().digest())).await;
    assert!(text.contains(&format!("log in to {host}")) && text.contains("onnect"), "{text}");
}

/// What this program does in a process of its own, whose variables say where a login is.
#[tokio::test]
#[ignore = "run by another test, with variables of its own"]
async fn child() {
    let source = std::env::var("OCI_SOURCE").unwrap();
    match Sandbox::builder(&source).start().await {
        Ok(sb) => println!("started {}", sb.execute("cat /etc/unique").await.unwrap().stdout),
        Err(_) => println!("refused {}", refusal(source).await),
    }
}

/// Starts a source with a login in `config`, or none, and gives what came of it.
fn start_with(source: &str, config: &Path, variables: &[(&str, &str)]) -> String {
    let path = format!("{}:{}", config.display(), std::env::var("PATH").unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        // Outside of any project: this one's lock is none of its business.
        .current_dir(config)
        .env("OCI_SOURCE", source)
        .env("DOCKER_CONFIG", config)
        .env("PATH", path)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = ["started ", "refused "].iter().find_map(|word| Some(&text[text.find(word)?..]));
    found.unwrap_or_else(|| panic!("{output:?}")).lines().next().unwrap().to_owned()
}

#[test]
fn a_login_of_dockers_is_used() {
    let registry = Registry::start(true);
    let host = registry.host();
    let image =
        |unique: &str| Image::new([(Layer::busybox().file("etc/unique", 0o644, unique), Packing::Gzip)], json!({}));
    registry.push("secret/tools", "1", &image("by a file"));
    registry.push("secret/tools", "2", &image("by a helper"));
    let config = tempfile::tempdir().unwrap();
    let source = format!("oci:{host}/secret/tools:1");
    let text = start_with(&source, config.path(), &[]);
    assert!(text.starts_with("refused ") && text.contains(&format!("`docker login {host}`")), "{text}");

    registry::write_login(config.path(), &host);
    let text = start_with(&source, config.path(), &[("QUICKSAND_OFFLINE", "1")]);
    assert!(text.contains(&format!("pull {host}/secret/tools:1: QUICKSAND_OFFLINE forbids it")), "{text}");
    assert_eq!(start_with(&source, config.path(), &[]), "started by a file");

    // A program that keeps them, as people's desktops have it. It is asked for this registry alone.
    let (user, password) = registry::USER;
    let helper = config.path().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {host}' ] || exit 1\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"{user}\",\"Secret\":\"{password}\"}}'\n"
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let helpers = json!({ "credHelpers": { &host: "test" } });
    fs::write(config.path().join("config.json"), helpers.to_string()).unwrap();
    assert_eq!(start_with(&format!("oci:{host}/secret/tools:2"), config.path(), &[]), "started by a helper");
}
