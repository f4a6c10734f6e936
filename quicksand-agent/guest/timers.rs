//! Timers of systemd's by the time of day, of which waking is to start none: what would have run while the machine stood still has not
//! been missed by anybody.
//!
//! When the clock jumps, systemd starts whatever should have run since a timer ran last or was started. So those whose time has passed
//! are stopped before the clock is set, and started after: then they count from now on. That goes for those that keep a stamp
//! (`Persistent=`), as a distribution's do. Of the jump itself systemd [hears nothing](clock_watch), unless it is one back.
//!
//! Which these are is asked before a freeze, for asking costs more than all the rest of waking, and few clones have any.

use std::{
    fs::{self, File},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    bus::{Answer, Arguments, Bus},
    clock_watch::Watch,
    cover, users,
};

const TIMER: &str = "org.freedesktop.systemd1.Timer";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// How long what was noted holds, by a clock that stands still with the machine: a freeze follows at once. One that came without any
/// notice finds notes that are older, or none.
const FRESH: Duration = Duration::from_secs(10);
/// A jump of the clock that is not worth asking, as at a boot.
const SMALL: Duration = Duration::from_secs(2);
/// How long timers may take to stop.
const PATIENCE: Duration = Duration::from_secs(3);

static NOTES: Mutex<Option<Notes>> = Mutex::new(None);

/// What was known at a moment.
#[derive(Debug)]
struct Notes {
    taken: Instant,
    managers: Vec<Manager>,
}

/// A systemd, that of the machine or of a user, and its timers.
#[derive(Debug)]
struct Manager {
    socket: PathBuf,
    /// Where it keeps when its timers ran last.
    stamps: PathBuf,
    timers: Vec<Timer>,
    /// By what it hears of jumps of the clock.
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Timer {
    name: String,
    path: String,
    /// When it elapses, since 1970. Zero where any jump of the clock would start it.
    elapses: Duration,
}

/// Takes note of them, since the machine is about to be frozen.
pub(crate) fn take_notes() {
    // What can't be found out now is asked for at the wake, which then tells.
    *lock() = Notes::take().ok();
}

/// What stands still so that the clock can be set.
#[derive(Debug, Default)]
pub(crate) struct Still {
    /// Those that have timers which are stopped.
    stopped: Vec<Manager>,
    asleep: Vec<Watch>,
}

/// Stops the timers that setting the clock to `time` would start, and lets nobody hear that it is set.
pub(crate) fn stop(time: Duration) -> io::Result<Still> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let notes = match lock().take().filter(|notes| notes.taken.elapsed() < FRESH) {
        Some(notes) => notes,
        None if now.abs_diff(time) < SMALL => return Ok(Still::default()),
        None => Notes::take()?,
    };
    let mut still = Still::default();
    for mut manager in notes.managers {
        // After a jump back, what is to come has to be worked out anew.
        still.asleep.extend(manager.watch.take().filter(|_| now <= time));
        manager.timers.retain(|timer| timer.elapses <= time);
        if !manager.timers.is_empty() {
            manager.stop()?;
            still.stopped.push(manager);
        }
    }
    // Whoever can't be kept from hearing it has some work.
    still.asleep.retain(|watch| watch.sleep().is_ok());
    Ok(still)
}

impl Still {
    /// Has all go on, now that the clock is set to `time`.
    pub(crate) fn go_on(self, time: Duration) -> io::Result<()> {
        let woken = self.asleep.iter().try_for_each(Watch::wake);
        self.stopped.iter().try_for_each(|manager| manager.start(SystemTime::UNIX_EPOCH + time))?;
        woken
    }
}

impl Notes {
    fn take() -> io::Result<Notes> {
        let mut managers = vec![Manager::new("/run/systemd/private".into(), "/var/lib/systemd/timers".into())?];
        for user in fs::read_dir("/run/user").into_iter().flatten().flatten() {
            let socket = user.path().join("systemd/private");
            if socket.exists() {
                let home = users::find(user.file_name().as_bytes()).map(|user| user.home).unwrap_or_default();
                managers.push(Manager::new(socket, home.join(".local/share/systemd/timers"))?);
            }
        }
        Ok(Notes { taken: Instant::now(), managers })
    }
}

impl Manager {
    fn new(socket: PathBuf, stamps: PathBuf) -> io::Result<Manager> {
        let Some(mut bus) = Bus::open(&socket)? else {
            return Ok(Manager { socket, stamps, timers: Vec::new(), watch: None });
        };
        let timers = timers(&mut bus, &stamps)?;
        // Not before it has answered: what it has heard by then it has seen to.
        let watch = bus.server().and_then(Watch::of);
        Ok(Manager { socket, stamps, timers, watch })
    }

    fn open(&self) -> io::Result<Bus> {
        Bus::open(&self.socket)?.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn stop(&self) -> io::Result<()> {
        let mut bus = self.open()?;
        self.tell(&mut bus, "StopUnit")?;
        let deadline = Instant::now() + PATIENCE;
        for timer in &self.timers {
            while property(&mut bus, &timer.path, UNIT, "ActiveState")?.1.text()? == "active" {
                if Instant::now() > deadline {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{} does not stop", timer.name)));
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn start(&self, time: SystemTime) -> io::Result<()> {
        for timer in &self.timers {
            let stamp = stamp(&self.stamps, &timer.name);
            if stamp.exists() {
                let touched = File::options().write(true).open(&stamp).and_then(|file| file.set_modified(time));
                // Without it the timer would run at once what it believes to have missed.
                touched.or_else(|_| cover::cover(&stamp, b"\n"))?;
            }
        }
        self.tell(&mut self.open()?, "StartUnit")
    }

    /// Calls a method for each timer. What they depend on, and what depends on them, is not concerned.
    fn tell(&self, bus: &mut Bus, method: &str) -> io::Result<()> {
        let mut asked = Vec::new();
        for timer in &self.timers {
            asked.push(bus.ask_manager(method, &Arguments::default().text(&timer.name).text("ignore-dependencies"))?);
        }
        asked.into_iter().try_for_each(|asked| bus.answer(asked).map(drop))
    }
}

fn stamp(stamps: &Path, timer: &str) -> PathBuf {
    stamps.join(format!("stamp-{timer}"))
}

/// The active timers that a jump of the clock starts, save those without a stamp: once started again, such a timer counts from
/// when it was started the time before, and runs at once.
fn timers(bus: &mut Bus, stamps: &Path) -> io::Result<Vec<Timer>> {
    let wanted = Arguments::default().texts(&["active"]).texts(&["*.timer"]);
    let asked = bus.ask_manager("ListUnitsByPatterns", &wanted)?;
    let mut list = bus.answer(asked)?;
    let end = list.array()?;
    let mut units = Vec::new();
    while list.is_before(end) {
        let [name, _description, _load, _active, sub, _following, path] = {
            let mut texts = [const { String::new() }; 7];
            for text in &mut texts {
                *text = list.text()?;
            }
            texts
        };
        let _job = (list.number()?, list.text()?, list.text()?);
        // One that `systemd-run` made goes when it is stopped.
        if !Path::new("/run/systemd/transient").join(&name).exists() {
            units.push((name, path, sub));
        }
    }
    let mut asked = Vec::new();
    for (_, path, _) in &units {
        asked.push(bus.ask_property(path, TIMER, "NextElapseUSecRealtime")?);
    }
    let mut elapse = Vec::new();
    for asked in asked {
        let mut answer = bus.answer(asked)?;
        elapse.push(if answer.signature()? == "t" { answer.long_number()? } else { 0 });
    }
    let mut timers = Vec::new();
    for ((name, path, sub), elapses) in units.into_iter().zip(elapse) {
        let elapses = match elapses {
            // It goes by other clocks, and may still run whenever this one is set.
            0 if property(bus, &path, TIMER, "OnClockChange")
                .is_ok_and(|(_, mut is)| is.number().is_ok_and(|is| is == 1)) =>
            {
                0
            }
            0 => continue,
            _ if !stamp(stamps, &name).exists() => continue,
            // What it started is running. When that ends, it looks for what it missed meanwhile.
            u64::MAX if sub == "running" && property(bus, &path, TIMER, "TimersCalendar")?.1.number()? > 0 => 0,
            u64::MAX => continue,
            elapses => elapses,
        };
        timers.push(Timer { name, path, elapses: Duration::from_micros(elapses) });
    }
    Ok(timers)
}

/// The signature of a property's value, and the value.
fn property(bus: &mut Bus, path: &str, interface: &str, name: &str) -> io::Result<(String, Answer)> {
    let asked = bus.ask_property(path, interface, name)?;
    let mut answer = bus.answer(asked)?;
    Ok((answer.signature()?, answer))
}

fn lock() -> std::sync::MutexGuard<'static, Option<Notes>> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}
