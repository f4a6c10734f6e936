//! Case files: sessions in Markdown that are held against what their commands do, or rewritten. Each test here runs this very
//! program as a child, with a package of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use quicksand::case_files;

/// What this program does as a child of the tests below: runs the case files of a package.
#[test]
#[ignore = "run by the other tests in a process of its own, with what to do in its environment"]
fn child() {
    for case in case_files(Path::new(&env::var("CASES_PACKAGE").unwrap())).unwrap() {
        println!("runs {}", case.name);
        (case.run)();
    }
}

struct Package(tempfile::TempDir);

impl Package {
    /// A package with one case file, whose session starts from the image `debian`.
    fn new(front: &str, session: &str) -> Package {
        let package = Package(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        fs::create_dir_all(package.file().parent().unwrap()).unwrap();
        fs::write(package.file(), format!("+++\nimage = \"debian\"\n{front}+++\nText.\n{session}The end")).unwrap();
        fs::write(package.file().with_file_name("README.md"), "No case.").unwrap();
        package
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("tests/cases/one.md")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Runs its cases. Whether they passed, and what was said.
    fn run(&self, mode: &str) -> (bool, String) {
        let Output { status, stdout, stderr } = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env_remove("CARGO_MANIFEST_DIR")
            .env("CASES_PACKAGE", self.0.path())
            .env("QUICKSAND_CASES", mode)
            .env("QUICKSAND_KEEP", "never")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }
}

#[test]
fn a_session_is_rewritten_where_it_differs() {
    let session = "\
```console
$ cd /srv
$ echo one; pwd; echo 3; false
? 2
[..]ne
/root
...
$ printf 'a\\nb'
a
old

$ echo same
same
```
";
    let package = Package::new("", session);
    let before = package.text();
    let (passed, said) = package.run("check");
    assert!(!passed, "{said}");
    for part in [
        "runs cases::one\n",
        "tests/cases/one.md:7: `echo one; pwd; echo 3; false`: this came (+), that is expected (-):\n",
        "    - ? 2\n    + ? 1\n      [..]ne\n    - /root\n    + /srv\n      ...\n",
        "tests/cases/one.md:12: `printf 'a\\nb'`: this came (+)",
        "      a\n    - old\n    + b (no-eol)\n",
        "QUICKSAND_CASES=overwrite",
        "to look into it: ",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("echo same"), "{said}");
    assert_eq!(package.text(), before);

    let (passed, said) = package.run("overwrite");
    assert!(passed && said.contains("REWRITTEN tests/cases/one.md\n"), "{said}");
    let after = before.replace("? 2", "? 1").replace("/root", "/srv").replace("\nold\n", "\nb (no-eol)\n");
    assert_eq!(package.text(), after);
    let (passed, said) = package.run("");
    assert!(passed && !said.contains("REWRITTEN"), "{said}");
    assert_eq!(package.text(), after);
    let files = fs::read_dir(package.file().parent().unwrap()).unwrap().count();
    assert_eq!(files, 2, "no other file stays");
}

#[test]
fn a_command_that_hangs_is_named() {
    let package =
        Package::new("timeout = \"3s\"\n", "```console\n$ echo wrong\nright\n$ echo so far; sleep 600\n```\n");
    let before = package.text();
    let (passed, said) = package.run("overwrite");
    assert!(!passed, "{said}");
    for part in [
        "tests/cases/one.md:9: `echo so far; sleep 600`: it still ran when the session's 3s were over, having printed \"so far\\n\"",
        "tests/cases/one.md:7: `echo wrong`: this came (+)",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(package.text(), before);
}

/// What a shell may do that its driver must survive.
#[test]
fn commands_do_as_they_like_with_their_shell() {
    for shell in ["sh", "bash"] {
        let session = "\
```console
$ echo one > /root/file; exec < /root/file
$ exec > /root/log 2>&1; echo to the log
$ cat /root/log; cat
to the log
one
$ set -u; set -x; : traced
+[..] : traced
$ set +x
+[..] set +x
$ echo $undefined; echo not reached
? failed
...
$ echo 'unfinished
? failed
...
$ if
? failed
...
$ sleep 600 & echo in the background
in the background
$ set -e
$ false
? 1
$ kill -9 $$
? 137
$ exec sh -c 'echo replaced; exit 5'
? 5
replaced
$ head -c 300000 /dev/zero | tr '\\0' x | fold -w 1000
xxxx[..]xxxx
...
xxxx[..]xxxx (no-eol)
$ ls /proc/self/fd
0
1
2
3
```
";
        let package = Package::new(&format!("shell = \"{shell}\"\n"), session);
        let (passed, said) = package.run("check");
        assert!(passed, "{shell}: {said}");
    }
}

#[test]
fn what_can_not_be_run_is_explained() {
    for (front, session, mode, why) in [
        ("memroy = \"1G\"\n", "```console\n$ true\n```\n", "", "tests/cases/one.md:3: unknown field `memroy`"),
        ("", "```console\noutput\n```\n", "", "tests/cases/one.md:6: begin a block with a command"),
        ("", "```console\n$ true\n```\n", "update", "use QUICKSAND_CASES=update: write check or overwrite"),
        ("shell = \"nosuchshell\"\n", "```console\n$ true\n```\n", "", "tests/cases/one.md:7: `true`: failed to "),
        (
            "save = \"unknown\"\nimage = \"nosuchimage\"\n",
            "```console\n$ true\n```\n",
            "",
            "tests/cases/one.md:4: duplicate key",
        ),
    ] {
        let (passed, said) = Package::new(front, session).run(mode);
        assert!(!passed && said.contains(why), "{why} in {said}");
    }
}

#[test]
fn a_session_is_skipped_where_the_host_lacks_what_it_requires() {
    let package = Package::new("requires = { command = \"no-such-program\" }\n", "```console\n$ false\n```\n");
    let output = Command::new(env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env_remove("CARGO_MANIFEST_DIR")
        .env("CASES_PACKAGE", package.0.path())
        .env("QUICKSAND_REQUIRE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("SKIP cases::one: it requires the program no-such-program: it is not on the path"), "{said}");
}
