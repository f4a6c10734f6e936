//! Which processes may still write to a program's streams, and whether they are filters: whether they read what others write.

use std::collections::{HashMap, HashSet};

use crate::{
    pipe::{Pipe, PipeEnd},
    process::Process,
};

/// The pipes that are a program's streams, or its terminal.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) outputs: Vec<Pipe>,
    /// What the host writes to. Whoever reads it is no filter of anybody's output.
    pub(crate) input: Option<Pipe>,
}

/// The processes whose output comes to the streams, by themselves or through each other.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    /// Those, and all that runs below them.
    pub(crate) processes: Vec<Process>,
    pub(crate) input: Input,
    /// What they have yet to read of it, in bytes.
    pub(crate) unread: u64,
}

/// What they read from pipes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Input {
    /// Nothing.
    #[default]
    None,
    /// What others may write more to.
    Open,
    /// What nobody can write to any more.
    Ended,
}

impl Writers {
    /// Finds them among these processes.
    pub(crate) fn find(streams: &Streams, among: &[Process]) -> Writers {
        let open: Vec<_> = among.iter().map(|process| (process.pid, PipeEnd::all_of(process))).collect();
        let (found, inputs) = upstream(streams, &open);
        let contents: Vec<_> = inputs.into_iter().filter_map(PipeEnd::content).collect();
        let kind = |ended| if ended { Input::Ended } else { Input::Open };
        Writers {
            processes: with_descendants(found, among),
            input: contents.iter().map(|content| kind(content.ended)).max().unwrap_or_default(),
            unread: contents.iter().map(|content| content.unread).sum(),
        }
    }
}

/// Follows the streams to who writes to them, and on through what these read.
fn upstream<'a>(streams: &Streams, open: &'a [(i32, Vec<PipeEnd>)]) -> (HashSet<i32>, Vec<&'a PipeEnd>) {
    let (mut found, mut inputs) = (HashSet::new(), HashMap::new());
    let mut leading: HashSet<Pipe> = streams.outputs.iter().copied().collect();
    loop {
        let before = found.len();
        for (pid, ends) in open {
            if found.contains(pid) || !ends.iter().any(|end| end.writes && leading.contains(&end.pipe)) {
                continue;
            }
            found.insert(*pid);
            // A pipe of which it has both ends is one that it talks to itself by.
            let written: HashSet<Pipe> = ends.iter().filter(|end| end.writes).map(|end| end.pipe).collect();
            let is_input =
                |end: &&PipeEnd| end.reads && !written.contains(&end.pipe) && streams.input != Some(end.pipe);
            for end in ends.iter().filter(is_input) {
                leading.insert(end.pipe);
                inputs.insert(end.pipe, end);
            }
        }
        if found.len() == before {
            return (found, inputs.into_values().collect());
        }
    }
}

fn with_descendants(mut found: HashSet<i32>, among: &[Process]) -> Vec<Process> {
    loop {
        let before = found.len();
        found.extend(
            among
                .iter()
                .filter(|process| found.contains(&process.parent))
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            return among.iter().filter(|process| found.contains(&process.pid)).copied().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Write,
        os::fd::OwnedFd,
        process::{Child, Command, Stdio},
    };

    use super::*;

    fn start(input: impl Into<Stdio>, output: impl Into<Stdio>) -> (Child, Process) {
        let child = Command::new("cat").stdin(input).stdout(output).spawn().unwrap();
        let process = Process::find(child.id() as i32).unwrap();
        (child, process)
    }

    fn streams(output: &std::io::PipeReader) -> Streams {
        let output = File::from(OwnedFd::from(output.try_clone().unwrap()));
        Streams { outputs: vec![Pipe::of(&output).unwrap()], input: None }
    }

    #[test]
    fn filters_are_found_upstream() {
        let (ours, output) = std::io::pipe().unwrap();
        let (between, into) = std::io::pipe().unwrap();
        let (input, mut program) = std::io::pipe().unwrap();
        let (mut last, second) = start(between, output);
        let streams = streams(&ours);
        let (mut first, filter) = start(input, into);
        program.write_all(b"x").unwrap();
        let all = [filter, second];
        let find = || Writers::find(&streams, &all);
        assert_eq!(find().input, Input::Open, "we may write still");
        assert_eq!(find().processes.len(), 2);
        drop(program);
        first.wait().unwrap();
        last.wait().unwrap();
        assert!(find().processes.is_empty(), "both have ended");
    }

    #[test]
    fn what_ended_is_told_from_what_did_not_lead_here() {
        let (ours, output) = std::io::pipe().unwrap();
        let (input, mut program) = std::io::pipe().unwrap();
        let mut filter = Command::new("sleep").arg("1000").stdin(input).stdout(output).spawn().unwrap();
        let process = Process::find(filter.id() as i32).unwrap();
        program.write_all(b"12345").unwrap();
        drop(program);
        // A program that another test starts just now has our pipes, too, until it is itself.
        let find = || Writers::find(&streams(&ours), &[process]);
        let writers = std::iter::repeat_with(find).find(|writers| writers.input == Input::Ended).unwrap();
        assert_eq!((writers.input, writers.unread), (Input::Ended, 5));
        // As what a program has for its own input is no output of another.
        let input = PipeEnd::all_of(&process).into_iter().find(|end| end.reads).map(|end| end.pipe);
        let writers = Writers::find(&Streams { input, ..streams(&ours) }, &[process]);
        assert_eq!((writers.input, writers.processes.len()), (Input::None, 1));
        assert!(Writers::find(&Streams::default(), &[process]).processes.is_empty(), "it writes elsewhere");
        filter.kill().unwrap();
        filter.wait().unwrap();
    }

    #[test]
    fn descendants_come_with_them() {
        let process = |pid, parent| Process::example(pid, parent, 1);
        let all = [process(12, 11), process(11, 10), process(10, 1), process(20, 1)];
        let numbers: Vec<i32> = with_descendants(HashSet::from([10]), &all).iter().map(|process| process.pid).collect();
        assert_eq!(numbers, [12, 11, 10]);
    }
}
