//! Runs the programs that make images, none of which outlives us.
//!
//! Each runs below a shell that is the leader of a process group of its own. A second shell of the group, the guard,
//! reads from a pipe whose other end this process alone holds and never writes to. That end is closed when the call is
//! dropped, and by the kernel when this process dies, however it dies; then the guard asks the whole group to end, so
//! that mmdebstrap and our own scripts can clean up, and kills what is left of it after a while.

use std::{
    collections::VecDeque,
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::unistd::geteuid;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::image::error::ImageError;

/// How long a program may run. The longest takes a minute, and many on a slow network.
const DEADLINE: Duration = Duration::from_secs(20 * 60);
/// How many of a failing program's lines an error carries.
const LAST_LINES: usize = 15;
/// How much of a line without an end is kept.
const LONGEST_LINE: usize = 2000;

const GUARDED: &str = r#"
exec 3<&0 </dev/null
{ read -r _ <&3; trap '' TERM; kill -TERM 0; sleep 10; kill -KILL 0; } >/dev/null 2>&1 &
guard=$!
exec 3<&-
"$@"
status=$?
exec 2>/dev/null
kill -KILL $guard
exit $status
"#;

/// A program to run.
#[derive(Debug)]
pub(crate) struct Tool {
    name: &'static str,
    arguments: Vec<OsString>,
    directory: PathBuf,
    output: Option<File>,
    fills: PathBuf,
    deadline: Duration,
}

impl Tool {
    /// The program of that name. It runs in `directory`, which a full disk is laid to.
    pub(crate) fn new(name: &'static str, directory: &Path) -> Tool {
        let fills = directory.to_owned();
        let arguments = vec![name.into()];
        Tool { name, arguments, directory: directory.to_owned(), output: None, fills, deadline: DEADLINE }
    }

    /// A shell script, which errors call `name`.
    pub(crate) fn script(name: &'static str, directory: &Path, script: &str) -> Tool {
        let mut tool = Tool::new(name, directory);
        tool.arguments.clear();
        tool.args(["sh", "-c", script, "sh"])
    }

    /// A shell script, run by root or by somebody whom a namespace of their own makes root.
    pub(crate) fn root_script(name: &'static str, directory: &Path, script: &str) -> Tool {
        let mut tool = Tool::script(name, directory, script);
        if !geteuid().is_root() {
            let namespace = ["unshare", "--map-auto", "--map-root-user"];
            tool.arguments.splice(0..0, namespace.map(OsString::from));
        }
        tool
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Tool {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sends its standard output to a file. What is watched is then its standard error.
    pub(crate) fn output(mut self, file: File) -> Tool {
        self.output = Some(file);
        self
    }

    /// Where it writes what may fill a disk, if not to its directory.
    pub(crate) fn fills(mut self, path: PathBuf) -> Tool {
        self.fills = path;
        self
    }

    /// Runs it to its end and shows `watch` each line of its standard output as it comes.
    pub(crate) async fn run(self, mut watch: impl FnMut(&str) + Send) -> Result<(), ImageError> {
        let program = self.name;
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", GUARDED, "sh"]).args(self.arguments).current_dir(&self.directory);
        // Error texts are looked into, so they have to be in one language.
        command.env("PATH", search_path()).env("LC_ALL", "C.UTF-8");
        let output = self.output.map_or_else(Stdio::piped, Stdio::from);
        command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|source| ImageError::Start { program, source })?;
        drop(command);

        let mut tail = Tail::default();
        let _held_by_us_alone = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            match (stdout, stderr) {
                (Some(stdout), Some(stderr)) => {
                    tokio::join!(each_line(stdout, watch), each_line(stderr, |line| tail.push(line)));
                }
                (None, Some(stderr)) => {
                    let both = |line: &str| {
                        watch(line);
                        tail.push(line);
                    };
                    each_line(stderr, both).await;
                }
                _ => {}
            }
            child.wait().await
        };
        let status = match tokio::time::timeout(self.deadline, work).await {
            Ok(status) => status.map_err(|source| ImageError::Start { program, source })?,
            Err(_) => return Err(ImageError::ToolTimeout { program, after: self.deadline, last_words: tail.text() }),
        };
        if status.success() {
            return Ok(());
        }
        let last_words = tail.text();
        if ["No space left on device", "Disk quota exceeded"].iter().any(|text| last_words.contains(text)) {
            return Err(ImageError::NoSpace { path: self.fills });
        }
        Err(ImageError::Tool { program, status, last_words })
    }
}

/// Checks that programs are there, each given with the package that brings it.
pub(crate) fn require(programs: &[(&'static str, &'static str)]) -> Result<(), ImageError> {
    let path = search_path();
    let is_program =
        |path: PathBuf| path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    for &(program, package) in programs {
        if !env::split_paths(&path).any(|directory| is_program(directory.join(program))) {
            return Err(ImageError::MissingTool { program, package });
        }
    }
    Ok(())
}

/// `PATH`, and the directories of programs like mke2fs, which are not on every user's.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| "/usr/bin:/bin".into());
    path.push(":/usr/sbin:/sbin");
    path
}

/// A name that nobody had before: what a cancelled maker still removes must not be another one's.
pub(crate) fn unique(prefix: &str) -> Result<String, ImageError> {
    let failed = |error: getrandom::Error| io::Error::other(error.to_string());
    let number = getrandom::u64().map_err(failed).map_err(ImageError::io("read", Path::new("/dev/urandom")))?;
    Ok(format!("{prefix}{number:016x}"))
}

/// The last lines of an output.
#[derive(Debug, Default)]
struct Tail(VecDeque<String>);

impl Tail {
    fn push(&mut self, line: &str) {
        if self.0.len() == LAST_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    fn text(self) -> String {
        self.0.into_iter().collect::<Vec<_>>().join("\n")
    }
}

/// Shows each line that is not blank. A carriage return ends one too: that is how progress is shown on a terminal.
async fn each_line(mut from: impl AsyncRead + Unpin, mut show: impl FnMut(&str)) {
    let mut show = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        if !line.trim().is_empty() {
            show(line.trim_end());
        }
    };
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    // An unreadable pipe is one that has ended, as far as we care: the exit status says whether all went well.
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        for &byte in &buffer[..count] {
            if byte == b'\n' || byte == b'\r' {
                show(&line);
                line.clear();
            } else if line.len() < LONGEST_LINE {
                line.push(byte);
            }
        }
    }
    show(&line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn sh(script: &str) -> Tool {
        Tool::new("sh", &env::temp_dir()).args(["-c", script])
    }

    #[tokio::test]
    async fn lines_are_shown_however_they_end() {
        let mut seen = Vec::new();
        let tool = sh("printf '  (1%%)\\r  (2%%)\\r\\n\\nx\\377\\nlast'; echo not this >&2");
        tool.run(|line| seen.push(line.to_owned())).await.unwrap();
        assert_eq!(seen, ["  (1%)", "  (2%)", "x\u{fffd}", "last"]);
    }

    #[tokio::test]
    async fn output_goes_to_a_file_and_errors_are_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut seen = Vec::new();
        let tool = sh("echo out; echo error >&2").output(file.reopen().unwrap());
        tool.run(|line| seen.push(line.to_owned())).await.unwrap();
        assert_eq!(seen, ["error"]);
        assert_eq!(std::fs::read(file.path()).unwrap(), b"out\n");
    }

    #[tokio::test]
    async fn a_failure_carries_the_last_words() {
        let error = sh("for i in $(seq 100); do echo line $i >&2; done; exit 3").run(|_| {}).await.unwrap_err();
        let ImageError::Tool { program: "sh", status, last_words } = error else { panic!("{error}") };
        assert_eq!(status.code(), Some(3));
        assert_eq!(last_words.lines().count(), LAST_LINES);
        assert!(last_words.ends_with("line 100"), "{last_words}");
    }

    #[tokio::test]
    async fn a_full_disk_is_recognised() {
        let tool = sh("cat /proc/version >/dev/full").fills("/full".into());
        let error = tool.run(|_| {}).await.unwrap_err();
        assert!(matches!(&error, ImageError::NoSpace { path } if path == Path::new("/full")), "{error}");
    }

    #[tokio::test]
    async fn a_deadline_ends_it() {
        let mut tool = sh("echo waiting >&2; sleep 1000");
        tool.deadline = Duration::from_millis(300);
        let error = tool.run(|_| {}).await.unwrap_err();
        assert!(matches!(&error, ImageError::ToolTimeout { last_words, .. } if last_words == "waiting"), "{error}");
    }

    #[tokio::test]
    async fn dropping_asks_the_whole_group_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let (ready, cleaned) = (directory.path().join("ready"), directory.path().join("cleaned"));
        // The script cleans up once its own child is gone, which only a signal to the whole group can achieve. Shells
        // say that a child was killed, and nobody listens any more.
        let script =
            r#"trap '' PIPE; trap 'asked=1' TERM; sleep 1000 & touch "$1"; wait; wait; [ "$asked" ] && touch "$2""#;
        let tool = sh(script).args([OsStr::new("sh"), ready.as_os_str(), cleaned.as_os_str()]);
        let run = tokio::spawn(tool.run(|_| {}));
        let start = Instant::now();
        while !ready.exists() {
            assert!(start.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        run.abort();
        while !cleaned.exists() {
            assert!(start.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        require(&[("sh", "dash"), ("mke2fs", "e2fsprogs")]).unwrap();
        let error = require(&[("sh", "dash"), ("no-such-program", "no-such-package")]).unwrap_err();
        assert!(matches!(&error, ImageError::MissingTool { program: "no-such-program", .. }));
        assert!(error.to_string().contains("no-such-package"), "{error}");
    }
}
