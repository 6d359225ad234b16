//! Changes of the cluster.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use graft_domain::{Incarnation, NodeId};
use graft_services::api::View;
use graft_services::change::{Ask, Change};
use graft_services::error::Outcome;
use graft_services::{Status, named};
use serde_json::json;

use super::args::{Add, id_of};
use super::failure::{Failure, of_outcome};
use super::output::Out;
use super::talk::{PAUSE, Talk};
use super::terminal::Progress;

/// A node that gives no answer for so long after it was told to end has ended.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) fn add(talk: &Talk, out: &Out, add: &Add) -> Result<(), Failure> {
    let (id, address) = match add.member.as_slice() {
        [id, address] => (id.clone(), address.clone()),
        [address] => (id_of(address), address.clone()),
        _ => return Err(Failure::usage("write `graft add ID ADDR`")),
    };
    // Nobody waits minutes for a change that there is nobody to make.
    talk.view_of_cluster()?;
    let id = node_id(&id)?;
    out.note(&format!("{} gets the log first", named(id, &address)));
    let change = Change::Add { id, address, voter: !add.learner, incarnation: Incarnation::UNKNOWN };
    made(talk, out, change, &format!("{id} is a {}", if add.learner { "learner" } else { "voter" }))
}

pub(super) fn remove(talk: &Talk, out: &Out, member: &str) -> Result<(), Failure> {
    let id = talk.member(member)?;
    made(talk, out, Change::Remove { id }, &format!("{id} is removed"))
}

pub(super) fn promote(talk: &Talk, out: &Out, member: &str) -> Result<(), Failure> {
    let id = talk.member(member)?;
    made(talk, out, Change::Promote { id }, &format!("{id} votes"))
}

pub(super) fn demote(talk: &Talk, out: &Out, member: &str) -> Result<(), Failure> {
    let id = talk.member(member)?;
    made(talk, out, Change::Demote { id }, &format!("{id} does not vote any more"))
}

pub(super) fn replace(talk: &Talk, out: &Out, old: &str, new: &str, address: String) -> Result<(), Failure> {
    let old = talk.member(old)?;
    let new = node_id(new)?;
    out.note(&format!("{} gets the log first", named(new, &address)));
    let change = Change::Replace { old, new, address };
    made(talk, out, change, &format!("{new} has taken the place of {old}"))
}

pub(super) fn apply(talk: &Talk, out: &Out, members: &[String]) -> Result<(), Failure> {
    let member = |text: &String| {
        let split = text.split_once('=');
        let (id, address) = split.ok_or_else(|| Failure::usage(format!("{text:?} is no ID=ADDR")))?;
        Ok((node_id(id)?, address.to_owned()))
    };
    let members = members.iter().map(member).collect::<Result<BTreeMap<_, _>, Failure>>()?;
    let words = format!("the voters are {}", members.keys().map(NodeId::as_str).collect::<Vec<_>>().join(", "));
    made(talk, out, Change::Apply { members }, &words)
}

pub(super) fn cancel(talk: &Talk, out: &Out) -> Result<(), Failure> {
    made(talk, out, Change::Cancel, "no change is under way any more")
}

pub(super) fn transfer(talk: &Talk, out: &Out, to: Option<&str>) -> Result<(), Failure> {
    let to = to.map(|name| talk.member(name)).transpose()?;
    let before = talk.view()?.status.term;
    done(talk.ask(Ask::Transfer { to }, || {})?)?;
    // Whatever is not seen from here on was begun all the same.
    let deadline = Instant::now() + talk.call_timeout();
    let mut seen = "nobody is known to lead yet".to_owned();
    while Instant::now() < deadline {
        match talk.view_by(deadline) {
            Ok(View { status, .. }) => {
                let leader = status.leader.filter(|leader| to.map_or(status.term > before, |to| to == *leader));
                if let Some(leader) = leader {
                    let document = json!({ "id": leader.to_string(), "term": status.term.0.to_string() });
                    return out.done(&format!("{leader} leads"), "leader", document);
                }
            }
            Err(failure) => seen = failure.what,
        }
        std::thread::sleep(PAUSE);
    }
    Err(Failure::new(
        "UNKNOWN_OUTCOME",
        format!("leadership was handed over, and what came of it is not known: {seen}"),
    ))
}

/// A node that `graft start` runs ends when it is removed. The last member is no member of anything else: it is shut down.
pub(super) fn stop(talk: &Talk, out: &Out, member: &str) -> Result<(), Failure> {
    let id = talk.member(member)?;
    if talk.view()?.status.members.len() > 1 {
        return made(talk, out, Change::Remove { id }, &format!("{id} is removed, and its node ends"));
    }
    talk.shutdown();
    let deadline = Instant::now() + talk.call_timeout();
    let mut seen = "it still answers".to_owned();
    while Instant::now() < deadline {
        match talk.view_by(Instant::now() + SILENCE) {
            Err(failure) if failure.code == "UNREACHABLE" => {
                let words = format!("{id} has ended; its data directory keeps the cluster");
                return out.done(&words, "change", json!({ "done": words }));
            }
            Err(failure) => seen = failure.what,
            Ok(_) => {}
        }
        std::thread::sleep(PAUSE);
    }
    Err(Failure::new("UNKNOWN_OUTCOME", format!("{id} was told to end, and whether it has is not known: {seen}")))
}

fn made(talk: &Talk, out: &Out, change: Change, words: &str) -> Result<(), Failure> {
    let newcomer = match &change {
        Change::Add { id, .. } | Change::Promote { id } => Some(*id),
        Change::Replace { new, .. } => Some(*new),
        _ => None,
    };
    let mut progress = Progress::new();
    let meanwhile = || {
        if progress.is_seen()
            && let Ok(View { status, .. }) = talk.view_by(Instant::now() + SILENCE)
        {
            let (words, share) = how_far(&status, newcomer);
            progress.draw(&words, share);
        }
    };
    let index = done(talk.ask(Ask::Change { change, guard: None }, meanwhile)?)?;
    drop(progress);
    out.done(words, "change", json!({ "done": words, "index": index.to_string() }))
}

/// How far a change is: what a newcomer has of the snapshot, or of the log, if the member that answers knows that.
#[expect(clippy::cast_precision_loss, reason = "shares, for people")]
fn how_far(status: &Status, newcomer: Option<NodeId>) -> (String, Option<f64>) {
    let under_way = status.change.clone().unwrap_or_default();
    let Some(member) = newcomer.and_then(|id| status.members.iter().find(|member| member.id == id)) else {
        return (under_way, None);
    };
    let id = member.id;
    match (member.sent, member.matched) {
        (Some((sent, total)), _) if total > 0 => {
            let words = format!("{id} has {} of {} MiB of the snapshot", sent >> 20, total >> 20);
            (words, Some(sent as f64 / total as f64))
        }
        (_, Some(matched)) if status.last.0 > 0 => {
            let words = format!("{id} has {matched} of {} entries", status.last);
            (words, Some(matched.0 as f64 / status.last.0 as f64))
        }
        _ => (under_way, None),
    }
}

fn done(outcome: Outcome) -> Result<u64, Failure> {
    match outcome {
        Outcome::Done { index, .. } => Ok(index.0),
        other => Err(of_outcome(other)),
    }
}

fn node_id(id: &str) -> Result<NodeId, Failure> {
    NodeId::new(id).map_err(|error| Failure::usage(format!("{id:?} is no id: {error}")))
}
