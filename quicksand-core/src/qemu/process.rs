//! A QEMU process that can't outlive its owner.
//!
//! Each has a *keeper*: a thread that starts it, waits for its end and tells it. The kernel kills QEMU when that thread ends
//! (`PR_SET_PDEATHSIG` watches the thread, not the process), which happens only when this process dies, however it dies.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::{Pid, SysconfVar, getppid, sysconf},
};
use tokio::sync::watch;

/// Why QEMU could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Its log could not be made.
    #[error("create the log {}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The program could not be run.
    #[error("start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

/// A running QEMU. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    command_line: String,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts `program`. Of our descriptors it inherits `inherit` alone, under their numbers here; its output goes to `log`. It has
    /// a process group of its own, so that a Ctrl-C in the terminal leaves it to us.
    ///
    /// # Errors
    ///
    /// [`LaunchError`]. That the program runs does not mean that it likes its arguments: watch [`ended`](Process::ended).
    pub async fn launch(
        program: &Path,
        arguments: Vec<OsString>,
        inherit: Vec<OwnedFd>,
        log: &Path,
    ) -> Result<Process, LaunchError> {
        let output = File::create(log).map_err(|source| LaunchError::Log { path: log.to_owned(), source })?;
        let (report, started) = tokio::sync::oneshot::channel();
        let (end, ended) = watch::channel(None);
        let command_line = shell_words(program, &arguments);
        let spawn_error = |source| LaunchError::Spawn { program: program.to_owned(), source };
        let command = output.try_clone().map(|error_output| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(error_output).process_group(0);
            command
        });
        let mut command = command.map_err(spawn_error)?;
        tie_to_this_thread(&mut command, inherit.iter().map(AsRawFd::as_raw_fd).collect());
        let keep = move || match command.spawn() {
            Ok(mut child) => {
                drop((command, inherit));
                let _ = report.send(Ok(child.id()));
                let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(-1));
                end.send_replace(Some(status));
            }
            Err(error) => {
                let _ = report.send(Err(error));
            }
        };
        thread::Builder::new().name("quicksand-keeper".into()).spawn(keep).map_err(spawn_error)?;
        let pid = started.await.unwrap_or_else(|_| Err(io::Error::other("the keeper died"))).map_err(spawn_error)?;
        Ok(Process { pid, command_line, ended })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The command that started it, as a shell would take it.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// How it ended. `None` while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    /// The processor time that it has used, 0 where the host does not tell.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        let ticks = parse_cpu_ticks(&stat).unwrap_or(0);
        Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64)
    }

    /// How many nanoseconds its threads that there are now have run, if all of them sleep. `None` where one is running, waits for a
    /// processor or a disk, or is stopped, and where the host does not tell.
    pub fn rests_after(&self) -> Option<u64> {
        rests_after(self.pid)
    }

    /// Whether all of its threads sleep, for somebody who does not hold it.
    pub(crate) fn rest(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let pid = self.pid;
        move || rests_after(pid).is_some()
    }

    /// Waits for its end, also where it is dropped meanwhile.
    pub fn ended(&self) -> impl Future<Output = ExitStatus> + use<> {
        let mut ended = self.ended.clone();
        async move {
            // The keeper sends the status before it goes.
            let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
            status.unwrap_or_else(|| ExitStatus::from_raw(-1))
        }
    }

    /// Kills it and waits for its end, which is a matter of milliseconds unless the kernel is stuck on its files.
    ///
    /// # Errors
    ///
    /// `TimedOut` where it is still there after 10 s.
    pub async fn kill(&self) -> io::Result<ExitStatus> {
        self.signal_kill();
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, self.ended()).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("QEMU (process {}) survives SIGKILL", self.pid))
        })
    }

    pub(crate) fn signal_kill(&self) {
        // The number is QEMU's until the keeper has reaped it, and it says so before anything else happens.
        if self.is_running() {
            let _ = kill(Pid::from_raw(self.pid as i32), Signal::SIGKILL);
        }
    }
}

/// See [`Process::rests_after`].
fn rests_after(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let thread = thread.ok()?.path();
        let (stat, ran) =
            (fs::read_to_string(thread.join("stat")).ok()?, fs::read_to_string(thread.join("schedstat")).ok()?);
        // Not one that waits for the host's disk, either, or is stopped itself.
        if stat.rsplit_once(')')?.1.trim_start().chars().next()? != 'S' {
            return None;
        }
        sum += ran.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(sum)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal_kill();
    }
}

/// A command line that a shell takes apart again.
fn shell_words(program: &Path, arguments: &[OsString]) -> String {
    let words = [program.as_os_str()].into_iter().chain(arguments.iter().map(OsString::as_os_str));
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./,:=+@%".contains(&byte);
        if !word.is_empty() && word.bytes().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// User and system time from `/proc/PID/stat` (see proc(5)). The second field is a name that may hold anything.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Has the kernel kill the program with the thread that starts it, and gives it the descriptors of `inherit`.
#[allow(unsafe_code)]
fn tie_to_this_thread(command: &mut Command, inherit: Vec<RawFd>) {
    let parent = Pid::this();
    let prepare = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // Had the parent died before that call, nobody would send the signal.
        if getppid() != parent {
            return Err(io::Error::from(nix::errno::Errno::ESRCH));
        }
        // What this process itself inherited, as from a shell or a build's job server, would else be held open by QEMU.
        // Linux before 5.11 can't do this; there only our own descriptors are kept from it, all of which are so marked.
        // SAFETY: marks descriptors to be closed by exec, which closes nothing that this child still uses.
        let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
        for &fd in &inherit {
            // SAFETY: the keeper holds the descriptors open until the program has started.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: runs in the child between fork and exec, where only async-signal-safe calls are allowed: these are system calls
    // on values made before the fork; nothing is allocated or locked.
    unsafe {
        command.pre_exec(prepare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, time::Instant};

    async fn launch(program: &str, arguments: &[&str], inherit: Vec<OwnedFd>) -> Result<Process, LaunchError> {
        let log = tempfile::NamedTempFile::new().unwrap();
        Process::launch(Path::new(program), arguments.iter().map(OsString::from).collect(), inherit, log.path()).await
    }

    #[test]
    fn processor_time_is_read() {
        assert_eq!(parse_cpu_ticks("7 (a) b) S 1 7 7 0 -1 4194560 10 0 0 0 30 12 0 0 20 0"), Some(42));
        assert_eq!(parse_cpu_ticks("nonsense"), None);
    }

    #[tokio::test]
    async fn one_that_waits_is_told_from_one_that_runs() {
        let waits = launch("sleep", &["1000"], vec![]).await.unwrap();
        let runs = launch("sh", &["-c", "while :; do :; done"], vec![]).await.unwrap();
        // Both have yet to become what they are.
        let begun = Instant::now();
        loop {
            let (rests, turns) = (waits.rests_after(), runs.rests_after());
            if rests.is_some() && rests == waits.rests_after() && turns.is_none() {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{rests:?}, {turns:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn a_command_line_can_be_given_to_a_shell() {
        let line = shell_words(Path::new("/a b/qemu"), &["-m".into(), "x='1'".into(), "".into(), "a,b=c".into()]);
        assert_eq!(line, r#"'/a b/qemu' -m 'x='\''1'\''' '' a,b=c"#);
    }

    #[tokio::test]
    async fn its_end_is_told() {
        let process = launch("sh", &["-c", "exit 3"], vec![]).await.unwrap();
        assert_eq!(process.ended().await.code(), Some(3));
        assert!(!process.is_running());
    }

    #[tokio::test]
    async fn dropping_kills() {
        let process = launch("sleep", &["1000"], vec![]).await.unwrap();
        assert!(process.is_running());
        let mut ended = process.ended.clone();
        drop(process);
        let status = tokio::time::timeout(Duration::from_secs(5), ended.wait_for(Option::is_some)).await.unwrap();
        assert_eq!(status.unwrap().unwrap().signal(), Some(9));
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let error = launch("/nowhere/qemu", &[], vec![]).await.unwrap_err();
        assert_eq!(error.to_string(), "start /nowhere/qemu");
    }

    #[tokio::test]
    async fn only_named_descriptors_are_inherited() {
        let (mut reader, writer) = io::pipe().unwrap();
        let script = format!("ls /proc/self/fd > /proc/self/fd/{}", writer.as_raw_fd());
        let number = writer.as_raw_fd().to_string();
        let process = launch("sh", &["-c", &script], vec![writer.into()]).await.unwrap();
        assert!(process.ended().await.success());
        let mut open = String::new();
        reader.read_to_string(&mut open).unwrap();
        let open: Vec<&str> = open.lines().collect();
        assert!(open.contains(&number.as_str()), "{open:?}");
        // Its own three, the one named, and the directory that ls reads.
        assert!(open.len() <= 5, "{open:?}");
    }
}
