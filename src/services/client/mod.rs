//! A client's decisions: which member to talk to, what to send again, and how each call ends.
//!
//! [`Clerk`] is a value that steps, as the replica is: [`Clerk::handle`] takes in what happened, [`Clerk::effects`] gives what
//! is to be done, [`Clerk::deadline`] says when to come back. It has no socket, no clock and no luck but its seed.
//!
//! - `calls` holds what is owed, `session` gives commands their slots, `demand` says what may be made again.
//! - `endpoints` knows where members may be, `link` one connection, `steering` which one is used.
//! - `pin` keeps it to one cluster.
//! - `answers` decides what an answer means, `ending` tells the caller.

mod answers;
mod calls;
mod demand;
mod ending;
mod endpoints;
mod link;
mod pin;
mod session;
mod steering;

#[cfg(test)]
mod tests;

use std::time::Duration;

use graft_domain::{ClusterId, Index, Instant, Random};

use crate::error::{Outcome, Refusal};
use crate::identity::Distrust;
use crate::numbered::Numbered;
use crate::replica::{Consistency, Read};
use crate::waiting::RequestId;
use calls::{Calls, Stage};
use endpoints::Endpoints;
use link::Link;
use session::{Session, State};

pub use demand::{Answer, Demand};
pub use link::{Hint, LinkId};

/// Limits and times of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClerkConfig {
    /// Where luck comes from: another number in each run.
    pub seed: u64,
    /// `host:port` of some members; the others are learned.
    pub endpoints: Vec<String>,
    /// The cluster whose members are spoken with; if it is unknown, that of the first member that names one.
    pub cluster: ClusterId,
    /// How long the session lasts without a command, by the stamps of the log; that of the cluster if none is given.
    pub session_ttl: Option<Duration>,
    /// Calls that wait for an answer; at the cap further ones are refused as busy.
    pub inflight_max: usize,
    /// Bytes of commands and queries that wait; at the cap further ones are refused as busy.
    pub inflight_bytes_max: usize,
    /// How long connecting may take, until the member has introduced itself.
    pub dial_timeout: Duration,
    /// How long a member that owes an answer may be silent before it is asked how it is; and as long again before it is given up.
    pub quiet: Duration,
    /// How long a member may know of no leader before others are asked.
    pub leaderless: Duration,
    /// Pauses are drawn from zero up to this, doubled with each failure that follows on another...
    pub backoff_first: Duration,
    /// ... up to this.
    pub backoff_max: Duration,
    /// How often the members are asked for when nothing else tells of a change.
    pub refresh: Duration,
}

impl ClerkConfig {
    pub fn new(endpoints: Vec<String>, seed: u64) -> Self {
        Self {
            seed,
            endpoints,
            cluster: ClusterId::UNKNOWN,
            session_ttl: None,
            inflight_max: 65_536,
            inflight_bytes_max: 256 << 20,
            dial_timeout: Duration::from_secs(2),
            quiet: Duration::from_secs(1),
            leaderless: Duration::from_millis(500),
            backoff_first: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            refresh: Duration::from_secs(30),
        }
    }
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Somebody wants something, and an answer by the deadline.
    Call { request: RequestId, demand: Demand, deadline: Instant },
    /// A member has introduced itself on this connection.
    Connected { link: LinkId, hint: Option<Hint> },
    /// The connection does not stand, or not any more.
    Lost { link: LinkId, why: Loss },
    /// A member spoke: answers by the numbers of what was sent, and who leads if that has changed.
    Heard { link: LinkId, answers: Vec<(u64, Answer)>, hint: Option<Hint> },
    /// The deadline has come.
    Timeout,
    /// Answer everybody and end.
    Close,
}

/// Why a connection does not stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    pub why: String,
    /// The two sides do not believe one another: to try again does not help.
    pub is_distrust: bool,
}

impl From<String> for Loss {
    fn from(why: String) -> Self {
        Self { why, is_distrust: false }
    }
}

impl From<Distrust> for Loss {
    fn from(Distrust(why): Distrust) -> Self {
        Self { why, is_distrust: true }
    }
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Connect; [`Event::Connected`] or [`Event::Lost`] follows.
    Dial { link: LinkId, address: String },
    /// Forget the connection; nothing that it says is of interest any more.
    Close(LinkId),
    /// Say this to the member, which has so long to answer.
    Send { link: LinkId, number: u64, demand: Demand, timeout: Duration },
    /// Tell the caller, once.
    Answer(RequestId, Answer),
    /// From now on this connection is the one to use, for whatever else there is; none if there is none.
    Use(Option<LinkId>),
}

/// What was said, and for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Call(u64),
    /// The clerk itself wants a session.
    Session,
    /// The clerk itself wants to know how the member is, and who else there is.
    View,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    link: LinkId,
    purpose: Purpose,
    at: Instant,
}

/// One client.
#[derive(Debug)]
pub struct Clerk {
    config: ClerkConfig,
    now: Instant,
    random: Random,
    calls: Calls,
    session: Session,
    endpoints: Endpoints,
    /// The one that this client belongs to, once it is told or a member has named it.
    cluster: ClusterId,
    /// The connection that calls go to.
    current: Option<Link>,
    /// One that is being made, or whose member has not said yet which cluster it belongs to.
    next: Option<Link>,
    /// Those that still owe answers.
    old: Vec<Link>,
    sent: Numbered<Sent>,
    numbers: u64,
    links: u64,
    /// How often the leader was followed in a row, and when last.
    hops: u32,
    hopped: Instant,
    /// The newest entry that an answer has shown to this client.
    seen: Index,
    told_to_use: Option<LinkId>,
    closed: bool,
    effects: Vec<Effect>,
}

impl Clerk {
    pub fn new(config: ClerkConfig, now: Instant) -> Self {
        let mut random = Random::new(config.seed);
        let backoff = (config.backoff_first, config.backoff_max);
        let endpoints = Endpoints::new(&config.endpoints, backoff, &mut random);
        Self {
            cluster: config.cluster,
            config,
            now,
            random,
            calls: Calls::default(),
            session: Session::new(),
            endpoints,
            current: None,
            next: None,
            old: Vec::new(),
            sent: Numbered::default(),
            numbers: 0,
            links: 0,
            hops: 0,
            hopped: now,
            seen: Index::ZERO,
            told_to_use: None,
            closed: false,
            effects: Vec::new(),
        }
    }

    /// Takes in what happened. What is to be done about it is told by [`Clerk::effects`].
    pub fn handle(&mut self, now: Instant, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Call { request, demand, deadline } => self.admit(request, demand, deadline),
            Event::Connected { link, hint } => self.connected(link, hint),
            Event::Lost { link, why } => self.lost(link, &why),
            Event::Heard { link, answers, hint } => self.heard(link, answers, hint),
            Event::Timeout => {}
            Event::Close => self.close(),
        }
    }

    /// What all events so far want done. Deadlines are looked at here, after whatever came before them.
    pub fn effects(&mut self, now: Instant) -> Vec<Effect> {
        self.now = self.now.max(now);
        while let Some(id) = self.calls.expired(self.now) {
            self.expire(id);
        }
        if !self.closed {
            self.calls.wake(self.now);
            self.give_up_opening();
            self.steer();
            self.open_session();
            self.dispatch();
        }
        let used = self.usable().map(|link| link.id);
        if used != self.told_to_use {
            self.told_to_use = used;
            self.effects.push(Effect::Use(used));
        }
        std::mem::take(&mut self.effects)
    }

    /// When to come back at the latest.
    pub fn deadline(&self) -> Instant {
        if self.closed {
            return Instant::NEVER;
        }
        let opening = match self.session.state {
            State::Closed { rests_until } if self.usable().is_some() && self.calls.first_unplaced().is_some() => {
                rests_until
            }
            State::Opening { until, .. } => until,
            _ => Instant::NEVER,
        };
        self.calls.deadline().min(self.steering_deadline()).min(opening)
    }

    /// The newest entry that an answer has shown to this client.
    pub fn seen(&self) -> Index {
        self.seen
    }

    fn admit(&mut self, request: RequestId, demand: Demand, deadline: Instant) {
        let (calls, bytes) = (self.calls.len(), self.calls.bytes());
        let (calls_max, bytes_max) = (self.config.inflight_max, self.config.inflight_bytes_max);
        let refusal = if self.closed {
            Refusal::Stopped
        } else if calls >= calls_max {
            Refusal::Busy(format!("{calls} calls of this client wait for an answer, which is as many as may"))
        } else if calls > 0 && bytes.saturating_add(demand.bytes()) > bytes_max {
            Refusal::Busy(format!("{bytes} bytes of calls of this client wait for an answer; {bytes_max} may"))
        } else {
            if let Demand::Execute { slot: Some(slot), .. } = demand {
                self.session.waits(slot);
            }
            self.calls.admit(request, demand, self.now, deadline);
            return;
        };
        self.effects.push(Effect::Answer(request, Answer::Outcome(Outcome::Refused(refusal))));
    }

    /// Asks for a session if somebody needs one.
    fn open_session(&mut self) {
        let State::Closed { rests_until } = self.session.state else { return };
        let is_needed = self.calls.first_unplaced().is_some();
        let Some(link) = self.usable().map(|link| link.id) else { return };
        if is_needed && rests_until <= self.now {
            let demand = Demand::OpenSession { ttl: self.config.session_ttl };
            let patience = self.session.patience();
            let number = self.send(link, demand, Purpose::Session, patience);
            self.session.state = State::Opening { number, until: self.now + patience };
        }
    }

    /// A member that says nothing about a session may say nothing about commands either.
    fn give_up_opening(&mut self) {
        let State::Opening { number, until } = self.session.state else { return };
        if self.now < until {
            return;
        }
        if let Some(sent) = self.sent.remove(number)
            && let Some(link) = self.link(sent.link)
        {
            link.sent.remove(number);
            self.blame(sent.link, "it did not open a session in time");
        }
        self.session.was_late();
        let rests_until = self.now + self.pause(self.session.failures);
        self.session.failed(Some(Refusal::Timeout), rests_until);
    }

    /// Gives slots to those that can have one, and says what can be said.
    fn dispatch(&mut self) {
        let Some((link, is_named)) = self.current.as_ref().map(|link| (link.id, link.is_named)) else { return };
        while let Some(id) = self.calls.first_unplaced().filter(|_| is_named) {
            let Some(slot) = self.session.place() else { break };
            if let Some(call) = self.calls.find(id) {
                call.slot = Some(slot);
            }
            self.calls.restage(id, Stage::Ready);
        }
        while let Some(id) = self.calls.first_ready(is_named) {
            let Some(call) = self.calls.find(id) else { break };
            call.slot = call.slot.map(|slot| self.session.renewed(slot));
            let demand = match &call.demand {
                Demand::Execute { body, .. } => Demand::Execute { slot: call.slot, body: body.clone() },
                Demand::Query { body, read } => Demand::Query { body: body.clone(), read: monotonic(*read, self.seen) },
                other => other.clone(),
            };
            // An attempt that begins late has all the time that is left.
            let until = if self.now < call.answer_by { call.answer_by } else { call.deadline };
            let timeout = until.since(self.now);
            let number = self.send(link, demand, Purpose::Call(id), timeout);
            self.calls.restage(id, Stage::Sent { number });
        }
    }

    /// Says something on a connection.
    fn send(&mut self, link: LinkId, demand: Demand, purpose: Purpose, timeout: Duration) -> u64 {
        self.numbers += 1;
        let (number, now) = (self.numbers, self.now);
        self.sent.insert(number, Sent { link, purpose, at: now });
        if let Some(link) = self.link(link) {
            if link.sent.is_empty() {
                link.heard = now;
            }
            link.sent.insert(number, ());
        }
        self.effects.push(Effect::Send { link, number, demand, timeout });
        number
    }

    /// A connection that stands.
    fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        let next = self.next.iter_mut().filter(|next| next.stands);
        self.current.iter_mut().chain(next).chain(&mut self.old).find(|link| link.id == id)
    }
}

/// A client never sees an older state than it has seen, nor one without what it wrote: linearizable reads need no help.
fn monotonic(read: Read, seen: Index) -> Read {
    match read.consistency {
        Consistency::Linearizable => read,
        Consistency::Lease | Consistency::Stale { .. } => Read { at_least: read.at_least.max(seen), ..read },
    }
}
