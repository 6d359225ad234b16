//! The end of a node, which comes once: whoever asks for it first takes the parts down, others wait for that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use graft_domain::NodeId;

use super::calls::until;
use super::clock::Monotonic;
use super::engine::Message;
use super::faults::Faults;
use super::inbox::Inbox;
use crate::infrastructure::grpc::Transport;

/// Whoever gives a longer timeout than this means "however long it takes".
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// What stopping takes down.
pub(crate) struct Parts {
    pub(crate) transport: Arc<Transport>,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) threads: Vec<(JoinHandle<()>, Receiver<()>)>,
    pub(crate) faults: Arc<Faults>,
}

/// The parts of a node, for as long as it has them.
pub(crate) struct Ending {
    id: NodeId,
    inbox: Arc<Inbox>,
    clock: Monotonic,
    /// What waits for the disk is dropped.
    killed: Arc<AtomicBool>,
    state: Mutex<State>,
    over: Condvar,
}

enum State {
    Starting,
    Running(Parts),
    Ending,
    /// Whether nothing was left behind, until somebody was told.
    Over {
        clean: bool,
    },
}

impl Ending {
    pub(crate) fn new(id: NodeId, inbox: Arc<Inbox>, clock: Monotonic, killed: Arc<AtomicBool>) -> Self {
        Self { id, inbox, clock, killed, state: Mutex::new(State::Starting), over: Condvar::new() }
    }

    /// Everything runs.
    pub(crate) fn started(&self, parts: Parts) {
        *self.lock() = State::Running(parts);
    }

    /// Hands leadership over, answers everyone, and takes the node down. False if something was left behind.
    pub(crate) fn stop(&self, timeout: Duration) -> bool {
        let timeout = timeout.min(TIMEOUT_MAX);
        let Some(parts) = self.begin() else { return self.wait(timeout) };
        // Half for what is under way, half for taking the parts down.
        let clean = take_down(&self.inbox, parts, self.stop_by(timeout / 2), timeout);
        self.finish(true);
        clean
    }

    /// As if the process were killed.
    pub(crate) fn kill(&self, timeout: Duration) -> bool {
        let timeout = timeout.min(TIMEOUT_MAX);
        self.killed.store(true, Ordering::Relaxed);
        let Some(parts) = self.begin() else {
            // Whoever stops it in good order has less to wait for now.
            let _ = self.inbox.send(Message::Kill);
            return self.wait(timeout);
        };
        parts.transport.break_off();
        let clean = take_down(&self.inbox, parts, Message::Kill, timeout);
        self.finish(true);
        clean
    }

    /// As [`Ending::stop`], from a thread of its own. Nothing if it is ending already.
    pub(crate) fn stop_aside(self: Arc<Self>, timeout: Duration) {
        let Some(parts) = self.begin() else { return };
        let timeout = timeout.min(TIMEOUT_MAX);
        // Here too, should there be no thread: this may be one of those that are to be taken down.
        let parts = Arc::new(Mutex::new(Some(parts)));
        let (ending, taken) = (Arc::clone(&self), Arc::clone(&parts));
        let body = move || {
            let parts = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(parts) = parts else { return };
            let clean = take_down(&ending.inbox, parts, ending.stop_by(timeout / 2), timeout);
            ending.finish(clean);
        };
        if let Err(error) = std::thread::Builder::new().name(format!("graft-end-{}", self.id)).spawn(body) {
            tracing::error!(%error, "there is no thread to take the node down; it stops working, and keeps its port");
            let _ = self.inbox.send(self.stop_by(timeout));
            let parts = parts.lock().unwrap_or_else(PoisonError::into_inner).take();
            *self.lock() = parts.map_or(State::Over { clean: false }, State::Running);
            self.over.notify_all();
        }
    }

    /// Tells the engine to end, without waiting for it.
    pub(crate) fn let_go(&self) {
        if let Some(Parts { runtime, .. }) = self.begin() {
            let _ = self.inbox.send(self.stop_by(Duration::ZERO));
            runtime.shutdown_background();
            self.finish(true);
        }
    }

    fn stop_by(&self, timeout: Duration) -> Message {
        Message::Stop { deadline: self.clock.now() + timeout }
    }

    /// The parts, for the one that is to take them down.
    fn begin(&self) -> Option<Parts> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Ending) {
            State::Running(parts) => {
                // What stands still would not hear of it.
                parts.faults.resume();
                Some(parts)
            }
            other => {
                *state = other;
                None
            }
        }
    }

    fn finish(&self, clean: bool) {
        *self.lock() = State::Over { clean };
        self.over.notify_all();
    }

    /// Somebody else takes it down, or did: whether that ends in time, and well. Who asks once more hears that all is well.
    fn wait(&self, timeout: Duration) -> bool {
        let ending = |state: &mut State| matches!(state, State::Ending);
        let waited = self.over.wait_timeout_while(self.lock(), timeout, ending);
        match &mut *waited.unwrap_or_else(PoisonError::into_inner).0 {
            State::Over { clean } => std::mem::replace(clean, true),
            State::Starting | State::Running(_) | State::Ending => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_down(inbox: &Inbox, parts: Parts, last: Message, timeout: Duration) -> bool {
    let Parts { transport, runtime, threads, .. } = parts;
    let deadline = Instant::now() + timeout;
    // Without an engine there is nobody to tell.
    let _ = inbox.send(last);
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

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ending").field("id", &self.id).finish_non_exhaustive()
    }
}
