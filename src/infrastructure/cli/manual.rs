//! The manual: pages for `man`, and `docs/cli.md`, made of what the parser knows.

use std::path::Path;

use clap::CommandFactory as _;
use serde_json::json;

use super::args::Arguments;
use super::failure::Failure;
use super::output::Out;

/// Writes `graft.1` and a page for every verb into a directory.
pub(super) fn write(directory: &Path, out: &Out) -> Result<(), Failure> {
    let place = directory.display().to_string();
    let failed = |error: std::io::Error| Failure::new("IO", format!("{place} cannot be written: {error}"));
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), directory).map_err(failed)?;
    let words = format!("{place} has the pages: man -l {}", directory.join("graft.1").display());
    out.done(&words, "man", json!({ "directory": directory }))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use clap::builder::StyledStr;
    use clap::{Arg, Command};

    use super::*;

    const HEAD: &str =
        "# The `graft` command\n\nMade of the parser by `make docs`: do not edit. `graft help VERB` says the same.\n";

    /// Everything that can be said on the command line.
    fn reference() -> String {
        let mut root = Arguments::command();
        root.build();
        let mut out = HEAD.to_owned();
        let globals: Vec<&Arg> = root.get_arguments().filter(|arg| arg.is_global_set()).collect();
        out.push_str("\n## With every verb\n\n");
        table(&mut out, &globals);
        verbs(&mut out, &root, "graft");
        out
    }

    fn verbs(out: &mut String, command: &Command, path: &str) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name());
            let usage = verb.clone().render_usage().to_string();
            let usage = usage.trim_start_matches("Usage: ").lines().map(str::trim).collect::<Vec<_>>().join("\n");
            let about = verb.get_about().map(StyledStr::to_string).unwrap_or_default();
            writeln!(out, "\n## {path}\n\n{about}.\n\n    {}\n", usage.replace('\n', "\n    "))
                .expect("a string grows");
            let own: Vec<&Arg> =
                verb.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help").collect();
            table(out, &own);
            verbs(out, verb, &path);
        }
    }

    fn table(out: &mut String, arguments: &[&Arg]) {
        if arguments.is_empty() {
            return;
        }
        out.push_str("| | |\n|---|---|\n");
        for arg in arguments {
            let short = arg.get_short().map_or_else(String::new, |short| format!("-{short}, "));
            let name = format!("{short}{arg}").replace('|', "\\|");
            let help = arg.get_help().map(StyledStr::to_string).unwrap_or_default().replace('|', "\\|");
            let values: Vec<String> =
                arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
            let values = if values.is_empty() || !arg.get_action().takes_values() {
                String::new()
            } else {
                format!(": {}", values.join(", "))
            };
            let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let default =
                if defaults.is_empty() { String::new() } else { format!(" [default: {}]", defaults.join(", ")) };
            let default = if arg.get_action().takes_values() { default } else { String::new() };
            writeln!(out, "| `{name}` | {help}{values}{default} |").expect("a string grows");
        }
    }

    #[test]
    fn the_reference_is_what_the_parser_knows() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
        let now = reference();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &now).expect("docs/cli.md is written");
        }
        let written = std::fs::read_to_string(&path).expect("docs/cli.md is there");
        assert!(written == now, "docs/cli.md is not what the parser knows: make docs writes it");
    }

    #[test]
    fn every_verb_has_a_page() {
        let directory = std::env::temp_dir().join(format!("graft-man-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("it is made");
        clap_mangen::generate_to(Arguments::command(), &directory).expect("they are written");
        for page in ["graft.1", "graft-start.1", "graft-member-add.1", "graft-tls-init.1", "graft-log-show.1"] {
            let text = std::fs::read_to_string(directory.join(page)).expect(page);
            assert!(text.contains(".SH NAME"), "{page}");
        }
        std::fs::remove_dir_all(&directory).expect("it goes");
    }
}
