//! Where calls wait for the machine's door, and are checked. Who waits, or is being checked, when its deadline comes is told so:
//! the door may be stuck for as long as the interpreter is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use graft_domain::Instant;
use graft_services::api::Caller;
use graft_services::error::Refusal;
use graft_services::ports::{Called, Door};

use super::clock::Monotonic;
use super::door::refuse;
use super::front::Front;
use super::machine_worker::panic_words;
use super::requests::{Request, Requests, What};

/// Calls that the door checks in one go; more wait for the next, so that the first need not wait for all.
const BATCH_MAX: usize = 4096;

/// Calls before the door.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    some: Condvar,
    /// A deadline is there that is nearer than the next one known, or the queue is closed.
    nearer: Condvar,
    clock: Monotonic,
    calls_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Request>,
    /// What is being checked, in order; none in the place of what was refused meanwhile.
    checking: Vec<Option<Request>>,
    /// Calls, and their bytes, that wait or are being checked.
    calls: usize,
    bytes: usize,
    /// No deadline is before this one.
    next: Option<Instant>,
    closed: bool,
}

/// The bodies of what is being checked, and how many each request has of which kind.
#[derive(Default)]
struct Batch {
    commands: Vec<Bytes>,
    queries: Vec<Bytes>,
    counts: Vec<(usize, usize)>,
}

impl Queue {
    /// For so many calls and bytes at a time.
    pub(crate) fn new(clock: Monotonic, calls_max: usize, bytes_max: usize) -> Self {
        let (some, nearer) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::default(), some, nearer, clock, calls_max, bytes_max }
    }

    pub(super) fn enter(&self, request: Request) {
        let (calls, bytes) = (request.what.count(), request.what.bytes());
        let mut state = self.lock();
        let refusal = if state.closed {
            Refusal::Stopped
        } else if state.calls >= self.calls_max {
            Refusal::Busy(format!("{} calls from the network wait to be checked by this node", state.calls))
        } else if state.bytes >= self.bytes_max {
            Refusal::Busy(format!("{} bytes of calls from the network wait to be checked by this node", state.bytes))
        } else {
            state.calls += calls;
            state.bytes += bytes;
            if state.next.is_none_or(|next| request.deadline < next) {
                state.next = Some(request.deadline);
                self.nearer.notify_one();
            }
            state.waiting.push(request);
            drop(state);
            self.some.notify_one();
            return;
        };
        drop(state);
        request.what.refuse(&refusal);
    }

    /// Nothing more comes through; who waits is refused.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let requests = std::mem::take(&mut state.waiting);
        drop(state);
        self.some.notify_all();
        self.nearer.notify_all();
        drop(Requests::new(requests));
    }

    /// Checks what comes, batch by batch, until the node ends.
    pub(crate) fn run(&self, door: &dyn Door, front: &Front) {
        while let Some(batch) = self.next() {
            let passed = self.check(door, batch);
            if !passed.is_empty() {
                front.hand(passed);
            }
        }
    }

    /// Refuses, whatever the door does meanwhile, all whose deadline comes, until the node ends.
    pub(crate) fn keep_deadlines(&self) {
        let mut state = self.lock();
        while !state.closed {
            let now = self.clock.now();
            state = match state.next {
                Some(next) if next <= now => {
                    let late = state.expire(now);
                    drop(state);
                    late.refuse(&Refusal::Timeout);
                    self.lock()
                }
                Some(next) => {
                    let waited = self.nearer.wait_timeout(state, next.since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.nearer.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// What waits, up to a batch.
    fn next(&self) -> Option<Batch> {
        let waited = self.some.wait_while(self.lock(), |state| state.waiting.is_empty() && !state.closed);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        let mut calls = 0;
        let beyond = state.waiting.iter().position(|request| {
            calls += request.what.count();
            calls > BATCH_MAX
        });
        // One that is larger than a batch goes alone.
        let end = beyond.map_or(state.waiting.len(), |beyond| beyond.max(1));
        state.checking = state.waiting.drain(..end).map(Some).collect();
        let mut batch = Batch::default();
        state.checking.iter().flatten().for_each(|request| batch.add(&request.what));
        Some(batch)
    }

    /// Refuses what the door has something to say against; the rest, in order.
    fn check(&self, door: &dyn Door, batch: Batch) -> Vec<Request> {
        let mut of_commands = verdicts(door, Called::Command, &batch.commands).into_iter();
        let mut of_queries = verdicts(door, Called::Query, &batch.queries).into_iter();
        let mut state = self.lock();
        let requests = std::mem::take(&mut state.checking);
        let left = || requests.iter().flatten().map(|request| &request.what);
        let (calls, bytes): (usize, usize) = (left().map(What::count).sum(), left().map(What::bytes).sum());
        state.calls -= calls;
        state.bytes -= bytes;
        drop(state);
        let mut passed = Vec::new();
        for (request, (commands, queries)) in requests.into_iter().zip(batch.counts) {
            // Those of what was refused meanwhile are taken, too.
            let of_commands = of_commands.by_ref().take(commands).collect();
            let of_queries = of_queries.by_ref().take(queries).collect();
            let Some(Request { what, deadline }) = request else { continue };
            let what = judged(what, of_commands, of_queries);
            if what.count() > 0 {
                passed.push(Request { what, deadline });
            }
        }
        passed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes out what is late by now, and finds the next deadline.
    fn expire(&mut self, now: Instant) -> Requests {
        let mut late: Vec<_> = self.waiting.extract_if(.., |request| request.deadline <= now).collect();
        for place in &mut self.checking {
            late.extend(place.take_if(|request| request.deadline <= now));
        }
        let left = self.waiting.iter().chain(self.checking.iter().flatten());
        self.next = left.map(|request| request.deadline).min();
        let late = Requests::new(late);
        self.calls -= late.count();
        self.bytes -= late.bytes();
        late
    }
}

impl Batch {
    fn add(&mut self, what: &What) {
        let before = (self.commands.len(), self.queries.len());
        match what {
            What::Execute(calls) => self.commands.extend(calls.iter().map(|call| call.body.clone())),
            What::Query(bodies, _) => self.queries.extend(bodies.iter().map(|(body, _)| body.clone())),
            _ => {}
        }
        self.counts.push((self.commands.len() - before.0, self.queries.len() - before.1));
    }
}

/// Without what may not pass, which is refused.
fn judged(what: What, of_commands: Vec<Option<String>>, of_queries: Vec<Option<String>>) -> What {
    let (mut of_commands, mut of_queries) = (of_commands.into_iter(), of_queries.into_iter());
    let may_pass = |why: Option<Option<String>>, caller: &Caller| match why.flatten() {
        Some(why) => refuse::<()>(caller, Refusal::Invalid(why)).is_some(),
        None => true,
    };
    match what {
        What::Execute(mut calls) => {
            calls.retain(|call| may_pass(of_commands.next(), &call.caller));
            What::Execute(calls)
        }
        What::Query(mut bodies, read) => {
            bodies.retain(|(_, caller)| may_pass(of_queries.next(), caller));
            What::Query(bodies, read)
        }
        other => other,
    }
}

/// One for each of the bodies. A door that breaks lets nothing through.
fn verdicts(door: &dyn Door, kind: Called, bodies: &[Bytes]) -> Vec<Option<String>> {
    if bodies.is_empty() {
        return Vec::new();
    }
    let mut verdicts = catch_unwind(AssertUnwindSafe(|| door.check(kind, bodies))).unwrap_or_else(|panic| {
        let why = format!("it could not be checked: {}", panic_words(&*panic));
        tracing::error!("{why}");
        vec![Some(why); bodies.len()]
    });
    verdicts.resize(bodies.len(), Some("it could not be checked: the check gave no verdict".to_owned()));
    verdicts
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use graft_services::api::{Call, Sink};
    use graft_services::error::Outcome;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Is stuck until it is told to go on.
    #[derive(Debug)]
    struct Stuck(Sender<()>, Mutex<Receiver<()>>);

    impl Door for Stuck {
        fn check(&self, _: Called, bodies: &[Bytes]) -> Vec<Option<String>> {
            self.0.send(()).unwrap();
            self.1.lock().unwrap().recv_timeout(DEADLINE).expect("to go on");
            let verdict = |body: &Bytes| body.starts_with(b"bad").then(|| format!("{body:?}"));
            bodies.iter().map(verdict).collect()
        }
    }

    struct Told(Sender<(u64, Outcome)>);

    impl Sink for Told {
        fn complete(&self, token: u64, outcome: Outcome) {
            let _ = self.0.send((token, outcome));
        }
    }

    #[test]
    fn deadlines_are_kept_while_the_door_is_stuck() {
        let clock = Monotonic::start();
        let queue = Arc::new(Queue::new(clock, 100, 100));
        let (tell, told) = channel();
        let sink: Arc<dyn Sink> = Arc::new(Told(tell));
        let enter = |token: u64, body: &'static [u8], timeout| {
            let caller = Caller { sink: Arc::clone(&sink), token };
            let call = Call { body: Bytes::from_static(body), slot: None, caller };
            queue.enter(Request { what: What::Execute(vec![call]), deadline: clock.now() + timeout });
        };
        let hear = || told.recv_timeout(DEADLINE).expect("an answer");
        let late = |answer: (u64, Outcome)| match answer {
            (token, Outcome::Refused(Refusal::Timeout)) => token,
            other => panic!("{other:?}"),
        };
        let keeper = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.keep_deadlines()
        });
        enter(1, b"bad", DEADLINE * 9);
        enter(2, b"late", Duration::from_millis(50));
        enter(3, b"good", DEADLINE * 9);
        let (stuck, is_stuck) = channel();
        let (go_on, may_go_on) = channel();
        let checker = std::thread::spawn({
            let (queue, door) = (Arc::clone(&queue), Stuck(stuck, Mutex::new(may_go_on)));
            move || {
                let batch = queue.next().expect("a batch");
                queue.check(&door, batch)
            }
        });
        is_stuck.recv_timeout(DEADLINE).expect("a check");
        enter(4, b"later", Duration::from_millis(50));
        let mut all = [late(hear()), late(hear())];
        all.sort_unstable();
        assert_eq!(all, [2, 4], "what is being checked, and what waits");
        go_on.send(()).unwrap();
        let passed = checker.join().unwrap();
        let tokens = |request: &Request| match &request.what {
            What::Execute(calls) => calls[0].caller.token,
            other => panic!("{other:?}"),
        };
        assert_eq!(passed.iter().map(tokens).collect::<Vec<_>>(), [3], "what was refused is not done");
        assert!(matches!(hear(), (1, Outcome::Refused(Refusal::Invalid(_)))), "each has its own verdict");
        let state = queue.lock();
        assert_eq!((state.calls, state.bytes, state.waiting.len()), (0, 0, 0), "all is counted off");
        drop(state);
        queue.close();
        keeper.join().unwrap();
    }
}
