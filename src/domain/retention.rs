//! How much of the log is kept although a snapshot covers it: whoever finds there what it lacks needs no snapshot.

use crate::ids::{EntryId, Index};
use crate::progress::Mode;
use crate::raft::{RaftCore, Role};

/// A follower that was heard within so many election timeouts is waited for.
const LATELY: u32 = 10;
/// One that installs a snapshot is waited for longer: what it has got so far cost more than what is kept for it.
const INSTALLING: u32 = 100;

impl RaftCore {
    /// Forgets what a snapshot covers and nobody needs any more, unless it is too little to bother the store with.
    pub(crate) fn shorten(&mut self) {
        let (base, tail_bytes) = (self.log.base().index, self.config.tail_bytes);
        let tail = self.log.reach_back(self.snapshot.index, tail_bytes);
        let cut = self.cut(tail);
        let worthwhile = cut >= tail || self.log.bytes_between(base, cut) >= (tail_bytes / 4).max(1);
        if let Some(term) = self.log.term_at(cut)
            && cut > base
            && worthwhile
        {
            let cut = EntryId { term, index: cut };
            self.log.compact(cut);
            self.compact = Some(cut);
        }
    }

    /// The last entry to forget: it leaves a tail, and on a leader what followers need, within a limit. A log that would be
    /// full all the same keeps the tail only, and if that fills it, nothing.
    fn cut(&self, tail: Index) -> Index {
        let newest = self.snapshot.index;
        let held = self.needed_after().max(self.log.reach_back(newest, self.config.held_bytes_max));
        let room = |cut: &Index| self.log.bytes_after(*cut) < self.config.log_bytes_max;
        [tail.min(held), tail].into_iter().find(room).unwrap_or(newest)
    }

    /// The place behind which some follower that can be hoped for needs the log; the end of all logs if there is none.
    fn needed_after(&self) -> Index {
        let Role::Leader(leader) = &self.role else { return Index::LAST };
        let needs = leader.progress.values().filter_map(|progress| {
            let (index, patience) = match progress.mode {
                Mode::Snapshot { since, .. } => (since, INSTALLING),
                _ => (progress.matched, LATELY),
            };
            (self.now.since(progress.contact) < self.config.election_timeout * patience).then_some(index)
        });
        needs.min().unwrap_or(Index::LAST)
    }
}
