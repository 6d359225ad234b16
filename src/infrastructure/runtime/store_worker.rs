//! The thread that may block on the disk: makes writes durable, many with one sync, and lets the log forget.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use graft_domain::{ClusterId, EntryId, Write};
use graft_services::Event;
use graft_services::ports::{LogStore, StoreError};

use super::doubt::Doubt;
use super::engine::Message;
use super::faults::Faults;
use super::inbox::Inbox;
use crate::infrastructure::metrics::Metrics;
use crate::infrastructure::store::{OsPlace, Wal};

/// For the disk.
#[derive(Debug)]
pub(crate) enum StoreJob {
    Persist(Write),
    /// A durable snapshot covers the log up to here.
    Compact(EntryId),
    /// The cluster's name is committed.
    Cluster(ClusterId),
    /// The cluster is nobody's mistake.
    Settle(Doubt),
}

/// Bytes that go into one write and sync; a single larger write goes alone.
const GATHER_BYTES_MAX: u64 = 64 << 20;
/// How long to wait before a write is tried again on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// How often it is looked whether the data directory is there: what is written into one that was removed is lost with the
/// process, and no write says so.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Does the jobs in their order; writes that queued during the last sync go with the next one.
///
/// Once `killed`, what still waits is dropped as a killed process would. `promise` is for how long this run promises its vote.
pub(crate) fn run_store(
    (wal, place): (Wal, OsPlace),
    jobs: &Receiver<StoreJob>,
    engine: &Inbox,
    killed: &AtomicBool,
    faults: &Faults,
    metrics: &Metrics,
    promise: Duration,
) {
    let old_promise = OldPromise::of(&wal, promise);
    let mut work =
        Work { old_promise, wal, place, looked: Instant::now(), is_lost: false, engine, killed, faults, metrics };
    let mut writes = Vec::new();
    let mut held: Option<StoreJob> = None;
    while let Some(job) = held.take().or_else(|| jobs.recv().ok()) {
        faults.gate();
        if killed.load(Ordering::Relaxed) {
            return;
        }
        let done = match job {
            StoreJob::Persist(write) => {
                writes.push(write);
                held = gather(&mut writes, jobs);
                let done = work.persist(&writes);
                held = held.or_else(|| jobs.try_recv().ok());
                let durable = writes.last().map(|write| write.seq);
                writes.clear();
                done.map(|()| work.tell_durable(durable, held.is_none()))
            }
            StoreJob::Compact(covered) => work.compact(covered),
            StoreJob::Cluster(cluster) => {
                work.name(cluster);
                Ok(())
            }
            StoreJob::Settle(doubt) => {
                doubt.settle();
                Ok(())
            }
        };
        if let Err(error) = done {
            // What comes now fails too, for the store is poisoned; nobody has to be told twice.
            let _ = engine.send(Message::Event(Event::StorageFailed(error.to_string())));
        }
        work.forget_promise();
    }
}

/// Adds further writes that already wait; gives the job that is no write.
fn gather(writes: &mut Vec<Write>, jobs: &Receiver<StoreJob>) -> Option<StoreJob> {
    let mut bytes: u64 = writes.iter().map(bytes_of).sum();
    while bytes < GATHER_BYTES_MAX {
        match jobs.try_recv().ok()? {
            StoreJob::Persist(write) => {
                bytes += bytes_of(&write);
                writes.push(write);
            }
            other => return Some(other),
        }
    }
    None
}

/// Of its entries.
fn bytes_of(write: &Write) -> u64 {
    write.entries.iter().map(|entry| entry.size() as u64).sum()
}

struct Work<'a> {
    wal: Wal,
    place: OsPlace,
    /// When the directory was there last.
    looked: Instant,
    /// It was not there, and a write is missing from the log: should it come back, what came later would leave a gap.
    is_lost: bool,
    engine: &'a Inbox,
    killed: &'a AtomicBool,
    faults: &'a Faults,
    metrics: &'a Metrics,
    old_promise: Option<OldPromise>,
}

/// A run before this one may have promised its vote for longer than this one does.
struct OldPromise {
    /// It binds nobody any more.
    over: Instant,
    promise: Duration,
}

impl OldPromise {
    fn of(wal: &Wal, promise: Duration) -> Option<Self> {
        let old = wal.identity().promise;
        (old > promise).then(|| Instant::now().checked_add(old)).flatten().map(|over| Self { over, promise })
    }
}

impl Work<'_> {
    fn persist(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let begun = Instant::now();
        self.look(begun)?;
        self.insist(|wal| wal.persist(writes))?;
        self.metrics.synced(begun.elapsed(), writes.iter().map(bytes_of).sum());
        Ok(())
    }

    /// Refuses to write where nobody will find it.
    fn look(&mut self, now: Instant) -> Result<(), StoreError> {
        if !self.is_lost && now.duration_since(self.looked) < LOOK_EVERY {
            return Ok(());
        }
        self.is_lost |= !self.place.is_there();
        if self.is_lost {
            return Err(self.place.gone());
        }
        self.looked = now;
        Ok(())
    }

    /// Nobody listens once the node is gone. With nothing else to do this thread may turn the engine.
    fn tell_durable(&self, seq: Option<u64>, is_idle: bool) {
        let Some(seq) = seq else { return };
        let message = Message::Event(Event::Persisted { seq });
        let _ = if is_idle { self.engine.bring(message) } else { self.engine.send(message) };
    }

    fn compact(&mut self, covered: EntryId) -> Result<(), StoreError> {
        self.insist(|wal| wal.compact(covered))
    }

    /// After the log: a directory that knows its cluster has the entry that names it.
    fn name(&mut self, cluster: ClusterId) {
        if let Err(error) = self.wal.record_cluster(cluster) {
            tracing::warn!(%error, "the cluster's name could not be kept beside the log; the log has it");
        }
    }

    /// What an earlier run promised is written down until it is over, for the next start may come before.
    fn forget_promise(&mut self) {
        let Some(OldPromise { promise, .. }) = self.old_promise.take_if(|old| old.over <= Instant::now()) else {
            return;
        };
        if let Err(error) = self.wal.keep_promise(promise) {
            tracing::warn!(%error, "the shorter election timeout could not be written down: the next start waits longer");
        }
    }

    /// Tries until it is done or cannot be; a full disk is waited out.
    fn insist(&mut self, mut run: impl FnMut(&mut Wal) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut told = false;
        loop {
            match self.faults.disk().and_then(|()| run(&mut self.wal)) {
                Err(StoreError::Full { path }) => {
                    if !told {
                        tracing::error!(%path, "no space left: nothing is written until there is");
                    }
                    told = true;
                    let gone = self.engine.send(Message::Event(Event::StorageFull)).is_err();
                    if gone || self.killed.load(Ordering::Relaxed) {
                        return Err(StoreError::Full { path });
                    }
                    std::thread::sleep(FULL_RETRY);
                }
                done => {
                    if told && done.is_ok() {
                        tracing::warn!("there is space again: writes go on");
                    }
                    return done;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/store_worker.rs"]
mod tests;
