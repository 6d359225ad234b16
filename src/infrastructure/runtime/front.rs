//! What callers meet: hands what they ask to the engine, and answers for it when it is gone. Never blocks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::EntryId;
use graft_services::api::{Api, Call, Caller, Happening, News, Reader, SnapshotPart, Then, View, Wake, Watch};
use graft_services::change::{Ask, Change};
use graft_services::error::Refusal;
use graft_services::ports::{SnapshotFiles, StoreError};
use graft_services::{Read, Replica, Status, WhatIf};

use super::clock::Monotonic;
use super::engine::{Look, Message};
use super::events::Events;
use super::hub::Hub;
use super::inbox::{Gone, Inbox};
use super::parts::Ending;
use super::renewal::Certified;
use super::requests::{Request, Requests, What};
use crate::infrastructure::metrics::Metrics;

/// Bytes of a snapshot that are read in one go.
const PART_BYTES: usize = 1 << 20;
/// How long a look at the replica is waited for.
const LOOK_TIMEOUT: Duration = Duration::from_millis(250);
/// Looks of others that may wait for the engine.
const LOOKS_MAX: usize = 1024;
/// A look that brings so many members with it counts as one more.
const LOOK_MEMBERS: usize = 16;

/// The driving port of a node in this process.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) inflight: Arc<AtomicUsize>,
    /// Calls beyond which the engine is not asked: it keeps `inflight_max` itself, this bounds what waits for it to do so.
    pub(crate) inbox_max: usize,
    /// Bytes of requests that wait for the engine, and how many may, for the same reason.
    pub(crate) request_bytes: Arc<AtomicUsize>,
    pub(crate) request_bytes_max: usize,
    pub(crate) clock: Monotonic,
    /// Of sessions that are opened without saying.
    pub(crate) session_ttl: Duration,
    pub(crate) standing: Arc<Standing>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<Events>,
    pub(crate) hub: Arc<Hub>,
    /// They hold the directory's lock, which is free once the node has stopped.
    pub(crate) files: Weak<dyn SnapshotFiles>,
    /// The transport holds this, and is one of the parts that it takes down.
    pub(crate) ending: Weak<Ending>,
}

/// What is known of a node that cannot be asked.
#[derive(Debug)]
pub(crate) struct Standing {
    /// What the engine said of itself last.
    last: Mutex<Status>,
    /// Why the engine is gone, if it broke.
    broken: Mutex<Option<String>>,
    /// The engine is gone.
    ended: AtomicBool,
    /// Looks of others that wait.
    looks: AtomicUsize,
    certified: Option<Arc<Certified>>,
}

/// A look that waits, or is taken.
struct Looking {
    standing: Arc<Standing>,
    cost: usize,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.standing.looks.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

impl Front {
    /// Hands requests over together. They are answered through their callers, each exactly once or, when the machine is late, at
    /// the deadline and again.
    pub(crate) fn hand(&self, requests: Vec<Request>) {
        let requests = Requests::new(requests);
        let (count, bytes) = (requests.count(), requests.bytes());
        self.metrics.called(count);
        let waiting = self.inflight.fetch_add(count, Ordering::Relaxed);
        let waiting_bytes = self.request_bytes.fetch_add(bytes, Ordering::Relaxed);
        let refusal = if waiting > self.inbox_max {
            Some(Refusal::Busy(format!("{waiting} calls are waiting for this node's engine")))
        } else if waiting_bytes > self.request_bytes_max {
            Some(Refusal::Busy(format!("{waiting_bytes} bytes of calls are waiting for this node's engine")))
        } else {
            None
        };
        let (refusal, requests) = match (refusal, requests) {
            (Some(refusal), requests) => (refusal, requests),
            (None, requests) => match self.pass(requests, waiting <= 1) {
                None => return,
                Some(requests) => (self.standing.gone(), requests),
            },
        };
        self.inflight.fetch_sub(count, Ordering::Relaxed);
        self.request_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.refused(&refusal, count);
        requests.refuse(&refusal);
    }

    /// To the engine, which turns here for calls that are alone, but for one whose caller may just have been answered, and
    /// gathers others. They come back when it is gone.
    fn pass(&self, requests: Requests, are_alone: bool) -> Option<Requests> {
        let message = Message::Requests(requests);
        let passed = if are_alone { self.inbox.bring(message) } else { self.inbox.send(message) };
        let Err(Gone(message)) = passed else { return None };
        if let Message::Requests(requests) = *message { Some(requests) } else { None }
    }

    pub(crate) fn request(&self, what: What, timeout: Duration) -> Request {
        Request { what, deadline: self.clock.now() + timeout }
    }

    fn ask_engine(&self, what: What, timeout: Duration) {
        self.hand(vec![self.request(what, timeout)]);
    }

    /// Lets the engine look at the replica after every event that reached it before, or hear that there is none any more.
    fn look(&self, look: impl FnOnce(Option<&Replica>) + Send + 'static) {
        // One that cannot be handed over is dropped, and told so thereby.
        let _ = self.inbox.send(Message::Look(Look::new(look)));
    }

    /// A look for somebody elsewhere, of whom there may be any number, unless too many wait already.
    fn look_for<T: Send + 'static>(
        &self,
        cost: usize,
        then: Then<T>,
        look: impl FnOnce(Option<&Replica>, &Standing) -> Result<T, Refusal> + Send + 'static,
    ) {
        let waiting = self.standing.looks.fetch_add(cost, Ordering::Relaxed);
        let looking = Looking { standing: Arc::clone(&self.standing), cost };
        if waiting >= LOOKS_MAX {
            let why = "as many wait to see how this node is as may, for it is busy: ask again, ask less often, or ask \
                       another member";
            return then(Err(Refusal::Busy(why.to_owned())));
        }
        self.look(move |replica| then(look(replica, &looking.standing)));
    }

    /// A look for a caller that waits for it a moment; none if the engine is gone or busy.
    pub(crate) fn look_now<T: Send + 'static>(&self, look: impl FnOnce(&Replica) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = sync_channel(1);
        self.look(move |replica| {
            // Whoever asked may have given up.
            let _ = reply.try_send(replica.map(look));
        });
        answer.recv_timeout(LOOK_TIMEOUT).ok().flatten()
    }

    /// What the node says of itself: after every event that reached it before, or, should the engine be busy for longer than
    /// a moment, what it said last.
    pub(crate) fn status(&self) -> Status {
        if let Some(status) = self.look_now(Replica::status) {
            self.standing.note(status);
        }
        self.standing.status()
    }
}

impl Api for Front {
    fn execute(&self, calls: Vec<Call>, timeout: Duration) {
        self.ask_engine(What::Execute(calls), timeout);
    }

    fn query(&self, queries: Vec<(Bytes, Caller)>, read: Read, timeout: Duration) {
        self.ask_engine(What::Query(queries, read), timeout);
    }

    fn open_session(&self, ttl: Option<Duration>, caller: Caller, timeout: Duration) {
        self.ask_engine(What::OpenSession(ttl.unwrap_or(self.session_ttl), caller), timeout);
    }

    fn ask(&self, ask: Ask, caller: Caller, timeout: Duration) {
        self.ask_engine(What::Ask(ask, caller), timeout);
    }

    fn snapshot(&self, current: bool, caller: Caller, timeout: Duration) {
        self.ask_engine(What::Snapshot { current, caller }, timeout);
    }

    fn read_snapshot(&self, from: Option<(EntryId, u64)>, then: Then<SnapshotPart>) {
        then(self.files.upgrade().ok_or(Refusal::Stopped).and_then(|files| part(&*files, from)));
    }

    fn verify(&self, caller: Caller, timeout: Duration) {
        self.ask_engine(What::Verify(caller), timeout);
    }

    fn view(&self, then: Then<View>) {
        self.look_for(1, then, |replica, standing| {
            if let Some(replica) = replica {
                standing.note(replica.status());
            }
            let why = replica.map_or_else(|| vec![standing.gone().to_string()], Replica::why);
            Ok(View { status: standing.status(), why })
        });
    }

    fn what_if(&self, change: Change, then: Then<WhatIf>) {
        let cost = match &change {
            Change::Apply { members } => 1 + members.len() / LOOK_MEMBERS,
            _ => 1,
        };
        self.look_for(cost, then, move |replica, standing| {
            replica.map(|replica| replica.what_if(&change)).ok_or_else(|| standing.gone())
        });
    }

    fn watch(&self, watch: Watch, wake: Wake) -> Box<dyn Reader<News>> {
        self.hub.watch(watch, wake)
    }

    fn events(&self, since: Option<u64>, wake: Wake) -> Box<dyn Reader<Happening>> {
        self.events.read(since, wake)
    }

    fn shutdown(&self, timeout: Duration) {
        // A node that nobody holds any more has been told to end.
        if let Some(ending) = self.ending.upgrade() {
            ending.stop_aside(timeout);
        }
    }
}

/// A part of this snapshot from there on if it is here, or else of the newest from its beginning.
fn part(files: &dyn SnapshotFiles, from: Option<(EntryId, u64)>) -> Result<SnapshotPart, Refusal> {
    let newest = files.newest();
    let total = |last| newest.and_then(|(newest, total)| (newest == last).then_some(total));
    let read = |last, offset| {
        let mut data = vec![0; PART_BYTES];
        let count = files.send(last, offset, &mut data)?;
        data.truncate(count);
        Ok(SnapshotPart { last, total: total(last), offset, data: data.into() })
    };
    // One that was replaced may be held open, for whoever is amid it, or be gone.
    if let Some((last, offset)) = from
        && let Ok(part) = read(last, offset)
    {
        return Ok(part);
    }
    let Some((last, _)) = newest else {
        return Ok(SnapshotPart { last: EntryId::ZERO, total: None, offset: 0, data: Bytes::new() });
    };
    read(last, 0).map_err(|error: StoreError| Refusal::Snapshot(format!("it cannot be read: {error}")))
}

impl Standing {
    pub(crate) fn new(status: Status, certified: Option<Arc<Certified>>) -> Self {
        Self {
            last: Mutex::new(status),
            broken: Mutex::default(),
            ended: AtomicBool::new(false),
            looks: AtomicUsize::new(0),
            certified,
        }
    }

    pub(crate) fn note(&self, status: Status) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// The engine is gone; `broken` says why if it broke.
    pub(crate) fn end(&self, broken: Option<String>) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = broken;
        self.ended.store(true, Ordering::Release);
    }

    /// Why calls are refused when the engine is not there.
    fn gone(&self) -> Refusal {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.clone().map_or(Refusal::Stopped, Refusal::Halted)
    }

    pub(crate) fn status(&self) -> Status {
        let mut status = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.certificate = self.certified.as_deref().map(Certified::life);
        if self.ended.load(Ordering::Acquire) {
            status.role = "stopped";
            status.leader = None;
            status.has_quorum = false;
        }
        if let Some(why) = &*self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
            status.role = "failed";
            status.error = Some(why.clone());
            status.error_code = Some("HALTED");
        }
        status
    }
}

#[cfg(test)]
#[path = "tests/front.rs"]
mod tests;
