//! One node's use-cases around its core: events in, effects out, the same shape one floor up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use graft_domain::{
    EntryId, Incarnation, Index, Input, Instant, NodeId, Payload, RaftCore, ReadOutcome, Ready, Term, Transition, Write,
};

use crate::asks::Asks;
use crate::change::Ask;
use crate::commands::{self, Act, Slot};
use crate::error::Outcome;
use crate::heard::Heard;
use crate::links::Links;
use crate::membership::Reform;
use crate::notice::Notice;
use crate::own_session::OwnSession;
use crate::ports::{Halt, PeerMessage};
use crate::reads::{Question, Reads, Wanted};
use crate::routing::Forwarded;
use crate::snapshot_meta::SnapshotMeta;
use crate::snapshots::Snapshots;
use crate::verifying::Verifies;
use crate::waiting::{Calls, RequestId};

/// The time, as the caller of the replica tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Monotonic.
    pub now: Instant,
    /// Nanoseconds since the Unix epoch; only ever stamped on commands, never decided upon.
    pub wall: u64,
}

/// How fresh a query's answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consistency {
    /// As of a moment between question and answer, confirmed by a quorum (thesis §6.4).
    Linearizable,
    /// The same, on the word of a leader whose lease tells it that nobody else can lead (thesis §6.4.1): no round to the
    /// others, but it holds only as long as the members' monotonic clocks run alike within a tenth.
    Lease,
    /// What this replica has applied, if it is known to be younger than `max_age`, which is so if a round that was asked within
    /// it has been served here; else as of a round made for it. However old without a `max_age`.
    Stale { max_age: Option<Duration> },
}

/// What a query wants to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    pub consistency: Consistency,
    /// The state must have at least this entry: what its caller has written or seen before.
    pub at_least: Index,
}

impl Read {
    pub fn of(consistency: Consistency) -> Self {
        Self { consistency, at_least: Index::ZERO }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaConfig {
    /// Names this run of the node in every ticket; never used twice.
    pub session: u64,
    /// A larger command is refused.
    pub command_bytes_max: usize,
    /// Calls that wait for an answer here; at the cap further ones are refused as busy.
    pub inflight_max: usize,
    /// Bytes of commands and queries that wait here; at the cap further ones are refused as busy.
    pub inflight_bytes_max: usize,
    /// How long to wait before handing a refused call to a leader again.
    pub retry: Duration,
    /// How long to wait for a read's index before asking again.
    pub read_retry: Duration,
    /// The core's: the measure for how long members may be silent.
    pub election_timeout: Duration,
    /// Where others dial this node.
    pub address: String,
    /// Which life of its data directory this is.
    pub incarnation: Incarnation,
    /// How long the session of this node, and one that a client opens without saying, lasts without being used.
    pub session_ttl: Duration,
    /// Bytes of log after which a snapshot is taken, or as many as the last one had if that is more.
    pub snapshot_every_bytes: usize,
    /// Entries after which a snapshot is taken.
    pub snapshot_every_entries: u64,
}

/// What a node's newest snapshot says when it starts, and the bytes of its file.
pub type Restored = Option<(SnapshotMeta, u64)>;

/// Something that happened around the replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// [`Replica::deadline`] has come.
    Timeout,
    Peer(PeerMessage),
    /// Messages reach this member.
    Connected(NodeId),
    /// A member, or one that is to be, introduced itself, over a link in either direction.
    Heard {
        id: NodeId,
        address: String,
        incarnation: Incarnation,
    },
    Unreachable(NodeId),
    /// Why there is no connection to this member, in words, until there is one.
    Trouble(NodeId, String),
    Execute {
        request: RequestId,
        /// Of a client that has a session of its own. Without, it is made in the session of this node.
        slot: Option<Slot>,
        body: Bytes,
        deadline: Instant,
    },
    /// Open a session for a client. The outcome's `index` is the session's id, and no place in the log.
    OpenSession {
        request: RequestId,
        ttl: Duration,
        deadline: Instant,
    },
    Query {
        request: RequestId,
        body: Bytes,
        read: Read,
        deadline: Instant,
    },
    /// Compare the replicas' digests; answered with [`Outcome::Compared`].
    Verify {
        request: RequestId,
        deadline: Instant,
    },
    /// Something that only the leader can do.
    Ask {
        request: RequestId,
        ask: Ask,
        deadline: Instant,
    },
    /// Take a snapshot now; answered when there is one. If it is to be `current`, it covers all that was committed when this
    /// came.
    Snapshot {
        request: RequestId,
        current: bool,
        deadline: Instant,
    },
    /// Who answers at an address that was asked for by [`Effect::Probe`], or why nobody does.
    Probed {
        id: NodeId,
        address: String,
        found: Result<Incarnation, String>,
    },
    /// The snapshot is durable, and was read back.
    SnapshotWritten {
        last: EntryId,
        bytes: u64,
    },
    SnapshotFailed {
        last: EntryId,
        why: String,
    },
    /// So much of a leader's snapshot is here.
    SnapshotFetching {
        last: EntryId,
        bytes: u64,
        total: u64,
    },
    /// All of it is here, verified and durable.
    SnapshotFetched {
        meta: SnapshotMeta,
        bytes: u64,
    },
    SnapshotFetchFailed {
        last: EntryId,
        why: String,
    },
    /// The machine is restored from it, or was past it already.
    SnapshotRestored {
        last: EntryId,
    },
    /// A follower fetches this node's snapshot and has got so much of it.
    SnapshotSending {
        to: NodeId,
        bytes: u64,
        total: u64,
    },
    /// This node's newest snapshot cannot be read.
    SnapshotUnreadable {
        why: String,
    },
    /// The cluster says that this node is not a member any more.
    Removed,
    /// The cluster will not have this node, and that will not change by itself: the name of the kind of trouble, and what to do.
    Outcast {
        code: &'static str,
        why: String,
    },
    /// This node has founded a cluster, and should not have: what others say, and what to do.
    Contradicted(String),
    /// What keeps this node from being let into a cluster, for now.
    JoinTrouble(String),
    Persisted {
        seq: u64,
    },
    /// No space is left; the write is tried again until there is.
    StorageFull,
    StorageFailed(String),
    /// The machine is done with everything up to here, and its callers are answered; but for those of `expired`, whose
    /// session does not exist any more.
    Applied {
        index: Index,
        expired: Vec<RequestId>,
    },
    /// The digest as of an entry that asked for it, for the member that asked.
    Digested {
        index: Index,
        origin: NodeId,
        digest: Result<Bytes, String>,
    },
    /// The machine has answered these queries.
    Queried(Vec<RequestId>),
    /// The machine will not go on.
    Halted(Halt),
    /// Hand over leadership, finish what can be finished by the deadline, then [`Effect::Stopped`].
    Stop {
        deadline: Instant,
    },
}

/// Effects of a usual turn.
const EFFECTS_USUAL: usize = 8;

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    Persist(Write),
    Send(NodeId, PeerMessage),
    /// For the machine, in this order with queries.
    Apply(Batch),
    Query(Vec<(RequestId, Bytes)>),
    Answer(RequestId, Outcome),
    Transition(Transition),
    /// For the store, in order with [`Effect::Persist`]: see [`graft_domain::Ready::compact`].
    Compact(EntryId),
    /// For the machine, in order: let another thread write the state as it is after all that was handed out before.
    TakeSnapshot(SnapshotMeta),
    /// Fetch a leader's snapshot: this one, or a newer one that it has by now.
    Fetch {
        leader: NodeId,
        last: EntryId,
    },
    /// For the machine, in order: restore this unless it is past it.
    Restore(SnapshotMeta),
    /// Find out who answers at this address.
    Probe {
        id: NodeId,
        address: String,
    },
    /// Something that users watch.
    Notice(Notice),
    /// The node may be taken down now.
    Stopped,
}

/// Committed commands for the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    pub commands: Vec<Committed>,
    /// Whom to answer: the place in `commands`, and the request.
    pub callers: Vec<(usize, RequestId)>,
    /// Everything up to here is applied when the commands are.
    pub upto: Index,
}

/// A committed command as the applier gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    pub index: Index,
    pub term: Term,
    /// Nanoseconds since the Unix epoch, stamped by the leader; never goes back along the log.
    pub time: u64,
    pub act: Act,
}

/// One member: the core and what users do with it.
#[derive(Debug)]
pub struct Replica {
    pub(crate) core: RaftCore,
    pub(crate) config: ReplicaConfig,
    pub(crate) clock: Clock,
    pub(crate) calls: Calls,
    pub(crate) own: OwnSession,
    pub(crate) verifies: Verifies,
    pub(crate) reads: Reads,
    pub(crate) heard: Heard,
    /// Commands of other members that are to be proposed with this turn.
    pub(crate) forwarded: Vec<Forwarded>,
    /// Everything up to here was handed to the machine.
    pub(crate) handed: Index,
    /// The newest stamp in the log, as far as known.
    pub(crate) time: u64,
    /// The last command that was handed to the machine, and its stamp.
    pub(crate) command: Index,
    pub(crate) applied_time: u64,
    pub(crate) asks: Asks,
    pub(crate) reform: Reform,
    pub(crate) snapshots: Snapshots,
    pub(crate) links: Links,
    /// Members as they introduced themselves: where they are and which life of their directory.
    pub(crate) identities: BTreeMap<NodeId, (String, Incarnation)>,
    /// This node is no member any more.
    pub(crate) removed: bool,
    pub(crate) outcast: Option<(&'static str, String)>,
    /// Others have shown that this node should not have founded its cluster.
    pub(crate) contradicted: Option<String>,
    pub(crate) join_trouble: Option<String>,
    /// What was last told of role and leader.
    pub(crate) told: (&'static str, Option<NodeId>, Term),
    /// Calls are not handed to a leader before this.
    pub(crate) route_at: Instant,
    pub(crate) reachable: BTreeSet<NodeId>,
    pub(crate) troubles: BTreeMap<NodeId, String>,
    pub(crate) storage_full: bool,
    /// When the machine finished something, or was given something while it had nothing.
    pub(crate) got_on: Instant,
    /// Why this node does not work any more.
    pub(crate) failure: Option<String>,
    pub(crate) stopping: Option<Instant>,
    /// A leader that is to stop tries to hand over then.
    pub(crate) hand_over_at: Instant,
    pub(crate) effects: Vec<Effect>,
    pub(crate) arena: BytesMut,
}

impl Replica {
    pub fn new(config: ReplicaConfig, core: RaftCore, clock: Clock, restored: Restored) -> Self {
        let identities = BTreeMap::from([(core.id(), (config.address.clone(), config.incarnation))]);
        let mut replica = Self {
            handed: core.applied(),
            reads: Reads::new(config.session),
            core,
            config,
            clock,
            calls: Calls::default(),
            own: OwnSession::default(),
            verifies: Verifies::default(),
            heard: Heard::default(),
            forwarded: Vec::new(),
            time: 0,
            command: Index::ZERO,
            applied_time: 0,
            asks: Asks::default(),
            reform: Reform::default(),
            snapshots: Snapshots::default(),
            links: Links::default(),
            identities,
            removed: false,
            outcast: None,
            contradicted: None,
            join_trouble: None,
            told: ("", None, Term(0)),
            route_at: Instant(0),
            reachable: BTreeSet::new(),
            troubles: BTreeMap::new(),
            storage_full: false,
            got_on: clock.now,
            failure: None,
            stopping: None,
            hand_over_at: Instant(0),
            effects: Vec::new(),
            arena: BytesMut::new(),
        };
        replica.remember(restored);
        replica
    }

    /// What was applied before this start, from the snapshot and the log.
    fn remember(&mut self, restored: Restored) {
        if let Some((meta, bytes)) = restored {
            (self.command, self.applied_time, self.time) = (meta.command, meta.time, meta.time);
            self.snapshots.restored(bytes);
        }
        let mut index = self.core.snapshot().index.next();
        while let Some(entry) = self.core.entry(index).filter(|entry| entry.index <= self.handed) {
            self.snapshots.count(entry);
            if let Payload::Command(command) = &entry.payload {
                let time = commands::decode(command).map_or(0, |logged| logged.time);
                (self.command, self.applied_time) = (index, self.applied_time.max(time));
            }
            index = index.next();
        }
        self.time = self.time.max(self.applied_time);
        self.learn_of_removal();
    }

    /// Everything up to here was handed to the machine.
    pub fn handed(&self) -> Index {
        self.handed
    }

    pub fn core(&self) -> &RaftCore {
        &self.core
    }

    /// It is so late now: for whoever looks at the replica between events.
    pub fn tell_time(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Takes in one event. What is to be done about it gathers until [`Replica::effects`].
    pub fn handle(&mut self, clock: Clock, event: Event) {
        self.clock = clock;
        match event {
            Event::Timeout => self.step(Input::Timeout),
            Event::Peer(PeerMessage::Raft(envelope)) => self.step(Input::Receive(envelope)),
            Event::Peer(PeerMessage::Forward { from, term, ticket, act }) => {
                self.on_forward(term, Forwarded { from, ticket, act });
            }
            Event::Peer(PeerMessage::Refused { to, ticket, refusal }) => self.on_refused(to, ticket, refusal),
            Event::Peer(PeerMessage::Ask { from, ticket, ask }) => self.on_asked(from, ticket, ask),
            Event::Peer(PeerMessage::Answered { to, ticket, answer }) if to == self.core.id() => {
                self.on_answered(ticket, answer);
            }
            Event::Peer(PeerMessage::Links { from, connected, failure }) => self.on_links(from, connected, failure),
            Event::Connected(peer) => self.on_connected(peer),
            Event::Unreachable(peer) => self.on_unreachable(peer),
            // Strangers can call themselves anything.
            Event::Trouble(peer, why) if self.core.membership().contains(&peer) => {
                // Others put it into sentences of their own.
                self.troubles.insert(peer, why.trim_end_matches('.').to_owned());
            }
            Event::Peer(PeerMessage::Digest { from, to, index, digest }) if to == self.core.id() => {
                self.on_digest(from, index, digest);
            }
            Event::Peer(PeerMessage::Answered { .. } | PeerMessage::Digest { .. }) | Event::Trouble(..) => {}
            Event::Execute { request, slot, body, deadline } => self.on_execute(request, slot, body, deadline),
            Event::OpenSession { request, ttl, deadline } => self.on_open_session(request, ttl, deadline),
            Event::Verify { request, deadline } => self.on_verify(request, deadline),
            Event::Query { request, body, read, deadline } => {
                self.on_query(Question { request, deadline, wanted: Wanted::Reply(body), read });
            }
            Event::Persisted { seq } => {
                self.storage_full = false;
                self.step(Input::Persisted { seq });
            }
            Event::StorageFull => self.on_storage_full(),
            Event::StorageFailed(why) => self.fail(why, Input::StorageFailed),
            Event::Applied { index, expired } => self.on_applied(index, expired),
            Event::Digested { index, origin, digest } => self.on_digested(index, origin, digest),
            Event::Queried(requests) => requests.into_iter().for_each(|request| self.reads.served(request)),
            Event::Halted(halt) => self.fail(halt.why, Input::Unfit),
            Event::Stop { deadline } => self.on_stop(deadline),
            Event::Heard { id, address, incarnation } => self.on_heard(id, address, incarnation),
            Event::Ask { request, ask, deadline } => self.on_ask(request, ask, deadline),
            Event::Probed { id, address, found } => self.on_probed(id, &address, &found),
            Event::Removed => self.on_removed(),
            Event::Outcast { code, why } => self.outcast = Some((code, why)),
            Event::Contradicted(why) => self.on_contradicted(why),
            Event::JoinTrouble(why) => self.join_trouble = Some(why),
            event => self.handle_snapshot(event),
        }
    }

    fn handle_snapshot(&mut self, event: Event) {
        match event {
            Event::Snapshot { request, current: false, deadline } => self.on_snapshot(request, deadline),
            Event::Snapshot { request, current: true, deadline } => {
                let read = Read::of(Consistency::Linearizable);
                self.on_query(Question { request, deadline, wanted: Wanted::Snapshot, read });
            }
            Event::SnapshotWritten { last, bytes } => self.on_snapshot_written(last, bytes),
            Event::SnapshotFailed { last, why } => self.on_snapshot_failed(last, why),
            Event::SnapshotFetching { last, bytes, total } => self.on_snapshot_fetching(last, bytes, total),
            Event::SnapshotFetched { meta, bytes } => self.on_snapshot_fetched(meta, bytes),
            Event::SnapshotFetchFailed { last, why } => self.on_snapshot_fetch_failed(last, why),
            Event::SnapshotRestored { last } => self.on_snapshot_restored(last),
            Event::SnapshotSending { to, bytes, total } => self.on_snapshot_sending(to, bytes, total),
            Event::SnapshotUnreadable { why } => self.on_snapshot_unreadable(why),
            _ => {}
        }
    }

    /// Everything that the events since the last call want done, in order. The clock is read after the last of them came:
    /// a process may be paused between taking events, and a lease must not be judged by a time before the question.
    pub fn effects(&mut self, clock: Clock) -> Vec<Effect> {
        self.clock = clock;
        self.expire();
        self.hand_over();
        self.route();
        self.ask_reads();
        self.ask_leader();
        self.reform();
        self.mind_links();
        let ready = self.core.ready(self.clock.now);
        self.perform(ready);
        // Before a snapshot is taken: there may be those among them that want one, and who knows when the next turn comes.
        self.serve_reads();
        self.snapshot();
        self.follow_asks();
        self.tell();
        self.finish_stop();
        // A turn mostly has a handful.
        std::mem::replace(&mut self.effects, Vec::with_capacity(EFFECTS_USUAL))
    }

    /// When to handle [`Event::Timeout`] next.
    pub fn deadline(&self) -> Instant {
        let all = [
            self.core.deadline(),
            self.calls.deadline(),
            self.reads.deadline(),
            self.route_deadline(),
            self.asks_deadline(),
            self.reform_deadline(),
            self.links_deadline(),
            self.snapshots_deadline(),
            self.verifies.deadline(),
            self.stop_deadline(),
        ];
        all.into_iter().min().unwrap_or(Instant::NEVER)
    }

    pub(crate) fn step(&mut self, input: Input) {
        // Inputs that can be turned down are stepped where the refusal is dealt with; a silenced core wants nothing.
        let _ = self.core.step(self.clock.now, input);
    }

    fn perform(&mut self, ready: Ready) {
        // Before the transitions: reads that fail with a leader do not hold up what goes to the next one.
        for ReadOutcome { read, outcome } in ready.reads {
            match outcome {
                Ok(index) => self.reads.index(read, index),
                Err(_) if self.reads.again(read) => self.retry_later(),
                Err(_) => {}
            }
        }
        for envelope in ready.send {
            self.effects.push(Effect::Send(envelope.to, PeerMessage::Raft(envelope)));
        }
        self.effects.extend(ready.compact.map(Effect::Compact));
        self.effects.extend(ready.write.map(Effect::Persist));
        if let Some(fetch) = ready.fetch {
            self.on_fetch(fetch);
        }
        // What is told of an entry follows the write that holds it: a disk must not know its cluster before its log does.
        let committed = |transition: &Transition| matches!(transition, Transition::MembershipCommitted { .. });
        let membership_committed = ready.transitions.iter().any(committed);
        for transition in ready.transitions {
            self.on_transition(&transition);
            self.effects.push(Effect::Transition(transition));
        }
        if !ready.apply.is_empty() {
            self.apply(ready.apply);
        }
        // After the machine was handed what is before it: those calls are not lost with this node's membership.
        if membership_committed {
            self.learn_of_removal();
        }
    }

    fn on_transition(&mut self, transition: &Transition) {
        match transition {
            Transition::Leader { .. } => (self.outcast, self.join_trouble) = (None, None),
            Transition::Follower { leader: Some(_), .. } => {
                self.route_at = self.clock.now;
                (self.outcast, self.join_trouble) = (None, None);
            }
            Transition::Membership { index, membership } => self.tell_membership(*index, membership, false),
            Transition::MembershipCommitted { index } => {
                let membership = Arc::clone(self.core.membership_at(*index));
                self.tell_membership(*index, &membership, true);
            }
            Transition::Breach(breach) => {
                self.fail(format!("an invariant of the protocol does not hold: {breach:?}"), Input::StorageFailed);
            }
            _ => {}
        }
    }
}
