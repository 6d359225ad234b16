//! Where what reaches the engine waits, and who turns it: a thread of its own, or whoever brings something and finds it at
//! rest.
//!
//! To wake another thread costs more than most turns do. A message from a peer, a write that is durable and a call that is
//! alone are turned where they are, and nobody is woken who has nothing to do; where much comes at once the engine's
//! thread gathers it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use graft_domain::Instant;

use super::clock::Monotonic;
use super::engine::{Engine, Message};

/// Turns that somebody may be kept with who brought something.
const HELP_TURNS: usize = 4;
/// Places that are kept for messages when there are none.
const PLACES_MAX: usize = 4096;

/// What lies in an inbox, and takes its messages.
pub(crate) trait Turn: Send + Sized {
    type Message;

    /// Once, before anything else.
    fn begin(&mut self);

    /// Takes what waits and does what is to be done, unless it has stopped. Neither blocks nor panics.
    fn turn(&mut self, inbox: &Inbox<Self>);

    /// Whether everything that it took is done, and there is a next turn.
    fn is_at_rest(&self) -> bool;

    /// When it has something to do, whether anything comes or not.
    fn wakes_at(&self) -> Instant;

    /// There is no next turn.
    fn has_stopped(&self) -> bool;

    /// Whether other threads than its own may turn it.
    fn may_be_helped(&self) -> bool;

    /// May block, before a turn on its own thread.
    fn gate(&self);
}

/// Takes messages from any thread, and has the engine while that runs.
///
/// Who holds the engine may take the lock of what waits, and never the other way round.
pub(crate) struct Inbox<E: Turn = Engine> {
    waiting: Mutex<Waiting<E::Message>>,
    bell: Condvar,
    engine: Mutex<Option<E>>,
    clock: Monotonic,
}

struct Waiting<M> {
    messages: VecDeque<M>,
    /// Nobody takes anything any more.
    is_closed: bool,
    /// The engine's thread sleeps, until then.
    asleep: Option<Instant>,
    /// The engine's thread is needed, be there messages or not.
    is_rung: bool,
}

/// The engine is gone, and this comes back.
#[derive(Debug)]
pub(crate) struct Gone<M = Message>(pub(crate) Box<M>);

impl<E: Turn> Inbox<E> {
    pub(crate) fn new(clock: Monotonic) -> Arc<Self> {
        let waiting = Waiting { messages: VecDeque::new(), is_closed: false, asleep: None, is_rung: false };
        Arc::new(Self { waiting: Mutex::new(waiting), bell: Condvar::new(), engine: Mutex::new(None), clock })
    }

    /// Leaves a message for the engine's thread. It comes back when the engine is gone.
    pub(crate) fn send(&self, message: E::Message) -> Result<(), Gone<E::Message>> {
        let mut waiting = self.put(message)?;
        let is_asleep = waiting.asleep.take().is_some();
        drop(waiting);
        if is_asleep {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Leaves a message and, if the engine is at rest, lets it turn here. Not to be called with a lock that an answer to
    /// somebody else may need.
    pub(crate) fn bring(&self, message: E::Message) -> Result<(), Gone<E::Message>> {
        self.leave(message)?;
        self.help();
        Ok(())
    }

    /// Leaves a message of which the engine hears with the next one, or by [`Inbox::help`], which has to follow.
    pub(crate) fn leave(&self, message: E::Message) -> Result<(), Gone<E::Message>> {
        self.put(message).map(drop)
    }

    /// Lets the engine turn here, unless somebody else is at it, who looks again before he goes. What does not come to an end
    /// soon is left to the engine's thread.
    pub(crate) fn help(&self) {
        for _ in 0..HELP_TURNS {
            let mut slot = match self.engine.try_lock() {
                Ok(slot) => slot,
                Err(TryLockError::Poisoned(slot)) => slot.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let Some(engine) = slot.as_mut() else { return };
            let helped = engine.may_be_helped();
            if helped {
                engine.turn(self);
            }
            let (is_done, wakes_at) = (helped && engine.is_at_rest(), engine.wakes_at());
            drop(slot);
            if !is_done {
                break;
            }
            if self.set_alarm(wakes_at) {
                return;
            }
        }
        self.lock().is_rung = true;
        self.bell.notify_one();
    }

    /// Sees to it that the engine's thread does not sleep for longer. False if there are messages: they came while the engine was
    /// held, and whoever brought them relies on who held it.
    fn set_alarm(&self, at: Instant) -> bool {
        let mut waiting = self.lock();
        let is_earlier = waiting.asleep.is_some_and(|until| at < until);
        if is_earlier {
            waiting.asleep = Some(at);
        }
        let is_empty = waiting.messages.is_empty();
        drop(waiting);
        if is_earlier {
            self.bell.notify_one();
        }
        is_empty
    }

    /// What the engine's own thread does: turns it whenever it is time or something came, until it stops. Then it is nobody's
    /// any more.
    pub(crate) fn run(&self, mut engine: E) -> E {
        engine.begin();
        *self.engine() = Some(engine);
        loop {
            let mut slot = self.engine();
            if let Some(engine) = slot.as_mut() {
                engine.gate();
                engine.turn(self);
                if engine.is_at_rest() {
                    self.doze(engine.wakes_at());
                }
            }
            if let Some(engine) = slot.take_if(|engine| engine.has_stopped()) {
                return engine;
            }
            drop(slot);
            self.sleep();
        }
    }

    /// Takes nothing more, and lets go of what waits.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        let left = std::mem::take(&mut waiting.messages);
        drop(waiting);
        drop(left);
    }

    /// Everything that waits, into what is empty. False if nothing does.
    pub(crate) fn take(&self, into: &mut VecDeque<E::Message>) -> bool {
        if into.capacity() > PLACES_MAX {
            // So that a burst does not keep its memory for ever.
            *into = VecDeque::new();
        }
        std::mem::swap(&mut self.lock().messages, into);
        !into.is_empty()
    }

    /// The engine's thread is about to sleep: said while it has the engine, so that nobody who turns it next misses that.
    fn doze(&self, until: Instant) {
        self.lock().asleep = Some(until);
    }

    /// Until there is a message, or time has come, or somebody rings.
    fn sleep(&self) {
        let mut waiting = self.lock();
        while waiting.messages.is_empty() && !waiting.is_rung {
            let Some(until) = waiting.asleep else { break };
            let patience = until.since(self.clock.now());
            if patience.is_zero() {
                break;
            }
            waiting = self.bell.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.asleep = None;
        waiting.is_rung = false;
    }

    fn put(&self, message: E::Message) -> Result<MutexGuard<'_, Waiting<E::Message>>, Gone<E::Message>> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(Gone(Box::new(message)));
        }
        waiting.messages.push_back(message);
        Ok(waiting)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<E::Message>> {
        // Nothing panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> MutexGuard<'_, Option<E>> {
        // A turn that panics is caught in it.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Turn> fmt::Debug for Inbox<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

#[cfg(test)]
#[path = "tests/inbox.rs"]
mod tests;
