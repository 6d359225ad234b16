//! Three cores that get messages in any order, late, twice, never, and messages that nobody who keeps to the protocol would
//! send. None panics, all keep their own invariants, and what each wants written its real log can hold.
//!
//! Two leaders of one term are no fault here: whoever can forge messages can have them. The simulator looks after that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{
    Append, AppendOutcome, AppendReply, Entry, EntryId, Envelope, Index, Input as Step, Instant, Member, Membership,
    Message, Payload, RaftCore, ReadId, SnapshotOffer, Target, Term, VoteReply, VoteRequest,
};

use crate::input::Input;
use crate::node::Node;
use crate::samples::{Sample, id};

const MEMBERS: u64 = 3;
/// What is done with one input, at the most.
const ACTS_MAX: usize = 400;
/// Messages on their way; more are lost.
const QUEUE_MAX: usize = 64;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut cluster = Cluster::new(u64::from(input.u8()));
    for _ in 0..ACTS_MAX {
        if input.is_empty() {
            break;
        }
        cluster.act(&mut input);
    }
}

pub(crate) struct Cluster {
    /// None for as long as it is being restarted.
    nodes: [Option<Node>; 3],
    queue: VecDeque<Envelope>,
    now: Instant,
    reads: u64,
}

impl Cluster {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Instant(1_000_000_000);
        let nodes = [1, 2, 3].map(|number| Some(Node::new(id(number), seed + number, now)));
        Self { nodes, queue: VecDeque::new(), now, reads: 0 }
    }

    fn core(&self, at: usize) -> Option<&RaftCore> {
        self.nodes[at].as_ref().map(|node| &node.core)
    }

    fn step(&mut self, at: usize, input: Step) {
        let Some(node) = &mut self.nodes[at] else { return };
        let (_, ready) = node.step(self.now, input);
        self.queue.extend(ready.send);
        self.queue.truncate(QUEUE_MAX);
        for need in ready.snapshots {
            // Its bytes travel beside the messages.
            if let Some(node) = &self.nodes[at] {
                assert!(node.core.snapshot() > EntryId::ZERO && need.from > Index::ZERO);
            }
        }
    }

    pub(crate) fn receive(&mut self, envelope: Envelope) {
        let at = self.nodes.iter().position(|node| node.as_ref().is_some_and(|n| n.core.id() == envelope.to));
        if let Some(at) = at {
            self.step(at, Step::Receive(envelope));
        }
    }

    fn persist(&mut self, at: usize) {
        let seq = self.nodes[at].as_mut().and_then(Node::persist);
        if let Some(seq) = seq {
            self.step(at, Step::Persisted { seq });
        }
    }

    fn applied(&mut self, at: usize) {
        let handed = self.nodes[at].as_ref().map_or(Index::ZERO, Node::handed);
        self.step(at, Step::Applied { index: handed });
    }

    /// A while in which all goes well.
    pub(crate) fn rest(&mut self, rounds: u8) {
        for _ in 0..rounds {
            self.now = self.now + Duration::from_millis(40);
            for at in 0..self.nodes.len() {
                let due = self.core(at).is_some_and(|core| core.deadline() <= self.now);
                if due {
                    self.step(at, Step::Timeout);
                }
            }
            for _ in 0..QUEUE_MAX {
                (0..self.nodes.len()).for_each(|at| self.persist(at));
                let Some(envelope) = self.queue.pop_front() else { break };
                self.receive(envelope);
            }
            (0..self.nodes.len()).for_each(|at| self.applied(at));
        }
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let (kind, at) = (input.u8() % 20, usize::from(input.u8() % 3));
        match kind {
            0 => {
                self.now = self.now + Duration::from_millis(u64::from(input.u8()) * 10);
                self.step(at, Step::Timeout);
            }
            1..=3 => {
                let place = usize::from(input.u8()).min(self.queue.len().saturating_sub(1));
                let message = if kind == 3 { self.queue.get(place).cloned() } else { self.queue.remove(place) };
                if let (Some(message), 1 | 3) = (message, kind) {
                    self.receive(message);
                }
            }
            4..=6 => {
                let Some(envelope) = self.core(at).map(|core| forged(core, input)) else { return };
                self.step(at, Step::Receive(envelope));
            }
            7 => {
                let bodies = (0..=input.u8() % 4).map(|n| Bytes::from(vec![n; usize::from(n) * 30]));
                self.step(at, Step::Propose(bodies.collect()));
            }
            8 => {
                self.reads += 1;
                let read = ReadId(self.reads);
                self.step(at, Step::Read { read, lease: input.one_in(2) });
            }
            9 => {
                let Some(next) = self.core(at).map(|core| changed(core.membership(), input)) else { return };
                self.step(at, Step::ChangeMembership(Arc::new(next)));
            }
            10 => {
                let to = input.u8() % 5;
                self.step(at, Step::TransferLeadership((to > 0).then(|| id(u64::from(to)))));
            }
            11 => self.persist(at),
            12 => self.applied(at),
            13 => self.take_snapshot(at),
            14 => self.install(at, input),
            15 => self.step(at, Step::SnapshotFailed(id(u64::from(input.u8())))),
            16 => self.step(at, Step::Unreachable(id(u64::from(input.u8())))),
            17 => match input.u8() {
                0 => self.step(at, Step::StorageFailed),
                1 => self.step(at, Step::Unfit),
                _ => {
                    let now = self.now;
                    self.nodes[at] = self.nodes[at].take().map(|node| node.restart(now));
                }
            },
            _ => self.rest(input.u8() % 32),
        }
    }

    fn take_snapshot(&mut self, at: usize) {
        let Some(node) = &self.nodes[at] else { return };
        let Some(last) = node.core.entry(node.core.applied()).map(Entry::id) else { return };
        let membership = Arc::clone(node.core.membership_at(last.index));
        if node.keep_snapshot(last, membership) {
            self.step(at, Step::SnapshotTaken { last });
        }
    }

    /// The snapshot that was offered comes, or, as the leader has it by now, another one.
    fn install(&mut self, at: usize, input: &mut Input<'_>) {
        let Some(node) = &self.nodes[at] else { return };
        let Some(fetch) = node.fetch else { return };
        let last = match input.u8() % 4 {
            0 => near_entry(fetch.last, input),
            _ => fetch.last,
        };
        let membership = Arc::clone(node.core.membership());
        if last.index > Index::ZERO && node.keep_snapshot(last, Arc::clone(&membership)) {
            self.step(at, Step::SnapshotInstalled { last, membership });
        }
    }
}

/// A number that is often near to one that means something, and sometimes at an end of all numbers.
pub(crate) fn near(base: u64, input: &mut Input<'_>) -> u64 {
    match input.u8() {
        by @ 0..=127 => base.saturating_add(u64::from(by % 16)).saturating_sub(8),
        by @ 128..=223 => u64::from(by % 16),
        224..=228 => u64::MAX,
        229..=232 => Index::LAST.0,
        233..=236 => Index::LAST.0 - 1,
        237..=240 => u64::MAX - 1,
        241..=243 => input.u64(),
        _ => base,
    }
}

fn near_entry(base: EntryId, input: &mut Input<'_>) -> EntryId {
    EntryId::new(near(base.term.0, input), near(base.index.0, input))
}

/// A message to this core that somebody might send who means it harm.
pub(crate) fn forged(to: &RaftCore, input: &mut Input<'_>) -> Envelope {
    let from = id(u64::from(input.u8()));
    let term = Term(near(to.term().0, input));
    let (session, round) = (near(1, input), near(8, input));
    let message = match input.u8() % 10 {
        0 => Message::PreVote(vote_request(to, input)),
        1 => Message::Vote(vote_request(to, input)),
        2 => Message::PreVoteReply(vote_reply(to, input)),
        3 => Message::VoteReply(vote_reply(to, input)),
        4 | 5 => {
            let prev = near_entry(to.last(), input);
            let entries = entries(prev, input);
            Message::Append(Append { session, round, prev, entries, commit: Index(near(to.commit().0, input)) })
        }
        6 => {
            let promise = Duration::from_nanos(near(300_000_000, input));
            let outcome = match input.u8() % 2 {
                0 => AppendOutcome::Matched(Index(near(to.last().index.0, input))),
                _ => AppendOutcome::Missing {
                    prev: Index(near(to.last().index.0, input)),
                    hint: near_entry(to.last(), input),
                },
            };
            Message::AppendReply(AppendReply { session, round, promise, outcome })
        }
        7 => Message::Snapshot(SnapshotOffer { session, round, last: near_entry(to.last(), input) }),
        8 => match input.u8() % 2 {
            0 => Message::TimeoutNow,
            _ => Message::Read { read: ReadId(near(1, input)), lease: session % 2 == 0 },
        },
        _ => {
            let index = (round % 2 == 0).then(|| Index(near(to.commit().0, input)));
            Message::ReadReply { read: ReadId(near(1, input)), index }
        }
    };
    Envelope { from, to: to.id(), term, message }
}

fn vote_request(to: &RaftCore, input: &mut Input<'_>) -> VoteRequest {
    let term = Term(near(to.term().0, input));
    let (last, commit) = (near_entry(to.last(), input), Index(near(to.commit().0, input)));
    VoteRequest { term, last, commit, transfer: input.one_in(2) }
}

fn vote_reply(to: &RaftCore, input: &mut Input<'_>) -> VoteReply {
    VoteReply { term: Term(near(to.term().0, input)), granted: !input.one_in(4) }
}

/// Often such as may follow.
fn entries(prev: EntryId, input: &mut Input<'_>) -> Vec<Entry> {
    let mut at = prev;
    let mut all = Vec::new();
    for _ in 0..input.u8() % 4 {
        at = match input.u8() % 4 {
            0 => near_entry(at, input),
            _ => EntryId { index: at.index.next(), ..at },
        };
        let payload = match input.u8() % 4 {
            0 => Payload::Noop,
            1 => Payload::Membership(Arc::new(changed(&crate::samples::membership(MEMBERS), input))),
            _ => Payload::Command(Bytes::from_static(b"forged")),
        };
        all.push(Entry { index: at.index, term: at.term, payload });
    }
    all
}

/// A membership that differs from another one in a member or two, or in what it says of them.
pub(crate) fn changed(from: &Membership, input: &mut Input<'_>) -> Membership {
    let mut next = from.clone();
    for _ in 0..=input.u8() % 2 {
        let (member, how) = (id(u64::from(input.u8())), input.u8());
        if how % 8 == 0 {
            next.members.remove(&member);
            next.removed.insert(member);
            continue;
        }
        let said = next.members.entry(member).or_insert_with(|| Member {
            address: Arc::from("127.0.0.1:7009"),
            incarnation: graft_domain::Incarnation(9),
            voter: false,
            outgoing: false,
            target: Target::Learner,
        });
        (said.voter, said.outgoing) = (how & 8 > 0, how & 16 > 0);
        said.target = [Target::Voter, Target::Learner, Target::Gone][usize::from(how % 3)];
    }
    if input.u8() == 1 {
        next.members.clear();
    }
    next
}

/// Stories in which something happens.
pub(crate) fn samples() -> Vec<Sample> {
    let rest = |rounds: u8| vec![18, 0, rounds];
    let propose = |at: u8| vec![7, at, 2];
    let story = |parts: &[Vec<u8>]| [&[1][..], &parts.concat()].concat();
    let each = |kind: u8| [0, 1, 2].map(|at| vec![kind, at]).concat();
    vec![
        Sample::new("elected", story(&[rest(31)])),
        Sample::new("proposed", story(&[rest(31), propose(0), propose(1), propose(2), rest(4)])),
        Sample::new("cut", story(&[rest(31), propose(0), propose(1), propose(2), rest(4), each(13), rest(4)])),
        Sample::new("restarted", story(&[rest(31), propose(0), propose(1), vec![17, 0, 9, 17, 1, 9], rest(31)])),
        Sample::new("changed", story(&[rest(31), vec![9, 0, 0, 4, 9, 9, 1, 0, 4, 9, 9, 2, 0, 4, 9], rest(9)])),
        Sample::new("transferred", story(&[rest(31), vec![10, 0, 0, 10, 1, 0, 10, 2, 0], rest(9)])),
        Sample::new("read", story(&[rest(31), vec![8, 0, 1, 8, 1, 0, 8, 2, 1], rest(2)])),
        Sample::new("forged", story(&[rest(31), (0..120_u8).flat_map(|n| [4, n % 3, n, n / 2, n * 2]).collect()])),
    ]
}
