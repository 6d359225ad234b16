//! A client's own session: it gives each command its slot, and says which answers the cluster need not keep any more.

use std::collections::BTreeSet;
use std::time::Duration;

use graft_domain::Instant;

use crate::commands::Slot;
use crate::error::Refusal;
use crate::numbered::Numbered;
use crate::sessions::WINDOW_MAX;

/// Sequences that may be used from the lowest unanswered one on: less than a replica takes, or commands would be refused.
pub(super) const WINDOW: u64 = 16_384;
const _: () = assert!(WINDOW <= WINDOW_MAX);

/// Commands that ended unknown and can still be made again under their slots. Older ones are given up, or they would keep
/// the replicas from ever forgetting an answer.
pub(super) const UNRESOLVED_MAX: usize = 512;

/// How long a member may take to open a session before another attempt is made, and how often that is doubled.
const PATIENCE_MIN: Duration = Duration::from_secs(3);
const DOUBLINGS_MAX: u32 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// There is none, and none is asked for before this time.
    Closed {
        rests_until: Instant,
    },
    /// Asked for, by the attempt of this number.
    Opening {
        number: u64,
        until: Instant,
    },
    Open {
        id: u64,
    },
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) state: State,
    /// Why the last attempt to open one failed, and how many have.
    pub(super) trouble: Option<Refusal>,
    pub(super) failures: u32,
    /// How many took longer than they were given.
    late: u32,
    next: u64,
    /// Commands that wait for an answer, and by how many calls.
    waiting: Numbered<u32>,
    unresolved: BTreeSet<u64>,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            state: State::Closed { rests_until: Instant::default() },
            trouble: None,
            failures: 0,
            late: 0,
            next: 1,
            waiting: Numbered::default(),
            unresolved: BTreeSet::new(),
        }
    }

    fn id(&self) -> Option<u64> {
        if let State::Open { id } = self.state { Some(id) } else { None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.id().is_some()
    }

    pub(super) fn opened(&mut self, id: u64) {
        *self = Self { state: State::Open { id }, ..Self::new() };
    }

    /// How long the next attempt may take. An answer that comes later is of no use, since the member has given up as well: so
    /// each time that was too short the next one has twice as long, or a slow cluster would never open one.
    pub(super) fn patience(&self) -> Duration {
        PATIENCE_MIN * (1 << self.late.min(DOUBLINGS_MAX))
    }

    /// It did not open in time.
    pub(super) fn was_late(&mut self) {
        self.late = self.late.saturating_add(1);
    }

    /// It did not open.
    pub(super) fn failed(&mut self, trouble: Option<Refusal>, rests_until: Instant) {
        self.state = State::Closed { rests_until };
        self.failures = self.failures.saturating_add(1);
        self.trouble = trouble.or(self.trouble.take());
    }

    /// The cluster says that this session does not exist. Another one takes its place.
    pub(super) fn expired(&mut self, id: u64) {
        if self.id() == Some(id) {
            *self = Self::new();
        }
    }

    /// A slot for a new command; none while the session is not open or the window is full.
    pub(super) fn place(&mut self) -> Option<Slot> {
        let session = self.id()?;
        while self.next >= self.unanswered().saturating_add(WINDOW) {
            // Work goes before what somebody may want to ask about again.
            let lowest = self.unanswered();
            if self.waiting.get(lowest).is_some() || !self.unresolved.remove(&lowest) {
                return None;
            }
        }
        let sequence = self.next;
        self.next += 1;
        self.waiting.insert(sequence, 1);
        Some(Slot { session, sequence, unanswered: self.unanswered() })
    }

    /// Somebody waits for the answer to this slot again.
    pub(super) fn waits(&mut self, slot: Slot) {
        if self.id() == Some(slot.session) && slot.sequence < self.next && slot.sequence >= self.unanswered() {
            match self.waiting.get_mut(slot.sequence) {
                Some(calls) => *calls += 1,
                None => self.waiting.insert(slot.sequence, 1),
            }
        }
    }

    /// The slot as it is to be sent now.
    pub(super) fn renewed(&self, slot: Slot) -> Slot {
        if self.id() == Some(slot.session) {
            Slot { unanswered: self.unanswered().min(slot.sequence), ..slot }
        } else {
            slot
        }
    }

    /// A call of this slot has ended, and what became of it is known for good.
    pub(super) fn answered(&mut self, slot: Slot) {
        if self.id() == Some(slot.session) {
            self.leave(slot.sequence);
            self.unresolved.remove(&slot.sequence);
        }
    }

    /// A call of this slot has ended without an answer: it may be made again.
    pub(super) fn left_open(&mut self, slot: Slot) {
        if self.id() == Some(slot.session) && self.waiting.get(slot.sequence).is_some() {
            self.leave(slot.sequence);
            self.unresolved.insert(slot.sequence);
            if self.unresolved.len() > UNRESOLVED_MAX {
                self.unresolved.pop_first();
            }
        }
    }

    fn leave(&mut self, sequence: u64) {
        if let Some(calls) = self.waiting.get_mut(sequence) {
            *calls -= 1;
            if *calls == 0 {
                self.waiting.remove(sequence);
            }
        }
    }

    /// The lowest sequence whose answer is still of use.
    fn unanswered(&self) -> u64 {
        let waiting = self.waiting.first().map(|(sequence, _)| sequence);
        let lowest = waiting.into_iter().chain(self.unresolved.first().copied()).min();
        lowest.unwrap_or(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Session {
        let mut session = Session::new();
        assert_eq!(session.place(), None, "there is no session yet");
        session.opened(7);
        session
    }

    #[test]
    fn answers_are_kept_until_all_before_them_have_come() {
        let mut session = open();
        let slots: Vec<Slot> = (0..3).map(|_| session.place().unwrap()).collect();
        assert_eq!(slots[2], Slot { session: 7, sequence: 3, unanswered: 1 });
        session.answered(slots[1]);
        assert_eq!(session.place().unwrap().unanswered, 1);
        session.answered(slots[0]);
        assert_eq!(session.renewed(slots[2]).unanswered, 3, "a slot that is sent again tells the news");
        session.left_open(slots[2]);
        assert_eq!(session.place().unwrap().unanswered, 3, "it may be asked for again");
        session.waits(slots[2]);
        session.answered(slots[2]);
        assert_eq!(session.place().unwrap().unanswered, 4);
    }

    #[test]
    fn the_window_is_never_left_and_what_is_unresolved_does_not_close_it() {
        let mut session = open();
        let first = session.place().unwrap();
        for _ in 1..WINDOW {
            let slot = session.place().unwrap();
            assert!(slot.sequence < slot.unanswered + WINDOW);
            session.answered(slot);
        }
        assert_eq!(session.place(), None, "the first one still waits");
        session.left_open(first);
        let slot = session.place().unwrap();
        assert_eq!((slot.sequence, slot.unanswered), (WINDOW + 1, WINDOW + 1), "it is given up");
    }

    #[test]
    fn what_is_unresolved_has_a_limit() {
        let mut session = open();
        for _ in 0..=UNRESOLVED_MAX {
            let slot = session.place().unwrap();
            session.left_open(slot);
        }
        assert_eq!(session.place().unwrap().unanswered, 2);
    }

    #[test]
    fn a_slot_that_two_wait_for_is_kept_for_the_second() {
        let mut session = open();
        let slot = session.place().unwrap();
        session.left_open(slot);
        session.waits(slot);
        session.waits(slot);
        session.answered(slot);
        assert_eq!(session.place().unwrap().unanswered, slot.sequence);
        session.answered(slot);
        assert_eq!(session.place().unwrap().unanswered, slot.sequence + 1);
    }

    #[test]
    fn an_expired_session_is_replaced_once() {
        let mut session = open();
        let old = session.place().unwrap();
        session.expired(7);
        session.opened(9);
        session.expired(7);
        assert_eq!(session.place(), Some(Slot { session: 9, sequence: 1, unanswered: 1 }));
        session.answered(old);
        assert_eq!(session.renewed(old), old, "slots of another session are left alone");
        assert_eq!(session.place().unwrap().unanswered, 1);
    }
}
