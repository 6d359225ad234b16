//! The doorkeeper: what comes over the network is checked here before the engine hears of it.
//!
//! The machine's [`Door`] says what is wrong with a call, on a thread of its own: it may have to wait for an interpreter, and
//! neither the network nor the engine waits with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::EntryId;
use graft_services::api::{Api, Call, Caller, Happening, News, Reader, SnapshotPart, Taken, Then, View, Wake, Watch};
use graft_services::change::{Ask, Change};
use graft_services::commands::Slot;
use graft_services::error::{Outcome, Refusal};
use graft_services::{Read, WhatIf};

use super::door_queue::Queue;
use super::front::Front;
use super::requests::What;

/// Topics that one watcher may name, and the bytes of their names: as many watchers as may be do not cost more than 64 MiB of
/// names. Who wants more takes all topics.
const TOPICS_MAX: usize = 64;
const TOPICS_BYTES_MAX: usize = 4 << 10;
/// A shorter session would expire between two commands.
const TTL_MIN: Duration = Duration::from_secs(1);
/// Longer ones are no host and port; members with such could not be written to one another.
const ADDRESS_BYTES_MAX: usize = 1024;
/// Members that a change may name.
const MEMBERS_MAX: usize = 1000;

/// What the network gets of a node.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    front: Arc<Front>,
    /// None if the machine takes any bytes.
    queue: Option<Arc<Queue>>,
    /// A larger call is refused.
    command_bytes_max: usize,
}

impl Doorkeeper {
    pub(crate) fn new(front: Arc<Front>, queue: Option<Arc<Queue>>, command_bytes_max: usize) -> Self {
        Self { front, queue, command_bytes_max }
    }

    /// To the machine's door, or past it if there is none.
    fn admit(&self, what: What, timeout: Duration) {
        if what.count() == 0 {
            return;
        }
        let request = self.front.request(what, timeout);
        match &self.queue {
            Some(queue) => queue.enter(request),
            None => self.front.hand(vec![request]),
        }
    }

    fn judge(&self, body: &Bytes, slot: Option<Slot>) -> Result<(), Refusal> {
        if body.len() > self.command_bytes_max {
            return Err(Refusal::TooLarge { bytes: body.len() as u64, limit: self.command_bytes_max as u64 });
        }
        let Some(Slot { session, sequence, unanswered }) = slot else { return Ok(()) };
        if session == 0 || unanswered == 0 || sequence < unanswered {
            return Err(Refusal::Invalid(format!(
                "session {session}, sequence {sequence}, unanswered from {unanswered} on: sessions and sequences are \
                 counted from 1, and a command that is sent has no answer yet"
            )));
        }
        Ok(())
    }
}

impl Api for Doorkeeper {
    fn execute(&self, calls: Vec<Call>, timeout: Duration) {
        let judged = calls.into_iter().filter_map(|call| match self.judge(&call.body, call.slot) {
            Ok(()) => Some(call),
            Err(refusal) => refuse(&call.caller, refusal),
        });
        self.admit(What::Execute(judged.collect()), timeout);
    }

    fn query(&self, queries: Vec<(Bytes, Caller)>, read: Read, timeout: Duration) {
        let judged = queries.into_iter().filter_map(|(body, caller)| match self.judge(&body, None) {
            Ok(()) => Some((body, caller)),
            Err(refusal) => refuse(&caller, refusal),
        });
        self.admit(What::Query(judged.collect(), read), timeout);
    }

    fn open_session(&self, ttl: Option<Duration>, caller: Caller, timeout: Duration) {
        if let Some(ttl) = ttl.filter(|ttl| *ttl < TTL_MIN) {
            let why = format!("a session has to last {TTL_MIN:?} at least without being used, not {ttl:?}");
            refuse::<()>(&caller, Refusal::Invalid(why));
        } else {
            self.front.open_session(ttl, caller, timeout);
        }
    }

    fn ask(&self, ask: Ask, caller: Caller, timeout: Duration) {
        let wrong = match &ask {
            Ask::Change { change, .. } => wrong_with(change),
            Ask::Transfer { .. } => None,
        };
        match wrong {
            Some(why) => drop(refuse::<()>(&caller, Refusal::Invalid(why))),
            None => self.front.ask(ask, caller, timeout),
        }
    }

    fn snapshot(&self, current: bool, caller: Caller, timeout: Duration) {
        self.front.snapshot(current, caller, timeout);
    }

    fn read_snapshot(&self, from: Option<(EntryId, u64)>, then: Then<SnapshotPart>) {
        self.front.read_snapshot(from, then);
    }

    fn verify(&self, caller: Caller, timeout: Duration) {
        self.front.verify(caller, timeout);
    }

    fn view(&self, then: Then<View>) {
        self.front.view(then);
    }

    fn what_if(&self, change: Change, then: Then<WhatIf>) {
        match wrong_with(&change) {
            Some(why) => then(Err(Refusal::Invalid(why))),
            None => self.front.what_if(change, then),
        }
    }

    fn watch(&self, watch: Watch, wake: Wake) -> Box<dyn Reader<News>> {
        let bytes: usize = watch.topics.iter().map(String::len).sum();
        if watch.topics.len() > TOPICS_MAX || bytes > TOPICS_BYTES_MAX {
            return Box::new(Refused(Refusal::Invalid(format!(
                "{} topics of {bytes} bytes are more than one watcher may name: {TOPICS_MAX} of {TOPICS_BYTES_MAX} bytes \
                 together; without any it gets all topics",
                watch.topics.len()
            ))));
        }
        self.front.watch(watch, wake)
    }

    fn events(&self, since: Option<u64>, wake: Wake) -> Box<dyn Reader<Happening>> {
        self.front.events(since, wake)
    }

    fn shutdown(&self, timeout: Duration) {
        self.front.shutdown(timeout);
    }
}

pub(super) fn refuse<T>(caller: &Caller, refusal: Refusal) -> Option<T> {
    caller.sink.complete(caller.token, Outcome::Refused(refusal));
    None
}

/// Why members could not even tell one another of this change, if so.
fn wrong_with(change: &Change) -> Option<String> {
    let too_long = |address: &String| {
        let bytes = address.len();
        let why = || format!("an address of {bytes} bytes is none: {ADDRESS_BYTES_MAX} are the most, as host:port");
        (bytes > ADDRESS_BYTES_MAX).then(why)
    };
    match change {
        Change::Add { address, .. } | Change::Replace { address, .. } => too_long(address),
        Change::Apply { members } if members.len() > MEMBERS_MAX => {
            Some(format!("{} members are more than a cluster can have, {MEMBERS_MAX}", members.len()))
        }
        Change::Apply { members } => members.values().find_map(too_long),
        Change::Remove { .. } | Change::Promote { .. } | Change::Demote { .. } | Change::Cancel => None,
    }
}

/// Reads nothing.
struct Refused(Refusal);

impl<T> Reader<T> for Refused {
    fn take(&mut self, _max: usize) -> Taken<T> {
        Taken { items: Vec::new(), ended: Some(self.0.clone()) }
    }
}
