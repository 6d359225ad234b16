//! Where a story is played: each command moves the small world, and what happened is written down.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use bytes::Bytes;

use super::command::{Words, entry_id, node, number};
use crate::message::{Append, AppendOutcome, AppendReply, Message, VoteRequest};
use crate::world::{Disk, Node, Shown, World};
use crate::{
    ClusterId, Config, Entry, Envelope, Index, Input, Instant, Membership, NodeId, Payload, RaftCore, ReadId, Target,
    Term,
};

pub(super) struct Stage {
    pub(super) world: World,
    /// Taken from the wire, to arrive when told.
    delayed: VecDeque<Envelope>,
    /// Set before the nodes are made.
    limits: Vec<(String, usize)>,
    founding: Arc<Membership>,
    /// The same with the cluster's name.
    membership: Arc<Membership>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let world = World { recording: true, ..World::default() };
        Self {
            world,
            delayed: VecDeque::new(),
            limits: Vec::new(),
            founding: Arc::default(),
            membership: Arc::default(),
        }
    }

    /// Performs the commands of one line and gives the lines of what happened.
    pub(super) fn perform(&mut self, line: &str) -> Vec<String> {
        let (quietly, commands) = line.strip_prefix("quietly ").map_or((false, line), |commands| (true, commands));
        for command in commands.split(';') {
            let mut words = Words::new(command);
            let verb = words.word();
            if !(self.set_up(verb, &mut words)
                || self.network(verb, &mut words)
                || self.node(verb, &mut words)
                || self.clocks(verb, &mut words)
                || self.membership(verb, &mut words)
                || self.disk_and_machine(verb, &mut words))
            {
                panic!("what is {verb}?");
            }
            words.done();
        }
        let lines = mem::take(&mut self.world.trace);
        if quietly { Vec::new() } else { lines }
    }

    fn set_up(&mut self, verb: &str, words: &mut Words<'_>) -> bool {
        match verb {
            "limit" => self.limits.push((words.word().to_string(), words.count_or(0))),
            "cluster" => self.cluster(words, true),
            "found" => self.cluster(words, false),
            "new" => {
                let id = words.id();
                let config = self.config(id, self.world.nodes.len() as u64 + 1);
                self.world.add(config, Disk::default());
                self.world.start(&id, true);
            }
            "log" => self.log(words),
            _ => return false,
        }
        // How a story begins is in its commands.
        self.world.trace.clear();
        true
    }

    /// `cluster n1 n2 n3 [-> n1 n2 n4] [learners n5]`, all with the membership as entry 1/1, committed; `found` with empty logs.
    fn cluster(&mut self, words: &mut Words<'_>, founded: bool) {
        let first = words.ids_until(&["->", "learners"]);
        let incoming = if words.take("->") { Some(words.ids_until(&["learners"])) } else { None };
        let learners = if words.take("learners") { words.ids_until(&[]) } else { Vec::new() };
        let all: BTreeSet<NodeId> = first.iter().chain(incoming.iter().flatten()).chain(&learners).copied().collect();
        let mut membership = Membership::founding(all.iter().map(|id| (*id, "")));
        for (id, member) in &mut membership.members {
            member.voter = incoming.as_ref().unwrap_or(&first).contains(id);
            member.outgoing = incoming.is_some() && first.contains(id);
            member.target = target_of(member.voter, member.outgoing);
        }
        self.founding = Arc::new(membership.clone());
        membership.cluster = ClusterId(1);
        self.membership = Arc::new(membership);
        for (n, id) in (1..).zip(all) {
            let mut disk = Disk { membership: Arc::clone(&self.founding), ..Disk::default() };
            if founded {
                let payload = Payload::Membership(Arc::clone(&self.membership));
                (disk.term, disk.commit) = (Term(1), Index(1));
                disk.entries = vec![Entry { index: Index(1), term: Term(1), payload }];
            }
            self.world.add(self.config(id, n), disk);
            self.world.start(&id, true);
        }
    }

    fn config(&self, id: NodeId, n: u64) -> Config {
        let mut config = Config::new(id, ClusterId(u128::from(n)), n);
        // Where a story does not say otherwise, a snapshot cuts the log where it ends.
        (config.tail_bytes, config.held_bytes_max) = (0, 0);
        for (name, limit) in &self.limits {
            match name.as_str() {
                "append_bytes_max" => config.append_bytes_max = *limit,
                "inflight_messages_max" => config.inflight_messages_max = *limit,
                "inflight_bytes_max" => config.inflight_bytes_max = *limit,
                "apply_bytes_max" => config.apply_bytes_max = *limit,
                "log_bytes_max" => config.log_bytes_max = *limit,
                "uncommitted_bytes_max" => config.uncommitted_bytes_max = *limit,
                "reads_max" => config.reads_max = *limit,
                "tail_bytes" => config.tail_bytes = *limit,
                "held_bytes_max" => config.held_bytes_max = *limit,
                "commit_delay_ms" => config.commit_delay = Duration::from_millis(*limit as u64),
                _ => panic!("there is no limit {name}"),
            }
        }
        config
    }

    /// `log n1 [snapshot 1/4] 1 1 4 [commit 2] [term 7] [vote n2]`: the terms of its entries, from index 1 or after the snapshot,
    /// which founders may begin with: `restored 1/4`.
    /// An entry of term 4 at index 3 says `d3`, so that logs can be told apart by eye.
    fn log(&mut self, words: &mut Words<'_>) {
        let id = words.id();
        let mut disk = Disk { membership: Arc::clone(&self.membership), commit: Index(1), ..Disk::default() };
        let is_restored = words.take("restored");
        if is_restored || words.take("snapshot") {
            disk.snapshot = entry_id(words.word());
            disk.base = disk.snapshot;
        }
        if is_restored {
            disk.membership = Arc::clone(&self.founding);
        }
        let mut index = disk.snapshot.index;
        while let Some(word) = words.next() {
            match word {
                "commit" => disk.commit = words.index(),
                "term" => disk.term = Term(words.number()),
                "vote" => disk.vote = Some(words.id()),
                term => {
                    index = index.next();
                    let (term, opens) = term.split_once('{').map_or((term, None), |(term, id)| (term, Some(id)));
                    let term = number(term);
                    let payload = match opens {
                        Some(first) => Payload::Membership(Arc::new(self.change(first, words))),
                        None if index == Index(1) => Payload::Membership(Arc::clone(&self.membership)),
                        None => {
                            let letter = char::from(b'a' + u8::try_from(term - 1).expect("a low term"));
                            Payload::Command(Bytes::from(format!("{letter}{index}")))
                        }
                    };
                    disk.entries.push(Entry { index, term: Term(term), payload });
                }
            }
        }
        disk.term = disk.term.max(disk.last().term);
        self.world.node_mut(&id).disk = disk;
        self.world.start(&id, true);
    }

    /// The rest of a membership entry such as `2{n1 n2 -> n1 n3}`: the old voters, then perhaps the new; others learn.
    pub(super) fn change(&self, first: &str, words: &mut Words<'_>) -> Membership {
        let mut halves = vec![BTreeSet::new()];
        let mut word = first;
        loop {
            if word == "->" {
                halves.push(BTreeSet::new());
            } else if let Some(half) = halves.last_mut() {
                half.insert(node(word.trim_end_matches('}')));
            }
            if word.ends_with('}') {
                break;
            }
            word = words.word();
        }
        let mut membership = (*self.membership).clone();
        let (old, new) = (&halves[0], &halves[halves.len() - 1]);
        for (id, member) in &mut membership.members {
            (member.voter, member.outgoing) = (new.contains(id), halves.len() > 1 && old.contains(id));
            member.target = target_of(member.voter, member.outgoing);
        }
        membership
    }

    fn network(&mut self, verb: &str, words: &mut Words<'_>) -> bool {
        let world = &mut self.world;
        match verb {
            "deliver" if words.take("all") => world.deliver_all(),
            "deliver" => pick(&mut world.wire, words).into_iter().for_each(|envelope| world.receive(envelope)),
            "drop" => drop(pick(&mut world.wire, words)),
            "delay" => self.delayed.extend(pick(&mut world.wire, words)),
            "arrive" => pick(&mut self.delayed, words).into_iter().for_each(|envelope| world.receive(envelope)),
            "duplicate" => {
                let picked = pick(&mut world.wire, words);
                self.delayed.extend(picked.iter().cloned());
                picked.into_iter().rev().for_each(|envelope| world.wire.push_front(envelope));
            }
            "reorder" => pick(&mut world.wire, words).into_iter().for_each(|envelope| world.wire.push_front(envelope)),
            "inject" => self.inject(words),
            "cut" => self.cut(words),
            "heal" => world.cuts.clear(),
            _ => return false,
        }
        true
    }

    /// A message that no core here has sent: of another implementation, another life, another stay.
    fn inject(&mut self, words: &mut Words<'_>) {
        let (from, to) = words.link();
        let kind = words.word();
        let term = Term(words.number());
        let message = match kind {
            "vote" | "pre-vote" => {
                assert!(words.take("last"), "vote t5 last 1/4");
                let last = entry_id(words.word());
                let commit = if words.take("commit") { words.index() } else { Index(1) };
                let request = VoteRequest { term, last, commit, transfer: words.take("asked") };
                if kind == "vote" { Message::Vote(request) } else { Message::PreVote(request) }
            }
            "append-reply" => {
                assert!(words.take("matched"), "append-reply t2 matched 5 round 1 session 1");
                let outcome = AppendOutcome::Matched(words.index());
                let round = if words.take("round") { words.number() } else { 0 };
                let session = if words.take("session") { words.number() } else { 0 };
                let promise = if words.take("promise") { words.duration() } else { Duration::ZERO };
                Message::AppendReply(AppendReply { session, round, promise, outcome })
            }
            "heartbeat" => {
                assert!(words.take("prev"), "heartbeat t2 prev 1/1 commit 3");
                let prev = entry_id(words.word());
                let commit = if words.take("commit") { words.index() } else { Index::ZERO };
                Message::Append(Append { session: 1, round: 1, prev, entries: Vec::new(), commit })
            }
            // Entries as their sender has them.
            "entries" => {
                assert!(words.take("prev"), "entries t3 prev 1/1 upto 6");
                let prev = entry_id(words.word());
                assert!(words.take("upto"), "entries t3 prev 1/1 upto 6");
                let core = self.world.node(&from).core.as_ref().expect("the sender is up");
                let entries =
                    (prev.index.0 + 1..=words.number()).filter_map(|i| core.entry(Index(i)).cloned()).collect();
                Message::Append(Append { session: 1, round: 1, prev, entries, commit: prev.index })
            }
            other => panic!("what is {other}?"),
        };
        self.world.receive(Envelope { from, to, term, message });
    }

    /// `cut n1->n2` is one way; `cut n1 n2 | n3` is every link between the sides.
    fn cut(&mut self, words: &mut Words<'_>) {
        if let Some((from, to)) = words.peek().and_then(|word| word.split_once("->")) {
            self.world.cuts.insert((node(from), node(to)));
            words.word();
            return;
        }
        let one = words.ids_until(&["|"]);
        assert!(words.take("|"), "a cut is n1->n2 or n1 n2 | n3");
        let other = words.ids_until(&[]);
        self.world.cuts.extend(one.iter().flat_map(|a| other.iter().flat_map(|b| [(*a, *b), (*b, *a)])));
    }

    fn node(&mut self, verb: &str, words: &mut Words<'_>) -> bool {
        match verb {
            "time" => self.world.now = self.world.now + words.duration(),
            // Too much happens to be told.
            "run" => {
                self.world.run(words.duration());
                self.world.trace.clear();
            }
            "timeout" | "heartbeat" => self.strike(words.id()),
            // As `timeout`, but everybody else's life goes on until then.
            "await" => {
                let id = words.id();
                let deadline = self.deadline(&id);
                self.world.run(deadline.since(self.world.now));
                self.world.trace.clear();
                self.strike(id);
            }
            "elect" => {
                self.strike(words.id());
                self.world.deliver_all();
            }
            "propose" => {
                let id = words.id();
                let commands = core::iter::from_fn(|| words.next()).map(command).collect();
                self.tell(id, Input::Propose(commands));
            }
            "transfer" => {
                let id = words.id();
                let to = words.take("to").then(|| words.id());
                self.tell(id, Input::TransferLeadership(to));
            }
            "read" => {
                let (id, read) = (words.id(), ReadId(words.number()));
                let lease = words.take("by") && words.word() == "lease";
                if let Err(rejected) = self.world.read(&id, read, lease) {
                    self.world.note(|| format!("{id} turns r{read} down: {}", Shown(&rejected)));
                }
            }
            "gather" => self.world.begin_turn(&words.id()),
            "act" => {
                let id = words.id();
                self.world.node_mut(&id).gathering = false;
                self.world.act(&id);
            }
            "unreachable" => {
                let (id, to) = (words.id(), words.id());
                self.tell(id, Input::Unreachable(to));
            }
            "unfit" => self.tell(words.id(), Input::Unfit),
            "awaited" => self.tell(words.id(), Input::Awaited),
            "members" => {
                let id = words.id();
                let core = self.world.node(&id).core.as_ref().unwrap_or_else(|| panic!("{id} is down"));
                let line =
                    format!("{id} has membership {} from {}", Shown(&**core.membership()), core.membership_index());
                self.world.note(|| line);
            }
            "status" => {
                let lines: Vec<String> = self.world.nodes.values().map(status).collect();
                self.world.trace.extend(lines);
            }
            _ => return false,
        }
        true
    }

    fn clocks(&mut self, verb: &str, words: &mut Words<'_>) -> bool {
        match verb {
            "timer" => {
                let id = words.id();
                let now = self.world.clock(&id);
                let core = self.world.node(&id).core.as_ref();
                let left = core.map_or_else(|| panic!("{id} is down"), |core| core.deadline().since(now).as_millis());
                self.world.note(|| format!("{id}'s timer strikes in {left} ms"));
            }
            "lease" => {
                let id = words.id();
                let (now, node) = (self.world.clock(&id), self.world.node(&id));
                let until = node.core.as_ref().map_or_else(|| panic!("{id} is down"), RaftCore::lease_until);
                self.world.note(|| match until {
                    Instant::NEVER => format!("{id} holds a lease for ever"),
                    _ if until <= now => format!("{id} holds no lease"),
                    _ => format!("{id} holds a lease for {:?}", until.since(now)),
                });
            }
            "clock" => {
                let (id, rate, now) = (words.id(), words.number(), self.world.now);
                self.world.node_mut(&id).clock.set_rate(now, rate);
            }
            _ => return false,
        }
        true
    }

    /// Lets time pass until this node's timer strikes, and no other.
    fn strike(&mut self, id: NodeId) {
        let deadline = self.deadline(&id);
        assert!(deadline < Instant::NEVER, "{id} waits for nothing any more");
        self.world.now = self.world.now.max(deadline);
        self.world.fire(&id);
    }

    /// When this node's timer strikes, by the world's clock.
    fn deadline(&self, id: &NodeId) -> Instant {
        let node = self.world.node(id);
        let deadline = node.core.as_ref().map_or_else(|| panic!("{id} is down"), RaftCore::deadline);
        node.clock.when(deadline)
    }

    /// Steps a core and notes if it will not.
    pub(super) fn tell(&mut self, id: NodeId, input: Input) {
        if let Err(rejected) = self.world.step(&id, input) {
            self.world.note(|| format!("{id} will not: {}", Shown(&rejected)));
        }
    }

    fn disk_and_machine(&mut self, verb: &str, words: &mut Words<'_>) -> bool {
        match verb {
            "disk" => self.disk(words),
            "machine" => {
                let id = words.id();
                match words.word() {
                    "hold" => self.world.node_mut(&id).machine.held = true,
                    "keeps" => self.world.node_mut(&id).machine.keeps = true,
                    "release" => {
                        self.world.node_mut(&id).machine.held = false;
                        self.world.act(&id);
                    }
                    "restore" => assert!(self.world.restore(&id), "{id} has fetched nothing"),
                    "apply" => drop(self.world.apply(&id, words.count_or(usize::MAX))),
                    other => panic!("what is {other}?"),
                }
            }
            "crash" => {
                let id = words.id();
                let kept = if words.take("keeping") { words.count_or(0) } else { 0 };
                self.world.crash(&id, kept);
            }
            "restart" => {
                let id = words.id();
                if words.take("timeout") {
                    let node = self.world.node_mut(&id);
                    let promised = mem::replace(&mut node.config.election_timeout, words.duration());
                    node.disk.promised = node.disk.promised.max(promised);
                }
                self.world.start(&id, false);
            }
            "wipe" => {
                let disk = &mut self.world.node_mut(&words.id()).disk;
                *disk = Disk { membership: Arc::clone(&self.founding), ..Disk::default() };
            }
            "snapshot" => {
                let id = words.id();
                assert!(words.take("upto"), "snapshot n1 upto 5");
                let upto = words.index();
                if words.take("untold") {
                    self.world.write_snapshot(&id, upto);
                } else {
                    self.world.snapshot(&id, upto);
                }
            }
            "install" => {
                let (id, last) = (words.id(), entry_id(words.word()));
                let membership = Arc::clone(&self.membership);
                self.world.arrive(&id, last, membership);
            }
            "taken" => {
                let (id, last) = (words.id(), entry_id(words.word()));
                self.tell(id, Input::SnapshotTaken { last });
            }
            "snapshot-failed" => {
                let (id, to) = (words.id(), words.id());
                self.tell(id, Input::SnapshotFailed(to));
            }
            "fetch" => {
                let id = words.id();
                assert!(self.world.fetch(&id), "{id} was offered nothing that is still there");
            }
            _ => return false,
        }
        true
    }

    fn disk(&mut self, words: &mut Words<'_>) {
        let id = words.id();
        match words.word() {
            "hold" => self.world.node_mut(&id).disk.held = true,
            "release" => {
                self.world.node_mut(&id).disk.held = false;
                self.world.act(&id);
            }
            "sync" => {
                let count = words.count_or(usize::MAX);
                self.world.sync(&id, count);
            }
            // Several become durable, and only the last is reported; an earlier one's report comes after it, or never.
            "sync-silently" => {
                let count = words.count_or(usize::MAX);
                let node = self.world.node_mut(&id);
                for _ in 0..count.min(node.disk.pending.len()) {
                    assert!(!matches!(node.disk.sync(), Some(Err(_))), "the disk will not");
                }
            }
            "report" => self.tell(id, Input::Persisted { seq: words.number() }),
            "fail" => {
                let disk = &mut self.world.node_mut(&id).disk;
                disk.failed = true;
                disk.pending.clear();
                self.tell(id, Input::StorageFailed);
            }
            other => panic!("what is {other}?"),
        }
    }
}

/// What a member with these votes is to become, if nobody says otherwise.
fn target_of(voter: bool, outgoing: bool) -> Target {
    match (voter, outgoing) {
        (true, _) => Target::Voter,
        (false, true) => Target::Gone,
        (false, false) => Target::Learner,
    }
}

fn status(node: &Node) -> String {
    match &node.core {
        Some(core) => Shown(core).to_string(),
        None => format!("{}  down", node.config.id),
    }
}

/// `x` is that text; `300b` is so many bytes.
fn command(word: &str) -> Bytes {
    match word.strip_suffix('b').and_then(|count| count.parse().ok()) {
        Some(count) => Bytes::from(vec![b'.'; count]),
        None => Bytes::copy_from_slice(word.as_bytes()),
    }
}

/// Takes the messages of a selection out of `wire`, oldest first. That there are none is a mistake in the script.
fn pick(wire: &mut VecDeque<Envelope>, words: &mut Words<'_>) -> Vec<Envelope> {
    let wanted = words.selection();
    let (mut picked, mut left) = (Vec::new(), VecDeque::new());
    for envelope in mem::take(wire) {
        let is_link = wanted.from.is_none_or(|id| id == envelope.from) && wanted.to.is_none_or(|id| id == envelope.to);
        let is_kind = wanted.kind.as_ref().is_none_or(|kind| kind == envelope.message.name());
        if is_link && is_kind && picked.len() < wanted.count {
            picked.push(envelope);
        } else {
            left.push_back(envelope);
        }
    }
    *wire = left;
    assert!(!picked.is_empty(), "there is no such message on its way");
    picked
}
