//! The session that this node has of its own, for the calls that are made on it without one. Opened through the log when the
//! first of them comes, and again when it has expired.

use std::collections::BTreeSet;

use bytes::Bytes;
use graft_domain::{Index, Instant};

use crate::commands::{Slot, mix};
use crate::error::{Outcome, Refusal};
use crate::numbered::Numbered;
use crate::replica::Replica;
use crate::sessions::WINDOW_MAX;
use crate::waiting::{Call, Place, RequestId, Want};

/// Places of calls that ended unknown which are kept open, so that the calls can be made again; older ones are given up.
const UNRESOLVED_MAX: usize = 1024;
/// With the run of a node: the key of its own sessions.
const FOR_ITSELF: u64 = 0;
/// Election timeouts after which an opening that is not committed may be lost.
const PATIENCE: u32 = 4;

/// Where the session stands, and which of its places are taken.
#[derive(Debug)]
pub(crate) struct OwnSession {
    id: Option<u64>,
    /// It is on its way through the log.
    opening: bool,
    /// The next sequence to be given.
    next: u64,
    /// Sequences without an answer, and how many calls wait for it: none if nobody does, and somebody may again.
    owed: Numbered<u32>,
    /// Places of calls that ended unknown: of this session, and of those before it.
    unresolved: BTreeSet<(u64, u64)>,
    window: u64,
}

impl Default for OwnSession {
    fn default() -> Self {
        let (owed, unresolved) = (Numbered::default(), BTreeSet::new());
        Self { id: None, opening: false, next: 1, owed, unresolved, window: WINDOW_MAX }
    }
}

impl OwnSession {
    fn opened(&mut self, id: u64) {
        (self.id, self.opening, self.next) = (Some(id), false, 1);
        self.owed.clear();
    }

    /// The place for another call; none without a session, and while a call that is too far behind has no answer. Places that
    /// nobody waits for give way.
    fn give(&mut self) -> Option<Place> {
        let session = self.id?;
        while let Some((lowest, &waiting)) = self.owed.first()
            && self.next - lowest >= self.window
        {
            if waiting > 0 {
                return None;
            }
            self.give_up(session, lowest);
        }
        let sequence = self.next;
        self.next += 1;
        self.owed.insert(sequence, 1);
        Some(Place::Own { session, sequence })
    }

    fn give_up(&mut self, session: u64, sequence: u64) {
        self.unresolved.remove(&(session, sequence));
        if self.id == Some(session) && self.owed.get(sequence) == Some(&0) {
            self.owed.remove(sequence);
        }
    }

    /// The place that a call under this slot has, and whether it may have been applied already: it is made again.
    fn place_again(&mut self, slot: Slot) -> Result<(Place, bool), Refusal> {
        let Slot { session, sequence, .. } = slot;
        if self.id != Some(session) {
            return Ok((Place::Theirs(slot), self.is_unresolved(slot)));
        }
        if sequence >= self.next {
            return Err(Refusal::Invalid(format!(
                "no call on this node has the place {sequence} in session {session}"
            )));
        }
        let Some(waiting) = self.owed.get_mut(sequence) else { return Ok((Place::Theirs(slot), true)) };
        *waiting += 1;
        Ok((Place::Own { session, sequence }, true))
    }

    fn is_unresolved(&self, slot: Slot) -> bool {
        self.unresolved.contains(&(slot.session, slot.sequence))
    }

    /// A call has an answer, or is certain not to get one.
    fn settle(&mut self, place: Place) {
        let (session, sequence) = match place {
            Place::Own { session, sequence } | Place::Theirs(Slot { session, sequence, .. }) => (session, sequence),
            Place::Wanted => return,
        };
        self.unresolved.remove(&(session, sequence));
        if let Place::Own { .. } = place {
            self.release(session, sequence, false);
        }
    }

    /// A call ended, and it is not known how: it may be made again.
    fn leave_open(&mut self, place: Place) {
        let Place::Own { session, sequence } = place else { return };
        self.release(session, sequence, true);
        self.unresolved.insert((session, sequence));
        if self.unresolved.len() <= UNRESOLVED_MAX {
            return;
        }
        // Those of a former session go first: they are the older ones.
        let former = self.unresolved.iter().find(|(session, _)| self.id != Some(*session));
        if let Some((session, sequence)) = former.or_else(|| self.unresolved.first()).copied() {
            self.give_up(session, sequence);
        }
    }

    fn release(&mut self, session: u64, sequence: u64, keep: bool) {
        if self.id != Some(session) {
            return;
        }
        let Some(waiting) = self.owed.get_mut(sequence) else { return };
        *waiting = waiting.saturating_sub(1);
        if *waiting == 0 && !keep {
            self.owed.remove(sequence);
        }
    }

    /// Sequences below have their answers, or need none.
    fn unanswered(&self) -> u64 {
        self.owed.first().map_or(self.next, |(lowest, _)| lowest)
    }

    /// What the log is to say of a place.
    pub(crate) fn slot(&self, place: Place) -> Option<Slot> {
        match place {
            Place::Wanted => None,
            Place::Theirs(slot) => Some(slot),
            Place::Own { session, sequence } if self.id == Some(session) => {
                Some(Slot { session, sequence, unanswered: self.unanswered() })
            }
            Place::Own { session, sequence } => Some(Slot { session, sequence, unanswered: 1 }),
        }
    }

    /// Whether a call that was certainly never applied needs a place of its own in another session than the one it has.
    fn is_lost(&self, place: Place) -> bool {
        matches!(place, Place::Own { session, .. } if self.id != Some(session))
    }
}

/// Calls and their places.
impl Replica {
    /// Takes in a command: it waits for the end of the turn, so that all of a turn are proposed together.
    pub(crate) fn take_in(&mut self, request: RequestId, slot: Option<Slot>, body: Bytes, deadline: Instant) {
        let placed = match slot {
            Some(slot) => self.own.place_again(slot),
            // First come, first served.
            None if self.calls.has_unplaced() => Ok((Place::Wanted, false)),
            None => Ok((self.own.give().unwrap_or(Place::Wanted), false)),
        };
        match placed {
            Ok((place, unclear)) => {
                let call = Call::new(Some(request), Want::Command { body, place }, deadline);
                self.calls.park(Call { unclear, ..call });
            }
            Err(refusal) => self.answer_refused(request, refusal),
        }
    }

    /// Whether a call under this slot has been made here before and nobody knows what came of it.
    pub(crate) fn is_unresolved(&self, slot: Slot) -> bool {
        self.own.is_unresolved(slot)
    }

    /// Waits for a leader, once more if it was handed over before. What was certainly never applied does not depend on a
    /// session that is gone.
    pub(crate) fn park(&mut self, mut call: Call) {
        if let Want::Command { place, .. } = &mut call.want
            && !call.unclear
            && self.own.is_lost(*place)
        {
            *place = Place::Wanted;
        }
        self.calls.park(call);
    }

    /// Gives calls that wait for it a place in the session, which is opened if there is none.
    pub(crate) fn give_places(&mut self) {
        if !self.calls.has_unplaced() {
            return;
        }
        if self.own.id.is_none() {
            return self.open_own_session();
        }
        while self.calls.has_unplaced()
            && let Some(place) = self.own.give()
        {
            self.calls.place_next(place);
        }
    }

    /// The opening goes to the leader as calls do.
    pub(crate) fn open_own_session(&mut self) {
        if self.own.id.is_none() && !self.own.opening {
            self.own.opening = true;
            let (ttl, deadline) = (self.config.session_ttl, self.clock.now + self.config.election_timeout * PATIENCE);
            self.calls.park(Call::new(None, Want::OpenSession { ttl, key: self.own_key() }, deadline));
        }
    }

    /// What tells the sessions that this run opens for itself from those that it opens for clients.
    pub(crate) fn own_key(&self) -> u64 {
        mix(self.config.session, FOR_ITSELF)
    }

    /// The opening may have been lost on its way. Another one does no harm: whichever is committed first is used.
    pub(crate) fn expire_opening(&mut self) {
        self.own.opening = false;
    }

    /// An opening is committed, be it one that was given up: where commits take longer than this node has patience, none
    /// would ever be in time. A session that nobody has a place in is as good as another.
    pub(crate) fn on_own_session(&mut self, id: u64) {
        if self.own.id.is_none() {
            self.own.opened(id);
        }
    }

    /// The session that the machine was to find is not there any more.
    fn on_expired(&mut self, call: Call) {
        if let Want::Command { place: Place::Own { session, .. }, .. } = call.want
            && self.own.id == Some(session)
        {
            tracing::info!(session, "the session of this node has expired; another one is opened");
            self.own.id = None;
            self.own.owed.clear();
        }
        if call.unclear {
            let why = "its session has expired; an earlier attempt may have been applied".to_owned();
            self.end(&call, Outcome::unknown(why));
        } else if matches!(call.want, Want::Command { place: Place::Own { .. }, .. }) {
            self.park(call);
        } else {
            self.end(&call, Outcome::Refused(Refusal::SessionExpired));
        }
    }
}

/// How calls end.
impl Replica {
    /// The machine is done with these, and has answered all but those whose session has expired.
    pub(crate) fn end_applied(&mut self, index: Index, expired: &BTreeSet<RequestId>) {
        for call in self.calls.applied(index) {
            if call.request.is_some_and(|request| expired.contains(&request)) {
                self.on_expired(call);
            } else if let Some(place) = call.place() {
                self.own.settle(place);
            }
        }
    }

    /// This attempt came to nothing for certain. If an earlier one may have been applied, that is what its caller is told.
    pub(crate) fn refuse_call(&mut self, call: &Call, refusal: Refusal) {
        match call.request {
            None => self.refuse_opening(&refusal),
            Some(_) if call.unclear => {
                self.leave_unknown(call, &format!("{refusal}; an earlier attempt may have been applied"));
            }
            Some(_) => self.end(call, Outcome::Refused(refusal)),
        }
    }

    /// Without a session nothing can be handed over of what waits for it.
    fn refuse_opening(&mut self, refusal: &Refusal) {
        self.own.opening = false;
        if self.own.id.is_some() {
            // An earlier opening was committed meanwhile.
            return;
        }
        for call in self.calls.take_unplaced() {
            self.refuse_call(&call, refusal.clone());
        }
    }

    /// Nobody knows what becomes of it; under its place it can be made again.
    pub(crate) fn leave_unknown(&mut self, call: &Call, why: &str) {
        let Some(request) = call.request else {
            self.own.opening = false;
            return;
        };
        let slot = call.place().and_then(|place| self.own.slot(place));
        self.answer(request, Outcome::Unknown { why: why.to_owned(), slot });
        if let Some(place) = call.place() {
            self.own.leave_open(place);
        }
    }

    fn end(&mut self, call: &Call, outcome: Outcome) {
        if let Some(place) = call.place() {
            self.own.settle(place);
        }
        if let Some(request) = call.request {
            self.answer(request, outcome);
        }
    }

    /// Of what was handed over nothing more may be seen, so it is handed over again: under its place it is applied once.
    ///
    /// Not all at once. A member that lags so far behind would make the log longer than the leader keeps it for him, and get
    /// the next snapshot instead of what he waits for.
    pub(crate) fn hand_over_again(&mut self) {
        for call in self.calls.take_all_sent() {
            if call.request.is_none() {
                // If it was opened, nobody knows its name.
                self.own.opening = false;
            } else {
                self.calls.set_aside(Call { unclear: true, ..call });
            }
        }
        // The leader is to hear first that the snapshot is here.
        self.retry_later();
    }
}
