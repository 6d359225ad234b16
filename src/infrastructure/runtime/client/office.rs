//! What lies in a client's inbox: takes everything that waits, lets the clerk handle it, carries out what it wants.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use graft_domain::Instant;
use graft_services::RequestId;
use graft_services::client::{Answer, Clerk, Demand, Effect, Event};
use graft_services::error::{Outcome, Refusal};
use graft_services::numbered::Numbered;

use super::bytes_of;
use super::told::To;
use crate::infrastructure::grpc::{Happened, Lines};
use crate::infrastructure::runtime::clock::Monotonic;
use crate::infrastructure::runtime::inbox::{Inbox, Next, Turn};
use crate::infrastructure::runtime::machine_worker::panic_words;

/// What reaches a client.
pub(super) enum Message {
    Calls {
        calls: Vec<(Demand, To)>,
        deadline: Instant,
    },
    Happened(Happened),
    /// Take no more calls, and end by then at the latest.
    Close {
        by: Instant,
    },
}

impl Message {
    pub(super) fn into_calls(self) -> Vec<(Demand, To)> {
        if let Self::Calls { calls, .. } = self { calls } else { Vec::new() }
    }
}

/// Messages taken in one turn at the most, so that deadlines are kept however much waits.
const TURN_MAX: usize = 4096;

/// What callers see of what waits.
pub(super) struct Counted {
    pub(super) inflight: Arc<AtomicUsize>,
    pub(super) waiting_bytes: Arc<AtomicUsize>,
}

pub(super) struct Office {
    clerk: Clerk,
    lines: Option<Lines>,
    /// What was taken out of the inbox and not come to yet.
    taken: VecDeque<Message>,
    callers: Numbered<To>,
    last: u64,
    counted: Counted,
    clock: Monotonic,
    /// It is to end when nothing is under way, or then.
    closing: Option<Instant>,
    /// No connection stands, as far as the clerk has said.
    is_alone: bool,
    has_ended: bool,
    pub(super) is_broken: bool,
}

impl Turn for Office {
    type Message = Message;

    fn begin(&mut self) {
        self.or_break(Self::advance);
    }

    fn turn(&mut self, inbox: &Inbox<Self>) -> Next {
        if self.has_ended {
            return Next::Ended;
        }
        self.or_break(|office| office.take_all(inbox)).unwrap_or(Next::Ended)
    }

    fn may_be_helped(&self) -> bool {
        !self.has_ended
    }

    fn gate(&self) {}
}

impl Office {
    pub(super) fn new(clerk: Clerk, lines: Lines, counted: Counted, clock: Monotonic) -> Self {
        Self {
            clerk,
            lines: Some(lines),
            taken: VecDeque::new(),
            callers: Numbered::default(),
            last: 0,
            counted,
            clock,
            closing: None,
            is_alone: true,
            has_ended: false,
            is_broken: false,
        }
    }

    /// What panics is the last that it does, and comes to nothing.
    fn or_break<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| what(self)));
        let broken = |panic: Box<dyn Any + Send>| {
            tracing::error!("{}", panic_words(&*panic));
            (self.is_broken, self.has_ended) = (true, true);
        };
        done.map_err(broken).ok()
    }

    /// Everything that waits, then the deadlines: an answer may have been among it.
    fn take_all(&mut self, inbox: &Inbox<Self>) -> Next {
        for _ in 0..TURN_MAX {
            if self.taken.is_empty() && !inbox.take(&mut self.taken) {
                break;
            }
            if let Some(message) = self.taken.pop_front() {
                self.take(message);
            }
        }
        self.advance();
        let is_idle = self.callers.is_empty() || self.is_alone;
        if self.closing.is_some_and(|by| is_idle || by <= self.clock.now()) {
            self.clerk.handle(self.clock.now(), Event::Close);
            self.perform();
            self.has_ended = true;
            return Next::Ended;
        }
        if !self.taken.is_empty() {
            return Next::Now;
        }
        Next::At(self.closing.map_or(self.clerk.deadline(), |by| self.clerk.deadline().min(by)))
    }

    fn advance(&mut self) {
        self.clerk.handle(self.clock.now(), Event::Timeout);
        self.perform();
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Calls { calls, deadline } => {
                self.counted.waiting_bytes.fetch_sub(bytes_of(&calls), Ordering::Relaxed);
                for (demand, to) in calls {
                    if self.closing.is_some() {
                        self.counted.inflight.fetch_sub(1, Ordering::Relaxed);
                        to.refuse(Refusal::Stopped);
                        continue;
                    }
                    self.last += 1;
                    let request = RequestId(self.last);
                    self.callers.insert(self.last, to);
                    self.clerk.handle(now, Event::Call { request, demand, deadline });
                }
            }
            Message::Happened(happened) => {
                for event in happened.events {
                    self.clerk.handle(now, event);
                }
            }
            Message::Close { by } => self.closing = Some(self.closing.map_or(by, |before| before.min(by))),
        }
    }

    /// What is to be said leaves first, then callers are told, all that came in one turn in one go.
    fn perform(&mut self) {
        let mut answers = Vec::new();
        let effects = self.clerk.effects(self.clock.now());
        let Some(lines) = &mut self.lines else { return };
        for effect in effects {
            match effect {
                Effect::Dial { link, address } => lines.dial(link, &address),
                Effect::Close(link) => lines.close(link),
                Effect::Send { link, number, demand, timeout } => lines.send(link, number, demand, timeout),
                Effect::Answer(request, answer) => answers.push((request, answer)),
                Effect::Use(link) => {
                    self.is_alone = link.is_none();
                    lines.use_(link);
                }
            }
        }
        lines.flush();
        lines.seen(self.clerk.seen());
        for (request, answer) in answers {
            if let Some(to) = self.callers.remove(request.0) {
                self.counted.inflight.fetch_sub(1, Ordering::Relaxed);
                to.tell(answer);
            }
        }
    }

    /// Answers whoever is left, and takes the connections down. False if that took too long. A call that comes later is
    /// refused when its message is dropped.
    pub(super) fn end(&mut self, limit: Duration) -> bool {
        for (_, to) in std::mem::take(&mut self.callers).into_pairs() {
            self.counted.inflight.fetch_sub(1, Ordering::Relaxed);
            to.tell(Answer::Outcome(lost()));
        }
        self.taken.clear();
        self.lines.take().is_none_or(|lines| lines.shutdown(limit))
    }
}

/// How a call ended that nobody can say more of.
fn lost() -> Outcome {
    Outcome::unknown("the client broke: this is a fault in Graft, please report it with the log")
}
