//! A way through the states, told in the words of the thesis.

use graft_domain::{AppendOutcome, Entry, Envelope, Membership, Message, NodeId, Payload, Transition, VoteRequest};
use stateright::Path;

use crate::disk::Operation;
use crate::member::{Act, Member};
use crate::model::{Action, Cluster, State};
use crate::turn::Turn;

/// What happened, line by line, and what does not hold in the end.
pub(crate) fn of(cluster: &Cluster, path: Path<State, Action>) -> Vec<String> {
    let mut lines = Vec::new();
    let steps = path.into_vec();
    if let Some((first, _)) = steps.first() {
        lines.push("to begin with".to_owned());
        lines.extend(first.members.iter().map(|member| format!("        {}", shown(member))));
    }
    for (number, (state, action)) in steps.iter().enumerate() {
        if let Some(action) = action {
            tell(cluster, number + 1, state, action, &mut lines);
            continue;
        }
        lines.push("in the end".to_owned());
        lines.extend(state.members.iter().map(|member| format!("        {}", shown(member))));
        lines.extend(state.broken.map(|broken| format!("BROKEN: {}", broken.what)));
    }
    lines
}

fn tell(cluster: &Cluster, number: usize, state: &State, Action { place, act }: &Action, lines: &mut Vec<String>) {
    let before = state.members[*place];
    let id = before.core.id();
    lines.push(format!("{number:>4}.   {}", happening(id, &before, act)));
    let (turn, _) = Turn::play(&before, act, cluster.scenario.rules);
    let mut note = |line: String| lines.push(format!("        {line}"));
    turn.told.iter().for_each(|transition| note(format!("{id} {}", changed(transition))));
    if !turn.commits.is_empty() {
        note(format!("{id} commits {}", list(turn.commits.iter().map(|commit| entry(&commit.entry)))));
    }
    let kept = before.disk.pending.len().saturating_sub(usize::from(matches!(act, Act::Persist)));
    let kept = if matches!(act, Act::Crash) { 0 } else { kept };
    turn.member.disk.pending.iter().skip(kept).for_each(|wanted| note(format!("{id} wants {}", operation(wanted))));
    turn.sends.iter().for_each(|envelope| note(message(envelope)));
}

fn happening(id: NodeId, before: &Member, act: &Act) -> String {
    match act {
        Act::Deliver(envelope) => format!("{id} receives {}", message(envelope)),
        Act::Timeout if before.core.is_leader() => format!("{id} hears no quorum for an election timeout"),
        Act::Timeout => format!("{id} hears no leader for an election timeout"),
        Act::Beat => format!("the heartbeat of {id} is due"),
        Act::Persist => match before.disk.pending.front() {
            Some(wanted) => format!("the disk of {id} has done {}", operation(wanted)),
            None => format!("the disk of {id} has done nothing"),
        },
        Act::Crash => format!("{id} crashes and starts again, without {} operations", before.disk.pending.len()),
        Act::Propose(number) => format!("c{number} is proposed to {id}"),
        Act::Change(next) => format!("{id} is asked for the membership {}", membership(next)),
        Act::Transfer(to) => format!("{id} is asked to hand over to {to}"),
        Act::Expire(envelope) => {
            format!("the time for the transfer of {id} is over when it receives {}", message(envelope))
        }
        Act::Snapshot(index) => format!("{id} has a durable snapshot up to {index}"),
        Act::Install(snapshot) => format!("{id} installs the snapshot of {}", snapshot.last),
    }
}

fn changed(transition: &Transition) -> String {
    match transition {
        Transition::Follower { term, leader: Some(leader) } => format!("follows {leader} in term {term}"),
        Transition::Follower { term, leader: None } => format!("follows nobody in term {term}"),
        Transition::PreCandidate { term } => format!("is a pre-candidate in term {term}"),
        Transition::Candidate { term } => format!("is a candidate in term {term}"),
        Transition::Leader { term } => format!("LEADS term {term}"),
        Transition::Membership { index, membership: next } => {
            format!("has membership {} from {index}", membership(next))
        }
        Transition::MembershipCommitted { index } => format!("has its membership of {index} committed"),
        Transition::Truncated { from } => format!("cuts its log from {from}"),
        Transition::Breach(breach) => format!("FALLS SILENT: {breach:?}"),
    }
}

fn operation(operation: &Operation) -> String {
    match operation {
        Operation::Compact(last) => format!("the log forgotten up to {last}"),
        Operation::Write(write) => {
            let vote = write.vote.map(|vote| format!(" vote {vote}")).unwrap_or_default();
            format!("term {}{vote} [{}] written", write.term, list(write.entries.iter().map(entry)))
        }
    }
}

fn message(envelope: &Envelope) -> String {
    let Envelope { from, to, term, message } = envelope;
    let ask = |request: &VoteRequest| {
        let transfer = if request.transfer { ", asked to by the leader" } else { "" };
        format!("term {} last {} commit {}{transfer}", request.term, request.last, request.commit)
    };
    let says = match message {
        Message::PreVote(request) | Message::Vote(request) => ask(request),
        Message::PreVoteReply(reply) | Message::VoteReply(reply) => {
            format!("term {} {}", reply.term, if reply.granted { "granted" } else { "refused" })
        }
        Message::Append(append) => {
            let entries = list(append.entries.iter().map(entry));
            format!("term {term} prev {} [{entries}] commit {}", append.prev, append.commit)
        }
        Message::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matched(index) => format!("term {term} matched {index}"),
            AppendOutcome::Missing { prev, hint } => format!("term {term} missing {prev}, hint {hint}"),
        },
        Message::Snapshot(offer) => format!("term {term} upto {}", offer.last),
        _ => format!("term {term}"),
    };
    format!("{from} -> {to} {} {says}", message.name())
}

fn entry(entry: &Entry) -> String {
    let payload = match &entry.payload {
        Payload::Noop => "noop".to_owned(),
        Payload::Command(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Payload::Membership(next) => membership(next),
    };
    format!("{} {payload}", entry.id())
}

fn membership(membership: &Membership) -> String {
    let outgoing = list(membership.outgoing());
    let outgoing = if membership.is_joint() { format!("{outgoing} to ") } else { outgoing };
    let learners = membership.members.iter().filter(|(_, member)| !member.voter && !member.outgoing);
    let learners = list(learners.map(|(id, _)| id));
    let learners = if learners.is_empty() { learners } else { format!(" learners {learners}") };
    format!("{{{outgoing}{}{learners}}}", list(membership.voters()))
}

fn list(items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

fn shown(Member { core, disk, .. }: &Member) -> String {
    let log =
        (core.base().index.0 + 1..=core.last().index.0).filter_map(|index| core.entry(graft_domain::Index(index)));
    let snapshot = if core.base().index.0 > 0 { format!("{} | ", core.base()) } else { String::new() };
    let vote = |vote: Option<NodeId>| vote.map_or_else(|| "-".to_owned(), |vote| vote.to_string());
    format!(
        "{} {} term {} vote {} log {snapshot}{} commit {}; on disk term {} vote {} log {}, {} operations wait",
        core.id(),
        core.role(),
        core.term(),
        vote(core.vote()),
        list(log.map(Entry::id)),
        core.commit(),
        disk.term,
        vote(disk.vote),
        list(disk.entries.iter().map(Entry::id)),
        disk.pending.len(),
    )
}
