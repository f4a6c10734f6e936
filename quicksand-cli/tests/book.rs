//! Every command `quicksand …` that the README and the book name exists, with its options.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// The help of each command that has been asked for, by its words, such as `images pull`.
#[derive(Default)]
struct Help(BTreeMap<String, String>);

impl Help {
    /// The help of a command; nothing where there is no such command.
    fn of(&mut self, words: &[&str]) -> &str {
        self.0.entry(words.join(" ")).or_insert_with(|| {
            let output = Command::new(env!("CARGO_BIN_EXE_quicksand")).arg("help").args(words).output().unwrap();
            if output.status.success() { String::from_utf8(output.stdout).unwrap() } else { String::new() }
        })
    }

    /// What is wrong with a command as a page has it, without the program's own name.
    fn check(&mut self, arguments: &[&str]) -> Result<(), String> {
        let mut command: Vec<&str> = Vec::new();
        for &argument in arguments {
            let help = self.of(&command);
            if let Some(option) = argument.strip_prefix('-').filter(|option| !option.is_empty()) {
                let name = if option.starts_with('-') { argument.split('=').next().unwrap() } else { argument };
                if !names(help, name) {
                    return Err(format!("`quicksand {}` has no option {name}", command.join(" ")));
                }
            } else if help.contains("\nCommands:\n") {
                // A place for the reader's own command, as in `quicksand help COMMAND`.
                if argument.chars().all(|letter| letter.is_ascii_uppercase()) {
                    return Ok(());
                }
                if !help
                    .lines()
                    .any(|line| line.strip_prefix("  ").and_then(|line| line.split(' ').next()) == Some(argument))
                {
                    return Err(format!("`quicksand {}` has no command {argument}", command.join(" ")));
                }
                if argument != "help" {
                    command.push(argument);
                }
            }
        }
        Ok(())
    }
}

/// Whether a help names an option, and not only one that begins alike.
fn names(help: &str, option: &str) -> bool {
    help.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-')).any(|word| word == option)
}

/// The lines of a page's blocks of shell and its pieces of code within lines.
fn code(page: &str) -> Vec<String> {
    let (mut code, mut prose) = (Vec::new(), String::new());
    let mut fence: Option<&str> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), fence) {
            (Some(_), Some(_)) => fence = None,
            (Some(language), None) => fence = Some(language),
            (None, Some("sh" | "yaml" | "text" | "console")) => code.push(line.to_owned()),
            (None, Some(_)) => {}
            (None, None) => prose = prose + line + " ",
        }
    }
    code.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    code
}

/// The commands `quicksand …` in a line of code: their arguments, up to those of the guest's command.
fn commands(line: &str) -> Vec<Vec<&str>> {
    let begins = |word: &str| word.rsplit(['(', '"']).next() == Some("quicksand");
    let ends = |word: &str| ["--", "|", "||", "&&", ">", ">>"].contains(&word);
    let words: Vec<&str> = line.split_whitespace().take_while(|word| *word != "#").collect();
    let mut commands = Vec::new();
    // Not the package, as in `cargo add --dev quicksand`.
    let is_value = |at: usize| at > 0 && words[at - 1].starts_with("--");
    for (at, _) in words.iter().enumerate().filter(|(at, word)| begins(word) && !is_value(*at)) {
        let mut arguments = Vec::new();
        for &word in words[at + 1..].iter().take_while(|word| !ends(word)) {
            arguments.push(word.trim_end_matches([')', '"', ';']));
            if word.ends_with([')', ';']) {
                break;
            }
        }
        commands.push(arguments);
    }
    commands
}

#[test]
fn every_command_of_the_book_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = vec![root.join("README.md")];
    pages.extend(fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let (mut help, mut checked) = (Help::default(), 0);
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        for line in code(&fs::read_to_string(page).unwrap()) {
            for arguments in commands(&line) {
                if let Err(wrong) = help.check(&arguments) {
                    panic!("{}: {wrong}: {line}", page.display());
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "the book has more than these {checked} commands");
}

#[test]
fn what_does_not_exist_is_found() {
    let mut help = Help::default();
    for (line, wrong) in [
        ("quicksand sing", "`quicksand ` has no command sing"),
        ("x=$(quicksand images sing)", "`quicksand images` has no command sing"),
        ("quicksand run debian --mem 2G -- uname --all", "`quicksand run` has no option --mem"),
    ] {
        let commands = commands(line);
        assert_eq!(help.check(&commands[0]), Err(wrong.to_owned()));
    }
    assert_eq!(help.check(&commands("quicksand run debian --memory=2G -- uname --all")[0]), Ok(()));
}
