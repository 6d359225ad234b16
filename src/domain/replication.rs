//! Making every log the same (thesis §3.5).

use alloc::vec::Vec;

use crate::entry::Entry;
use crate::ids::{EntryId, Index, Instant, NodeId, Term};
use crate::message::{Append, AppendOutcome, AppendReply, Message, SnapshotOffer};
use crate::progress::Mode;
use crate::quorum;
use crate::raft::{RaftCore, Role};
use crate::step::{Breach, SnapshotNeed, Transition};

/// The leader's side.
impl RaftCore {
    /// Sends each follower what it may have now, once a turn, however many inputs the turn had.
    /// Gives the followers that have begun to need a snapshot.
    pub(crate) fn replicate(&mut self) -> Vec<SnapshotNeed> {
        let (now, timeout) = (self.now, self.config.election_timeout);
        let Role::Leader(leader) = &mut self.role else { return Vec::new() };
        let beat = core::mem::take(&mut leader.beat);
        if beat {
            leader.round += 1;
            leader.rounds.begin(leader.round, now, timeout);
        }
        let tells = leader.notice_due <= now;
        let followers: Vec<NodeId> = leader.progress.keys().copied().collect();
        let needs = followers.iter().filter_map(|to| self.replicate_to(*to, beat, tells)).collect();
        let commit = self.commit;
        if let Role::Leader(leader) = &mut self.role
            && !leader.progress.values().any(|progress| progress.lacks_notice(commit))
        {
            leader.notice_due = Instant::NEVER;
        }
        needs
    }

    fn replicate_to(&mut self, to: NodeId, beat: bool, tells: bool) -> Option<SnapshotNeed> {
        let mut quiet = true;
        while let Some(entries) = self.next_entries(to) {
            self.send_append(to, entries);
            quiet = false;
        }
        let (base, newest, commit) = (self.log.base(), self.snapshot, self.commit);
        let Role::Leader(leader) = &mut self.role else { return None };
        let progress = leader.progress.get_mut(&to)?;
        let lost = progress.next <= base.index;
        if lost && !matches!(progress.mode, Mode::Snapshot { .. }) {
            let from = progress.next;
            progress.offer(newest);
            self.send_offer(to, newest);
            return Some(SnapshotNeed { to, from });
        }
        match progress.mode {
            Mode::Snapshot { .. } if beat => {
                progress.offer(newest);
                self.send_offer(to, newest);
            }
            Mode::Snapshot { .. } => {}
            _ if quiet && (beat || tells && progress.lacks_notice(commit)) => {
                self.send_append(to, Vec::new());
            }
            _ => {}
        }
        None
    }

    /// The next entries that may leave for `to`; none if it has all, its window is full, or it is being probed.
    fn next_entries(&self, to: NodeId) -> Option<Vec<Entry>> {
        let Role::Leader(leader) = &self.role else { return None };
        let progress = leader.progress.get(&to)?;
        let (config, last) = (&self.config, self.log.last().index);
        let first = self.log.entry(progress.next)?;
        let room = match progress.mode {
            Mode::Probe { waiting: false } => config.append_bytes_max,
            Mode::Replicate => progress.room(first.size(), config.inflight_messages_max, config.inflight_bytes_max)?,
            Mode::Probe { waiting: true } | Mode::Snapshot { .. } => return None,
        };
        Some(self.log.slice(progress.next, last, room.min(config.append_bytes_max)))
    }

    fn send_append(&mut self, to: NodeId, entries: Vec<Entry>) {
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else { return };
        let round = leader.round;
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let before = progress.next.prev();
        let Some(term) = self.log.term_at(before) else { return };
        if let Some(last) = entries.last().map(|e| e.index) {
            match &mut progress.mode {
                Mode::Probe { waiting } => *waiting = true,
                _ => progress.sent(last, self.log.bytes_between(before, last)),
            }
        }
        progress.told = commit;
        if progress.matched == Index::ZERO {
            progress.memory_from = commit;
        }
        let prev = EntryId { term, index: before };
        let append = Append { session: progress.session, round, prev, entries, commit };
        self.send(to, Message::Append(append));
    }

    fn send_offer(&mut self, to: NodeId, last: EntryId) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(progress) = leader.progress.get(&to) else { return };
        let offer = SnapshotOffer { session: progress.session, round: leader.round, last };
        self.send(to, Message::Snapshot(offer));
    }

    /// What an acknowledgement is worth is judged here and nowhere else: of this term (already checked), of this stay,
    /// of entries that are here.
    pub(crate) fn on_append_reply(&mut self, from: NodeId, reply: AppendReply) {
        let (now, last) = (self.now, self.log.last().index);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        if reply.session != progress.session || reply.round > leader.round {
            return;
        }
        progress.contact = now;
        progress.round = progress.round.max(reply.round);
        self.on_promise(from, reply.round, reply.promise);
        match reply.outcome {
            AppendOutcome::Matched(index) if index <= last => self.on_matched(from, index),
            AppendOutcome::Matched(_) => {}
            AppendOutcome::Missing { prev, hint } => self.on_missing(from, prev, hint),
        }
    }

    fn on_matched(&mut self, from: NodeId, index: Index) {
        let base = self.log.base().index;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        let probed = index >= progress.next.prev();
        let news = progress.matches(index);
        match progress.mode {
            Mode::Probe { .. } if probed => {
                progress.replicate();
                leader.notice_due = self.now;
            }
            // By the snapshot or in another way: what it lacks now is in the log.
            Mode::Snapshot { .. } if index >= base => progress.probe(index.next()),
            _ => {}
        }
        if news {
            self.advance_commit();
        }
        self.hand_over();
    }

    fn on_missing(&mut self, from: NodeId, prev: Index, hint: EntryId) {
        let base = self.log.base();
        // A follower whose log ends with an entry that is here needs no snapshot: it has one that is older than the one offered.
        let is_here = hint.index >= base.index && self.log.term_at(hint.index) == Some(hint.term);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        if matches!(progress.mode, Mode::Snapshot { .. }) && is_here {
            return progress.probe(hint.index.next());
        }
        let asked = match progress.mode {
            Mode::Probe { .. } => prev == progress.next.prev(),
            Mode::Replicate => true,
            Mode::Snapshot { .. } => false,
        };
        // Never back below what was acknowledged: a follower that lost it would be asked the same for ever.
        if asked && prev > progress.matched {
            // Both logs agree at most up to where both have terms as old as the hint's. Before the log's base nothing can be
            // compared: sending from there on is for a snapshot.
            let bound = hint.index.min(prev.prev());
            let agreed = if bound < base.index { bound } else { self.log.last_at_most(bound, hint.term).index };
            progress.probe(agreed.next());
        }
    }

    /// Commits what a quorum holds durably, but only with an entry of the own term on top (thesis §3.6.2, figure 3.7).
    pub(crate) fn advance_commit(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let own = (self.config.id, self.durability.index());
        let matched = |id: &NodeId| {
            if *id == own.0 { own.1 } else { leader.progress.get(id).map_or(Index::ZERO, |p| p.matched) }
        };
        let reached = quorum::reached(self.membership(), matched);
        if reached > self.commit && self.log.term_at(reached) == Some(self.term) {
            self.commit_to(reached);
        }
    }

    /// Messages to a follower are being lost: ask where it is before sending on.
    pub(crate) fn on_unreachable(&mut self, to: NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(progress) = leader.progress.get_mut(&to)
            && progress.mode == Mode::Replicate
        {
            progress.probe(progress.matched.next());
        }
    }
}

/// The follower's side.
impl RaftCore {
    pub(crate) fn on_append(&mut self, from: NodeId, append: Append) {
        if !self.hear(from) || !is_contiguous(append.prev, &append.entries, self.term) {
            return;
        }
        let Append { session, round, prev, entries, commit } = append;
        let last = Index(prev.index.0.saturating_add(entries.len() as u64));
        if !self.log.covers(prev) {
            self.mind_the_gap();
            let hint = self.log.last_at_most(prev.index.prev(), prev.term);
            let outcome = AppendOutcome::Missing { prev: prev.index, hint };
            return self.acknowledge(self.durability.seq_of_hard_state(), from, (session, round), outcome);
        }
        let empty = entries.is_empty();
        if !empty || !self.is_blank() {
            self.mind_what_is_filled(commit);
        }
        if !self.take_in(entries) {
            return;
        }
        self.commit_to(commit.min(last).max(self.commit));
        // A heartbeat is answered at once with what is durable; entries are acknowledged when they are.
        let matched = if empty { last.min(self.durability.index()) } else { last };
        let seq = self.durability.seq_of_log(matched).max(self.durability.seq_of_hard_state());
        self.acknowledge(seq, from, (session, round), AppendOutcome::Matched(matched));
    }

    /// Answers a leader that was heard, once write `seq` is durable; it is promised that nobody else gets this vote for a while.
    pub(crate) fn acknowledge(&mut self, seq: u64, to: NodeId, (session, round): (u64, u64), outcome: AppendOutcome) {
        let promise = self.config.election_timeout;
        self.promise(seq, to, Message::AppendReply(AppendReply { session, round, promise, outcome }));
    }

    /// A leader of this term was heard. False if that cannot be.
    pub(crate) fn hear(&mut self, from: NodeId) -> bool {
        if self.term == Term::ZERO {
            // Nobody was elected yet, and an entry of no term has no place in a log.
            return false;
        }
        let other = match &self.role {
            Role::Leader(_) => true,
            Role::Follower { leader: Some(leader) } => *leader != from,
            _ => false,
        };
        if other && !self.membership().contains(&from) {
            // Not a member's word; a member's would be a breach of the protocol.
            return false;
        }
        if other {
            self.breach(Breach::TwoLeaders { term: self.term, other: from });
            return false;
        }
        self.follow(self.term, Some(from));
        self.leader_contact = self.now;
        self.stay_loyal();
        self.rest();
        self.expire_reads();
        true
    }

    /// Puts a leader's entries into the log. Only a real conflict cuts it: an older message that arrives late must not
    /// cut what a newer one brought. False if a committed entry would go.
    fn take_in(&mut self, entries: Vec<Entry>) -> bool {
        for entry in entries {
            if self.log.covers(entry.id()) {
                continue;
            }
            if entry.index <= self.commit {
                self.breach(Breach::CommittedConflict { index: entry.index });
                return false;
            }
            if entry.index <= self.log.last().index {
                self.log.truncate_from(entry.index);
                self.durability.truncated(entry.index);
                self.transitions.push(Transition::Truncated { from: entry.index });
            }
            self.append(entry);
        }
        true
    }
}

/// Whether the entries follow on `prev` one by one, with terms that never go back and are not beyond the leader's, none of term
/// 0, in which nobody leads. Behind the last index that there is nothing follows.
fn is_contiguous(prev: EntryId, entries: &[Entry], term: Term) -> bool {
    let mut before = prev;
    entries.iter().all(|entry| {
        let is_next = entry.index == before.index.next() && entry.index > before.index;
        let follows = is_next && entry.term >= before.term.max(Term(1)) && entry.term <= term;
        before = entry.id();
        follows
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Payload;

    #[test]
    fn entries_follow_one_by_one_in_terms_that_have_a_leader() {
        let follow = |prev: (u64, u64), entries: &[(u64, u64)]| {
            let entry =
                |(term, index): &(u64, u64)| Entry { index: Index(*index), term: Term(*term), payload: Payload::Noop };
            let entries: Vec<Entry> = entries.iter().map(entry).collect();
            is_contiguous(EntryId::new(prev.0, prev.1), &entries, Term(3))
        };
        assert!(follow((0, 0), &[(1, 1), (1, 2), (3, 3)]) && follow((2, 4), &[]));
        for (prev, entries) in [
            ((0, 0), &[(0, 1)][..]),
            ((0, 0), &[(1, 2)]),
            ((2, 4), &[(1, 5)]),
            ((2, 4), &[(4, 5)]),
            ((2, 4), &[(2, 5), (2, 5)]),
            ((2, u64::MAX), &[(2, u64::MAX)]),
        ] {
            assert!(!follow(prev, entries), "{entries:?} after {prev:?}");
        }
    }
}
