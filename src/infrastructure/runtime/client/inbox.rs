//! The loop of a client: takes everything that waits, lets the clerk handle it, carries out what it wants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use graft_services::RequestId;
use graft_services::client::{Answer, Clerk, Demand, Effect, Event};
use graft_services::error::{Outcome, Refusal};

use super::bytes_of;
use super::told::To;
use crate::infrastructure::grpc::{Happened, Lines};
use crate::infrastructure::runtime::clock::Monotonic;

/// What reaches the loop.
pub(super) enum Message {
    Calls {
        calls: Vec<(Demand, To)>,
        deadline: graft_domain::Instant,
    },
    Happened(Happened),
    /// Take no more calls, and end by then at the latest.
    Close {
        by: Instant,
    },
}

/// Messages taken in one turn at the most, so that deadlines are kept however much waits.
const TURN_MAX: usize = 4096;

/// What callers see of what waits.
pub(super) struct Counted {
    pub(super) inflight: Arc<AtomicUsize>,
    pub(super) waiting_bytes: Arc<AtomicUsize>,
}

pub(super) struct Loop {
    clerk: Clerk,
    lines: Option<Lines>,
    messages: Receiver<Message>,
    callers: BTreeMap<RequestId, To>,
    last: u64,
    counted: Counted,
    clock: Monotonic,
    /// It is to end when nothing is under way, or then.
    closing: Option<Instant>,
    /// No connection stands, as far as the clerk has said.
    is_alone: bool,
}

impl Loop {
    pub(super) fn new(
        clerk: Clerk,
        lines: Lines,
        messages: Receiver<Message>,
        counted: Counted,
        clock: Monotonic,
    ) -> Self {
        let (callers, lines) = (BTreeMap::new(), Some(lines));
        Self { clerk, lines, messages, callers, last: 0, counted, clock, closing: None, is_alone: true }
    }

    /// Runs until it is closed or nobody can reach it any more.
    pub(super) fn run(&mut self) {
        self.turn(None);
        while !self.is_done() {
            match self.messages.recv_timeout(self.patience()) {
                Ok(first) => self.turn(Some(first)),
                Err(RecvTimeoutError::Timeout) => self.turn(None),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.clerk.handle(self.clock.now(), Event::Close);
        self.perform();
    }

    fn is_done(&self) -> bool {
        let idle = self.callers.is_empty() || self.is_alone;
        self.closing.is_some_and(|by| idle || by <= Instant::now())
    }

    fn patience(&self) -> Duration {
        let patience = self.clerk.deadline().since(self.clock.now()).min(Duration::from_hours(1));
        self.closing.map_or(patience, |by| patience.min(super::until(by)))
    }

    /// Everything that waits, then the deadlines: an answer may have been among it.
    fn turn(&mut self, first: Option<Message>) {
        if let Some(first) = first {
            self.take(first);
        }
        for _ in 1..TURN_MAX {
            let Ok(message) = self.messages.try_recv() else { break };
            self.take(message);
        }
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
                    self.callers.insert(request, to);
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
            if let Some(to) = self.callers.remove(&request) {
                self.counted.inflight.fetch_sub(1, Ordering::Relaxed);
                to.tell(answer);
            }
        }
    }

    /// Answers whoever is left, and takes the connections down. False if that took too long. A call that comes later is
    /// refused when its message is dropped.
    pub(super) fn end(&mut self, limit: Duration) -> bool {
        for (_, to) in std::mem::take(&mut self.callers) {
            self.counted.inflight.fetch_sub(1, Ordering::Relaxed);
            to.tell(Answer::Outcome(lost()));
        }
        self.lines.take().is_none_or(|lines| lines.shutdown(limit))
    }
}

/// How a call ended that nobody can say more of.
fn lost() -> Outcome {
    Outcome::unknown("the client's thread broke: this is a fault in Graft, please report it with the log")
}
