//! Reading without asking anyone (thesis §6.4.1): for how long nobody else can become leader, as far as clocks can be trusted.
//!
//! A member that hears a leader votes for nobody else for an election timeout, and says so in its answer. The leader counts
//! that promise from when it sent what was answered, less a tenth, because clocks do not run alike; while a quorum's
//! promises last, no other quorum can vote.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::ids::{Instant, NodeId, Term};
use crate::message::VoteRequest;
use crate::quorum;
use crate::raft::{RaftCore, Role};

/// Of an election timeout: rounds that began closer together than this count as sent when the first of them was.
const ROUNDS_MAX: u32 = 64;

/// When the heartbeat rounds of the last election timeout began. An older one holds no promise any more.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Rounds(VecDeque<(u64, Instant)>);

impl Rounds {
    /// A round begins: whatever is sent in it leaves at `now` or later.
    pub(crate) fn begin(&mut self, round: u64, now: Instant, timeout: Duration) {
        while self.0.pop_front_if(|(_, at)| *at + timeout <= now).is_some() {}
        let apart = timeout / ROUNDS_MAX;
        if self.0.back().is_none_or(|(_, at)| now.since(*at) >= apart) {
            self.0.push_back((round, now));
        }
    }

    pub(crate) fn rebase(&mut self, now: Instant, to: Instant) {
        self.0.iter_mut().for_each(|(_, at)| *at = at.moved(now, to));
    }

    /// When this round was sent at the earliest; none if that is too long ago to matter.
    pub(crate) fn sent(&self, round: u64) -> Option<Instant> {
        let after = self.0.partition_point(|(first, _)| *first <= round);
        self.0.get(after.checked_sub(1)?).map(|(_, at)| *at)
    }
}

/// What a follower owes the leader that it heard last, whatever its own role and term have become since.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Loyalty {
    /// The term of that leader.
    term: Term,
    /// No vote for another before.
    until: Instant,
    /// The time by which it was heard, if that was in this turn.
    heard: Option<Instant>,
}

impl Loyalty {
    /// Of a member that starts: it may have answered a leader just before it ended. Who has no term has answered nobody.
    pub(crate) fn at_start(term: Term, now: Instant, timeout: Duration) -> Self {
        let until = if term == Term::ZERO { Instant::default() } else { now + timeout };
        Self { term, until, heard: None }
    }
}

impl Loyalty {
    pub(crate) fn rebase(&mut self, now: Instant, to: Instant) {
        self.until = self.until.moved(now, to);
        self.heard = self.heard.map(|heard| heard.moved(now, to));
    }
}

/// The follower's side.
impl RaftCore {
    /// Whether this member votes for nobody else yet. Unlike its role it does not end with the term: the leader that was
    /// answered does not hear of a later one.
    pub(crate) fn is_loyal(&self) -> bool {
        self.is_leader() || self.loyalty.heard.is_some() || self.now < self.loyalty.until
    }

    /// The leader of this term was heard. A promise takes nothing from one before it, which an earlier run may have made for
    /// longer: the leader counts on the longest.
    pub(crate) fn stay_loyal(&mut self) {
        let until = self.loyalty.until.max(self.now + self.config.election_timeout);
        self.loyalty = Loyalty { term: self.term, until, heard: Some(self.now) };
    }

    /// The answers of this turn leave now. A promise begins with its answer, not at the time by which the turn began: a
    /// process that was paused in between has taken in messages that were sent after that.
    pub(crate) fn renew_loyalty(&mut self) {
        let Some(heard) = self.loyalty.heard.take() else { return };
        let late = self.now.since(heard);
        self.loyalty.until = self.loyalty.until.max(self.now + self.config.election_timeout);
        self.leader_contact = self.leader_contact + late;
        self.election_deadline = self.election_deadline + late;
    }

    /// The leader itself wants another one: nothing is owed to it any more.
    pub(crate) fn release(&mut self) {
        self.loyalty = Loyalty::default();
    }

    /// Whether a candidate was asked to campaign by the very leader that this member is loyal to, which holds no lease since.
    ///
    /// That leader's term is the one before the candidate's. A request that says so of any other term comes from somebody who
    /// is mistaken (or lies: members are trusted to follow the protocol), and is not above loyalty. A leader knows by itself
    /// whether it asked.
    pub(crate) fn is_released_by(&self, request: &VoteRequest) -> bool {
        let term = match &self.role {
            Role::Leader(leader) if !leader.yielded => return false,
            Role::Leader(_) => self.term,
            _ => self.loyalty.term,
        };
        request.transfer && request.term == term.next()
    }
}

/// The leader's side.
impl RaftCore {
    /// A follower has answered in this round: it votes for nobody else for so long from when it heard it.
    pub(crate) fn on_promise(&mut self, from: NodeId, round: u64, promise: Duration) {
        // A leader that hears nobody for its own election timeout gives up: beyond that a promise is of no use.
        let promise = promise.min(self.config.election_timeout);
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(sent) = leader.rounds.sent(round)
            && let Some(progress) = leader.progress.get_mut(&from)
        {
            // Nine tenths: safe as long as no two clocks differ by more than a tenth in how fast they run.
            progress.leased = progress.leased.max(sent + promise / 10 * 9);
        }
    }

    /// Until when, by this node's clock, no other member can become leader, if all clocks run alike within a tenth; time 0 if
    /// that is not known. For ever if this node is the only one that votes.
    ///
    /// There is none before an entry of the leader's own term is committed, nor in a term in which it asked another member to
    /// campaign: that word may arrive late.
    pub fn lease_until(&self) -> Instant {
        let Role::Leader(leader) = &self.role else { return Instant::default() };
        if leader.yielded || self.commit < leader.first {
            return Instant::default();
        }
        // Its own vote is its own for as long as it leads.
        let leased = |id: &NodeId| {
            let of_follower = leader.progress.get(id).map_or_else(Instant::default, |p| p.leased);
            if *id == self.config.id { Instant::NEVER } else { of_follower }
        };
        quorum::reached(self.membership(), leased)
    }

    /// Whether nobody else can be leader at `now`, a time read after whatever depends on it had come in.
    pub fn holds_lease(&self, now: Instant) -> bool {
        now < self.lease_until()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_nanos(6400);

    #[test]
    fn rounds_are_few_and_none_counts_as_sent_later_than_it_was() {
        let mut rounds = Rounds::default();
        for round in 1..10_000 {
            rounds.begin(round, Instant(round * 7), TIMEOUT);
            assert!(rounds.0.len() <= 1 + ROUNDS_MAX as usize, "{} rounds", rounds.0.len());
            for back in [0, 1, 10, 800] {
                let sent = round.checked_sub(back).map(|asked| (asked, rounds.sent(asked)));
                let Some((asked, Some(Instant(at)))) = sent else { continue };
                assert!(at <= asked * 7 && asked * 7 - at < 100 + 7, "round {asked} counts as sent at {at}");
            }
        }
        assert_eq!(rounds.sent(1), None, "too long ago");
        assert_eq!(rounds.sent(u64::MAX), rounds.sent(9_999), "as if it were the newest");
    }

    #[test]
    fn times_at_their_ends_do_not_wrap() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.sent(0), None);
        for (round, at, timeout) in [(1, 0, Duration::ZERO), (2, u64::MAX, Duration::MAX), (3, 5, Duration::MAX)] {
            rounds.begin(round, Instant(at), timeout);
        }
        let loyalty = Loyalty::at_start(Term(1), Instant(7), Duration::MAX);
        assert_eq!(loyalty.until, Instant::NEVER);
        assert_eq!(Loyalty::at_start(Term::ZERO, Instant(7), TIMEOUT).until, Instant(0));
    }
}
