//! The core alone: a leader whose followers answer at once, a follower whose leader sends, and the counting of votes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{
    Append, AppendOutcome, AppendReply, ClusterId, Config, Entry, EntryId, Envelope, Index, Input, Instant, Membership,
    Message, NodeId, Payload, RaftCore, Ready, Recovered, Term, VoteReply,
};

use crate::{SNAPSHOT_EVERY, Work, shared_bodies};

/// Between two turns.
pub(crate) const TICK: Duration = Duration::from_micros(1);

/// The n-th member's name, from 1.
pub(crate) fn node(n: usize) -> NodeId {
    NodeId::new(&format!("n{n}")).expect("a good id")
}

pub(crate) fn membership(members: usize) -> Arc<Membership> {
    Arc::new(Membership::founding((1..=members).map(|n| (node(n), "127.0.0.1:7001"))))
}

/// A member of a cluster of so many that has just been founded.
pub(crate) fn founded(members: usize) -> RaftCore {
    let recovered = Recovered { membership: membership(members), ..Recovered::default() };
    RaftCore::new(Config::new(node(1), ClusterId(7), 1), recovered, Instant(0))
}

/// What a follower that agrees to everything says to a message; none if it says nothing.
pub(crate) fn agree(envelope: &Envelope, promise: Duration) -> Option<Envelope> {
    let (term, message) = match &envelope.message {
        Message::PreVote(request) => {
            (envelope.term, Message::PreVoteReply(VoteReply { term: request.term, granted: true }))
        }
        Message::Vote(request) => (request.term, Message::VoteReply(VoteReply { term: request.term, granted: true })),
        Message::Append(Append { session, round, prev, entries, .. }) => {
            let outcome = AppendOutcome::Matched(Index(prev.index.0 + entries.len() as u64));
            let reply = AppendReply { session: *session, round: *round, promise, outcome };
            (envelope.term, Message::AppendReply(reply))
        }
        _ => return None,
    };
    Some(Envelope { from: envelope.to, to: envelope.from, term, message })
}

/// Of a cluster of 3 or 5: proposes a batch, has it written here and acknowledged by everyone, commits and hands it out.
#[derive(Debug)]
pub struct Leader {
    core: RaftCore,
    now: Instant,
    promise: Duration,
    batch: usize,
    snapshot: Index,
}

impl Leader {
    pub fn new(members: usize, batch: usize) -> Self {
        let core = founded(members);
        let promise = Duration::from_millis(300);
        let mut leader = Self { core, now: Instant(0), promise, batch, snapshot: Index::ZERO };
        leader.now = leader.core.deadline();
        leader.step(Input::Timeout);
        leader.settle();
        assert!(leader.core.is_leader(), "everybody agreed");
        leader
    }

    fn step(&mut self, input: Input) {
        self.core.step(self.now, input).expect("nothing is refused here");
    }

    /// As an engine does: all that is ready is done, until nothing is.
    fn settle(&mut self) {
        loop {
            let ready = self.core.ready(self.now);
            if ready == Ready::default() {
                return;
            }
            let Ready { write, send, apply, .. } = ready;
            if let Some(write) = write {
                self.step(Input::Persisted { seq: write.seq });
            }
            for envelope in send {
                if let Some(answer) = agree(&envelope, self.promise) {
                    self.step(Input::Receive(answer));
                }
            }
            if let Some(last) = apply.last() {
                self.step(Input::Applied { index: last.index });
            }
        }
    }
}

impl Work for Leader {
    type Input = Vec<Bytes>;

    fn prepare(&mut self) -> Vec<Bytes> {
        shared_bodies(self.batch)
    }

    fn turn(&mut self, commands: Vec<Bytes>) {
        self.now = self.now + TICK;
        self.step(Input::Propose(commands));
        self.settle();
        let applied = self.core.applied();
        if applied.0 >= self.snapshot.0 + SNAPSHOT_EVERY {
            self.snapshot = applied;
            self.step(Input::SnapshotTaken { last: EntryId { term: self.core.term(), index: applied } });
        }
    }
}

/// Takes in what a leader sends, writes it, acknowledges it, and hands out what came before.
#[derive(Debug)]
pub struct Follower {
    core: RaftCore,
    now: Instant,
    batch: usize,
    /// The end of the log as the leader has sent it.
    sent: EntryId,
    snapshot: Index,
}

impl Follower {
    pub fn new(batch: usize) -> Self {
        let sent = EntryId { term: Term::ZERO, index: Index::ZERO };
        Self { core: founded(3), now: Instant(1), batch, sent, snapshot: Index::ZERO }
    }

    fn step(&mut self, input: Input) {
        self.core.step(self.now, input).expect("nothing is refused here");
    }
}

impl Work for Follower {
    type Input = Envelope;

    fn prepare(&mut self) -> Envelope {
        let (term, prev) = (Term(1), self.sent);
        let entry = |(n, body)| Entry { index: Index(prev.index.0 + 1 + n), term, payload: Payload::Command(body) };
        let entries: Vec<Entry> = (0..).zip(shared_bodies(self.batch)).map(entry).collect();
        self.sent = EntryId { term, index: Index(prev.index.0 + entries.len() as u64) };
        let message = Message::Append(Append { session: 1, round: 1, prev, entries, commit: prev.index });
        Envelope { from: node(2), to: node(1), term, message }
    }

    fn turn(&mut self, append: Envelope) {
        self.now = self.now + TICK;
        self.step(Input::Receive(append));
        loop {
            let ready = self.core.ready(self.now);
            if ready == Ready::default() {
                break;
            }
            if let Some(write) = ready.write {
                self.step(Input::Persisted { seq: write.seq });
            }
            if let Some(last) = ready.apply.last() {
                self.step(Input::Applied { index: last.index });
            }
        }
        let applied = self.core.applied();
        if applied.0 >= self.snapshot.0 + SNAPSHOT_EVERY {
            self.snapshot = applied;
            self.step(Input::SnapshotTaken { last: EntryId { term: Term(1), index: applied } });
        }
    }
}

/// Who is enough, among so many voters.
#[derive(Debug)]
pub struct Quorum {
    membership: Arc<Membership>,
    ids: Vec<NodeId>,
}

impl Quorum {
    pub fn new(members: usize) -> Self {
        Self { membership: membership(members), ids: (1..=members / 2 + 1).map(node).collect() }
    }
}

impl Work for Quorum {
    type Input = ();

    fn prepare(&mut self) {}

    fn turn(&mut self, (): ()) {
        let ids = std::hint::black_box(&self.ids);
        assert!(self.membership.is_quorum(|id| ids.contains(id)), "more than half");
    }
}
