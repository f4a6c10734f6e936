//! Looking at the guest's state for the host: many things at once, and from the guest's own files wherever these tell, since under
//! software emulation a process costs more than all the reading.

mod files;
mod openrc;
mod packages;
pub(crate) mod ports;
mod program;
mod rpm;
mod systemd;
mod users;

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
};

use quicksand_protocol::{
    facts::{self, ANSWER_LIMIT, Answer, MAX_QUESTIONS, Question, Service},
    message::{Done, Failure, stream},
};

use crate::operation::Operation;
use program::Runner;

/// The largest list of packages or users that is read.
const LIST_LIMIT: u64 = 128 << 20;
/// How many names are told of what there is instead.
const NAMES: usize = 12;

/// Answers the questions on STDOUT.
pub(crate) fn tell(questions: &[Question], operation: &Arc<Operation>) -> Result<Done, Failure> {
    if questions.len() > MAX_QUESTIONS {
        return Err(failure(format!("answer {} questions: at most {MAX_QUESTIONS} go at once", questions.len())));
    }
    let answers = answer(questions, Path::new("/"), &Runner::of(operation));
    let bytes = facts::to_bytes(&answers).map_err(|error| failure(format!("tell facts: {error}")))?;
    let mut output = operation.output(stream::STDOUT);
    output.write_all(&bytes).map_err(|error| failure(format!("tell facts: {error}")))?;
    Ok(Done::Nothing)
}

fn failure(message: String) -> Failure {
    Failure { errno: 0, message }
}

/// Where a thing could not be looked at, that one's answer says so; the others are not concerned.
fn answer(questions: &[Question], root: &Path, runner: &Runner) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = questions.iter().map(|question| look(question, root)).collect();
    // What takes a process of the guest takes one for all of its kind.
    let mut ask = |name_of: fn(&Question) -> Option<&str>, asked: &dyn Fn(&[&str]) -> Vec<Answer>| {
        let open: Vec<_> = (0..questions.len()).filter(|at| answers[*at].is_none()).collect();
        let open: Vec<_> = open.into_iter().filter_map(|at| Some((at, name_of(&questions[at])?))).collect();
        if !open.is_empty() {
            let names: Vec<_> = open.iter().map(|(_, name)| *name).collect();
            for ((at, _), answer) in open.into_iter().zip(asked(&names)) {
                answers[at] = Some(answer);
            }
        }
    };
    ask(name_of_package, &|names| rpm::look(names, runner));
    ask(name_of_service, &|names| systemd::look(names, runner));
    let unanswered = || Answer::Failed("nothing in the guest tells".to_owned());
    answers.into_iter().map(|answer| bounded(answer.unwrap_or_else(unanswered))).collect()
}

/// What the guest's files tell. `None` where a program of the guest must be asked.
fn look(question: &Question, root: &Path) -> Option<Answer> {
    match question {
        Question::Package { name } => packages::look(name, root),
        // That systemd was started is what `sd_booted` goes by.
        Question::Service { .. } if root.join("run/systemd/system").is_dir() => None,
        Question::Service { name } if root.join("run/openrc").is_dir() => {
            Some(Answer::Service(openrc::look(name, root)))
        }
        Question::Service { .. } => Some(Answer::Service(Service::default())),
        Question::File { path } => Some(files::look(Path::new(OsStr::from_bytes(path)), root)),
        Question::User { name } => Some(Answer::User(users::look(name, root))),
        Question::Port { port } => Some(Answer::Port(ports::look(*port, root))),
    }
}

fn name_of_package(question: &Question) -> Option<&str> {
    if let Question::Package { name } = question { Some(name) } else { None }
}

fn name_of_service(question: &Question) -> Option<&str> {
    if let Question::Service { name } = question { Some(name) } else { None }
}

/// The host takes no more than so much of an answer besides a file's content.
fn bounded(answer: Answer) -> Answer {
    let content = match &answer {
        Answer::File(file) => file.entry.as_ref().and_then(|entry| entry.content.as_ref()).map_or(0, Vec::len),
        _ => 0,
    };
    match facts::to_bytes(std::slice::from_ref(&answer)) {
        Ok(bytes) if bytes.len() - content <= ANSWER_LIMIT => answer,
        Ok(bytes) => Answer::Failed(format!("what there is to tell takes {} bytes, which is too long", bytes.len())),
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// A whole file, if it is a regular one of that length at the most.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    Ok(content)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// A directory with these files, as a guest's root.
    pub(crate) fn root(files: &[(&str, &str)]) -> PathBuf {
        let name = std::thread::current().name().unwrap_or("test").replace(':', "-");
        let root = std::env::temp_dir().join(format!("quicksand-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        for (file, content) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn an_answer_that_would_be_too_long_says_so() {
        let long = Answer::Package(facts::Package { state: "x".repeat(ANSWER_LIMIT), ..facts::Package::default() });
        assert!(matches!(bounded(long), Answer::Failed(why) if why.contains("too long")));
    }

    #[test]
    fn a_guest_without_a_manager_of_services_has_none() {
        let root = root(&[]);
        let service = look(&Question::Service { name: "ssh".into() }, &root);
        assert_eq!(service, Some(Answer::Service(Service::default())));
        fs::remove_dir_all(root).unwrap();
    }
}
