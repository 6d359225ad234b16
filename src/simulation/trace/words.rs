//! What is in a trace, in the syntax of TLA+ and in the words of `spec/Graft.tla`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use graft_domain::{
    AppendOutcome, Entry, EntryId, Envelope, Membership, Message, NodeId, Payload, RaftCore, VoteReply, Write,
};

/// Commands, by what they say: in a trace each is a number.
#[derive(Debug, Default)]
pub(super) struct Commands(BTreeMap<Bytes, usize>);

impl Commands {
    fn number(&mut self, command: &Bytes) -> usize {
        let next = self.0.len() + 1;
        *self.0.entry(command.clone()).or_insert(next)
    }
}

pub(super) fn set<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> String {
    let quoted: Vec<String> = ids.into_iter().map(|id| format!("\"{id}\"")).collect();
    format!("{{{}}}", quoted.join(", "))
}

/// A membership as who votes, who voted, and who does not.
pub(super) fn membership(membership: &Membership) -> String {
    let outgoing: Vec<NodeId> = membership.outgoing().collect();
    let voters: Vec<NodeId> = membership.voters().collect();
    let learners = membership.members.iter().filter(|(_, m)| !m.voter && !m.outgoing).map(|(id, _)| id);
    format!("[voters |-> {}, outgoing |-> {}, learners |-> {}]", set(&voters), set(&outgoing), set(learners))
}

pub(super) fn entry(entry: &Entry, commands: &mut Commands) -> String {
    let (command, config) = match &entry.payload {
        Payload::Noop => (0, "NoConfig".to_owned()),
        Payload::Command(command) => (commands.number(command), "NoConfig".to_owned()),
        Payload::Membership(next) => (0, membership(next)),
    };
    format!("[term |-> {}, command |-> {command}, config |-> {config}]", entry.term)
}

pub(super) fn entries<'a>(all: impl IntoIterator<Item = &'a Entry>, commands: &mut Commands) -> String {
    let all: Vec<String> = all.into_iter().map(|one| entry(one, commands)).collect();
    format!("<<{}>>", all.join(", "))
}

fn id(id: EntryId) -> String {
    format!("[term |-> {}, index |-> {}]", id.term, id.index)
}

fn vote_reply(kind: &str, ends: &str, term: &str, reply: VoteReply) -> String {
    let granted = truth(reply.granted);
    format!("[type |-> \"{kind}\", {ends}, {term}, asked |-> {}, granted |-> {granted}]", reply.term)
}

pub(super) const fn truth(holds: bool) -> &'static str {
    if holds { "TRUE" } else { "FALSE" }
}

/// A message as the specification has it; none if it has no such message.
pub(super) fn message(envelope: &Envelope, commands: &mut Commands) -> Option<String> {
    let Envelope { from, to, term, message } = envelope;
    let (ends, term) = (format!("from |-> \"{from}\", to |-> \"{to}\""), format!("term |-> {term}"));
    Some(match message {
        Message::PreVote(request) => {
            format!("[type |-> \"PreVote\", {ends}, asked |-> {}, last |-> {}]", request.term, id(request.last))
        }
        Message::Vote(request) => {
            format!("[type |-> \"Vote\", {ends}, term |-> {}, last |-> {}]", request.term, id(request.last))
        }
        Message::PreVoteReply(reply) => vote_reply("PreVoteReply", &ends, &term, *reply),
        Message::VoteReply(reply) => vote_reply("VoteReply", &ends, &term, *reply),
        Message::Append(append) => format!(
            "[type |-> \"Append\", {ends}, {term}, prev |-> {}, entries |-> {}, commit |-> {}]",
            id(append.prev),
            entries(&append.entries, commands),
            append.commit
        ),
        Message::AppendReply(reply) => {
            let (matches, index, hint) = match reply.outcome {
                AppendOutcome::Matched(index) => (true, index, EntryId::ZERO),
                AppendOutcome::Missing { prev, hint } => (false, prev, hint),
            };
            let (matches, hint) = (truth(matches), id(hint));
            format!(
                "[type |-> \"AppendReply\", {ends}, {term}, matches |-> {matches}, index |-> {index}, hint |-> {hint}]"
            )
        }
        Message::Snapshot(offer) => format!("[type |-> \"Snapshot\", {ends}, {term}, last |-> {}]", id(offer.last)),
        Message::TimeoutNow => format!("[type |-> \"TimeoutNow\", {ends}, {term}]"),
        Message::Read { .. } | Message::ReadReply { .. } => return None,
    })
}

/// What is seen of a core: none of it is the tracer's.
pub(super) fn look(core: &RaftCore) -> String {
    let role = match core.role() {
        "learner" | "silenced" => "follower",
        "pre-candidate" => "precandidate",
        role => role,
    };
    let vote = core.vote().map(|id| id.to_string()).unwrap_or_default();
    format!(
        "term |-> {}, vote |-> \"{vote}\", role |-> \"{role}\", commit |-> {}, last |-> {}, base |-> {}, durable |-> {}",
        core.term(),
        core.commit(),
        id(core.last()),
        core.base().index,
        core.durable(),
    )
}

pub(super) fn write(write: &Write, commands: &mut Commands) -> String {
    let vote = write.vote.map(|id| id.to_string()).unwrap_or_default();
    let first = write.entries.first().map_or(0, |entry| entry.index.0);
    let entries = entries(&write.entries, commands);
    format!("term |-> {}, vote |-> \"{vote}\", first |-> {first}, entries |-> {entries}", write.term)
}

/// A whole trace as a module.
pub(super) fn module(name: &str, servers: &[NodeId], founding: &str, lines: &[String]) -> String {
    let mut text = format!("---- MODULE {name} ----\nEXTENDS TraceGraft\n");
    let _ = write!(text, "TheServers == {}\nTheFounding == {founding}\nTheTrace == <<\n", set(servers));
    text.push_str(&lines.join(",\n"));
    text.push_str(" >>\n====\n");
    text
}
