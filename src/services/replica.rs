//! One node's use-cases around its core: events in, effects out, the same shape one floor up.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use graft_domain::{Entry, Index, Input, Instant, NodeId, Payload, RaftCore, ReadOutcome, Ready, Transition, Write};

use crate::commands;
use crate::error::Outcome;
use crate::heard::Heard;
use crate::ports::{Command, Halt, PeerMessage};
use crate::reads::{Question, Reads};
use crate::routing::Forwarded;
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
    /// What this replica has applied, however old.
    Stale,
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
    pub retry: std::time::Duration,
    /// How long to wait for a read's index before asking again.
    pub read_retry: std::time::Duration,
}

/// Something that happened around the replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// [`Replica::deadline`] has come.
    Timeout,
    Peer(PeerMessage),
    Connected(NodeId),
    Unreachable(NodeId),
    /// Why there is no connection to this member, in words, until there is one.
    Trouble(NodeId, String),
    Execute {
        request: RequestId,
        body: Bytes,
        deadline: Instant,
    },
    Query {
        request: RequestId,
        body: Bytes,
        consistency: Consistency,
        deadline: Instant,
    },
    Persisted {
        seq: u64,
    },
    /// No space is left; the write is tried again until there is.
    StorageFull,
    StorageFailed(String),
    /// The machine is done with everything up to here, and its callers are answered.
    Applied {
        index: Index,
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
    /// The node may be taken down now.
    Stopped,
}

/// Committed commands for the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    pub commands: Vec<Command>,
    /// Whom to answer: the place in `commands`, and the request.
    pub callers: Vec<(usize, RequestId)>,
    /// Everything up to here is applied when the commands are.
    pub upto: Index,
}

/// One member: the core and what users do with it.
#[derive(Debug)]
pub struct Replica {
    pub(crate) core: RaftCore,
    pub(crate) config: ReplicaConfig,
    pub(crate) clock: Clock,
    pub(crate) calls: Calls,
    pub(crate) reads: Reads,
    pub(crate) heard: Heard,
    /// Commands of other members that are to be proposed with this turn.
    pub(crate) forwarded: Vec<Forwarded>,
    /// Everything up to here was handed to the machine.
    pub(crate) handed: Index,
    /// The newest stamp in the log, as far as known.
    pub(crate) time: u64,
    /// Calls are not handed to a leader before this.
    pub(crate) route_at: Instant,
    pub(crate) reachable: BTreeSet<NodeId>,
    pub(crate) troubles: BTreeMap<NodeId, String>,
    pub(crate) storage_full: bool,
    /// Why this node does not work any more.
    pub(crate) failure: Option<String>,
    pub(crate) stopping: Option<Instant>,
    /// A leader that is to stop tries to hand over then.
    pub(crate) hand_over_at: Instant,
    pub(crate) effects: Vec<Effect>,
    pub(crate) arena: BytesMut,
}

impl Replica {
    pub fn new(config: ReplicaConfig, core: RaftCore, clock: Clock) -> Self {
        Self {
            handed: core.applied(),
            reads: Reads::new(config.session),
            core,
            config,
            clock,
            calls: Calls::default(),
            heard: Heard::default(),
            forwarded: Vec::new(),
            time: 0,
            route_at: Instant(0),
            reachable: BTreeSet::new(),
            troubles: BTreeMap::new(),
            storage_full: false,
            failure: None,
            stopping: None,
            hand_over_at: Instant(0),
            effects: Vec::new(),
            arena: BytesMut::new(),
        }
    }

    /// Everything up to here was handed to the machine.
    pub fn handed(&self) -> Index {
        self.handed
    }

    pub fn core(&self) -> &RaftCore {
        &self.core
    }

    /// Takes in one event. What is to be done about it gathers until [`Replica::effects`].
    pub fn handle(&mut self, clock: Clock, event: Event) {
        self.clock = clock;
        match event {
            Event::Timeout => self.step(Input::Timeout),
            Event::Peer(PeerMessage::Raft(envelope)) => self.step(Input::Receive(envelope)),
            Event::Peer(PeerMessage::Forward { from, term, ticket, body }) => {
                self.on_forward(term, Forwarded { from, ticket, body });
            }
            Event::Peer(PeerMessage::Refused { to, ticket, refusal }) => self.on_refused(to, ticket, refusal),
            Event::Connected(peer) => self.on_connected(peer),
            Event::Unreachable(peer) => self.on_unreachable(peer),
            // Strangers can call themselves anything.
            Event::Trouble(peer, why) if self.core.membership().contains(&peer) => {
                self.troubles.insert(peer, why);
            }
            Event::Trouble(..) => {}
            Event::Execute { request, body, deadline } => self.on_execute(request, body, deadline),
            Event::Query { request, body, consistency, deadline } => {
                self.on_query(consistency, Question { request, deadline, body });
            }
            Event::Persisted { seq } => {
                self.storage_full = false;
                self.step(Input::Persisted { seq });
            }
            Event::StorageFull => self.on_storage_full(),
            Event::StorageFailed(why) => self.fail(why, Input::StorageFailed),
            Event::Applied { index } => {
                self.calls.applied(index);
                self.step(Input::Applied { index });
            }
            Event::Queried(requests) => requests.into_iter().for_each(|request| self.reads.served(request)),
            Event::Halted(halt) => self.fail(halt.why, Input::Unfit),
            Event::Stop { deadline } => self.on_stop(deadline),
        }
    }

    /// Everything that the events since the last call want done, in order.
    pub fn effects(&mut self) -> Vec<Effect> {
        self.expire();
        self.hand_over();
        self.route();
        self.ask_reads();
        let ready = self.core.ready();
        self.perform(ready);
        self.serve_reads();
        self.finish_stop();
        std::mem::take(&mut self.effects)
    }

    /// When to handle [`Event::Timeout`] next.
    pub fn deadline(&self) -> Instant {
        let all = [self.core.deadline(), self.calls.deadline(), self.reads.deadline(), self.route_deadline()];
        all.into_iter().min().unwrap_or(Instant::NEVER).min(self.stop_deadline())
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
        self.effects.extend(ready.write.map(Effect::Persist));
        // What is told of an entry follows the write that holds it: a disk must not know its cluster before its log does.
        for transition in ready.transitions {
            self.on_transition(&transition);
            self.effects.push(Effect::Transition(transition));
        }
        if !ready.apply.is_empty() {
            self.apply(ready.apply);
        }
    }

    fn on_transition(&mut self, transition: &Transition) {
        match transition {
            Transition::Follower { leader: Some(_), .. } => self.route_at = self.clock.now,
            Transition::Breach(breach) => {
                self.fail(format!("an invariant of the protocol does not hold: {breach:?}"), Input::StorageFailed);
            }
            _ => {}
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        if self.failure.is_some() {
            return;
        }
        let mut batch = Batch { upto: self.handed, ..Batch::default() };
        for entry in entries {
            if let Err(why) = self.put_into(&mut batch, &entry) {
                let why = format!("entry {} is not a command: {why}", entry.id());
                self.fail(why, Input::Unfit);
                break;
            }
            batch.upto = entry.index;
        }
        self.handed = batch.upto;
        self.effects.push(Effect::Apply(batch));
    }

    fn put_into(&mut self, batch: &mut Batch, entry: &Entry) -> Result<(), commands::BadCommand> {
        if let Payload::Command(command) = &entry.payload {
            let commands::Logged { time, ticket, body } = commands::decode(command)?;
            self.time = self.time.max(time);
            if ticket.session == self.config.session
                && let Some(request) = self.calls.applying(ticket.sequence, entry.index)
            {
                batch.callers.push((batch.commands.len(), request));
            }
            batch.commands.push(Command { index: entry.index, term: entry.term, time, body });
        } else {
            // A leader's first entry: everything of earlier terms that will ever be is before it.
            self.calls.park_overtaken(entry.term);
        }
        Ok(())
    }
}
