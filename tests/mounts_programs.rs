//! Programs that ask much of a file system, at work on mounts: SQLite, git, and cargo with the host's own toolchain.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use quicksand::{Mount, Sandbox, sandbox_test};

fn share() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// What a line prints, which must succeed.
async fn shell(sb: &Sandbox, line: &str) -> quicksand::Result<String> {
    Ok(sb.command("sh").args(["-ec", line]).timeout(Duration::from_secs(600)).output().await?.check()?.stdout)
}

async fn with_sqlite(sb: &Sandbox) -> quicksand::Result<()> {
    let get = "apt-get -o Acquire::Retries=5 -qq";
    shell(sb, &format!("{get} update && {get} install --no-install-recommends -y sqlite3 > /dev/null")).await?;
    Ok(())
}

#[sandbox_test(image = "debian", network = "full", save = "sqlite", setup = with_sqlite, timeout = "10m")]
async fn sqlite_keeps_its_promises(sb: Sandbox) -> quicksand::Result<()> {
    let host = share();
    sb.mount(Mount::new(host.path(), "/m")).await?;
    for mode in ["delete", "wal"] {
        let db = format!("/m/{mode}.db");
        shell(&sb, &format!("sqlite3 {db} 'pragma journal_mode={mode}; create table t (writer, n)'")).await?;
        // Two writers, whose locks must hold against each other.
        let writer = |who: &str| {
            format!(
                "for n in $(seq 10); do sqlite3 -cmd '.timeout 60000' {db} \"begin immediate; \
                 insert into t select '{who}', coalesce(max(n), 0) + 1 from t; commit\"; done"
            )
        };
        shell(&sb, &format!("({}) & ({}); wait", writer("a"), writer("b"))).await?;
        let facts = format!("sqlite3 {db} 'pragma integrity_check; select count(*), count(distinct n), max(n) from t'");
        assert_eq!(shell(&sb, &facts).await?, "ok\n20|20|20\n", "{mode}");
        // One that is killed in the middle of a transaction leaves nothing of it.
        let killed = format!(
            "(echo 'begin immediate; update t set n = -1; select 1;'; sleep 100) | sqlite3 -cmd 'pragma cache_size=1' {db} \
             > /tmp/said & while ! test -s /tmp/said; do sleep 0.1; done; pkill -KILL sqlite3; pkill sleep; rm /tmp/said"
        );
        shell(&sb, &killed).await?;
        assert_eq!(shell(&sb, &facts).await?, "ok\n20|20|20\n", "{mode}");
    }
    let bytes = fs::read(host.path().join("delete.db")).unwrap();
    assert!(bytes.starts_with(b"SQLite format 3\0"));
    Ok(())
}

async fn with_database(sb: &Sandbox) -> quicksand::Result<()> {
    let get = "apt-get -o Acquire::Retries=5 -qq";
    let line = "export DEBIAN_FRONTEND=noninteractive; GET update; GET install --no-install-recommends -y git postgresql > /dev/null; \
                systemctl disable --now postgresql";
    shell(sb, &line.replace("GET", get)).await?;
    sb.create_user("ann").await
}

/// What asks whose its files are: git of a repository that the host made, and a database of its directory.
#[sandbox_test(image = "debian", network = "full", memory = "1G", save = "database", setup = with_database, timeout = "10m")]
async fn git_and_a_database_are_content_with_owners(sb: Sandbox) -> quicksand::Result<()> {
    let host = share();
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(host.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "-q"]);
    fs::write(host.path().join("new"), "").unwrap();
    sb.mount(Mount::new(host.path(), "/m")).await?;
    for user in ["ann", "root", "ann"] {
        let status = sb.command("git").args(["-C", "/m", "status", "--porcelain"]).user(user).output().await?;
        assert_eq!((&*status.stdout, &*status.stderr), ("?? new\n", ""), "{user}");
    }
    // As several users in one command.
    shell(&sb, "git -C /m status; su ann -c 'git -C /m add new'; git -C /m status; rm -f /m/.git/index.lock").await?;
    let start = "su postgres -c 'cd && b=$(echo /usr/lib/postgresql/*/bin) && $b/initdb -D /m/pg && $b/pg_ctl -D /m/pg -w start'";
    shell(&sb, start).await?;
    let query = "su postgres -c 'cd && psql -Atc \"create table t as select 42 as n\" -c \"select n from t\"'";
    assert_eq!(shell(&sb, query).await?, "SELECT 1\n42\n");
    shell(&sb, "stat -c %U:%a /m/pg | grep -x postgres:700; su postgres -c 'cd && /usr/lib/postgresql/*/bin/pg_ctl -D /m/pg -w stop'").await?;
    Ok(())
}

/// The root file system of a chroot in the guest whose programs are the host's, all of them on read-only mounts.
const ROOT: &str = "/r";

/// Gives the guest the host's programs and a directory to work in, at `/work`.
async fn borrow_programs(sb: &Sandbox, work: &Path) -> quicksand::Result<()> {
    let layout = "mkdir -p /r/usr /r/tmp /r/proc /r/dev && for d in bin lib lib64 sbin; do ln -s usr/$d /r/$d; done && \
                  mount --bind /proc /r/proc && mount --bind /dev /r/dev";
    shell(sb, layout).await?;
    sb.mount(Mount::new("/usr", format!("{ROOT}/usr")).read_only().cached()).await?;
    sb.mount(Mount::new(work, format!("{ROOT}/work"))).await?;
    Ok(())
}

async fn in_root(sb: &Sandbox, line: &str) -> quicksand::Result<String> {
    let environment = "HOME=/tmp PATH=/toolchain/bin:/usr/bin:/bin";
    shell(sb, &format!("chroot {ROOT} /usr/bin/env {environment} sh -ec '{line}'")).await
}

#[sandbox_test(image = "debian", memory = "1G", timeout = "10m")]
async fn git_works(sb: Sandbox) -> quicksand::Result<()> {
    let host = share();
    borrow_programs(&sb, host.path()).await?;
    in_root(
        &sb,
        "git config --global user.name t; git config --global user.email t@localhost; git init -q /work/a; cd /work/a; \
         for n in $(seq 30); do echo $n > f$n; done; git add .; git commit -qm first; \
         git mv f1 g1; echo more >> f2; git commit -qam second; git gc -q; git fsck --strict; \
         git clone -q /work/a /work/b; cd /work/b; git checkout -qb side; git rm -q f3; git commit -qm third; git push -q origin side",
    )
    .await?;
    assert_eq!(
        in_root(&sb, "cd /work/a; git status --porcelain; git log --format=%s side").await?,
        "third\nsecond\nfirst\n"
    );
    // The host's git agrees, and may work on it meanwhile.
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(host.path().join("b")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(git(&["log", "--format=%s", "origin/side"]), "third\nsecond\nfirst\n");
    git(&["fsck", "--strict"]);
    git(&["checkout", "-q", "-b", "host"]);
    assert_eq!(in_root(&sb, "cd /work/b; git status --porcelain; git branch --show-current").await?, "host\n");
    Ok(())
}

#[sandbox_test(image = "debian", memory = "1G", timeout = "15m")]
async fn cargo_builds_a_crate(sb: Sandbox) -> quicksand::Result<()> {
    let host = share();
    fs::create_dir(host.path().join("src")).unwrap();
    let manifest = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    fs::write(host.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(host.path().join("src/main.rs"), "fn main() { println!(\"{}\", tiny::answer()) }\n").unwrap();
    fs::write(host.path().join("src/lib.rs"), "pub fn answer() -> u32 { 42 }\n").unwrap();
    borrow_programs(&sb, host.path()).await?;
    let toolchain = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let toolchain = PathBuf::from(String::from_utf8(toolchain.stdout).unwrap().trim());
    sb.mount(Mount::new(&toolchain, format!("{ROOT}/toolchain")).read_only().cached()).await?;

    let build = "cd /work; CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=gcc cargo build --offline";
    in_root(&sb, build).await?;
    assert_eq!(in_root(&sb, "/work/target/debug/tiny").await?, "42\n");
    assert!(host.path().join("target/debug/tiny").is_file());
    // What the host changes is built anew, and nothing else.
    fs::write(host.path().join("src/lib.rs"), "pub fn answer() -> u32 { 43 }\n").unwrap();
    in_root(&sb, build).await?;
    assert_eq!(in_root(&sb, "/work/target/debug/tiny").await?, "43\n");
    let said = in_root(&sb, &format!("{build} -v 2>&1")).await?;
    assert!(said.contains("Fresh tiny") && !said.contains("Running"), "{said}");
    Ok(())
}
