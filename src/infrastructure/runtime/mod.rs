//! The composition root: makes a node of its parts, starts their threads and takes them down again.
//!
//! Threads of control with no lock shared with user code: the event loop, the store, the machine, and whoever writes
//! snapshots. The transport runs beside them on tokio. A stuck machine delays neither a heartbeat nor a vote nor a sync.

mod calls;
mod engine;
mod events;
mod machine_worker;
mod peers;
mod snapshot_worker;
mod start;
mod store_worker;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_services::change::{Ask, Change};
use graft_services::error::{Outcome, Refusal};
use graft_services::ports::{Halt, StoreError};
use graft_services::{Replica, Status, WhatIf};

pub use calls::{Caller, Sink, Waiting, until};
pub use engine::Kind;
pub use events::{Happening, Happenings};
#[cfg(feature = "python")]
pub(crate) use machine_worker::panic_words;

pub use crate::infrastructure::config::{BadConfig, NodeConfig};
pub use crate::infrastructure::grpc::BindError;

use crate::infrastructure::grpc::Transport;
use engine::{Look, Message};
use events::Events;

/// How long a look at the replica is waited for.
const LOOK_TIMEOUT: Duration = Duration::from_millis(250);

/// A running node.
pub struct Node {
    address: String,
    inbox: Sender<Message>,
    inflight: Arc<AtomicUsize>,
    /// Calls beyond which the engine is not asked: it keeps `inflight_max` itself, this bounds what waits for it to do so.
    inbox_max: usize,
    killed: Arc<AtomicBool>,
    /// What the engine said of itself last; shown when it cannot answer.
    last_status: Mutex<Status>,
    events: Arc<Events>,
    /// Why the engine is gone, if it broke.
    broken: Arc<Mutex<Option<String>>>,
    parts: Mutex<Option<Parts>>,
}

/// What stopping takes down.
struct Parts {
    transport: Arc<Transport>,
    runtime: tokio::runtime::Runtime,
    threads: Vec<(JoinHandle<()>, Receiver<()>)>,
}

/// Why a node did not start. Nothing of it is left running.
#[derive(Debug)]
pub enum StartError {
    Config(BadConfig),
    Bind(BindError),
    Store(StoreError),
    /// The machine could not open its own state.
    Machine(Halt),
    Io {
        doing: &'static str,
        error: std::io::Error,
    },
}

impl Node {
    /// What other members dial, with the port that was really taken.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Hands over calls that are answered through their callers, each exactly once or, when the machine is late, at the deadline
    /// and again. Never blocks.
    pub fn submit(&self, kind: Kind, calls: Vec<(Bytes, Caller)>, deadline: Instant) {
        let waiting = self.inflight.fetch_add(calls.len(), Ordering::Relaxed);
        if waiting > self.inbox_max {
            self.inflight.fetch_sub(calls.len(), Ordering::Relaxed);
            refuse(calls, &Refusal::Busy(format!("{waiting} calls are waiting for this node's engine")));
        } else if let Err(error) = self.inbox.send(Message::Calls { calls, kind, deadline })
            && let Message::Calls { calls, .. } = error.0
        {
            self.inflight.fetch_sub(calls.len(), Ordering::Relaxed);
            refuse(calls, &self.gone());
        }
    }

    /// Why calls are refused when the engine is not there.
    fn gone(&self) -> Refusal {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.clone().map_or(Refusal::Stopped, Refusal::Halted)
    }

    /// Asks for something that only the leader can do; answered through the caller.
    pub fn ask(&self, ask: Ask, caller: Caller, deadline: Instant) {
        self.tell(Message::Ask { ask, caller, deadline });
    }

    /// Asks for a snapshot to be taken now; answered through the caller, with the index that it covers.
    pub fn snapshot(&self, caller: Caller, deadline: Instant) {
        self.tell(Message::Snapshot { caller, deadline });
    }

    fn tell(&self, message: Message) {
        self.inflight.fetch_add(1, Ordering::Relaxed);
        let Err(error) = self.inbox.send(message) else { return };
        if let Message::Ask { caller, .. } | Message::Snapshot { caller, .. } = error.0 {
            self.inflight.fetch_sub(1, Ordering::Relaxed);
            caller.sink.complete(caller.token, Outcome::Refused(self.gone()));
        }
    }

    /// What happened after the event of number `since`, after waiting for one at most so long.
    pub fn events(&self, since: u64, timeout: Duration) -> Happenings {
        self.events.after(since, timeout)
    }

    /// What stands in the way of work, in sentences; nothing if all is well. None if the engine is gone or busy.
    pub fn why(&self) -> Option<Vec<String>> {
        self.look(Replica::why)
    }

    /// What the cluster would be after a change. None if the engine is gone or busy.
    pub fn what_if(&self, change: Change) -> Option<WhatIf> {
        self.look(move |replica| replica.what_if(&change))
    }

    /// Looks at the replica after every event that reached it before; none if it takes longer than a moment.
    fn look<T: Send + 'static>(&self, look: impl FnOnce(&Replica) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = sync_channel(1);
        let look = move |replica: &Replica| {
            // Whoever asked may have given up.
            let _ = reply.try_send(look(replica));
        };
        self.inbox.send(Message::Look(Look(Box::new(look)))).ok()?;
        answer.recv_timeout(LOOK_TIMEOUT).ok()
    }

    /// What the node says of itself: after every event that reached it before, or, should the engine be busy for longer than
    /// a moment, what it said last.
    pub fn status(&self) -> Status {
        let mut last = self.last_status.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = self.parts.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        match self.look(Replica::status) {
            Some(status) => *last = status,
            None if gone => {
                last.role = "stopped";
                last.leader = None;
                last.has_quorum = false;
            }
            None => {}
        }
        if let Some(why) = &*self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
            last.role = "failed";
            last.error = Some(why.clone());
            last.error_code = Some("HALTED");
        }
        last.clone()
    }

    /// Hands leadership over, answers everyone, and takes the node down. False if something, the user's code most likely, did
    /// not end within the timeout and was left behind. Stopping again does nothing.
    pub fn stop(&self, timeout: Duration) -> bool {
        // Half for what is under way, half for taking the parts down.
        self.end(Message::Stop { deadline: Instant::now() + timeout / 2 }, timeout)
    }

    /// As if the process were killed: nothing is handed over, and no write that waits is done.
    pub fn kill(&self, timeout: Duration) -> bool {
        self.killed.store(true, Ordering::Relaxed);
        self.end(Message::Kill, timeout)
    }

    fn end(&self, message: Message, timeout: Duration) -> bool {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Parts { transport, runtime, threads }) = parts else { return true };
        let deadline = Instant::now() + timeout;
        // Without an engine there is nobody to tell.
        let _ = self.inbox.send(message);
        let mut clean = true;
        for (thread, ended) in threads {
            // The sender is dropped when the thread ends.
            let timed_out = ended.recv_timeout(until(deadline)) == Err(RecvTimeoutError::Timeout);
            clean &= !timed_out && thread.join().is_ok();
        }
        let rest = until(deadline).max(Duration::from_millis(100));
        match Arc::try_unwrap(transport) {
            Ok(transport) => transport.shutdown(rest),
            // The engine that shares it was left behind.
            Err(_) => clean = false,
        }
        runtime.shutdown_timeout(rest);
        clean
    }
}

fn refuse(calls: Vec<(Bytes, Caller)>, refusal: &Refusal) {
    for (_, caller) in calls {
        caller.sink.complete(caller.token, Outcome::Refused(refusal.clone()));
    }
}

impl Drop for Node {
    /// Tells the engine to end without waiting for it: whoever wants to wait calls [`Node::stop`].
    fn drop(&mut self) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Parts { runtime, .. }) = parts {
            let _ = self.inbox.send(Message::Stop { deadline: Instant::now() });
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("address", &self.address).finish_non_exhaustive()
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Machine(halt) => f.write_str(&halt.why),
            Self::Io { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
