//! How a transcript reads: one line for each thing that happens, in the words of the thesis.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::message::{AppendOutcome, Envelope, Message, VoteReply, VoteRequest};
use crate::{Entry, Membership, Payload, RaftCore, ReadOutcome, Rejected, Transition, Write};

/// Something in the words of a transcript.
pub(crate) struct Shown<'a, T: ?Sized>(pub(crate) &'a T);

fn list<'a, T: 'a>(items: impl IntoIterator<Item = &'a T>) -> String
where
    Shown<'a, T>: fmt::Display,
{
    items.into_iter().map(|item| Shown(item).to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Shown<'_, Membership> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |ids: &mut dyn Iterator<Item = crate::NodeId>| ids.map(|id| id.to_string()).collect::<Vec<_>>().join(" ");
        let learners = self.0.members.iter().filter(|(_, m)| !m.voter && !m.outgoing).map(|(id, _)| *id);
        f.write_str("{")?;
        if self.0.is_joint() {
            write!(f, "{} -> ", names(&mut self.0.outgoing()))?;
        }
        f.write_str(&names(&mut self.0.voters()))?;
        let learners = names(&mut { learners });
        if !learners.is_empty() {
            write!(f, " learners {learners}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for Shown<'_, Entry> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.0.id())?;
        match &self.0.payload {
            Payload::Noop => f.write_str("noop"),
            Payload::Command(bytes) if bytes.len() > 12 => write!(f, "({} bytes)", bytes.len()),
            Payload::Command(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Payload::Membership(membership) => Shown(&**membership).fmt(f),
        }
    }
}

fn ask(request: &VoteRequest) -> String {
    let transfer = if request.transfer { ", asked to by the leader" } else { "" };
    format!("t{} last {} commit {}{transfer}", request.term, request.last, request.commit)
}

fn answer(reply: &VoteReply, envelope: &Envelope) -> String {
    let asked = if matches!(envelope.message, Message::PreVoteReply(_)) {
        reply.term.0.saturating_sub(1)
    } else {
        reply.term.0
    };
    let told = if envelope.term.0 > asked { format!(", in term {}", envelope.term) } else { String::new() };
    format!("t{} {}{told}", reply.term, if reply.granted { "granted" } else { "refused" })
}

impl fmt::Display for Shown<'_, Envelope> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Envelope { from, to, term, message } = self.0;
        write!(f, "{from} -> {to}  {} ", message.name())?;
        match message {
            Message::PreVote(request) | Message::Vote(request) => f.write_str(&ask(request)),
            Message::PreVoteReply(reply) | Message::VoteReply(reply) => f.write_str(&answer(reply, self.0)),
            Message::Append(a) => {
                let entries = list(&a.entries);
                write!(f, "t{term} prev {} [{entries}] commit {} round {}", a.prev, a.commit, a.round)
            }
            Message::AppendReply(reply) => match reply.outcome {
                AppendOutcome::Matched(index) => write!(f, "t{term} matched {index} round {}", reply.round),
                AppendOutcome::Missing { prev, hint } => {
                    write!(f, "t{term} missing {prev}, hint {hint}, round {}", reply.round)
                }
            },
            Message::Snapshot(offer) => write!(f, "t{term} upto {} round {}", offer.last, offer.round),
            Message::TimeoutNow => write!(f, "t{term}"),
            Message::Read { read, lease } => write!(f, "t{term} r{read}{}", if *lease { ", by lease" } else { "" }),
            Message::ReadReply { read, index: Some(index) } => write!(f, "t{term} r{read} at {index}"),
            Message::ReadReply { read, index: None } => write!(f, "t{term} r{read} refused"),
        }
    }
}

impl fmt::Display for Shown<'_, Write> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}  term {}", self.0.seq, self.0.term)?;
        if let Some(vote) = self.0.vote {
            write!(f, " vote {vote}")?;
        }
        if self.0.entries.is_empty() { Ok(()) } else { write!(f, " [{}]", list(&self.0.entries)) }
    }
}

impl fmt::Display for Shown<'_, Rejected> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rejected::NotLeader { leader: Some(leader) } => write!(f, "not leader, {leader} is"),
            Rejected::NotLeader { leader: None } => f.write_str("no leader"),
            Rejected::Busy => f.write_str("busy"),
            Rejected::Transferring => f.write_str("handing leadership over"),
            Rejected::BadTransfer => f.write_str("that member cannot lead"),
            Rejected::ChangeInProgress => f.write_str("the last change is not done yet"),
            Rejected::BadMembership => f.write_str("that is not one step away"),
            Rejected::Silenced => f.write_str("silenced"),
        }
    }
}

impl fmt::Display for Shown<'_, ReadOutcome> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.outcome {
            Ok(index) => write!(f, "serves r{} once {index} is applied", self.0.read),
            Err(rejected) => write!(f, "turns r{} down: {}", self.0.read, Shown(rejected)),
        }
    }
}

impl fmt::Display for Shown<'_, Transition> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Transition::Follower { term, leader: Some(leader) } => write!(f, "follows {leader} in term {term}"),
            Transition::Follower { term, leader: None } => write!(f, "follows nobody in term {term}"),
            Transition::PreCandidate { term } => write!(f, "is a pre-candidate in term {term}"),
            Transition::Candidate { term } => write!(f, "is a candidate in term {term}"),
            Transition::Leader { term } => write!(f, "LEADS term {term}"),
            Transition::Membership { index, membership } => {
                write!(f, "has membership {} from {index}", Shown(&**membership))
            }
            Transition::MembershipCommitted { index } => write!(f, "has its membership of {index} committed"),
            Transition::Truncated { from } => write!(f, "cuts its log from {from}"),
            Transition::Breach(breach) => write!(f, "FALLS SILENT: {breach:?}"),
        }
    }
}

/// One line of `status`.
impl fmt::Display for Shown<'_, RaftCore> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.0;
        let vote = core.vote().map_or_else(|| "-".to_string(), |vote| vote.to_string());
        write!(f, "{}  {:<13} term {} vote {vote:<2}  ", core.id(), core.role(), core.term())?;
        let (base, snapshot) = (core.base(), core.snapshot());
        let entries: Vec<&Entry> =
            (base.index.0 + 1..=core.last().index.0).filter_map(|i| core.entry(crate::Index(i))).collect();
        let log = entries.iter().map(|e| format!(" {}", e.id())).collect::<Vec<_>>().concat();
        let base = match (snapshot.index.0 > 0, base == snapshot) {
            (false, _) => String::new(),
            (true, true) => format!(" snapshot {snapshot} |"),
            (true, false) => format!(" snapshot {snapshot}, all after {base} |"),
        };
        write!(f, "commit {} applied {}  log{base}{log}", core.commit(), core.applied())?;
        if core.durable() < core.last().index { write!(f, "  durable {}", core.durable()) } else { Ok(()) }
    }
}
