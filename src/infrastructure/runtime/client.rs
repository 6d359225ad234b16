//! A client in this process: the clerk, its connections, and the inbox that brings them together.

mod office;
mod shared;
mod told;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_domain::{ClusterId, EntryId};
use graft_services::Read;
use graft_services::WhatIf;
use graft_services::api::{Api, Call, Caller, Happening, News, Reader, SnapshotPart, Then, View, Wake, Watch};
use graft_services::change::{Ask, Change};
use graft_services::client::{Clerk, ClerkConfig, Demand};
use graft_services::error::Refusal;

use super::clock::Monotonic;
use super::inbox::{Gone, Inbox};
use super::renewal::keep;
use super::security::{guard, refuse_plain_endpoints, security};
use super::start::random;
use super::{Source, StartError, until};
use crate::infrastructure::config::BadConfig;
use crate::infrastructure::grpc::{self, ClerkSink, Lines, PeerConfig, Watchers};
use office::{Counted, Message, Office};
use shared::Shared;
use told::To;

/// How long a part of a snapshot may take, however often it has to be asked for.
const PART_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connections may take to come down.
const LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of a client. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of one member at least; the others are learned.
    pub endpoints: Vec<String>,
    /// The cluster whose members are spoken with; if it is unknown, that of the first member that answers, from then on.
    pub cluster: ClusterId,
    /// How long the session lasts without a command, by the stamps of the log; that of the cluster if none is given.
    pub session_ttl: Option<Duration>,
    /// What connections are secured with; nothing, for members that talk plainly.
    pub tls: Option<Source>,
    /// Whether members beyond this machine may be spoken to without.
    pub insecure: bool,
    /// Calls that wait for an answer; more are refused as busy. 65 536.
    pub inflight_max: usize,
    /// Bytes of calls that wait for an answer; more are refused as busy. 256 MiB.
    pub inflight_bytes_max: usize,
    /// How long a look at the connected member may take. 5 s.
    pub look_timeout: Duration,
}

impl ClientConfig {
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            cluster: ClusterId::UNKNOWN,
            session_ttl: None,
            tls: None,
            insecure: false,
            inflight_max: 65_536,
            inflight_bytes_max: 256 << 20,
            look_timeout: Duration::from_secs(5),
        }
    }

    /// Refuses what cannot work, in words that say what would.
    pub fn check(&self) -> Result<(), BadConfig> {
        let bad = self.endpoints.iter().find(|endpoint| endpoint.len() > 1024 || !grpc::is_address(endpoint));
        let rules = [
            (self.endpoints.is_empty(), "a client needs the address of a member, as host:port".to_owned()),
            (
                self.endpoints.len() > 64,
                "a client takes at most 64 endpoints: the other members are learned".to_owned(),
            ),
            (
                bad.is_some(),
                format!(
                    "{:?} is not the address of a member: write host:port, for example 127.0.0.1:7001",
                    bad.map_or("", String::as_str)
                ),
            ),
            (
                self.session_ttl.is_some_and(|ttl| ttl < Duration::from_secs(1)),
                "session_ttl must be at least 1 s".to_owned(),
            ),
            (self.inflight_max == 0, "inflight_max must be at least 1".to_owned()),
            (self.inflight_bytes_max == 0, "inflight_bytes_max must be at least 1 byte".to_owned()),
        ];
        rules.into_iter().find_map(|(broken, why)| broken.then_some(BadConfig(why))).map_or(Ok(()), Err)
    }
}

/// A client of a cluster. Any thread may call it; nothing but [`Client::close`] blocks.
pub struct Client {
    inbox: Arc<Inbox<Office>>,
    /// Calls that were handed over and are not answered.
    inflight: Arc<AtomicUsize>,
    /// Calls beyond which the clerk is not asked: it keeps `inflight_max` itself, this bounds what waits for it to do so.
    inbox_max: usize,
    /// Bytes of calls that wait for the clerk, and how many may, for the same reason.
    waiting_bytes: Arc<AtomicUsize>,
    waiting_bytes_max: usize,
    look_timeout: Duration,
    clock: Monotonic,
    watchers: Watchers,
    parts: Mutex<Option<Parts>>,
}

/// What closing takes down.
struct Parts {
    thread: JoinHandle<()>,
    ended: Receiver<bool>,
    shared: Shared,
}

impl Client {
    /// Starts to connect, and comes back at once: members that are down are no error.
    pub fn start(config: ClientConfig) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        if config.tls.is_none() && !config.insecure {
            refuse_plain_endpoints(&config.endpoints)?;
        }
        let certified = security(config.tls.as_ref(), None)?;
        let io = |doing| move |error| StartError::Io { doing, error };
        let shared = Shared::of_this_process().map_err(io("starting the client's network thread"))?;
        let seed = random()?;
        let clock = Monotonic::start();
        let inbox = Inbox::new(clock);
        let events = Arc::clone(&inbox);
        let sink: ClerkSink = Arc::new(move |all| {
            // A clerk who is gone needs no news.
            let _ = events.bring(Message::Happened(all));
        });
        if let Some(certified) = &certified {
            // What comes of it is in the log: a client has no events of its own.
            keep(certified, shared.handle(), |_| {});
        }
        let peers = PeerConfig { security: guard(certified.as_ref()), ..PeerConfig::default() };
        let lines = Lines::new(shared.handle().clone(), peers, sink);
        let watchers = lines.watchers();
        let inflight = Arc::new(AtomicUsize::new(0));
        let inbox_max = config.inflight_max.saturating_mul(2);
        let clerk = ClerkConfig {
            cluster: config.cluster,
            session_ttl: config.session_ttl,
            inflight_max: config.inflight_max,
            inflight_bytes_max: config.inflight_bytes_max,
            ..ClerkConfig::new(config.endpoints, seed)
        };
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let waiting_bytes_max = config.inflight_bytes_max.saturating_mul(2);
        let look_timeout = config.look_timeout;
        let counted = Counted { inflight: Arc::clone(&inflight), waiting_bytes: Arc::clone(&waiting_bytes) };
        let office = Office::new(Clerk::new(clerk, clock.now()), lines, counted, clock);
        let (tell, ended) = channel();
        let mine = Arc::clone(&inbox);
        let body = move || {
            let mut office = mine.run(office);
            mine.close();
            let clean = office.end(LINES_TIMEOUT);
            let _ = tell.send(clean && !office.is_broken);
        };
        let thread = std::thread::Builder::new().name("graft-client".to_owned()).spawn(body);
        let thread = thread.map_err(io("starting the client's thread"))?;
        let parts = Mutex::new(Some(Parts { thread, ended, shared }));
        Ok(Self { inbox, inflight, inbox_max, waiting_bytes, waiting_bytes_max, look_timeout, clock, watchers, parts })
    }

    /// Waits for half of the timeout for calls that are under way, answers everyone, and takes the connections down. False if
    /// that did not end in time. Closing again does nothing.
    pub fn close(&self, timeout: Duration) -> bool {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Parts { thread, ended, shared }) = parts else { return true };
        let deadline = Instant::now() + timeout;
        let _ = self.inbox.send(Message::Close { by: self.clock.now() + timeout / 2 });
        let clean = match ended.recv_timeout(until(deadline)) {
            Ok(clean) => clean && thread.join().is_ok(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        };
        shared.leave(until(deadline));
        clean
    }

    fn call(&self, calls: Vec<(Demand, To)>, timeout: Duration) {
        let (count, bytes) = (calls.len(), bytes_of(&calls));
        let waiting = self.inflight.fetch_add(count, Ordering::Relaxed);
        let waiting_bytes = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (refusal, calls) = if waiting > self.inbox_max {
            (Refusal::Busy(format!("{waiting} calls are waiting for this client")), calls)
        } else if waiting_bytes > self.waiting_bytes_max {
            (Refusal::Busy(format!("{waiting_bytes} bytes of calls are waiting for this client")), calls)
        } else {
            match self.inbox.bring(Message::Calls { calls, deadline: self.clock.now() + timeout }) {
                Ok(()) => return,
                Err(Gone(message)) => (Refusal::Stopped, message.into_calls()),
            }
        };
        self.inflight.fetch_sub(count, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        for (_, to) in calls {
            to.refuse(refusal.clone());
        }
    }

    fn one(&self, demand: Demand, caller: Caller, timeout: Duration) {
        self.call(vec![(demand, To::caller(caller))], timeout);
    }
}

impl Api for Client {
    fn execute(&self, calls: Vec<Call>, timeout: Duration) {
        let demand = |Call { body, slot, caller }| (Demand::Execute { slot, body }, To::caller(caller));
        self.call(calls.into_iter().map(demand).collect(), timeout);
    }

    fn query(&self, queries: Vec<(Bytes, Caller)>, read: Read, timeout: Duration) {
        let demand = |(body, caller)| (Demand::Query { body, read }, To::caller(caller));
        self.call(queries.into_iter().map(demand).collect(), timeout);
    }

    fn open_session(&self, ttl: Option<Duration>, caller: Caller, timeout: Duration) {
        self.one(Demand::OpenSession { ttl }, caller, timeout);
    }

    fn ask(&self, ask: Ask, caller: Caller, timeout: Duration) {
        self.one(Demand::Ask(ask), caller, timeout);
    }

    fn snapshot(&self, current: bool, caller: Caller, timeout: Duration) {
        self.one(Demand::Snapshot { current }, caller, timeout);
    }

    fn read_snapshot(&self, from: Option<(EntryId, u64)>, then: Then<SnapshotPart>) {
        self.call(vec![(Demand::SnapshotPart(from), To::snapshot_part(then))], PART_TIMEOUT);
    }

    fn verify(&self, caller: Caller, timeout: Duration) {
        self.one(Demand::Verify, caller, timeout);
    }

    fn view(&self, then: Then<View>) {
        self.call(vec![(Demand::View, To::view(then))], self.look_timeout);
    }

    fn what_if(&self, change: Change, then: Then<WhatIf>) {
        self.call(vec![(Demand::WhatIf(change), To::what_if(then))], self.look_timeout);
    }

    fn watch(&self, watch: Watch, wake: Wake) -> Box<dyn Reader<News>> {
        self.watchers.watch(watch, wake)
    }

    fn events(&self, since: Option<u64>, wake: Wake) -> Box<dyn Reader<Happening>> {
        self.watchers.events(since, wake)
    }

    fn shutdown(&self, timeout: Duration) {
        self.call(vec![(Demand::Shutdown, To::nobody())], timeout);
    }
}

impl Drop for Client {
    /// Tells the clerk to end without waiting for it: whoever wants to wait calls [`Client::close`].
    fn drop(&mut self) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Parts { shared, .. }) = parts {
            let _ = self.inbox.send(Message::Close { by: self.clock.now() });
            shared.leave(Duration::ZERO);
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("inflight", &self.inflight).finish_non_exhaustive()
    }
}

/// Bytes that calls keep in memory.
fn bytes_of(calls: &[(Demand, To)]) -> usize {
    calls.iter().map(|(demand, _)| demand.bytes()).sum()
}
