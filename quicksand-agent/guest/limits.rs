//! How much programs may take, as the kernel limits it: what the guest's own services may.
//!
//! The agent is older than the guest's init and has what the kernel gives its first process: 4,096 open files at the most, of
//! which nothing on a running system has so few.

use std::{
    io::Read,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use nix::{
    libc::rlim_t,
    sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
};

/// How many descriptors the agent itself may have open. A program that runs takes up to nine of them.
pub(crate) const OWN_FILES: rlim_t = 65_536;
/// What systemd gives services unless it is told otherwise, which counts until it has been asked.
const SYSTEMD_FILES: (rlim_t, rlim_t) = (1024, 524_288);
/// Of an image without an init: the least that engines give containers, and the most. A program that wants more than the least
/// asks for it, and one that goes through all that it may have open is not slow.
const CONTAINER_FILES: (rlim_t, rlim_t) = (1024, 1_048_576);
/// What systemd tells of its answer is read up to this length.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// The limits of programs that are not the agent's own.
static PROGRAMS: Mutex<Vec<Limit>> = Mutex::new(Vec::new());

/// A limit of a process: what it has, and what it may give itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    resource: Resource,
    soft: rlim_t,
    hard: rlim_t,
}

impl Limit {
    fn files((soft, hard): (rlim_t, rlim_t)) -> Limit {
        Limit { resource: Resource::RLIMIT_NOFILE, soft, hard }
    }

    /// Makes it the calling process's own. Between fork and exec, too: it is one system call.
    pub(crate) fn take(self) -> nix::Result<()> {
        setrlimit(self.resource, self.soft, self.hard)
    }

    fn is_our_own(self) -> bool {
        getrlimit(self.resource).is_ok_and(|own| own == (self.soft, self.hard))
    }
}

/// Lets the agent open more than it was born with. Programs get what they would have got without this.
pub(crate) fn raise_own() {
    if let Ok(born_with) = getrlimit(Resource::RLIMIT_NOFILE) {
        set(vec![Limit::files(born_with)]);
        let _ = Limit::files((OWN_FILES, born_with.1.max(OWN_FILES))).take();
    }
}

/// Gives programs the limits of a container.
pub(crate) fn of_a_container() {
    set(vec![Limit::files(CONTAINER_FILES)]);
}

/// Gives programs the limits that systemd gives services, as far as they are known before it answers.
pub(crate) fn of_systemd() {
    set(vec![Limit::files(SYSTEMD_FILES)]);
}

/// Asks systemd, which has its own from its configuration. Where it does not answer, it stays as it is.
pub(crate) fn ask_systemd() {
    let mut ask = Command::new("systemctl");
    ask.args(["show", "--no-pager"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = ask.spawn() else { return };
    let mut answer = String::new();
    let read = child.stdout.take().map(|stdout| stdout.take(ANSWER_LIMIT).read_to_string(&mut answer));
    if child.wait().is_ok_and(|status| status.success()) && matches!(read, Some(Ok(_))) {
        let told = parse(&answer);
        if told.iter().any(|limit| limit.resource == Resource::RLIMIT_NOFILE) {
            // Each costs every program a system call.
            set(told.into_iter().filter(|limit| !limit.is_our_own()).collect());
        }
    }
}

/// What a program is to take on.
pub(crate) fn of_programs() -> Vec<Limit> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set(limits: Vec<Limit>) {
    *PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner) = limits;
}

/// The limits in systemd's lines `DefaultLimitNOFILE=524288` and `DefaultLimitNOFILESoft=1024`.
fn parse(answer: &str) -> Vec<Limit> {
    const RESOURCES: [(&str, Resource); 16] = [
        ("CPU", Resource::RLIMIT_CPU),
        ("FSIZE", Resource::RLIMIT_FSIZE),
        ("DATA", Resource::RLIMIT_DATA),
        ("STACK", Resource::RLIMIT_STACK),
        ("CORE", Resource::RLIMIT_CORE),
        ("RSS", Resource::RLIMIT_RSS),
        ("NOFILE", Resource::RLIMIT_NOFILE),
        ("AS", Resource::RLIMIT_AS),
        ("NPROC", Resource::RLIMIT_NPROC),
        ("MEMLOCK", Resource::RLIMIT_MEMLOCK),
        ("LOCKS", Resource::RLIMIT_LOCKS),
        ("SIGPENDING", Resource::RLIMIT_SIGPENDING),
        ("MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
        ("NICE", Resource::RLIMIT_NICE),
        ("RTPRIO", Resource::RLIMIT_RTPRIO),
        ("RTTIME", Resource::RLIMIT_RTTIME),
    ];
    let value = |name: String| {
        let text = answer
            .lines()
            .find_map(|line| line.strip_prefix("DefaultLimit")?.strip_prefix(&name)?.strip_prefix('='))?;
        if text == "infinity" { Some(RLIM_INFINITY) } else { text.parse().ok() }
    };
    let limit = |(name, resource): (&str, Resource)| {
        let hard = value(name.to_owned())?;
        Some(Limit { resource, soft: value(format!("{name}Soft")).unwrap_or(hard).min(hard), hard })
    };
    RESOURCES.into_iter().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_tells_is_understood() {
        let answer = "Version=252\nDefaultLimitCORE=infinity\nDefaultLimitCORESoft=0\nDefaultLimitNOFILE=524288\n\
                      DefaultLimitNOFILESoft=1024\nDefaultLimitNPROC=1830\nDefaultLimitAS=lots\nDefaultTasksMax=549\n";
        let limit = |resource, soft, hard| Limit { resource, soft, hard };
        assert_eq!(
            parse(answer),
            [
                limit(Resource::RLIMIT_CORE, 0, RLIM_INFINITY),
                limit(Resource::RLIMIT_NOFILE, 1024, 524_288),
                limit(Resource::RLIMIT_NPROC, 1830, 1830),
            ]
        );
        assert_eq!(parse(""), []);
    }
}
