//! What a leader knows of one follower, and how much it may have on its way to it.

use alloc::collections::VecDeque;

use crate::ids::{EntryId, Index, Instant};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Progress {
    /// Which stay in the configuration: acknowledgements of another stay do not count.
    pub(crate) session: u64,
    pub(crate) mode: Mode,
    /// Durable on the follower and the same as here.
    pub(crate) matched: Index,
    /// The next entry to send.
    pub(crate) next: Index,
    /// The newest heartbeat round it has answered.
    pub(crate) round: u64,
    /// When it was last heard.
    pub(crate) contact: Instant,
    /// It votes for nobody else before, by the leader's clock.
    pub(crate) leased: Instant,
    /// The commit index it was last told.
    pub(crate) told: Index,
    /// The commit index it was told while its log was, as far as is known, empty. Until it has come so far it votes for nobody,
    /// as it might have lost what it once acknowledged.
    pub(crate) memory_from: Index,
    /// Last index and bytes of each append on its way.
    window: VecDeque<(Index, usize)>,
    window_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Mode {
    /// Where its log parts from this one is not known: one append at a time.
    Probe { waiting: bool },
    /// It follows: appends are sent ahead, without waiting.
    Replicate,
    /// What it lacks is no longer in the log: it is offered the newest snapshot. It may have begun to install the first that
    /// it was offered, and then needs the log from `since` on.
    Snapshot { last: EntryId, since: Index },
}

impl Progress {
    pub(crate) const fn new(session: u64, next: Index, now: Instant) -> Self {
        Self {
            session,
            mode: Mode::Probe { waiting: false },
            matched: Index::ZERO,
            next,
            round: 0,
            contact: now,
            leased: Instant(0),
            told: Index::ZERO,
            memory_from: Index::ZERO,
            window: VecDeque::new(),
            window_bytes: 0,
        }
    }

    /// It follows, and was not told yet that so much is committed.
    pub(crate) fn lacks_notice(&self, commit: Index) -> bool {
        self.told < commit && self.mode == Mode::Replicate
    }

    /// How many bytes of entries may leave in one more append, the first entry being of this size; none if it has to wait.
    /// When nothing is on its way one entry of any size may.
    pub(crate) fn room(&self, first: usize, messages_max: usize, bytes_max: usize) -> Option<usize> {
        let room = bytes_max.saturating_sub(self.window_bytes);
        let may = self.window.is_empty() || (self.window.len() < messages_max && first <= room);
        may.then_some(room)
    }

    pub(crate) fn sent(&mut self, last: Index, bytes: usize) {
        self.window.push_back((last, bytes));
        self.window_bytes += bytes;
        self.next = last.next();
    }

    /// The follower has everything up to `index`; true if that is news.
    pub(crate) fn matches(&mut self, index: Index) -> bool {
        while self.window.front().is_some_and(|(last, _)| *last <= index) {
            let bytes = self.window.pop_front().map_or(0, |(_, bytes)| bytes);
            self.window_bytes -= bytes;
        }
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(index.next());
        news
    }

    /// Back to one append at a time, from `next`.
    pub(crate) fn probe(&mut self, next: Index) {
        self.mode = Mode::Probe { waiting: false };
        self.next = next.max(self.matched.next());
        self.window.clear();
        self.window_bytes = 0;
    }

    pub(crate) fn replicate(&mut self) {
        self.mode = Mode::Replicate;
        self.next = self.next.max(self.matched.next());
    }

    pub(crate) fn offer(&mut self, last: EntryId) {
        let since = match self.mode {
            Mode::Snapshot { since, .. } => since,
            _ => last.index,
        };
        self.mode = Mode::Snapshot { last, since };
        self.window.clear();
        self.window_bytes = 0;
    }
}
