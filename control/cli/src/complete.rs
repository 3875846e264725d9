//! `kubectl weir <TAB>`: kubectl runs `kubectl_complete-weir` with the words so far and reads candidates in cobra's form.
//!
//! Must never ask the cluster: a key is pressed, and somebody waits.

use std::io::{self, Write};

use clap::{Arg, Command, ValueHint};

/// What kubectl does when there is no candidate: nothing, or names of files (cobra's directives).
const NO_FILES: u8 = 4;
const FILES: u8 = 0;

/// Prints candidates for the last of `words`, each with its description, then the directive.
pub(crate) fn run(mut command: Command, words: &[String], out: &mut dyn Write) -> io::Result<()> {
    command.build();
    let (found, directive) = candidates(&command, words);
    for (candidate, about) in found {
        writeln!(out, "{candidate}\t{about}")?;
    }
    writeln!(out, ":{directive}")
}

type Candidates = Vec<(String, String)>;

fn candidates(command: &Command, words: &[String]) -> (Candidates, u8) {
    let Some((last, before)) = words.split_last() else { return (Vec::new(), NO_FILES) };
    let mut current = command;
    // An option whose value comes next.
    let mut open: Option<&Arg> = None;
    for word in before {
        if open.take().is_some() {
            continue;
        }
        if word == "--" {
            return (Vec::new(), NO_FILES);
        }
        match current.find_subcommand(word) {
            Some(chosen) => current = chosen,
            None => open = opened(current, word),
        }
    }
    if let Some(option) = open {
        return (values(option, "", last), directive(option));
    }
    if let Some((name, value)) = last.split_once('=') {
        let option = option(current, name);
        return option
            .map_or((Vec::new(), NO_FILES), |option| (values(option, &format!("{name}="), value), directive(option)));
    }
    (if last.starts_with('-') { options(current, last) } else { plain(current, last) }, NO_FILES)
}

/// The option that `word` is, if its value comes next.
fn opened<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    option(command, word).filter(|option| option.get_action().takes_values())
}

fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let mut all = command.get_arguments();
    match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(long), _) => all.find(|option| option.get_long() == Some(long)),
        (None, Some(short)) => all.find(|option| option.get_short().is_some_and(|own| short == own.to_string())),
        (None, None) => None,
    }
}

fn values(option: &Arg, before: &str, begun: &str) -> Candidates {
    let all = option.get_possible_values().into_iter().filter(|value| value.get_name().starts_with(begun));
    all.map(|value| (format!("{before}{}", value.get_name()), line(value.get_help()))).collect()
}

fn directive(option: &Arg) -> u8 {
    let is_path = matches!(option.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath);
    if is_path { FILES } else { NO_FILES }
}

fn options(command: &Command, begun: &str) -> Candidates {
    let shown = command.get_arguments().filter(|option| !option.is_hide_set());
    let long = shown.filter_map(|option| Some((format!("--{}", option.get_long()?), line(option.get_help()))));
    long.filter(|(name, _)| name.starts_with(begun)).collect()
}

/// Subcommands, and values of what is no option.
fn plain(command: &Command, begun: &str) -> Candidates {
    let shown = command.get_subcommands().filter(|chosen| !chosen.is_hide_set());
    let commands = shown.map(|chosen| (chosen.get_name().to_owned(), line(chosen.get_about())));
    let commands = commands.filter(|(name, _)| name.starts_with(begun));
    commands.chain(command.get_positionals().flat_map(|argument| values(argument, "", begun))).collect()
}

/// The first line: candidates are lines.
fn line(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Arguments;

    fn completed(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let mut out = Vec::new();
        run(Arguments::command(), &words, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn commands_options_and_values() {
        assert_eq!(completed(&["st"]), ["stat", "stat-outbound", ":4"]);
        assert_eq!(completed(&["-n", "shop", "ide"]), ["identity", ":4"], "a value is no command");
        assert_eq!(completed(&["stat", "--time"]), ["--time-window", "--timeout", ":4"]);
        assert_eq!(completed(&["check", "-o", "s"]), ["short", ":4"]);
        assert_eq!(completed(&["check", "--output=j"]), ["--output=json", ":4"]);
        assert_eq!(completed(&["check", "--pre", "--stage", "m"]), ["mesh", ":4"]);
        assert_eq!(completed(&["completions", "z"]), ["zsh", ":4"]);
        assert_eq!(completed(&["install", "-f", ""]), [":0"], "files");
        assert_eq!(completed(&["stat", "deploy", ""]), [":4"]);
        assert_eq!(completed(&["stat", "--", "--"]), [":4"]);
        assert_eq!(completed(&[]), [":4"]);
        assert!(completed(&[""]).contains(&"check".to_owned()));
    }

    #[test]
    fn a_candidate_is_one_line_with_its_description() {
        let mut out = Vec::new();
        run(Arguments::command(), &["ident".to_owned()], &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "identity\tCertificates of pods\n:4\n");
    }
}
