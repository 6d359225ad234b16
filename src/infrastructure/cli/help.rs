//! `graft --help`: the verbs in groups.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::{Command, CommandFactory as _, ValueEnum as _};

use super::args::{Arguments, Form};

/// Every verb, by what it is for.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Run nodes", &["start", "dev", "stop", "check", "config", "service"]),
    ("Call the state machine", &["execute", "query", "bench"]),
    ("See how the cluster is", &["status", "health", "why", "top", "configuration", "leader", "verify"]),
    ("Change its members", &["add", "remove", "member"]),
    ("Keep and recover its state", &["snapshot", "backup", "restore", "recover", "log"]),
    ("Say who may come in", &["tls"]),
    ("Help", &["explain", "completions", "man", "help"]),
];

/// The parser, with a help that is grouped.
pub(super) fn command() -> Command {
    let command = Arguments::command();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}Options for every verb:\n{{options}}{{after-help}}",
        groups(&command)
    );
    command.help_template(template)
}

/// The form that these words ask for, though something is wrong with them.
pub(super) fn form_of(words: &[OsString]) -> Form {
    let words: Vec<&str> =
        words.iter().take_while(|word| *word != "--").map(|word| word.to_str().unwrap_or_default()).collect();
    let mut form = Form::Table;
    for (place, word) in words.iter().enumerate() {
        let value = match *word {
            "-o" | "--output" => words.get(place + 1).copied(),
            word => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")),
        };
        let named = value.and_then(|value| Form::from_str(value.trim_start_matches('='), true).ok());
        form = named.unwrap_or(form);
    }
    form
}

fn groups(command: &Command) -> String {
    let mut text = String::new();
    for (title, verbs) in GROUPS {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{title}:");
        for verb in verbs {
            let about = command.find_subcommand(verb).and_then(Command::get_about).map(StyledStr::to_string);
            let _ = writeln!(text, "  {verb:<14} {}", about.unwrap_or_else(|| "Say more about a verb".to_owned()));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_verb_is_in_one_group() {
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
        let all: BTreeSet<&str> = grouped.iter().copied().collect();
        assert_eq!(all.len(), grouped.len());
        let command = Arguments::command();
        let verbs: BTreeSet<&str> = command.get_subcommands().map(Command::get_name).chain(["help"]).collect();
        assert_eq!(all, verbs);
        assert!(super::command().render_help().to_string().contains("Keep and recover its state:\n  snapshot"));
    }
}
