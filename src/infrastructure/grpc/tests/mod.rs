//! The transport over real connections on loopback. Nothing sleeps: what is waited for has a deadline.

mod certificates;
mod crowds;
mod files;
mod health;
mod hostile;
mod joining;
mod links;
mod probing;
mod public;
mod raw;
mod refusals;
mod removal;
mod snapshots;
mod streams;
mod toy;
mod visit;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_domain::{
    Append, AppendOutcome, AppendReply, ClusterId, Entry, EntryId, Envelope, Incarnation, Index, Membership, Message,
    NodeId, Payload, ReadId, SnapshotOffer, Term, VoteReply, VoteRequest,
};
use graft_services::change::{Ask, Change};
use graft_services::commands::{Act, Slot};
use graft_services::error::Refusal;
use graft_services::ports::{PeerMessage, SnapshotFiles, Ticket};
use tokio::runtime::{Builder, Runtime};

use super::{LocalHello, Offers, Peer, PeerConfig, PeerEvent, RefusedCode, Transport, bind};

/// How long anything may take that happens at all.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn id(text: &str) -> NodeId {
    NodeId::new(text).expect("a good id")
}

pub(super) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// One that nobody uses, and that no other test is given. The system gives ports from 32 768 on to whoever connects
/// somewhere or listens anywhere.
pub(super) fn free_address() -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Other test processes run at the same time.
        let given = std::process::id().wrapping_mul(761).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let address = format!("127.0.0.1:{}", 10_000 + given % 22_000);
        if bind(&address).is_ok() {
            return address;
        }
    }
}

pub(super) fn hello(name: &str) -> LocalHello {
    LocalHello {
        id: id(name),
        incarnation: Incarnation::UNKNOWN,
        cluster: ClusterId::UNKNOWN,
        address: format!("{name}.example:7000"),
        membership_hash: 0,
    }
}

/// A transport and what it told.
pub(super) struct Node {
    pub(super) transport: Transport,
    events: Mutex<Receiver<PeerEvent>>,
}

impl Node {
    pub(super) fn start(runtime: &Runtime, name: &str) -> Self {
        Self::with(runtime, "127.0.0.1:0", hello(name), PeerConfig::default())
    }

    pub(super) fn with(runtime: &Runtime, address: &str, hello: LocalHello, config: PeerConfig) -> Self {
        Self::with_files(runtime, address, hello, config, None)
    }

    pub(super) fn with_files(
        runtime: &Runtime,
        address: &str,
        hello: LocalHello,
        config: PeerConfig,
        files: Option<Arc<dyn SnapshotFiles>>,
    ) -> Self {
        Self::with_offers(runtime, address, hello, config, Offers { files, api: None })
    }

    /// One whose clients are served by `toy`.
    fn open(runtime: &Runtime, toy: &toy::Toy, config: PeerConfig) -> Self {
        let offers = Offers { files: None, api: Some(Arc::new(toy.clone())) };
        Self::with_offers(runtime, "127.0.0.1:0", hello("n1"), config, offers)
    }

    fn with_offers(runtime: &Runtime, address: &str, hello: LocalHello, config: PeerConfig, offers: Offers) -> Self {
        let (sender, events) = mpsc::channel();
        let sink = Arc::new(move |event| {
            let _ = sender.send(event);
        });
        let listener = bind(address).expect("a free port");
        let transport = Transport::start(runtime.handle().clone(), listener, hello, config, offers, sink);
        let transport = transport.expect("a transport");
        Self { transport, events: Mutex::new(events) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.transport.local_addr()
    }

    /// Sets the only peer.
    pub(super) fn dial(&self, name: &str, address: &str) {
        self.dial_known(name, address, Incarnation::UNKNOWN);
    }

    pub(super) fn dial_known(&self, name: &str, address: &str, incarnation: Incarnation) {
        let peer = Peer { address: address.to_owned(), incarnation, member: true };
        self.transport.set_peers(&BTreeMap::from([(id(name), peer)]));
    }

    /// The first event to come that is picked; others are dropped.
    pub(super) fn wait<T>(&self, what: &str, mut pick: impl FnMut(PeerEvent) -> Option<T>) -> T {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = events.recv_timeout(left) else { panic!("no {what}, but {seen:#?}") };
            seen.push(format!("{event:.200?}"));
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    }

    /// Waits until messages can be sent to `peer`.
    pub(super) fn wait_connected(&self, name: &str) {
        let connected = |event| match event {
            PeerEvent::Connected { peer, inbound: false, .. } if peer == id(name) => Some(()),
            _ => None,
        };
        self.wait("outbound connection", connected);
    }

    pub(super) fn wait_messages(&self, count: usize) -> Vec<PeerMessage> {
        let mut all = Vec::new();
        self.wait("messages", |event| {
            if let PeerEvent::Messages { from, messages } = event {
                assert!(messages.iter().all(|message| !matches!(message, PeerMessage::Raft(e) if e.from != from)));
                all.extend(messages);
            }
            (all.len() >= count).then_some(())
        });
        all
    }

    pub(super) fn wait_unreachable(&self) -> String {
        self.wait("unreachable", |event| match event {
            PeerEvent::Unreachable { why, .. } => Some(why),
            _ => None,
        })
    }

    pub(super) fn wait_refused(&self) -> (Option<NodeId>, RefusedCode, String) {
        self.wait("refusal", |event| match event {
            PeerEvent::Refused { peer, code, why, .. } => Some((peer, code, why)),
            _ => None,
        })
    }
}

pub(super) fn raft(from: NodeId, to: NodeId, message: Message) -> PeerMessage {
    PeerMessage::Raft(Envelope { from, to, term: Term(7), message })
}

/// A small message that says which one it is.
pub(super) fn numbered(from: NodeId, to: NodeId, number: u64) -> PeerMessage {
    raft(from, to, Message::Read { read: ReadId(number), lease: false })
}

pub(super) fn append(from: NodeId, to: NodeId, entries: Vec<Entry>) -> PeerMessage {
    let prev = EntryId::new(6, 41);
    raft(from, to, Message::Append(Append { session: 3, round: 9, prev, entries, commit: Index(40) }))
}

pub(super) fn command(index: u64, body: impl Into<Bytes>) -> Entry {
    Entry { index: Index(index), term: Term(6), payload: Payload::Command(body.into()) }
}

/// Every kind of message, and every kind of answer within.
pub(super) fn samples(from: NodeId, to: NodeId) -> Vec<PeerMessage> {
    let request = VoteRequest { term: Term(8), last: EntryId::new(6, 42), commit: Index(40), transfer: true };
    let reply = VoteReply { term: Term(8), granted: true };
    let membership = Membership::founding([(from, "10.0.0.1:7001"), (to, "10.0.0.2:7001")]);
    let entries = vec![
        Entry { index: Index(42), term: Term(6), payload: Payload::Noop },
        command(43, "a command"),
        command(44, ""),
        Entry { index: Index(45), term: Term(7), payload: Payload::Membership(Arc::new(membership)) },
    ];
    let matched = AppendOutcome::Matched(Index(45));
    let missing = AppendOutcome::Missing { prev: Index(41), hint: EntryId::new(5, 30) };
    let messages = [
        Message::PreVote(request),
        Message::PreVoteReply(reply),
        Message::Vote(VoteRequest { transfer: false, ..request }),
        Message::VoteReply(VoteReply { granted: false, ..reply }),
        Message::AppendReply(AppendReply {
            session: 3,
            round: 9,
            promise: Duration::from_millis(300),
            outcome: matched,
        }),
        Message::AppendReply(AppendReply { session: 3, round: 9, promise: Duration::ZERO, outcome: missing }),
        Message::Snapshot(SnapshotOffer { session: 3, round: 9, last: EntryId::new(5, 30) }),
        Message::TimeoutNow,
        Message::Read { read: ReadId(u64::MAX), lease: false },
        Message::Read { read: ReadId(1), lease: true },
        Message::ReadReply { read: ReadId(1), index: Some(Index(0)) },
        Message::ReadReply { read: ReadId(1), index: None },
    ];
    let ticket = Ticket { session: u64::MAX, sequence: 2 };
    let mut all = vec![append(from, to, entries), append(from, to, Vec::new())];
    all.extend(messages.map(|message| raft(from, to, message)));
    let slot = Some(Slot { session: 9, sequence: 4, unanswered: 2 });
    let body = Bytes::from_static(b"body");
    let acts = [
        Act::Command { slot: None, body: body.clone() },
        Act::Command { slot, body },
        Act::OpenSession { ttl: Duration::from_secs(7), key: u64::MAX },
        Act::Verify { origin: from },
    ];
    all.extend(acts.map(|act| PeerMessage::Forward { from, term: Term(7), ticket, act }));
    for digest in [Ok(Bytes::from_static(b"digest")), Err("no digest".to_owned())] {
        all.push(PeerMessage::Digest { from, to, index: Index(5), digest });
    }
    for refusal in refusals(from) {
        all.push(PeerMessage::Refused { to, ticket, refusal: refusal.clone() });
        all.push(PeerMessage::Answered { to, ticket, answer: Err(refusal) });
    }
    all.push(PeerMessage::Answered { to, ticket, answer: Ok(Index(u64::MAX)) });
    all.extend(asks().into_iter().map(|ask| PeerMessage::Ask { from, ticket, ask }));
    for failure in [None, Some("its machine halted".to_owned())] {
        let links = |connected| PeerMessage::Links { from, connected, failure: failure.clone() };
        all.extend([vec![], vec![to], vec![from, to]].map(links));
    }
    all
}

/// Every refusal that members tell one another.
pub(super) fn refusals(leader: NodeId) -> Vec<Refusal> {
    vec![
        Refusal::NotLeader { leader: Some(leader) },
        Refusal::NotLeader { leader: None },
        Refusal::NoLeader,
        Refusal::NoQuorum { reachable: 1, needed: 2 },
        Refusal::Busy("the log is full".to_owned()),
        Refusal::TooLarge { bytes: 9, limit: 8 },
        Refusal::Timeout,
        Refusal::Stopped,
        Refusal::Halted("disk".to_owned()),
        Refusal::Membership("n9 is not a member".to_owned()),
        Refusal::Removed,
        Refusal::SessionExpired,
        Refusal::Invalid("no command of that name".to_owned()),
    ]
}

/// Every kind of change.
fn asks() -> Vec<Ask> {
    let long = id(&"x".repeat(NodeId::BYTES_MAX));
    let address = || "a".repeat(40);
    let changes = [
        Change::Add { id: long, address: address(), voter: true, incarnation: Incarnation(u64::MAX) },
        Change::Add { id: id("n4"), address: String::new(), voter: false, incarnation: Incarnation::UNKNOWN },
        Change::Remove { id: long },
        Change::Promote { id: long },
        Change::Demote { id: long },
        Change::Replace { old: long, new: id("n4"), address: address() },
        Change::Apply { members: BTreeMap::new() },
        Change::Apply { members: BTreeMap::from([(long, address()), (id("n5"), "10.0.0.5:7001".to_owned())]) },
        Change::Cancel,
    ];
    let guarded = Ask::Change { change: Change::Cancel, guard: Some(Index(u64::MAX)) };
    let plain = changes.into_iter().map(|change| Ask::Change { change, guard: None });
    plain.chain([guarded, Ask::Transfer { to: None }, Ask::Transfer { to: Some(long) }]).collect()
}
