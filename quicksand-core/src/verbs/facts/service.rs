//! Services.

use std::fmt;

use quicksand_protocol::facts::{Question, Service as Answer};

use super::{Query, assert_fact, shown};

/// Asks about a service of systemd or OpenRC. With systemd any unit: `"ssh"` is `"ssh.service"`, and there is `"greeter.socket"`.
pub fn service(name: impl Into<String>) -> Query<Service> {
    let name = name.into();
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@+".contains(c);
    if name.is_empty() || name.len() > 255 || name.starts_with(['-', '.']) || !name.chars().all(fits) {
        return Query::refused("service", name, "use letters, digits and ':', '-', '_', '.', '\\', '@', '+'");
    }
    Query::of(Question::Service { name })
}

/// A service of the guest, there or not. `to_string()` tells all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// Its name, as it was asked for.
    pub name: String,
    /// Whether there is one of that name.
    pub exists: bool,
    /// Whether it runs. A unit that has done its work and counts as active does, too.
    pub running: bool,
    /// Whether the guest's init starts it by itself: in systemd's words it is enabled, in OpenRC's it is in a runlevel.
    pub enabled: bool,
    /// Its state in the manager's words: `active (running)`, `crashed`.
    pub state: String,
    /// What the manager says of its being started: `enabled`, `static`, `masked`; with OpenRC its runlevels.
    pub enablement: String,
    /// Its main process, where that is known.
    pub pid: Option<u32>,
    /// The last lines of its journal, where it was started since the guest booted and does not run. OpenRC keeps none.
    pub log: Vec<String>,
    /// What manages services: `systemd` or `openrc`. `None` where the guest has neither.
    pub manager: Option<String>,
}

impl Service {
    pub(crate) fn new(name: &str, answer: Answer) -> Service {
        let Answer { manager, exists, running, enabled, state, enablement, pid, log } = answer;
        Service { name: name.to_owned(), exists, running, enabled, state, enablement, pid, log, manager }
    }

    /// Panics unless there is one of that name.
    #[track_caller]
    pub fn assert_exists(&self) -> &Service {
        assert_fact(self, self.exists, format_args!("there is a service {}", self.name));
        self
    }

    /// Panics if there is one of that name.
    #[track_caller]
    pub fn assert_absent(&self) -> &Service {
        assert_fact(self, !self.exists, format_args!("there is no service {}", self.name));
        self
    }

    /// Panics unless it runs.
    #[track_caller]
    pub fn assert_running(&self) -> &Service {
        assert_fact(self, self.running, format_args!("the service {} runs", self.name));
        self
    }

    /// Panics if it runs, or if there is none of that name.
    #[track_caller]
    pub fn assert_stopped(&self) -> &Service {
        assert_fact(self, self.exists && !self.running, format_args!("the service {} does not run", self.name));
        self
    }

    /// Panics unless the guest's init starts it by itself.
    #[track_caller]
    pub fn assert_enabled(&self) -> &Service {
        assert_fact(self, self.enabled, format_args!("the service {} is started with the guest", self.name));
        self
    }

    /// Panics if the guest's init starts it by itself, or if there is none of that name.
    #[track_caller]
    pub fn assert_disabled(&self) -> &Service {
        let holds = self.exists && !self.enabled;
        assert_fact(self, holds, format_args!("the service {} is not started with the guest", self.name));
        self
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: ", self.name)?;
        let Some(manager) = &self.manager else { return f.write_str("the guest runs neither systemd nor OpenRC") };
        let manager = shown(manager);
        if !self.exists {
            return write!(f, "{manager} has none of that name");
        }
        f.write_str(&shown(&self.state))?;
        if let Some(pid) = self.pid {
            write!(f, ", process {pid}")?;
        }
        let enablement = if self.enablement.is_empty() { "of no file" } else { &self.enablement };
        write!(f, "; {} ({manager})", shown(enablement))?;
        if !self.log.is_empty() {
            f.write_str("\nthe end of its journal:")?;
        }
        self.log.iter().try_for_each(|line| write!(f, "\n    {}", shown(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn a_failure_shows_state_and_journal() {
        let failed = Answer {
            manager: Some("systemd".into()),
            exists: true,
            enabled: true,
            state: "failed (failed), result exit-code".into(),
            enablement: "enabled".into(),
            log: vec!["Nov 24 10:00:00 x greeter[7]: no such file\x07".into(), "second".into()],
            ..Answer::default()
        };
        let service = Service::new("greeter", failed);
        service.assert_exists().assert_stopped().assert_enabled();
        assert_eq!(
            said(|| service.assert_running()),
            "expected: the service greeter runs\n   \
             found: service greeter: failed (failed), result exit-code; enabled (systemd)\n          \
             the end of its journal:\n              Nov 24 10:00:00 x greeter[7]: no such file\n              second"
        );
        let none = Service::new("x", Answer { manager: Some("openrc".into()), ..Answer::default() });
        assert!(said(|| none.assert_stopped()).ends_with("service x: openrc has none of that name"));
        let none = Service::new("x", Answer::default());
        assert!(said(|| none.assert_running()).ends_with("the guest runs neither systemd nor OpenRC"));
    }
}
