//! Where what reaches the engine waits, and who turns it: a thread of its own, or whoever brings something and finds it at
//! rest.
//!
//! To wake another thread costs more than most turns do. A message from a peer, a write that is durable and a call that is
//! alone are turned where they are, and nobody is woken who has nothing to do; where much comes at once the engine's
//! thread gathers it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use graft_domain::Instant;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::clock::Monotonic;
use super::engine::{Engine, Message};

/// Turns that somebody may be kept with who brought something.
const HELP_TURNS: usize = 4;
/// Places that are kept for messages when there are none.
const PLACES_MAX: usize = 4096;
/// Nobody sleeps for longer without a look at the time.
const PATIENCE_MAX: Duration = Duration::from_hours(1);
/// Until when somebody sleeps who does not, and will look when the engine is due.
const AWAKE: Instant = Instant(0);

/// What lies in an inbox, and takes its messages.
pub(crate) trait Turn: Send + Sized {
    type Message;

    /// Once, before anything else.
    fn begin(&mut self);

    /// Takes what waits and does what is to be done, unless it has ended. Neither blocks nor panics.
    fn turn(&mut self, inbox: &Inbox<Self>) -> Next;

    /// Whether other threads than its own may turn it.
    fn may_be_helped(&self) -> bool;

    /// May block, before a turn on its own thread.
    fn gate(&self);
}

/// What comes after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Another one, for not everything is done that was taken.
    Now,
    /// Another one when something comes, and at this time in any case.
    At(Instant),
    /// Nothing: it has ended.
    Ended,
}

/// Takes messages from any thread, and has the engine while that runs.
///
/// Who holds the engine may take the lock of what waits, and never the other way round.
pub(crate) struct Inbox<E: Turn = Engine> {
    waiting: Mutex<Waiting<E::Message>>,
    bell: Condvar,
    /// Wakes the timekeeper.
    sooner: Notify,
    engine: Mutex<Option<E>>,
    clock: Monotonic,
}

struct Waiting<M> {
    messages: VecDeque<M>,
    /// Nobody takes anything any more.
    is_closed: bool,
    /// When the engine is to be turned, whether anything comes or not. None once somebody has come to do so, until it is turned.
    due: Option<Instant>,
    /// Until when the engine's thread sleeps.
    asleep: Instant,
    /// The engine's thread is needed, be there messages or not.
    is_rung: bool,
    /// Until when the timekeeper sleeps. With none, the engine's thread looks at the time.
    kept: Option<Instant>,
}

/// The engine is gone, and this comes back.
#[derive(Debug)]
pub(crate) struct Gone<M = Message>(pub(crate) Box<M>);

impl<E: Turn> Inbox<E> {
    pub(crate) fn new(clock: Monotonic) -> Arc<Self> {
        let waiting = Waiting {
            messages: VecDeque::new(),
            is_closed: false,
            due: None,
            asleep: AWAKE,
            is_rung: false,
            kept: None,
        };
        let (bell, sooner) = (Condvar::new(), Notify::new());
        Arc::new(Self { waiting: Mutex::new(waiting), bell, sooner, engine: Mutex::new(None), clock })
    }

    /// Leaves a message for the engine's thread. It comes back when the engine is gone.
    pub(crate) fn send(&self, message: E::Message) -> Result<(), Gone<E::Message>> {
        let mut waiting = self.put(message)?;
        let is_asleep = std::mem::replace(&mut waiting.asleep, AWAKE) != AWAKE;
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
            let next = if engine.may_be_helped() { engine.turn(self) } else { Next::Now };
            let Next::At(due) = next else { break };
            self.rest(due);
            drop(slot);
            // What came while the engine was held, its bringer left to who held it, and so did a timekeeper what was due.
            let waiting = self.lock();
            if waiting.messages.is_empty() && waiting.due.is_some() {
                return;
            }
        }
        self.lock().is_rung = true;
        self.bell.notify_one();
    }

    /// What the engine's own thread does: turns it whenever something came, and whenever it is time if there is no timekeeper,
    /// until it ends. Then it is nobody's any more.
    pub(crate) fn run(&self, mut engine: E) -> E {
        engine.begin();
        *self.engine() = Some(engine);
        loop {
            let mut slot = self.engine();
            let mut next = Next::Now;
            let ended = slot.take_if(|engine| {
                engine.gate();
                next = engine.turn(self);
                next == Next::Ended
            });
            if let Some(engine) = ended {
                return engine;
            }
            if let Next::At(due) = next {
                self.rest(due);
                drop(slot);
                self.sleep();
            }
        }
    }

    /// Turns the engine when it is time, here in place of its own thread, until the inbox is closed: what that sends leaves from
    /// here. Once dropped, the engine's thread looks at the time again.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        let timekeeper = Timekeeper(&self);
        while let Some(patience) = timekeeper.look() {
            if patience.is_zero() {
                // What came while nobody ran is read first: it may put off what is due.
                yield_now().await;
                self.help();
            } else {
                // Time has come, or a nearer one is known: either is looked at.
                let _ = timeout(patience, self.sooner.notified()).await;
            }
        }
    }

    /// Takes nothing more, and lets go of what waits.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        let left = std::mem::take(&mut waiting.messages);
        drop(waiting);
        drop(left);
        self.sooner.notify_one();
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

    /// The engine is to be turned then, whether anything comes or not. Said while it is held, so that what is said last is so;
    /// whoever sleeps for longer is told.
    fn rest(&self, due: Instant) {
        let mut waiting = self.lock();
        waiting.due = Some(due);
        let (sleeper, is_kept) = match &mut waiting.kept {
            Some(until) => (until, true),
            None => (&mut waiting.asleep, false),
        };
        if due >= *sleeper {
            return;
        }
        *sleeper = AWAKE;
        drop(waiting);
        if is_kept { self.sooner.notify_one() } else { self.bell.notify_one() }
    }

    /// Until there is a message, or time has come that nobody else keeps, or somebody rings. Whoever keeps the time may have come
    /// for what is due while the engine was held, or gone before he turned it.
    fn sleep(&self) {
        let mut waiting = self.lock();
        while waiting.messages.is_empty() && !waiting.is_rung {
            let Some(due) = waiting.due else { break };
            waiting.asleep = if waiting.kept.is_some() { Instant::NEVER } else { due };
            let patience = waiting.asleep.since(self.clock.now()).min(PATIENCE_MAX);
            if patience.is_zero() {
                break;
            }
            waiting = self.bell.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.asleep = AWAKE;
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

/// Whoever keeps the time, for as long as there is one.
struct Timekeeper<'a, E: Turn>(&'a Inbox<E>);

impl<E: Turn> Timekeeper<'_, E> {
    /// How long he may sleep, or not at all: then it is for him to turn the engine, or for who holds it. None if nobody takes
    /// anything any more.
    fn look(&self) -> Option<Duration> {
        let mut waiting = self.0.lock();
        if waiting.is_closed {
            return None;
        }
        let due = waiting.due.unwrap_or(Instant::NEVER);
        let patience = due.since(self.0.clock.now()).min(PATIENCE_MAX);
        waiting.kept = Some(if patience.is_zero() { AWAKE } else { due });
        if patience.is_zero() {
            waiting.due = None;
        }
        Some(patience)
    }
}

impl<E: Turn> Drop for Timekeeper<'_, E> {
    fn drop(&mut self) {
        self.0.lock().kept = None;
        self.0.bell.notify_one();
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
