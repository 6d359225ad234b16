//! A second implementation of the driving port, for tests: a cluster of one in memory, which does what commands say.
//!
//! A command is text. `raise …` raises, `emit TOPIC …` emits, `big N` answers with so many bytes, and `hold …` is answered
//! when the test lets go, or at its deadline if that is near. `twice` is answered at once, and once more when it lets go. All are kept in order; a command's answer is the text itself. The query `hold`
//! waits in the same way, `log` is answered by all commands so far, and any other one by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_domain::{ClusterId, EntryId, Incarnation, Index, NodeId, Target, Term};
use graft_services::api::{
    Api, Call, Caller, Cursor, Happening, News, Reader, SnapshotPart, Taken, Then, View, Wake, Watch,
};
use graft_services::change::{Ask, Change};
use graft_services::commands::Slot;
use graft_services::error::{Outcome, Refusal};
use graft_services::ports::{Emitted, Raised, Reply};
use graft_services::{MemberStatus, Notice, Read, Status, WhatIf};

use super::{DEADLINE, id};

/// Things emitted, and events, that are kept.
const KEPT_MAX: usize = 1000;

/// Longer ones are not kept: the test lets go before.
const KEPT_TIMEOUT_MAX: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Toy(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) log: Vec<Bytes>,
    sessions: BTreeMap<u64, BTreeMap<u64, Outcome>>,
    pub(super) held: Vec<(Caller, Bytes)>,
    /// What every call is refused with.
    pub(super) refusal: Option<Refusal>,
    pub(super) leader: Option<NodeId>,
    emitted: VecDeque<Emitted>,
    /// The newest index of what was emitted and is not kept.
    dropped: Index,
    happened: VecDeque<Happening>,
    events: u64,
    wakes: Vec<Wake>,
    pub(super) views: usize,
    pub(super) asks: Vec<Ask>,
    pub(super) reads: Vec<Read>,
    pub(super) timeouts: Vec<Duration>,
    /// How many calls came together.
    pub(super) batches: Vec<usize>,
    pub(super) stopped: Option<Duration>,
}

impl Toy {
    pub(super) fn new() -> Self {
        let state = State { leader: Some(id("n1")), ..State::default() };
        Self(Arc::new(Inner { state: Mutex::new(state), changed: Condvar::new() }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the state is so.
    pub(super) fn wait(&self, what: &str, until: impl Fn(&State) -> bool) {
        let (mut state, deadline) = (self.state(), Instant::now() + DEADLINE);
        while !until(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what}");
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Answers what is held, and tells how much that was.
    pub(super) fn let_go(&self) -> usize {
        let held = std::mem::take(&mut self.state().held);
        let count = held.len();
        for (caller, body) in held {
            caller.sink.complete(caller.token, done(Index(1), body));
        }
        count
    }

    pub(super) fn lead(&self, leader: Option<NodeId>) {
        self.state().leader = leader;
        self.happen(Some(Notice::Leader { term: Term(2), leader }));
    }

    pub(super) fn happen(&self, notice: Option<Notice>) {
        self.change(|state| {
            state.events += 1;
            let sequence = state.events;
            state.happened.push_back(Happening { sequence, at: 7, notice });
            if state.happened.len() > KEPT_MAX {
                state.happened.pop_front();
            }
        });
        self.wake();
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.0.changed.notify_all();
        changed
    }

    fn wake(&self) {
        let wakes = self.state().wakes.clone();
        for wake in wakes {
            wake();
        }
    }

    fn hold(&self, caller: Caller, body: Bytes, timeout: Duration) {
        let late = caller.clone();
        self.change(|state| state.held.push((caller, body)));
        if timeout > KEPT_TIMEOUT_MAX {
            return;
        }
        std::thread::spawn(move || {
            std::thread::sleep(timeout);
            late.sink.complete(late.token, Outcome::Refused(Refusal::Timeout));
        });
    }

    fn command(&self, call: Call, timeout: Duration) {
        let Call { body, slot, caller } = call;
        if body.starts_with(b"hold") {
            return self.hold(caller, body, timeout);
        }
        let late = (&*body == b"twice").then(|| (caller.clone(), Bytes::from_static(b"late")));
        let outcome = self.change(|state| match &state.refusal {
            Some(refusal) => Outcome::Refused(refusal.clone()),
            None => state.apply(body, slot),
        });
        self.change(|state| state.held.extend(late));
        caller.sink.complete(caller.token, outcome.clone());
        // The first one counts.
        caller.sink.complete(caller.token, Outcome::unknown("answered twice"));
        self.wake();
    }
}

fn done(index: Index, value: Bytes) -> Outcome {
    Outcome::Done { index, term: Term(1), reply: Reply::Value(value) }
}

impl State {
    fn apply(&mut self, body: Bytes, slot: Option<Slot>) -> Outcome {
        let Some(slot) = slot else { return self.run(body) };
        let Some(answers) = self.sessions.get(&slot.session) else {
            return Outcome::Refused(Refusal::SessionExpired);
        };
        if let Some(first) = answers.get(&slot.sequence) {
            return first.clone();
        }
        let outcome = self.run(body);
        self.sessions.entry(slot.session).or_default().insert(slot.sequence, outcome.clone());
        outcome
    }

    fn run(&mut self, body: Bytes) -> Outcome {
        self.log.push(body.clone());
        let index = Index(self.log.len() as u64);
        let text = String::from_utf8_lossy(&body).into_owned();
        if let Some(message) = text.strip_prefix("raise ") {
            let raised =
                Raised { type_name: "ValueError".to_owned(), message: message.to_owned(), ..Raised::default() };
            return Outcome::Done { index, term: Term(1), reply: Reply::Raised(Box::new(raised)) };
        }
        if let Some(topic) = text.strip_prefix("emit ") {
            self.emitted.push_back(Emitted { index, number: 0, topic: topic.to_owned(), value: body.clone() });
            if self.emitted.len() > KEPT_MAX {
                self.dropped = self.emitted.pop_front().map_or(self.dropped, |emitted| emitted.index);
            }
        }
        if let Some(bytes) = text.strip_prefix("big ") {
            return done(index, vec![7; bytes.parse().unwrap()].into());
        }
        done(index, body)
    }
}

impl Api for Toy {
    fn execute(&self, calls: Vec<Call>, timeout: Duration) {
        self.change(|state| {
            state.batches.push(calls.len());
            state.timeouts.push(timeout);
        });
        for call in calls {
            self.command(call, timeout);
        }
    }

    fn query(&self, queries: Vec<(Bytes, Caller)>, read: Read, timeout: Duration) {
        self.change(|state| state.reads.push(read));
        for (body, caller) in queries {
            if &*body == b"hold" {
                self.hold(caller, body, timeout);
                continue;
            }
            let outcome = self.change(|state| match &state.refusal {
                Some(refusal) => Outcome::Refused(refusal.clone()),
                None if &*body == b"log" => done(Index(state.log.len() as u64), state.log.concat().into()),
                None => done(Index(state.log.len() as u64), body),
            });
            caller.sink.complete(caller.token, outcome);
        }
    }

    fn open_session(&self, _ttl: Option<Duration>, caller: Caller, _timeout: Duration) {
        let index = self.change(|state| {
            state.log.push(Bytes::new());
            let session = state.log.len() as u64;
            state.sessions.insert(session, BTreeMap::new());
            Index(session)
        });
        caller.sink.complete(caller.token, done(index, Bytes::new()));
    }

    fn ask(&self, ask: Ask, caller: Caller, _timeout: Duration) {
        let refusal = match &ask {
            Ask::Change { change: Change::Remove { id }, .. } => Some(Refusal::Membership(format!("no member {id}"))),
            _ => self.state().refusal.clone(),
        };
        self.change(|state| state.asks.push(ask));
        let outcome = refusal.map_or_else(|| done(Index(42), Bytes::new()), Outcome::Refused);
        caller.sink.complete(caller.token, outcome);
    }

    fn snapshot(&self, _current: bool, caller: Caller, _timeout: Duration) {
        let index = Index(self.state().log.len() as u64);
        caller.sink.complete(caller.token, done(index, Bytes::new()));
    }

    /// The log, two bytes at a time.
    fn read_snapshot(&self, from: Option<(EntryId, u64)>, then: Then<SnapshotPart>) {
        let whole = self.state().log.concat();
        let (last, offset) = from.unwrap_or((EntryId::new(1, 7), 0));
        let data = whole.iter().skip(usize::try_from(offset).unwrap()).take(2).copied().collect();
        then(Ok(SnapshotPart { last, total: Some(whole.len() as u64), offset, data }));
    }

    fn verify(&self, caller: Caller, _timeout: Duration) {
        let digests = BTreeMap::from([(id("n1"), Ok(Bytes::from_static(b"d"))), (id("n2"), Err("none".to_owned()))]);
        caller.sink.complete(caller.token, Outcome::Compared { index: Index(3), digests });
    }

    fn view(&self, then: Then<View>) {
        let leader = self.change(|state| {
            state.views += 1;
            state.leader
        });
        then(Ok(View { status: status(leader), why: vec!["all is well".to_owned()] }));
    }

    fn what_if(&self, change: Change, then: Then<WhatIf>) {
        let refused = matches!(change, Change::Cancel).then(|| "nothing is under way".to_owned());
        then(Ok(WhatIf { refused, voters: vec![id("n1")], learners: vec![], needed: 1, alive: vec![id("n1")] }));
    }

    fn watch(&self, watch: Watch, wake: Wake) -> Box<dyn Reader<News>> {
        let mut state = self.state();
        state.wakes.push(wake);
        let now = Cursor { index: Index(state.log.len() as u64), number: u32::MAX };
        Box::new(Watcher { toy: self.clone(), topics: watch.topics, at: watch.since.unwrap_or(now) })
    }

    fn events(&self, since: Option<u64>, wake: Wake) -> Box<dyn Reader<Happening>> {
        let mut state = self.state();
        state.wakes.push(wake);
        Box::new(Listener { toy: self.clone(), since: since.unwrap_or(state.events) })
    }

    fn shutdown(&self, timeout: Duration) {
        self.change(|state| state.stopped = Some(timeout));
    }
}

struct Watcher {
    toy: Toy,
    topics: Vec<String>,
    at: Cursor,
}

impl Reader<News> for Watcher {
    fn take(&mut self, max: usize) -> Taken<News> {
        let state = self.toy.state();
        let mut items = Vec::new();
        if self.at.index < state.dropped {
            items.push(News::Behind { upto: state.dropped });
            self.at = Cursor { index: state.dropped, number: u32::MAX };
        }
        for emitted in &state.emitted {
            let place = Cursor { index: emitted.index, number: emitted.number };
            if items.len() < max && place > self.at {
                self.at = place;
                if self.topics.is_empty() || self.topics.contains(&emitted.topic) {
                    items.push(News::Emitted(emitted.clone()));
                }
            }
        }
        Taken { items, ended: state.stopped.map(|_| Refusal::Stopped) }
    }
}

struct Listener {
    toy: Toy,
    since: u64,
}

impl Reader<Happening> for Listener {
    fn take(&mut self, max: usize) -> Taken<Happening> {
        let state = self.toy.state();
        let news = state.happened.iter().filter(|happening| happening.sequence > self.since);
        let items: Vec<_> = news.take(max).cloned().collect();
        self.since = items.last().map_or(self.since, |last| last.sequence);
        Taken { items, ended: None }
    }
}

fn status(leader: Option<NodeId>) -> Status {
    let member = |name: &str| MemberStatus {
        id: id(name),
        address: format!("{name}.example:7000"),
        voter: true,
        target: Target::Voter,
        incarnation: Incarnation::UNKNOWN,
        installing: false,
        sent: None,
        matched: None,
        last_contact: None,
        reachable: None,
        trouble: None,
        difference: None,
    };
    Status {
        id: id("n1"),
        role: if leader == Some(id("n1")) { "leader" } else { "follower" },
        term: Term(1),
        leader,
        last: Index(1),
        commit: Index(1),
        applied: Index(1),
        snapshot: Index::ZERO,
        cluster: ClusterId(9),
        members: vec![member("n1"), member("n2")],
        has_quorum: true,
        error: None,
        error_code: None,
        membership_index: Index(1),
        former: vec![],
        change: None,
        log_bytes: 0,
        snapshot_bytes: None,
        snapshot_phase: None,
        trouble: None,
        snapshot_error: None,
        certificate: None,
    }
}
