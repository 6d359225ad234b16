//! The one event loop: takes everything that waits, lets the replica handle it, carries out what it wants.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Sender;

use bytes::Bytes;
use graft_domain::{ClusterId, Index, Instant, NodeId, Transition};
use graft_services::error::Outcome;
use graft_services::ports::PeerMessage;
use graft_services::{Clock, Effect, Event, Notice, Replica, RequestId};

use super::calls::Callers;
use super::clock::Monotonic;
use super::door_queue::Queue;
use super::events::Events;
use super::faults::Faults;
use super::fitness::Fitness;
use super::front::Standing;
use super::hub::Hub;
use super::inbox::{Inbox, Next, Turn};
use super::machine_worker::{ApplyJob, MachineJob, panic_words};
use super::peers::Peers;
use super::requests::Requests;
use super::store_worker::StoreJob;
use crate::infrastructure::grpc::{PeerEvent, Transport};

/// What reaches the event loop.
#[derive(Debug)]
pub(crate) enum Message {
    Requests(Requests),
    Peer(PeerEvent),
    Event(Event),
    /// The machine is done up to here, and with these requests. Those of `expired` are not answered: their session does not exist
    /// any more, and the replica knows whose it was.
    Applied {
        index: Index,
        done: Vec<RequestId>,
        expired: Vec<RequestId>,
    },
    Queried {
        done: Vec<RequestId>,
    },
    /// Look at the replica.
    Look(Look),
    Stop {
        deadline: Instant,
    },
    /// End at once and tell nobody.
    Kill,
}

/// A look at the replica between two turns; with none, there is none any more. It comes to pass once, whatever becomes of
/// the engine.
pub(crate) struct Look(Option<LookAt>);

type LookAt = Box<dyn FnOnce(Option<&Replica>) + Send>;

impl Look {
    pub(crate) fn new(look: impl FnOnce(Option<&Replica>) + Send + 'static) -> Self {
        Self(Some(Box::new(look)))
    }

    fn at(mut self, replica: &Replica) {
        if let Some(look) = self.0.take() {
            look(Some(replica));
        }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(look) = self.0.take() {
            look(None);
        }
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}

/// Events taken in one turn at the most, so that heartbeats leave in time however much waits.
const TURN_MAX: usize = 4096;

pub(crate) struct Engine {
    pub(crate) replica: Replica,
    /// What was taken out of the inbox and not come to yet.
    pub(crate) taken: VecDeque<Message>,
    pub(crate) store: Sender<StoreJob>,
    pub(crate) machine: Sender<MachineJob>,
    pub(crate) transport: Arc<Transport>,
    pub(crate) peers: Peers,
    pub(crate) events: Arc<Events>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) door: Arc<Queue>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) callers: Callers,
    /// Calls that callers count.
    pub(crate) inflight: Arc<AtomicUsize>,
    /// Bytes of peers' messages in the inbox.
    pub(crate) inbox_bytes: Arc<AtomicUsize>,
    /// Bytes of requests in the inbox.
    pub(crate) request_bytes: Arc<AtomicUsize>,
    pub(crate) clock: Monotonic,
    pub(crate) fitness: Fitness,
    /// What was wrong with the node before it was told to stop.
    pub(crate) parting: Option<(Option<String>, Option<&'static str>)>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) outbox: BTreeMap<NodeId, Vec<PeerMessage>>,
    pub(crate) stopped: bool,
    /// What broke it, if something did.
    pub(crate) broken: Option<String>,
    pub(crate) faults: Arc<Faults>,
}

impl Turn for Engine {
    type Message = Message;

    /// Calls those whom it already knows.
    fn begin(&mut self) {
        self.or_break(Self::dial);
    }

    fn turn(&mut self, inbox: &Inbox) -> Next {
        if self.stopped {
            return Next::Ended;
        }
        self.or_break(|engine| engine.take_all(inbox)).unwrap_or(Next::Ended)
    }

    /// A node that is to stand still is turned by its own thread alone, which does.
    fn may_be_helped(&self) -> bool {
        !self.stopped && !self.faults.is_paused()
    }

    /// Waits for as long as the node is paused.
    fn gate(&self) {
        self.faults.gate();
    }
}

impl Engine {
    /// What panics is the last that it does, and comes to nothing.
    fn or_break<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| what(self)));
        let broken = |panic: Box<dyn Any + Send>| {
            let why = panic_words(&*panic);
            tracing::error!("{why}");
            (self.broken, self.stopped) = (Some(why), true);
        };
        done.map_err(broken).ok()
    }

    /// Everything that waits, then the timer (a heartbeat may have been among the messages), then what all of it wants done.
    fn take_all(&mut self, inbox: &Inbox) -> Next {
        let clock = self.clock.clock();
        for _ in 0..TURN_MAX {
            if self.taken.is_empty() && !inbox.take(&mut self.taken) {
                break;
            }
            if let Some(message) = self.taken.pop_front() {
                self.take(clock, message);
            }
        }
        if self.replica.deadline() <= clock.now {
            self.replica.handle(clock, Event::Timeout);
        }
        if self.stopped {
            return Next::Ended;
        }
        // Read anew: see what `Replica::effects` says of it.
        for effect in self.replica.effects(self.clock.clock()) {
            self.perform(effect);
        }
        self.send();
        self.stop_joining_when_in();
        self.see_leavers_off();
        self.settle();
        self.transport.set_health(self.fitness.of(&self.replica));
        if !self.notices.is_empty() {
            self.events.push(self.notices.drain(..));
        }
        match () {
            () if self.stopped => Next::Ended,
            () if !self.taken.is_empty() => Next::Now,
            () => Next::At(self.replica.deadline()),
        }
    }

    fn take(&mut self, clock: Clock, message: Message) {
        match message {
            Message::Requests(requests) => self.take_requests(clock, requests),
            Message::Peer(event) => self.take_peer(clock, event),
            Message::Event(event) => self.replica.handle(clock, event),
            Message::Applied { index, done, expired } => {
                for request in done {
                    self.callers.release(request);
                }
                self.replica.handle(clock, Event::Applied { index, expired });
            }
            Message::Queried { done } => {
                for request in &done {
                    self.callers.release(*request);
                }
                self.replica.handle(clock, Event::Queried(done));
            }
            Message::Look(look) => {
                self.replica.tell_time(clock);
                look.at(&self.replica);
            }
            Message::Stop { deadline } => {
                let status = self.replica.status();
                self.parting.get_or_insert((status.error, status.error_code));
                self.replica.handle(clock, Event::Stop { deadline });
            }
            Message::Kill => self.stopped = true,
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send(to, message) => self.outbox.entry(to).or_default().push(message),
            Effect::Persist(write) => {
                // Messages to followers leave first: their disks work while this one does.
                self.send();
                let _ = self.store.send(StoreJob::Persist(write));
            }
            Effect::Apply(batch) => {
                let find = |(place, request): (usize, RequestId)| (place, request, self.callers.find(request));
                let callers = batch.callers.into_iter().map(find).collect();
                let _ = self.machine.send(MachineJob::Apply(ApplyJob {
                    commands: batch.commands,
                    callers,
                    upto: batch.upto,
                }));
            }
            Effect::Query(queries) => {
                let (requests, queries): (Vec<RequestId>, Vec<Bytes>) = queries.into_iter().unzip();
                let callers = requests.into_iter().map(|request| (request, self.callers.find(request))).collect();
                let core = self.replica.core();
                let (applied, term) = (self.replica.handed(), core.term());
                let _ = self.machine.send(MachineJob::Query { queries, callers, applied, term });
            }
            Effect::Answer(request, outcome) => self.callers.answer(request, outcome),
            Effect::Transition(transition) => self.note(&transition),
            Effect::Compact(covered) => {
                let _ = self.store.send(StoreJob::Compact(covered));
            }
            Effect::TakeSnapshot(meta) => {
                let _ = self.machine.send(MachineJob::Snapshot(meta));
            }
            Effect::Restore(meta) => {
                let _ = self.machine.send(MachineJob::Restore(meta));
            }
            Effect::Fetch { leader, last } => self.transport.fetch(leader, last),
            Effect::Probe { id, address } => self.transport.probe(id, address),
            Effect::Notice(notice) => self.notices.push(notice),
            Effect::Stopped => self.stopped = true,
        }
    }

    fn send(&mut self) {
        for (to, messages) in std::mem::take(&mut self.outbox) {
            self.transport.send_batch(to, messages);
        }
    }

    /// Lets the world know of what changed.
    fn note(&mut self, transition: &Transition) {
        match transition {
            Transition::Leader { term } => tracing::info!(%term, "leader"),
            Transition::Follower { term, leader: Some(leader) } => tracing::info!(%term, %leader, "follower"),
            Transition::Follower { term, leader: None } => tracing::debug!(%term, "follower without a leader"),
            Transition::PreCandidate { term } => tracing::debug!(%term, "asks for pre-votes"),
            Transition::Candidate { term } => tracing::info!(%term, "candidate"),
            Transition::Truncated { from } => tracing::info!(%from, "entries replaced by the leader's"),
            Transition::Membership { .. } => self.dial(),
            Transition::MembershipCommitted { .. } => {
                self.dial();
                let cluster = self.replica.core().cluster();
                if cluster != ClusterId::UNKNOWN {
                    self.transport.set_cluster(cluster);
                    let _ = self.store.send(StoreJob::Cluster(cluster));
                }
            }
            Transition::Breach(breach) => {
                tracing::error!(?breach, "an invariant does not hold; this node falls silent");
            }
        }
    }

    /// Answers everyone who still waits, when it has stopped. What waits in the inbox is refused, or told so, when that is closed.
    pub(crate) fn abandon(&mut self, inbox: &Inbox) {
        let broken = self.broken.take();
        if broken.is_none() {
            let mut status = self.replica.status();
            if let Some(parting) = self.parting.take() {
                (status.error, status.error_code) = parting;
            }
            self.standing.note(status);
        }
        // Whoever is answered finds the node's status to know of it.
        self.standing.end(broken.clone());
        // A node that was stopped has answered everyone. Of one that was killed or broke, any call may be in the log.
        let why = broken.unwrap_or_else(|| "the node ended before the answer came".to_owned());
        self.callers.abandon(&Outcome::unknown(why));
        self.door.close();
        self.taken.clear();
        inbox.close();
        self.hub.end();
        self.events.end();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

/// What a message counts for in the inbox.
pub(crate) fn weight(message: &PeerMessage) -> usize {
    const OVERHEAD: usize = 64;
    OVERHEAD
        + match message {
            PeerMessage::Raft(envelope) => match &envelope.message {
                graft_domain::Message::Append(append) => append.entries.iter().map(graft_domain::Entry::size).sum(),
                _ => 0,
            },
            PeerMessage::Forward { act, .. } => act.size(),
            PeerMessage::Digest { digest: Ok(bytes), .. } => bytes.len(),
            PeerMessage::Refused { .. }
            | PeerMessage::Ask { .. }
            | PeerMessage::Answered { .. }
            | PeerMessage::Digest { .. }
            | PeerMessage::Links { .. } => 0,
        }
}
