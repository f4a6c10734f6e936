//! What is so in a guest: packages, services, files, users and ports, with assertions whose failure shows what there is instead.
//!
//! ```no_run
//! # async fn f(sb: quicksand_core::Sandbox) -> quicksand_core::Result<()> {
//! use quicksand_core::facts;
//!
//! sb.package("git").await?.assert_installed();
//! sb.file("/etc/motd").await?.assert_mode(0o644).assert_owner("root").assert_contains("welcome");
//!
//! // Several at once: one question to the guest and one answer.
//! let (ssh, ann, port) = sb.facts((facts::service("ssh"), facts::user("ann"), facts::port(22))).await?;
//! ssh.assert_running().assert_enabled();
//! ann.assert_in_group("sudo").assert_shell("/bin/bash");
//! port.assert_listening();
//! # Ok(())
//! # }
//! ```
//!
//! A fact is what was so at one moment, in public fields; the guest is asked anew for a newer one. The guest's agent looks in the
//! guest's own files: no program runs in the guest but `systemctl`, `journalctl` and `rpm`, each once for all that is asked of it.
//!
//! - [`Query`], [`Queries`]: what is asked;
//! - [`Package`]: of dpkg, apk or rpm;
//! - [`Service`]: of systemd or OpenRC;
//! - [`File`]: of any kind;
//! - [`User`]: of `/etc/passwd`;
//! - [`Port`]: what listens, over TCP or UDP.

mod file;
mod package;
mod port;
mod query;
mod service;
mod user;

use std::{fmt, path::Path, time::Duration};

use quicksand_protocol::{
    facts::{ANSWER_LIMIT, CONTENT_LIMIT, MAX_QUESTIONS, Question, from_bytes},
    message::Request,
};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    base::printed::printable,
    error::Result,
    guest::{ChannelError, Operation},
    sandbox::Sandbox,
    vm::Vm,
};

pub use crate::error::facts::FactsError;
pub use file::{Entry, File, Kind, file};
pub use package::{Package, package};
pub use port::{Listener, Port, port, udp_port};
pub use query::{Queries, Query};
pub use service::{Service, service};
pub use user::{Account, User, user};

/// How long the guest may take to look. systemd and its journal are given 40 s each there.
const PATIENCE: Duration = Duration::from_secs(120);

impl Sandbox {
    /// A package of the guest: whether it is installed, and which version.
    ///
    /// # Errors
    ///
    /// Those of [`facts`](Sandbox::facts).
    pub async fn package(&self, name: impl Into<String>) -> Result<Package> {
        self.facts(package(name)).await
    }

    /// A service of the guest, or another unit of systemd: whether it runs, and whether it is started with the guest.
    ///
    /// # Errors
    ///
    /// Those of [`facts`](Sandbox::facts).
    pub async fn service(&self, name: impl Into<String>) -> Result<Service> {
        self.facts(service(name)).await
    }

    /// What is at an absolute path of the guest.
    ///
    /// # Errors
    ///
    /// Those of [`facts`](Sandbox::facts).
    pub async fn file(&self, path: impl AsRef<Path>) -> Result<File> {
        self.facts(file(path)).await
    }

    /// A user of the guest.
    ///
    /// # Errors
    ///
    /// Those of [`facts`](Sandbox::facts).
    pub async fn user(&self, name: impl Into<String>) -> Result<User> {
        self.facts(user(name)).await
    }

    /// What listens at a port of the guest over TCP.
    ///
    /// # Errors
    ///
    /// Those of [`facts`](Sandbox::facts).
    pub async fn port(&self, port: u16) -> Result<Port> {
        self.facts(self::port(port)).await
    }

    /// What listens at a port of the guest over UDP.
    ///
    /// # Errors
    ///
    /// Those of [`facts`](Sandbox::facts).
    pub async fn udp_port(&self, port: u16) -> Result<Port> {
        self.facts(udp_port(port)).await
    }

    /// Several facts, all of one moment or nearly so, by one question to the guest: a tuple, an array or a vector of what
    /// [`package`], [`service`], [`file`](crate::verbs::facts::file()),
    /// [`user`], [`port`] and [`udp_port`] make, at most 256 in all.
    /// See [`facts`](crate::verbs::facts).
    ///
    /// # Errors
    ///
    /// [`Error::Facts`](crate::Error::Facts) where a name can't be one, or the guest could not look; those of
    /// [`Command::output`](crate::Command::output) where it can't be talked to.
    pub async fn facts<Q: Queries>(&self, queries: Q) -> Result<Q::Facts> {
        let mut questions = Vec::new();
        queries.ask(&mut questions)?;
        if questions.is_empty() {
            return queries.read(&mut Vec::new().into_iter());
        }
        if questions.len() > MAX_QUESTIONS {
            return Err(FactsError::TooMany(questions.len()).into());
        }
        let vm = self.vm().await?;
        let answers = match timeout(PATIENCE, answers(&vm, questions)).await {
            Ok(answers) => answers?,
            Err(_) => return Err(ChannelError::NoAnswer(PATIENCE).into()),
        };
        queries.read(&mut answers.into_iter())
    }
}

/// The guest's answers, as many as there are questions.
async fn answers(vm: &Vm, questions: Vec<Question>) -> Result<Vec<query::Asked>> {
    let limit = questions.iter().map(|question| ANSWER_LIMIT + if is_file(question) { CONTENT_LIMIT } else { 0 }).sum();
    let mut operation: Operation = vm.channel().start(&Request::Facts { questions: questions.clone() })?;
    let mut bytes = Vec::new();
    if let Some(stream) = operation.stdout.take() {
        // One byte more than there may be, so that it is told.
        let read = stream.take(limit as u64 + 1).read_to_end(&mut bytes).await;
        read.map_err(|_| ChannelError::Closed)?;
    }
    if bytes.len() > limit {
        return Err(FactsError::Unexpected("more than it may be".to_owned()).into());
    }
    if let Err(error) = operation.reply().await {
        return Err(vm.explain(error).await);
    }
    let answers = from_bytes(&bytes).map_err(|error| FactsError::Unexpected(error.to_string()))?;
    if answers.len() != questions.len() {
        let what = format!("{} answers to {} questions", answers.len(), questions.len());
        return Err(FactsError::Unexpected(what).into());
    }
    Ok(questions.into_iter().zip(answers).collect())
}

fn is_file(question: &Question) -> bool {
    matches!(question, Question::File { .. })
}

/// Panics where something is not so, and says what was expected and what there is.
#[track_caller]
fn assert_fact(fact: &dyn fmt::Display, holds: bool, expected: fmt::Arguments<'_>) {
    if !holds {
        panic!("expected: {expected}\n   found: {}", fact.to_string().replace('\n', "\n          "));
    }
}

/// The guest's words, fit for a terminal and for one line.
fn shown(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join(" ")
}

fn shown_bytes(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(bytes))
}

/// Names with commas between them, or that there are none.
fn listed(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| shown(name.as_ref())).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// What an assertion says that fails.
    pub(crate) fn said<T>(assertion: impl FnOnce() -> T) -> String {
        let panic = catch_unwind(AssertUnwindSafe(|| drop(assertion()))).expect_err("the assertion fails");
        *panic.downcast::<String>().expect("it says so in words")
    }
}
