//! Who in the guest is told when its clock jumps.
//!
//! systemd has the kernel tell it. It then works out for each of its timers when that elapses, and says so on its bus: a third of what a
//! clone does until its first command has ended. Nothing comes of that where no timer has elapsed by the jump, for the kernel lets a timer
//! by the time of day elapse at its time, however the clock came there. So this watch of systemd's sleeps while the clock is set.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use rustix::{
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime},
};

/// A timer that is to elapse later than this, in seconds from now, is there for the jump alone.
const NEVER: u64 = 1_000_000_000;

/// A process's watch for jumps of the clock, by a descriptor of our own.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// Finds that of a process. `None` where it has none, and on kernels before 5.6, which give no descriptors of others.
    pub(crate) fn of(pid: i32) -> Option<Watch> {
        let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let number = descriptors.flatten().find_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            is_timer(&entry.path()).then_some(number).filter(|number| {
                fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).is_ok_and(|info| is_watch(&info))
            })
        });
        pidfd_getfd(process, number?, PidfdGetfdFlags::empty()).ok().map(Watch)
    }

    /// Has it hear of nothing.
    pub(crate) fn sleep(&self) -> io::Result<()> {
        set(&self.0, TimerfdTimerFlags::empty(), 0)
    }

    /// Has it hear of all that comes from now on.
    pub(crate) fn wake(&self) -> io::Result<()> {
        set(&self.0, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, i64::MAX)
    }
}

fn set(timer: &OwnedFd, flags: TimerfdTimerFlags, seconds: i64) -> io::Result<()> {
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
    timerfd_settime(timer, flags, &Itimerspec { it_interval: time(0), it_value: time(seconds) })?;
    Ok(())
}

fn is_timer(descriptor: &Path) -> bool {
    fs::read_link(descriptor).is_ok_and(|target| target.as_os_str() == "anon_inode:[timerfd]")
}

/// Whether the kernel's words on a timer are those of a watch: by the time of day, absolute, cancelled by a jump, and never to elapse.
fn is_watch(info: &str) -> bool {
    let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let rest = value("it_value:").and_then(|rest| rest.trim_start_matches('(').split(',').next()?.parse::<u64>().ok());
    value("clockid:") == Some("0") && value("settime flags:") == Some("03") && rest.is_some_and(|rest| rest > NEVER)
}

#[cfg(test)]
mod tests {
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create, timerfd_gettime};

    use super::*;

    #[test]
    fn a_watch_is_found_put_to_sleep_and_woken() {
        let us = std::process::id() as i32;
        assert!(Watch::of(us).is_none());
        let new = || timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC).unwrap();
        let (ordinary, own) = (new(), Watch(new()));
        set(&ordinary, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, 2_500_000_000).unwrap();
        own.wake().unwrap();
        let rest = || timerfd_gettime(&own.0).unwrap().it_value.tv_sec as u64;
        assert!(rest() > NEVER);
        let found = Watch::of(us).unwrap();
        found.sleep().unwrap();
        assert_eq!(rest(), 0);
        assert!(Watch::of(us).is_none());
        found.wake().unwrap();
        assert!(rest() > NEVER && Watch::of(us).is_some());
    }

    #[test]
    fn other_timers_are_none() {
        let info = |clock: u32, flags: &str, rest: u64| {
            format!(
                "pos:\t0\nclockid: {clock}\nticks: 0\nsettime flags: {flags}\nit_value: ({rest}, 5)\nit_interval: (0, 0)\n"
            )
        };
        assert!(is_watch(&info(0, "03", 7_427_523_462)));
        for other in [info(1, "03", 7_427_523_462), info(0, "01", 7_427_523_462), info(0, "03", 60), String::new()] {
            assert!(!is_watch(&other), "{other}");
        }
    }
}
