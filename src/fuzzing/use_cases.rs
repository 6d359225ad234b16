//! Three replicas that are asked for all that clients and administrators may ask for, and told what members say, in any order
//! and forged. None panics, all keep the invariants of their cores, no call is answered twice, and what a status, its reasons
//! and an outlook say can be said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{ClusterId, Config, Incarnation, Index, Instant, NodeId, RaftCore, Recovered, Term};
use graft_services::applier::{Answer, Applied, Applier};
use graft_services::change::{Ask, Change};
use graft_services::commands::{Act, Slot};
use graft_services::error::Refusal;
use graft_services::ports::{Halt, PeerMessage, Ticket};
use graft_services::snapshot_meta::SnapshotMeta;
use graft_services::{Batch, Clock, Consistency, Effect, Event, Read, Replica, ReplicaConfig, RequestId};

use crate::cluster::{changed, forged, near};
use crate::echo::Echo;
use crate::input::Input;
use crate::samples::{Sample, id, membership};

const ACTS_MAX: usize = 400;
/// Of each kind: what waits on a node, and messages on their way.
const QUEUE_MAX: usize = 64;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(u64::from(input.u8()));
    for _ in 0..ACTS_MAX {
        if input.is_empty() {
            break;
        }
        world.act(&mut input);
    }
}

struct Member {
    replica: Replica,
    applier: Applier,
    /// What has happened around it, and it has not been told yet.
    due: VecDeque<Event>,
    answered: BTreeSet<u64>,
}

struct World {
    members: [Member; 3],
    queue: VecDeque<(NodeId, PeerMessage)>,
    now: Instant,
    requests: u64,
}

impl Member {
    fn new(id: NodeId, seed: u64, now: Instant) -> Self {
        let config = Config { reads_max: 4, uncommitted_bytes_max: 1000, ..Config::new(id, ClusterId(77), seed) };
        let recovered = Recovered { membership: Arc::new(membership(3)), ..Recovered::default() };
        let core = RaftCore::new(config, recovered, now);
        let config = ReplicaConfig {
            session: seed,
            command_bytes_max: 100,
            inflight_max: 8,
            inflight_bytes_max: 500,
            retry: Duration::from_millis(20),
            read_retry: Duration::from_millis(60),
            election_timeout: Duration::from_millis(300),
            address: "127.0.0.1:7001".to_owned(),
            incarnation: Incarnation(seed),
            session_ttl: Duration::from_mins(1),
            snapshot_every_bytes: 2000,
            snapshot_every_entries: 12,
        };
        let replica = Replica::new(config, core, clock(now), None);
        let applier = Applier::new(Box::new(Echo::default()));
        Self { replica, applier, due: VecDeque::new(), answered: BTreeSet::new() }
    }

    fn answer(&mut self, request: RequestId) {
        assert!(self.answered.insert(request.0), "call {} is answered twice", request.0);
    }

    /// What the machine's thread does with a batch.
    fn apply(&mut self, batch: &Batch) {
        let mut applied = Applied::default();
        let done = self.applier.apply(&batch.commands, &mut applied);
        assert_eq!(done, Ok(()));
        let mut expired = Vec::new();
        for (place, request) in &batch.callers {
            match applied.answers.get(*place) {
                Some(Answer::Expired) => expired.push(*request),
                _ => self.answer(*request),
            }
        }
        let digested = |(index, origin, digest)| Event::Digested { index, origin, digest };
        self.due.extend(applied.digests.into_iter().map(digested));
        self.due.push_back(Event::Applied { index: batch.upto, expired });
    }
}

fn clock(now: Instant) -> Clock {
    Clock { now, wall: now.0 }
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant(1_000_000_000);
        let members = [1, 2, 3].map(|number| Member::new(id(number), seed + number, now));
        Self { members, queue: VecDeque::new(), now, requests: 0 }
    }

    fn handle(&mut self, at: usize, event: Event) {
        let (clock, member) = (clock(self.now), &mut self.members[at]);
        member.replica.handle(clock, event);
        for effect in member.replica.effects(clock) {
            self.perform(at, effect);
        }
        let replica = &self.members[at].replica;
        assert_eq!(replica.core().broken_invariant(), None, "{}", replica.core().id());
        assert!(replica.handed() >= replica.core().applied());
        self.members[at].due.truncate(QUEUE_MAX);
        self.queue.truncate(QUEUE_MAX);
    }

    fn perform(&mut self, at: usize, effect: Effect) {
        let member = &mut self.members[at];
        match effect {
            Effect::Persist(write) => member.due.push_back(Event::Persisted { seq: write.seq }),
            Effect::Send(to, message) => self.queue.push_back((to, message)),
            Effect::Apply(batch) => member.apply(&batch),
            Effect::Query(queries) => {
                // The deadline of one may come before the machine does; who is first answers.
                member.due.push_back(Event::Queried(queries.into_iter().map(|(request, _)| request).collect()));
            }
            Effect::Answer(request, _) => member.answer(request),
            Effect::TakeSnapshot(meta) => member.due.push_back(Event::SnapshotWritten { last: meta.last, bytes: 9 }),
            Effect::Fetch { last, .. } => member.due.push_back(Event::SnapshotFetching { last, bytes: 1, total: 2 }),
            Effect::Restore(meta) => member.due.push_back(Event::SnapshotRestored { last: meta.last }),
            Effect::Probe { id, address } => {
                member.due.push_back(Event::Probed { id, address, found: Ok(Incarnation(5)) });
            }
            Effect::Transition(_) | Effect::Compact(_) | Effect::Notice(_) | Effect::Stopped => {}
        }
    }

    fn deliver(&mut self, place: usize) {
        let Some((to, message)) = self.queue.remove(place) else { return };
        let at = self.members.iter().position(|member| member.replica.core().id() == to);
        if let Some(at) = at {
            self.handle(at, Event::Peer(message));
        }
    }

    fn rest(&mut self, rounds: u8) {
        for _ in 0..rounds {
            self.now = self.now + Duration::from_millis(40);
            for at in 0..3 {
                if self.members[at].replica.deadline() <= self.now {
                    self.handle(at, Event::Timeout);
                }
            }
            for _ in 0..QUEUE_MAX {
                for at in 0..3 {
                    if let Some(event) = self.members[at].due.pop_front() {
                        self.handle(at, event);
                    }
                }
                self.deliver(0);
            }
        }
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let (kind, at) = (input.u8() % 16, usize::from(input.u8() % 3));
        match kind {
            0 => {
                self.now = self.now + Duration::from_millis(u64::from(input.u8()) * 10);
                self.handle(at, Event::Timeout);
            }
            1 => {
                if let Some(event) = self.members[at].due.pop_front() {
                    self.handle(at, event);
                }
            }
            2 => self.deliver(usize::from(input.u8()).min(self.queue.len().saturating_sub(1))),
            3 => drop(self.queue.pop_front()),
            4 | 5 => {
                let message = said(self.members[at].replica.core(), input);
                self.handle(at, Event::Peer(message));
            }
            6..=9 => {
                let event = self.asked(kind, input);
                self.handle(at, event);
            }
            10 => {
                let event = around(input);
                self.handle(at, event);
            }
            11 => {
                let event = of_snapshots(self.members[at].replica.core(), input);
                self.handle(at, event);
            }
            12 => self.look(at, input),
            _ => self.rest(input.u8() % 24),
        }
    }

    /// A call of a client or an administrator.
    fn asked(&mut self, kind: u8, input: &mut Input<'_>) -> Event {
        self.requests += 1;
        let request = RequestId(self.requests);
        let deadline = self.now + Duration::from_millis(u64::from(input.u8()) * 10);
        let body = Bytes::from(vec![7; usize::from(input.u8() % 120)]);
        match kind {
            6 => {
                let slot = input.one_in(2).then(|| slot(input));
                Event::Execute { request, slot, body, deadline }
            }
            7 => {
                let consistency = match input.u8() % 4 {
                    0 => Consistency::Linearizable,
                    1 => Consistency::Lease,
                    2 => Consistency::Stale { max_age: None },
                    _ => Consistency::Stale { max_age: Some(Duration::from_nanos(near(1_000_000, input))) },
                };
                let at_least = Index(near(1, input).min(Index::LAST.0));
                Event::Query { request, body, read: Read { consistency, at_least }, deadline }
            }
            8 => Event::Ask { request, ask: ask(input), deadline },
            _ => match input.u8() % 3 {
                0 => Event::OpenSession { request, ttl: Duration::from_nanos(near(1_000_000_000, input)), deadline },
                1 => Event::Verify { request, deadline },
                _ => Event::Snapshot { request, current: input.one_in(2), deadline },
            },
        }
    }

    fn look(&self, at: usize, input: &mut Input<'_>) {
        let replica = &self.members[at].replica;
        let status = replica.status();
        assert!(status.commit <= status.last && status.id == replica.core().id());
        assert!(replica.why().iter().all(|reason| !reason.is_empty()));
        if let Ask::Change { change, .. } = ask(input) {
            let outlook = replica.what_if(&change);
            assert!(outlook.tolerates() <= outlook.voters.len() + outlook.learners.len());
        }
    }
}

fn slot(input: &mut Input<'_>) -> Slot {
    let sequence = near(1, input).max(1);
    Slot { session: near(1, input).max(1), sequence, unanswered: near(sequence, input).min(sequence) }
}

fn ask(input: &mut Input<'_>) -> Ask {
    let (member, other) = (id(u64::from(input.u8())), id(u64::from(input.u8())));
    let address = "127.0.0.1:7009".to_owned();
    let guard = input.one_in(4).then(|| Index(near(1, input)));
    let change = match input.u8() % 8 {
        0 | 1 => Change::Add { id: member, address, voter: guard.is_none(), incarnation: Incarnation(5) },
        2 => Change::Remove { id: member },
        3 => Change::Promote { id: member },
        4 => Change::Demote { id: member },
        5 => Change::Replace { old: member, new: other, address },
        6 => Change::Apply { members: BTreeMap::from([(member, address.clone()), (other, address)]) },
        _ => return Ask::Transfer { to: guard.is_none().then_some(member) },
    };
    Ask::Change { change, guard }
}

/// What a member might say, or who means harm in its name.
fn said(to: &RaftCore, input: &mut Input<'_>) -> PeerMessage {
    let (from, own) = (id(u64::from(input.u8())), to.id());
    let ticket = Ticket { session: near(2, input), sequence: near(1, input) };
    let refusal = |input: &mut Input<'_>| match input.u8() % 5 {
        0 => Refusal::NotLeader { leader: Some(id(u64::from(input.u8()))) },
        1 => Refusal::Busy("full".into()),
        2 => Refusal::SessionExpired,
        3 => Refusal::Membership("no".into()),
        _ => Refusal::Halted("broken".into()),
    };
    match input.u8() % 8 {
        0 => {
            let act = match input.u8() % 4 {
                0 => Act::OpenSession { ttl: Duration::from_nanos(near(9, input)), key: near(1, input) },
                1 => Act::Verify { origin: id(u64::from(input.u8())) },
                2 => Act::Command { slot: None, body: Bytes::from_static(b"forwarded") },
                _ => Act::Command { slot: Some(slot(input)), body: Bytes::from_static(b"raise") },
            };
            PeerMessage::Forward { from, term: Term(near(to.term().0, input)), ticket, act }
        }
        1 => PeerMessage::Refused { to: own, ticket, refusal: refusal(input) },
        2 => PeerMessage::Ask { from, ticket, ask: ask(input) },
        3 => {
            let answer = if input.one_in(2) { Ok(Index(near(1, input))) } else { Err(refusal(input)) };
            PeerMessage::Answered { to: own, ticket, answer }
        }
        4 => {
            let connected = (0..input.u8() % 4).map(|n| id(u64::from(n))).collect();
            PeerMessage::Links { from, connected, failure: input.one_in(4).then(|| "why".to_owned()) }
        }
        5 => {
            let index = Index(near(to.applied().0, input));
            PeerMessage::Digest { from, to: own, index, digest: Ok(Bytes::from_static(b"digest")) }
        }
        _ => PeerMessage::Raft(forged(to, input)),
    }
}

fn around(input: &mut Input<'_>) -> Event {
    let (member, address) = (id(u64::from(input.u8())), "127.0.0.1:7008".to_owned());
    match input.u8() % 16 {
        0..=2 => Event::Connected(member),
        3 | 4 => Event::Unreachable(member),
        5 | 6 => Event::Heard { id: member, address, incarnation: Incarnation(near(3, input)) },
        7 => Event::Trouble(member, "no route".into()),
        8 => Event::Probed { id: member, address, found: Err("nobody".into()) },
        9 => Event::JoinTrouble("not yet".into()),
        10 => Event::StorageFull,
        11 => Event::StorageFailed("gone".into()),
        12 => Event::Halted(Halt { index: Index(near(1, input)), why: "raised".into() }),
        13 => Event::Removed,
        14 => Event::Outcast { code: "removed", why: "it was".into() },
        _ => Event::Stop { deadline: Instant(near(2_000_000_000, input)) },
    }
}

/// What comes of a snapshot that a leader has, whatever is in it.
fn of_snapshots(core: &RaftCore, input: &mut Input<'_>) -> Event {
    let last = graft_domain::EntryId::new(near(core.last().term.0, input), near(core.last().index.0, input).max(1));
    let (bytes, total) = (near(5, input), near(9, input));
    match input.u8() % 6 {
        0 | 1 => {
            let command = Index(last.index.0 - u64::from(input.u8() % 2));
            let membership = Arc::new(changed(core.membership(), input));
            Event::SnapshotFetched { meta: SnapshotMeta { last, command, time: near(7, input), membership }, bytes }
        }
        2 => Event::SnapshotFetching { last, bytes, total },
        3 => Event::SnapshotFetchFailed { last, why: "lost".into() },
        4 => Event::SnapshotSending { to: id(bytes), bytes, total },
        _ => Event::SnapshotUnreadable { why: "damaged".into() },
    }
}

pub(crate) fn samples() -> Vec<Sample> {
    let story = |parts: &[&[u8]]| [&[1, 15, 0, 23][..], &parts.concat()].concat();
    let each = |act: &[u8]| (0..3).flat_map(|at| [&act[..1], &[at], &act[1..]].concat()).collect::<Vec<u8>>();
    let many = |kind: u8| (0..60_u8).flat_map(|n| [kind, n % 3, n, n * 2, n * 3, n / 2]).collect::<Vec<u8>>();
    let (linked, end) = (each(&[10, 2, 0]), [15, 0, 20]);
    let connected: Vec<u8> = [1, 2, 3].iter().flat_map(|other| each(&[10, *other, 0])).collect();
    vec![
        Sample::new("elected", story(&[&connected, &end])),
        Sample::new("executed", story(&[&connected, &each(&[6, 200, 9, 1]), &end, &each(&[7, 200, 5, 0]), &end])),
        Sample::new(
            "session",
            story(&[&connected, &each(&[9, 200, 1, 0, 255]), &end, &each(&[6, 200, 9, 0, 10, 10]), &end]),
        ),
        Sample::new("verified", story(&[&connected, &each(&[9, 200, 1, 1]), &end, &each(&[9, 200, 1, 2, 0]), &end])),
        Sample::new(
            "added",
            story(&[&connected, &each(&[8, 250, 1, 3, 3, 1, 0]), &end, &each(&[12, 3, 3, 1, 2]), &end]),
        ),
        Sample::new("transferred", story(&[&linked, &each(&[8, 250, 1, 1, 1, 1, 7]), &end])),
        Sample::new("forged", story(&[&connected, &many(4), &end, &many(11), &end])),
        Sample::new("around", story(&[&connected, &many(10), &end])),
        Sample::new("asked", story(&[&connected, &many(6), &end, &many(8), &end])),
    ]
}
