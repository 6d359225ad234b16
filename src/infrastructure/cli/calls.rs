//! Calls of the machine, and of the members' upkeep.

use std::io::Read as _;

use bytes::Bytes;
use graft_services::error::Outcome;
use graft_services::ports::Reply;
use graft_services::{Consistency, Read};
use serde_json::{Map, Value as Json, json};

use super::args::{self, Call};
use super::failure::{Failure, of_outcome};
use super::note;
use super::output::Out;
use super::talk::Talk;
use super::values::{self, answer, hex};

pub(super) fn execute(talk: &Talk, out: &Out, call: Call) -> Result<(), Failure> {
    let outcome = talk.execute(body(call)?)?;
    told(out, "execute", outcome)
}

pub(super) fn query(talk: &Talk, out: &Out, call: Call, consistency: args::Consistency) -> Result<(), Failure> {
    let read = Read::of(match consistency {
        args::Consistency::Linearizable => Consistency::Linearizable,
        args::Consistency::Lease => Consistency::Lease,
        args::Consistency::Stale => Consistency::Stale { max_age: None },
    });
    let outcome = talk.query(body(call)?, read)?;
    told(out, "query", outcome)
}

fn body(call: Call) -> Result<Bytes, Failure> {
    let Call { name, arguments, raw, file } = call;
    if let Some(raw) = raw {
        return Ok(raw.into());
    }
    if let Some(file) = file {
        let read = if file.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
        } else {
            std::fs::read(&file)
        };
        let bytes = read.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
        return Ok(bytes.into());
    }
    values::call(&name.unwrap_or_default(), &arguments)
}

fn told(out: &Out, schema: &str, outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Done { index, term, reply: Reply::Value(reply) } => {
            let more = json!({ "index": index.0.to_string(), "term": term.0.to_string() });
            out.value(schema, &answer(&reply), more)
        }
        Outcome::Done { reply: Reply::Raised(raised), .. } => {
            note(raised.traceback.trim_end());
            Err(Failure::new("APPLY", format!("{}: {}", raised.type_name, raised.message)))
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

/// Fails, as unhealthy, if the digests are not all there and all the same.
pub(super) fn verify(talk: &Talk, out: &Out) -> Result<(), Failure> {
    let Outcome::Compared { index, digests } = talk.verify()? else {
        return Err(Failure::new("TIMEOUT", "the replicas were not compared"));
    };
    let mut all = Map::new();
    let mut rows = Vec::new();
    for (id, digest) in &digests {
        let (digest, trouble) = match digest {
            Ok(digest) => (Some(hex(digest)), None),
            Err(why) => (None, Some(why.clone())),
        };
        rows.push(vec![id.to_string(), digest.clone().or_else(|| trouble.clone()).unwrap_or_default()]);
        all.insert(id.to_string(), json!({ "digest": digest, "trouble": trouble }));
    }
    let document = json!({ "index": index.0.to_string(), "digests": Json::Object(all) });
    out.table(&["member", "digest"], &rows, "verify", document, "digests")?;
    let mut kinds: Vec<_> = digests.values().filter_map(|digest| digest.as_ref().ok()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.len() > 1 {
        return Err(Failure::new("UNHEALTHY", format!("the replicas differ at index {}", index.0)));
    }
    let missing = digests.values().filter(|digest| digest.is_err()).count();
    if missing > 0 {
        return Err(Failure::new("UNHEALTHY", format!("{missing} of {} members gave no digest", digests.len())));
    }
    Ok(())
}
