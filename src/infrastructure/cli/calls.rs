//! Calls of the machine, and of the members' upkeep.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use graft_services::error::Outcome;
use graft_services::ports::Reply;
use graft_services::{Consistency, Read};
use serde_json::json;

use super::args::{self, Call};
use super::failure::{Failure, of_outcome};
use super::output::Out;
use super::talk::Talk;
use super::values::{self, answer};

pub(super) fn execute(talk: &Talk, out: &Out, call: Call) -> Result<(), Failure> {
    told(out, "execute", made(call, |body| talk.execute(body))?)
}

pub(super) fn query(talk: &Talk, out: &Out, call: Call, consistency: args::Consistency) -> Result<(), Failure> {
    let read = Read::of(match consistency {
        args::Consistency::Linearizable => Consistency::Linearizable,
        args::Consistency::Lease => Consistency::Lease,
        args::Consistency::Stale => Consistency::Stale { max_age: None },
    });
    told(out, "query", made(call, |body| talk.query(body, read))?)
}

/// The bytes of a call that is made many times: its values are what they look like.
pub(super) fn body(call: &Call) -> Result<Bytes, Failure> {
    match call {
        Call { raw: Some(raw), .. } => Ok(Bytes::from(raw.clone())),
        Call { file: Some(file), .. } => read(file),
        Call { name, arguments, .. } => {
            let name = name.as_deref().unwrap_or_default();
            values::Arguments::parse(name, arguments)?.body()
        }
    }
}

/// Whether it is an answer, and none that the machine raised.
pub(super) fn check(outcome: &Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Done { reply: Reply::Value(_), .. } => Ok(()),
        Outcome::Done { reply: Reply::Raised(raised), .. } => {
            Err(Failure::new("APPLY", format!("{}: {}", raised.type_name, raised.message)))
        }
        other => Err(of_outcome(other.clone())),
    }
}

/// Makes the call. One that a machine refuses for a guess at a value was not made: it is made again with the text.
fn made(call: Call, make: impl Fn(Bytes) -> Result<Outcome, Failure>) -> Result<Outcome, Failure> {
    let Call { name, arguments, raw, file } = call;
    if let Some(raw) = raw {
        return make(raw.into());
    }
    if let Some(file) = file {
        return make(read(&file)?);
    }
    let name = name.unwrap_or_default();
    let mut arguments = values::Arguments::parse(&name, &arguments)?;
    let mut guessed: Option<Failure> = None;
    loop {
        match make(arguments.body()?) {
            Err(failure) if failure.code == "INVALID_CALL" => {
                if !arguments.as_text(&failure.what) {
                    // Of the value that was guessed the user knows more than of the text that it was then taken for.
                    let same = guessed.filter(|before| place(&before.what) == place(&failure.what));
                    return Err(same.unwrap_or(failure));
                }
                guessed = Some(failure);
            }
            done => return done,
        }
    }
}

/// Which argument a machine complains about, as it names it.
fn place(words: &str) -> Option<&str> {
    words.rsplit_once(" - at ").map(|(_, place)| place)
}

fn read(file: &Path) -> Result<Bytes, Failure> {
    let read = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let bytes = read.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
    Ok(bytes.into())
}

fn told(out: &Out, schema: &str, outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Done { index, term, reply: Reply::Value(reply) } => {
            let more = json!({ "index": index.0.to_string(), "term": term.0.to_string() });
            out.value(schema, &answer(&reply), more)
        }
        Outcome::Done { reply: Reply::Raised(raised), .. } => {
            let failure = Failure::new("APPLY", format!("{}: {}", raised.type_name, raised.message));
            Err(failure.traced(&raised.traceback))
        }
        other => Err(of_outcome(other)),
    }
}

pub(super) fn snapshot(talk: &Talk, out: &Out) -> Result<(), Failure> {
    match talk.snapshot()? {
        Outcome::Done { index, .. } => {
            let words = format!("a snapshot covers the log up to {}", index.0);
            out.done(&words, "snapshot", json!({ "index": index.0.to_string() }))
        }
        other => Err(of_outcome(other)),
    }
}

pub(super) fn backup(talk: &Talk, out: &Out, file: &Path) -> Result<(), Failure> {
    let name = file.display().to_string();
    let backed_up = talk.backup(file.to_owned()).map_err(|failure| match failure.code {
        "STORAGE" if file.exists() => failure.advice("choose another name for the backup, or remove that file"),
        "STORAGE" => failure.advice(
            "see to the place of the backup (is its directory there, may it be written, is there space?), and to the log of \
             the node that answered",
        ),
        _ => failure,
    })?;
    match backed_up {
        Outcome::Done { index, .. } => {
            let words = format!("{name} has the state up to entry {}", index.0);
            out.done(&words, "backup", json!({ "file": name, "index": index.0.to_string() }))
        }
        other => Err(of_outcome(other)),
    }
}
