//! When snapshots are taken, fetched and put in place. The bytes are the infrastructure's; what is decided here is which, when,
//! and what they mean for those who wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Entry, EntryId, Index, Input, Instant, NodeId, SnapshotFetch};

use crate::error::{Outcome, Refusal};
use crate::notice::Notice;
use crate::ports::Reply;
use crate::replica::{Effect, Replica};
use crate::snapshot_meta::SnapshotMeta;
use crate::waiting::RequestId;

/// After a snapshot that failed, and after twice as long each time it fails again.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_mins(10);
/// Between two attempts to fetch a leader's snapshot.
const FETCH_RETRY: Duration = Duration::from_millis(500);
/// People who wait for a snapshot.
const ASKED_MAX: usize = 64;

/// What is known of this node's snapshots.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// Being written: what it covers, and the bytes and entries that were handed to the machine before.
    taking: Option<(EntryId, usize, u64)>,
    /// Handed to the machine since the last snapshot.
    bytes: usize,
    entries: u64,
    /// Bytes of the file of the newest one.
    size: u64,
    failures: u32,
    failed_at: Instant,
    /// Why the last attempt failed.
    pub(crate) error: Option<String>,
    /// The newest cannot be read: another one is needed.
    lost: bool,
    /// Until when they wait for a snapshot that covers what the machine had been handed when they asked.
    asked: BTreeMap<RequestId, (Instant, Index)>,
    fetching: Option<Fetching>,
    fetch_at: Instant,
    /// With the machine, and its size.
    restoring: Option<(SnapshotMeta, u64)>,
    /// Followers that fetch this node's, and how far they are.
    sending: BTreeMap<NodeId, (u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fetching {
    /// The newest that was asked for. What comes may be an older one, until the leader has told which it has.
    wanted: EntryId,
    bytes: u64,
    total: u64,
}

impl Snapshots {
    /// This node starts with a snapshot of so many bytes.
    pub(crate) fn restored(&mut self, bytes: u64) {
        self.size = bytes;
    }

    /// An entry was handed to the machine, or the machine has it on its own disk.
    pub(crate) fn count(&mut self, entry: &Entry) {
        self.bytes += entry.size();
        self.entries += 1;
    }
}

/// Taking them.
impl Replica {
    /// Somebody wants one now.
    pub(crate) fn on_snapshot(&mut self, request: RequestId, deadline: Instant) {
        if let Err(refusal) = self.door(0) {
            return self.answer_refused(request, refusal);
        }
        if self.snapshots.asked.len() >= ASKED_MAX {
            return self.answer_refused(request, Refusal::Busy("many callers wait for a snapshot already".to_owned()));
        }
        self.snapshots.asked.insert(request, (deadline, self.handed));
    }

    /// Takes a snapshot if it is time, or somebody waits for one.
    pub(crate) fn snapshot(&mut self) {
        self.expire_snapshots();
        let is_idle = self.snapshots.taking.is_none() && self.snapshots.restoring.is_none();
        if !is_idle || self.failure.is_some() {
            return;
        }
        let covered = self.core.snapshot().index;
        if self.handed <= covered && !self.snapshots.lost {
            return self.answer_snapshots(covered);
        }
        let is_due = self.is_snapshot_due() && self.clock.now >= self.snapshot_retry_at();
        if !is_due && self.snapshots.asked.is_empty() {
            return;
        }
        let Some(last) = self.entry_id(self.handed) else { return };
        let meta = SnapshotMeta {
            last,
            command: self.command,
            time: self.applied_time,
            membership: Arc::clone(self.core.membership_at(last.index)),
        };
        self.snapshots.taking = Some((last, self.snapshots.bytes, self.snapshots.entries));
        self.notice_snapshot("writing", last.index, 0, 0, None, None);
        self.effects.push(Effect::TakeSnapshot(meta));
    }

    /// So much log has come since the last one that keeping it costs more than another snapshot would.
    fn is_snapshot_due(&self) -> bool {
        let Snapshots { bytes, entries, size, lost, .. } = self.snapshots;
        let worth = usize::try_from(size).unwrap_or(usize::MAX);
        let by_bytes = bytes >= self.config.snapshot_every_bytes.max(worth);
        let by_entries = entries >= self.config.snapshot_every_entries && bytes >= worth;
        lost || by_bytes || by_entries || self.core.is_log_full()
    }

    /// When to try again after the last failure: the more of them, the later, but soon while commands are refused for want of a
    /// snapshot.
    fn snapshot_retry_at(&self) -> Instant {
        let wait = match self.snapshots.failures {
            0 => return Instant(0),
            _ if self.core.is_log_full() => RETRY_FIRST,
            failures => RETRY_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(RETRY_MAX),
        };
        self.snapshots.failed_at + wait
    }

    fn entry_id(&self, index: Index) -> Option<EntryId> {
        let snapshot = self.core.snapshot();
        let here = (snapshot.index == index).then_some(snapshot);
        here.or_else(|| self.core.entry(index).map(Entry::id))
    }

    pub(crate) fn on_snapshot_written(&mut self, last: EntryId, bytes: u64) {
        let Some((_, counted_bytes, counted)) = self.snapshots.taking.take_if(|(taking, ..)| *taking == last) else {
            return;
        };
        let snapshots = &mut self.snapshots;
        snapshots.bytes = snapshots.bytes.saturating_sub(counted_bytes);
        snapshots.entries = snapshots.entries.saturating_sub(counted);
        (snapshots.size, snapshots.failures, snapshots.error, snapshots.lost) = (bytes, 0, None, false);
        self.step(Input::SnapshotTaken { last });
        self.notice_snapshot("written", last.index, bytes, bytes, None, None);
        self.answer_snapshots(last.index);
    }

    pub(crate) fn on_snapshot_failed(&mut self, last: EntryId, why: String) {
        if self.snapshots.taking.take_if(|(taking, ..)| *taking == last).is_none() {
            return;
        }
        if self.core.snapshot().index >= last.index {
            // The leader's has overtaken it, and is as good.
            return self.answer_snapshots(self.core.snapshot().index);
        }
        self.snapshots.failures += 1;
        self.snapshots.failed_at = self.clock.now;
        tracing::warn!(index = %last.index, "no snapshot could be taken: {why}");
        self.notice_snapshot("failed", last.index, 0, 0, None, Some(why.clone()));
        for request in std::mem::take(&mut self.snapshots.asked).into_keys() {
            self.answer_refused(request, Refusal::Snapshot(format!("no snapshot was taken: {why}")));
        }
        self.snapshots.error = Some(why);
        // Whoever can serve a snapshot that is needed is the better leader.
        if self.snapshots.lost && self.core.is_leader() {
            self.step(Input::TransferLeadership(None));
        }
    }

    /// The newest one cannot be read, and somebody needs it: the state is here, so another one can be taken.
    pub(crate) fn on_snapshot_unreadable(&mut self, why: String) {
        tracing::error!("this node's snapshot cannot be read; another one is taken: {why}");
        self.snapshots.lost = true;
        self.snapshots.error = Some(why);
    }

    /// Answers those who wait for a snapshot that goes as far as this one. Who asked while it was written waits for the next.
    fn answer_snapshots(&mut self, index: Index) {
        let term = self.core.term();
        let is_covered = |_: &RequestId, (_, since): &mut (Instant, Index)| *since <= index;
        let covered: Vec<_> = self.snapshots.asked.extract_if(.., is_covered).collect();
        for (request, _) in covered {
            let outcome = Outcome::Done { index, term, reply: Reply::Value(Bytes::new()) };
            self.effects.push(Effect::Answer(request, outcome));
        }
    }

    fn expire_snapshots(&mut self) {
        if self.snapshots.asked.is_empty() {
            return;
        }
        let now = self.clock.now;
        let expired: Vec<RequestId> = self
            .snapshots
            .asked
            .extract_if(.., |_, (deadline, _)| *deadline <= now)
            .map(|(request, _)| request)
            .collect();
        for request in expired {
            let why = "the snapshot is not written yet; it goes on without this call".to_owned();
            self.effects.push(Effect::Answer(request, Outcome::unknown(why)));
        }
    }

    pub(crate) fn dismiss_snapshots(&mut self, refusal: &Refusal) {
        for request in std::mem::take(&mut self.snapshots.asked).into_keys() {
            self.answer_refused(request, refusal.clone());
        }
    }

    pub(crate) fn snapshots_deadline(&self) -> Instant {
        let asked = self.snapshots.asked.values().map(|(deadline, _)| *deadline).min().unwrap_or(Instant::NEVER);
        let waits = self.snapshots.taking.is_none() && self.is_snapshot_due() && self.failure.is_none();
        let retry = self.snapshot_retry_at();
        if waits && retry > self.clock.now { asked.min(retry) } else { asked }
    }
}

/// Getting a leader's.
impl Replica {
    /// The leader has what this node lacks.
    pub(crate) fn on_fetch(&mut self, fetch: SnapshotFetch) {
        let SnapshotFetch { leader, last } = fetch;
        let is_coming = self.snapshots.fetching.is_some_and(|fetching| fetching.wanted >= last);
        if is_coming || self.snapshots.restoring.is_some() || self.clock.now < self.snapshots.fetch_at {
            return;
        }
        if let Some(fetching) = &mut self.snapshots.fetching {
            // It goes on from where it is, as far as can be told.
            fetching.wanted = last;
        } else {
            self.snapshots.fetching = Some(Fetching { wanted: last, bytes: 0, total: 0 });
            self.notice_snapshot("fetching", last.index, 0, 0, Some(leader), None);
        }
        self.effects.push(Effect::Fetch { leader, last });
    }

    /// Whether a leader's snapshot is on its way into this node's machine.
    pub(crate) fn is_installing(&self) -> bool {
        self.snapshots.fetching.is_some() || self.snapshots.restoring.is_some()
    }

    pub(crate) fn on_snapshot_fetching(&mut self, last: EntryId, bytes: u64, total: u64) {
        if let Some(fetching) = &mut self.snapshots.fetching {
            (fetching.wanted, fetching.bytes, fetching.total) = (fetching.wanted.max(last), bytes, total);
            let leader = self.core.leader();
            self.notice_snapshot("fetching", last.index, bytes, total, leader, None);
        }
    }

    pub(crate) fn on_snapshot_fetch_failed(&mut self, last: EntryId, why: String) {
        self.snapshots.fetching = None;
        self.snapshots.fetch_at = self.clock.now + FETCH_RETRY;
        tracing::warn!(index = %last.index, "the leader's snapshot could not be fetched: {why}");
        self.notice_snapshot("failed", last.index, 0, 0, self.core.leader(), Some(why));
    }

    /// It is on the disk. The machine gets it unless it has come past it by the log.
    pub(crate) fn on_snapshot_fetched(&mut self, meta: SnapshotMeta, bytes: u64) {
        self.snapshots.fetching = None;
        let last = meta.last;
        if last.index <= self.core.applied() {
            self.step(Input::SnapshotTaken { last });
        } else if self.failure.is_none() {
            self.notice_snapshot("applying", last.index, bytes, bytes, None, None);
            self.effects.push(Effect::Restore(meta.clone()));
            self.snapshots.restoring = Some((meta, bytes));
        }
    }

    /// The machine has the state of the snapshot: the log may go on from there.
    pub(crate) fn on_snapshot_restored(&mut self, last: EntryId) {
        let Some((meta, bytes)) = self.snapshots.restoring.take_if(|(meta, _)| meta.last == last) else { return };
        // It may cover calls that were handed over: they would not be seen any more.
        self.hand_over_again();
        self.step(Input::SnapshotInstalled { last, membership: Arc::clone(&meta.membership) });
        self.handed = self.handed.max(last.index);
        self.command = self.command.max(meta.command);
        self.applied_time = self.applied_time.max(meta.time);
        self.time = self.time.max(meta.time);
        let Snapshots { bytes: counted, entries, size, .. } = &mut self.snapshots;
        (*counted, *entries, *size) = (0, 0, bytes);
        // Whatever kept this node from taking one of its own, it has one now.
        (self.snapshots.error, self.snapshots.failures) = (None, 0);
        self.notice_snapshot("installed", last.index, bytes, bytes, None, None);
    }

    pub(crate) fn on_snapshot_sending(&mut self, to: NodeId, bytes: u64, total: u64) {
        if bytes >= total || !self.core.membership().contains(&to) {
            self.snapshots.sending.remove(&to);
        } else {
            self.snapshots.sending.insert(to, (bytes, total));
        }
        let index = self.core.snapshot().index;
        self.notice_snapshot("sending", index, bytes, total, Some(to), None);
    }

    fn notice_snapshot(
        &mut self,
        phase: &'static str,
        index: Index,
        bytes: u64,
        total: u64,
        peer: Option<NodeId>,
        why: Option<String>,
    ) {
        self.effects.push(Effect::Notice(Notice::Snapshot { phase, index, bytes, total, peer, why }));
    }

    /// What goes on with snapshots here: a word and how much of it is done, from 0 to 1, if that is known.
    pub(crate) fn snapshot_phase(&self) -> Option<(&'static str, Option<f64>)> {
        let Snapshots { taking, fetching, restoring, .. } = &self.snapshots;
        if restoring.is_some() {
            return Some(("applying", None));
        }
        if let Some(Fetching { bytes, total, .. }) = fetching {
            #[expect(clippy::cast_precision_loss, reason = "a share of a file, for people")]
            let share = (*total > 0).then(|| *bytes as f64 / *total as f64);
            return Some(("fetching", share));
        }
        taking.is_some().then_some(("writing", None))
    }

    /// Bytes of the newest snapshot's file, if it was taken or fetched in this run or known at its start.
    pub(crate) fn snapshot_bytes(&self) -> Option<u64> {
        (self.core.snapshot().index > Index::ZERO && self.snapshots.size > 0).then_some(self.snapshots.size)
    }

    /// How far a follower is that fetches this node's snapshot: bytes and their total.
    pub(crate) fn sent_to(&self, follower: NodeId) -> Option<(u64, u64)> {
        self.snapshots.sending.get(&follower).copied()
    }
}
