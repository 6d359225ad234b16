//! The `graft` command: a client of a cluster that speaks with people and scripts. Data goes to stdout, all else to stderr.

mod args;
mod bench;
mod calls;
mod changes;
mod check;
mod failure;
mod help;
mod interrupt;
mod manual;
mod offline;
mod output;
mod service;
mod settings;
mod talk;
mod terminal;
mod tls;
mod top;
mod values;
mod verify;
mod views;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;

use clap::{CommandFactory, FromArgMatches as _};

use args::{Arguments, Leader, Member, Verb};
use failure::Failure;
use output::Out;
use settings::Config;
use talk::Talk;

pub use args::{Dev, Start};
pub use failure::exit_status;
pub use interrupt::interrupt;
pub use settings::Setting;
#[cfg(feature = "fuzzing")]
pub use settings::{setting_of_text, settings_of_file};

/// What remains to be done after [`run`].
#[derive(Debug)]
pub enum Next {
    /// Exit with this status.
    Exit(u8),
    /// Run a node, which needs the user's code.
    Start(Box<Start>),
    /// Run a cluster in this process, which needs it too.
    Dev(Dev),
    /// Say whether a node could start with these settings.
    Check {
        settings: BTreeMap<String, Setting>,
        /// Whether errors are to be told as JSON.
        json: bool,
    },
}

/// Does what the arguments say, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Next {
    let words: Vec<OsString> = arguments.into_iter().collect();
    let matches = help::command().try_get_matches_from(&words);
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return misread(&error, &words),
    };
    let out = Out::new(arguments.global.output);
    match perform(arguments, &out) {
        Ok(next) => next,
        Err(failure) => {
            let failure = interrupt::told(failure);
            failure.tell(out.form());
            Next::Exit(failure.exit)
        }
    }
}

/// Tells of words that are no command, or the help that they ask for.
fn misread(error: &clap::Error, words: &[OsString]) -> Next {
    let exit = u8::try_from(error.exit_code()).unwrap_or(failure::USAGE);
    let form = help::form_of(words);
    if exit != 0 && form.is_json() {
        let told = error.render().to_string();
        Failure::usage(told.strip_prefix("error: ").unwrap_or(&told).trim_end()).tell(form);
    } else {
        // A pipe that was closed wants no more of it.
        let _ = error.print();
    }
    Next::Exit(exit)
}

fn perform(arguments: Arguments, out: &Out) -> Result<Next, Failure> {
    let Arguments { mut global, verb } = arguments;
    // `--cluster "$MEMBERS"` names none where that is empty.
    global.cluster.retain(|address| !address.is_empty());
    let done = match verb {
        Verb::Start(mut start) => {
            settings::fill_start(&mut start, global)?;
            start.json = out.form().is_json();
            return Ok(Next::Start(Box::new(start)));
        }
        Verb::Dev(dev) => return Ok(Next::Dev(Dev { json: out.form().is_json(), ..dev })),
        Verb::Service(service) => service::print(&service),
        Verb::Check(wanted) => {
            settings::fill(&mut global)?;
            check::check(&wanted, &global, out)
        }
        Verb::Man { directory } => manual::write(&directory, out),
        Verb::Tls(verb) => {
            // Those that make certificates have no use for one.
            if verb.takes_secrets() {
                settings::fill(&mut global)?;
            }
            tls::run(verb, &global.secrets, out)
        }
        Verb::Restore(restore) => offline::restore(&restore, out),
        Verb::Recover(recover) => offline::recover(&recover, out),
        Verb::Log(log) => offline::log(log, out),
        Verb::Explain { code } => out.text(&failure::explain(code.as_deref())?),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "graft", &mut script);
            output::script(&script)
        }
        Verb::Config(Config::Show { origin, all, sets }) => {
            settings::show(&settings::of_config(&sets, &global)?, origin, all, out)
        }
        Verb::Config(Config::Check { sets }) => {
            let settings = settings::of_config(&sets, &global)?.tunables();
            return Ok(Next::Check { settings, json: out.form().is_json() });
        }
        verb => {
            settings::fill(&mut global)?;
            let talk = Talk::open(&global)?;
            let done = ask(verb, &talk, out).map_err(|failure| talk.explained(failure));
            talk.close();
            done
        }
    };
    match done {
        Ok(()) => Ok(Next::Exit(0)),
        // Whoever reads has had enough.
        Err(failure) if failure.is_closed_pipe => Ok(Next::Exit(0)),
        Err(failure) => Err(failure),
    }
}

fn ask(verb: Verb, talk: &Talk, out: &Out) -> Result<(), Failure> {
    match verb {
        Verb::Status => views::status(talk, out),
        Verb::Why => views::why(talk, out),
        Verb::Health { wait } => views::health(talk, out, wait),
        Verb::Top { interval, count } => top::top(talk, out, interval, count),
        Verb::Configuration | Verb::Member(Member::List) => views::members(talk, out),
        Verb::Execute(call) => calls::execute(talk, out, call),
        Verb::Query { call, consistency } => calls::query(talk, out, call, consistency),
        Verb::Snapshot => calls::snapshot(talk, out),
        Verb::Verify => verify::verify(talk, out),
        Verb::Bench(wanted) => bench::bench(talk, out, wanted),
        Verb::Backup { file } => calls::backup(talk, out, &file),
        Verb::Add(add) | Verb::Member(Member::Add(add)) => changes::add(talk, out, &add),
        Verb::Remove { member } | Verb::Member(Member::Remove { member }) => changes::remove(talk, out, &member),
        Verb::Member(Member::Promote { member }) => changes::promote(talk, out, &member),
        Verb::Member(Member::Demote { member }) => changes::demote(talk, out, &member),
        Verb::Member(Member::Replace { old, new, address }) => changes::replace(talk, out, &old, &new, address),
        Verb::Member(Member::Apply { members }) => changes::apply(talk, out, &members),
        Verb::Member(Member::Cancel) => changes::cancel(talk, out),
        Verb::Leader { leader: Some(Leader::Transfer { to }), .. } => changes::transfer(talk, out, to.as_deref()),
        Verb::Leader { leader: None, to: Some(to) } => changes::transfer(talk, out, Some(&to)),
        Verb::Leader { leader: Some(Leader::Show), .. } | Verb::Leader { leader: None, to: None } => {
            views::leader(talk, out)
        }
        Verb::Stop { member } => changes::stop(talk, out, &member),
        Verb::Start(_)
        | Verb::Dev(_)
        | Verb::Man { .. }
        | Verb::Config(_)
        | Verb::Check(_)
        | Verb::Service(_)
        | Verb::Tls(_)
        | Verb::Restore(_)
        | Verb::Recover(_)
        | Verb::Log(_)
        | Verb::Explain { .. }
        | Verb::Completions { .. } => Ok(()),
    }
}

/// Says something on stderr, if anybody listens.
fn note(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}
