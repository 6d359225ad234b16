//! One turn of a node's loop: what it was told, one after the other, and then what it wanted done.

use graft_domain::{Entry, Envelope, Index, Message, NodeId, Payload, RaftCore, Term, VoteReply, Write};
use graft_services::ports::PeerMessage;
use graft_services::{Clock, Effect, Event, Replica};

use super::{Told, Trace, words};

/// What could be seen of a core before something happened to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    term: Term,
    vote: Option<NodeId>,
    last: graft_domain::EntryId,
    base: Index,
    role: &'static str,
}

impl Seen {
    fn of(core: &RaftCore) -> Self {
        let (term, vote, last) = (core.term(), core.vote(), core.last());
        Self { term, vote, last, base: core.base().index, role: core.role() }
    }

    fn leads(&self) -> bool {
        self.role == "leader"
    }

    fn stands(&self) -> bool {
        matches!(self.role, "candidate" | "pre-candidate")
    }
}

/// A turn under way.
#[derive(Debug)]
pub(crate) struct Turn {
    id: NodeId,
    before: Seen,
    /// Requests for pre-votes that were heard, with the lines that say so: whether they were granted is seen at the end.
    asked: Vec<(usize, NodeId, Term)>,
    /// The line before which the node stopped leading, and the term that it led.
    left: Option<(usize, Term)>,
    /// The line before which its timer struck.
    struck: Option<usize>,
}

impl Turn {
    pub(super) fn new(id: NodeId, core: &RaftCore) -> Self {
        Self { id, before: Seen::of(core), asked: Vec::new(), left: None, struck: None }
    }

    /// Something was told, and this is what is seen now.
    fn told(&mut self, told: &Told, core: &RaftCore, trace: &mut Trace) {
        let (before, now) = (self.before, Seen::of(core));
        if before.role == "silenced" {
            return;
        }
        let first = trace.lines.len();
        match told {
            Told::Message(envelope) => self.heard(envelope, now, trace),
            Told::Persisted(seq) => {
                let done = trace.members.entry(self.id).or_default().done(*seq);
                if done > 0 {
                    trace.line("persist", self.id, &format!("done |-> {done}"));
                }
            }
            Told::Unreachable(peer) => {
                trace.members.entry(self.id).or_default().heard.remove(peer);
                trace.line("reprobe", self.id, &format!("peer |-> \"{peer}\""));
            }
            Told::Restored(last) if now.base == last.index && now.base > before.base => {
                trace.line("install", self.id, &format!("index |-> {}", last.index));
            }
            Told::Timeout => self.struck = Some(trace.lines.len()),
            Told::Restored(_) | Told::Other => {}
        }
        let campaigns = matches!(told, Told::Timeout) && now.stands() && now.role != before.role;
        if campaigns {
            trace.line("timeout", self.id, "");
            self.struck = None;
        }
        let is_message = matches!(told, Told::Message(_));
        if now.role != before.role && before.leads() {
            self.left = Some((first, before.term));
        }
        // What it gave up of itself, and was not told to.
        let gives_up = (before.leads() || before.stands()) && !now.leads() && !now.stands() && now.term == before.term;
        if gives_up && (!is_message || is_refusal(told)) {
            trace.line("stepdown", self.id, "");
        }
        self.count(now, matches!(told, Told::Restored(_)), trace);
        self.own_entries(now, core, trace);
        let installed = matches!(told, Told::Restored(last) if now.base == last.index);
        if now.base > before.base && !installed {
            trace.line("compact", self.id, &format!("index |-> {}", now.base));
        }
        trace.look(self.id, core);
        self.before = now;
    }

    fn heard(&mut self, envelope: &Envelope, now: Seen, trace: &mut Trace) {
        let Some(message) = words::message(envelope, &mut trace.commands) else { return };
        let before = self.before;
        let how = match &envelope.message {
            Message::PreVote(request) => {
                self.asked.push((trace.lines.len(), envelope.from, request.term));
                "ignores"
            }
            // Whoever heard a leader of late does not look at it, or gives no vote.
            Message::Vote(request) if request.term > before.term && now.term == before.term => "ignores",
            Message::Vote(_) if now.vote.is_none() => "refuses",
            Message::TimeoutNow if envelope.term == before.term && now.term == before.term => "ignores",
            Message::Append(_) | Message::AppendReply(_) if !trace.is_news(self.id, envelope.from, &message) => return,
            _ => "takes",
        };
        trace.line("receive", self.id, &format!("how |-> \"{how}\", message |-> {message}"));
    }

    /// A step that changes what is to be durable is a write of the specification. A snapshot is durable already.
    fn count(&self, now: Seen, installs: bool, trace: &mut Trace) {
        let before = self.before;
        let hard = (now.term, now.vote) != (before.term, before.vote);
        if hard || (now.last != before.last && !installs) {
            trace.members.entry(self.id).or_default().steps += 1;
        }
    }

    /// Entries that a leader has put into its log by itself, but for the one that it begins with.
    fn own_entries(&self, now: Seen, core: &RaftCore, trace: &mut Trace) {
        let before = self.before;
        if !now.leads() || now.last.index <= before.last.index {
            return;
        }
        let begins = !before.leads() || now.term != before.term;
        let first = before.last.index.0 + 1 + u64::from(begins);
        for index in first..=now.last.index.0 {
            let Some(entry) = core.entry(Index(index)) else { continue };
            self.own_entry(entry, core, trace);
            if index > first || begins {
                trace.members.entry(self.id).or_default().steps += 1;
            }
        }
    }

    fn own_entry(&self, entry: &Entry, core: &RaftCore, trace: &mut Trace) {
        let Payload::Membership(next) = &entry.payload else {
            let entry = words::entry(entry, &mut trace.commands);
            return trace.line("propose", self.id, &format!("entry |-> {entry}"));
        };
        let event = if core.membership_at(entry.index.prev()).is_joint() { "leave" } else { "change" };
        trace.line(event, self.id, &format!("config |-> {}", words::membership(next)));
    }

    /// What it wants done, and what is seen then.
    pub(crate) fn ends(mut self, effects: &[Effect], core: &RaftCore, trace: &mut Trace) {
        let now = Seen::of(core);
        let sends = |effect: &Effect| match effect {
            Effect::Send(_, PeerMessage::Raft(envelope)) => Some(envelope.clone()),
            _ => None,
        };
        let sent: Vec<Envelope> = effects.iter().filter_map(sends).collect();
        self.pre_votes(&sent, trace);
        self.count(now, false, trace);
        self.own_entries(now, core, trace);
        for envelope in &sent {
            self.sends(envelope, trace);
        }
        let gives_up = (self.before.leads() || self.before.stands()) && !now.leads() && !now.stands();
        if gives_up {
            trace.line("stepdown", self.id, "");
        }
        if now.base > self.before.base {
            trace.line("compact", self.id, &format!("index |-> {}", now.base));
        }
        trace.look(self.id, core);
        let write =
            effects.iter().find_map(|effect| if let Effect::Persist(write) = effect { Some(write) } else { None });
        if let Some(write) = write {
            self.writes(write, trace);
        }
    }

    /// Says of every request for a pre-vote what became of it; and that it has asked for them itself once more.
    fn pre_votes(&mut self, sent: &[Envelope], trace: &mut Trace) {
        let mut replies: Vec<(NodeId, VoteReply)> = Vec::new();
        for envelope in sent {
            if let Message::PreVoteReply(reply) = envelope.message {
                replies.push((envelope.to, reply));
            }
        }
        for (line, from, term) in std::mem::take(&mut self.asked) {
            let found = replies.iter().position(|(to, reply)| *to == from && reply.term == term);
            let how = match found.map(|place| replies.remove(place).1.granted) {
                Some(true) => "takes",
                Some(false) => "refuses",
                None => continue,
            };
            if let Some(text) = trace.lines.get_mut(line) {
                *text = text.replacen("\"ignores\"", &format!("\"{how}\""), 1);
            }
        }
        let asks = sent.iter().any(|envelope| matches!(envelope.message, Message::PreVote(_)));
        if asks && let Some(line) = self.struck.take() {
            trace.lines.insert(line, format!("[event |-> \"timeout\", node |-> \"{}\"]", self.id));
        }
    }

    fn sends(&self, envelope: &Envelope, trace: &mut Trace) {
        let Some(message) = words::message(envelope, &mut trace.commands) else { return };
        let moves = match &envelope.message {
            Message::Append(append) => !append.entries.is_empty(),
            Message::Snapshot(_) => true,
            _ => false,
        };
        let is_new = trace.sent.insert(message.clone());
        if !is_new && !moves {
            return;
        }
        if let Some(member) = trace.members.get_mut(&self.id) {
            member.heard.remove(&envelope.to);
        }
        let line = format!("[event |-> \"send\", node |-> \"{}\", message |-> {message}]", self.id);
        match self.left {
            // It was said before this node stopped leading.
            Some((place, term)) if matches!(envelope.message, Message::TimeoutNow) && term == envelope.term => {
                trace.lines.insert(place, line);
            }
            _ => trace.lines.push(line),
        }
    }

    fn writes(&self, write: &Write, trace: &mut Trace) {
        let text = words::write(write, &mut trace.commands);
        let member = trace.members.entry(self.id).or_default();
        let steps = std::mem::take(&mut member.steps);
        member.flights.push_back((write.seq, steps));
        trace.line("write", self.id, &text);
    }
}

/// A replica takes in an event, and that is written down if its turn is.
pub(crate) fn handle(replica: &mut Replica, clock: Clock, event: Event, traced: &mut Option<(Turn, &mut Trace)>) {
    let told = traced.is_some().then(|| Told::of(&event));
    replica.handle(clock, event);
    if let (Some((turn, trace)), Some(told)) = (traced, told) {
        turn.told(&told, replica.core(), trace);
    }
}

/// Whether it was a vote, or a pre-vote, that was not given.
fn is_refusal(told: &Told) -> bool {
    let Told::Message(envelope) = told else { return false };
    matches!(&envelope.message, Message::VoteReply(reply) | Message::PreVoteReply(reply) if !reply.granted)
}
