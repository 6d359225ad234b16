//! The threads that may block on the disk: the log's and that of snapshots. What they do is done by the store that ships.

use std::io::Read;
use std::time::Duration;

use graft_domain::{ClusterId, EntryId, NodeId, Write};
use graft_services::Event;
use graft_services::ports::{LogStore, SnapshotFiles, StoreError, WriteSnapshot};
use graft_services::snapshot_meta::SnapshotMeta;

use crate::disk::Disk;
use crate::node::Running;
use crate::trace::Origin;
use crate::world::{Happening, World};

/// How long to wait before a write is tried again on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub(crate) enum StoreJob {
    Persist(Write),
    Compact(EntryId),
    Cluster(ClusterId),
}

pub(crate) struct SnapshotJob {
    pub(crate) meta: SnapshotMeta,
    pub(crate) write: WriteSnapshot,
}

/// Which version wrote a snapshot, and what is in its file, as one number. The sessions in it have the replies that its writer still knew, and beside
/// a machine with a disk of its own fewer are known after a start: where there are such the sessions are left out, and
/// compared as the replicas' digests are.
pub(crate) fn content(
    snapshots: &graft_store::Snapshots<Disk>,
    last: EntryId,
    has_kept: bool,
) -> Result<(u8, u64), String> {
    let (meta, mut reader) = snapshots.read(last).map_err(|error| error.to_string())?;
    let mut bytes = meta.encode().to_vec();
    if has_kept {
        let mut length = [0; 8];
        reader.read_exact(&mut length).map_err(|error| error.to_string())?;
        let mut sessions = (&mut reader).take(u64::from_le_bytes(length));
        std::io::copy(&mut sessions, &mut std::io::sink()).map_err(|error| error.to_string())?;
    }
    reader.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let code = bytes.last().copied().unwrap_or_default();
    Ok((code, bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)))
}

impl Running {
    fn do_job(&mut self) -> Result<(), StoreError> {
        let writes: Vec<Write> = writes(&self.storing);
        match self.storing.first() {
            Some(StoreJob::Compact(covered)) => self.wal.compact(*covered),
            // As in the runtime: the log has the name, and the next start writes it down.
            Some(StoreJob::Cluster(cluster)) => self.wal.record_cluster(*cluster).or(Ok(())),
            _ => self.wal.persist(&writes),
        }
    }
}

pub(crate) fn writes(jobs: &[StoreJob]) -> Vec<Write> {
    let write = |job: &StoreJob| if let StoreJob::Persist(write) = job { Some(write.clone()) } else { None };
    jobs.iter().filter_map(write).collect()
}

impl World {
    pub(crate) fn store(&mut self, id: NodeId, job: StoreJob) {
        if let Some(running) = self.nodes.get_mut(&id).and_then(|node| node.running.as_mut())
            && !running.store_failed
        {
            running.store_jobs.push_back(job);
            self.mind_store(id);
        }
    }

    /// The disk begins with what waits: all writes at once, or one other thing.
    pub(crate) fn mind_store(&mut self, id: NodeId) {
        let (least, most) = self.mix.sync;
        let mut takes = self.dice.micros(least, most);
        if !self.healed && self.dice.chance(self.mix.hang) {
            self.coverage.saw("a sync hangs");
            takes += self.dice.micros(200_000, 3_000_000);
        }
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(running) = &mut node.running else { return };
        if !running.storing.is_empty() || running.store_failed {
            return;
        }
        while let Some(job) = running.store_jobs.front() {
            let is_write = matches!(job, StoreJob::Persist(_));
            let joins = running.storing.first().is_none_or(|first| is_write && matches!(first, StoreJob::Persist(_)));
            if !joins {
                break;
            }
            running.storing.extend(running.store_jobs.pop_front());
        }
        if !running.storing.is_empty() {
            let (run, at) = (running.run, (now + takes).max(node.hangs_until));
            running.storing_until = at;
            self.at(at, Happening::Stored(id, run));
        }
    }

    /// The disk is done with what it was at.
    pub(crate) fn stored(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(running) = &mut node.running else { return };
        // It was waited for longer, and went on when everything healed.
        if running.storing.is_empty() || running.storing_until > now {
            return;
        }
        let done = running.do_job();
        match done {
            Ok(()) => {
                let mut seq = None;
                for job in std::mem::take(&mut running.storing) {
                    match job {
                        StoreJob::Persist(write) => {
                            seq = Some(write.seq);
                            node.shadow.write(&write);
                        }
                        StoreJob::Compact(covered) => node.shadow.compact(covered),
                        StoreJob::Cluster(_) => {}
                    }
                }
                if let Some(seq) = seq {
                    if let Some(trace) = &mut self.trace {
                        trace.stored(id, seq);
                    }
                    self.tell(id, Event::Persisted { seq });
                }
                self.mind_store(id);
            }
            Err(StoreError::Full { .. }) => {
                let run = running.run;
                running.storing_until = now + FULL_RETRY;
                self.coverage.saw("a write waits for space");
                self.tell(id, Event::StorageFull);
                self.later(FULL_RETRY, Happening::Stored(id, run));
            }
            Err(error) => {
                node.in_flight = writes(&running.storing);
                running.storing.clear();
                running.store_jobs.clear();
                running.store_failed = true;
                let (excused, again) = (node.faulted, running.wal.persist(&node.in_flight));
                let stays = matches!(again, Err(StoreError::Poisoned));
                self.must(if stays { Ok(()) } else { Err(format!("{id}: its store failed and then says {again:?}")) });
                self.coverage.saw("a store failed");
                self.note(|| format!("the store of {id} fails: {error}"));
                self.must(if excused { Ok(()) } else { Err(format!("the store of {id} fails: {error}")) });
                self.tell(id, Event::StorageFailed(error.to_string()));
                let after = self.dice.micros(100_000, 3_000_000);
                self.later(after, Happening::DiskMends(id));
            }
        }
    }

    /// A machine goes down while its disk is at something: part of that may have come to pass.
    pub(crate) fn break_off(&mut self, id: NodeId) {
        let (store, snapshot) = (self.dice.chance(600), self.dice.chance(600));
        let (first, second) = (self.dice.below(6), self.dice.below(12));
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(running) = &mut node.running else { return };
        if !running.store_failed && !running.storing.is_empty() {
            node.in_flight = writes(&running.storing);
            if store {
                self.coverage.saw("a write crashed half way");
                node.disk.faults(|faults| faults.power_off_in = Some(first));
                // Whatever it says, nobody hears it.
                let _ = running.do_job();
            }
        }
        if snapshot && let Some(SnapshotJob { meta, write }) = running.snapshot_jobs.pop_front() {
            self.coverage.saw("a snapshot crashed half way");
            node.disk.faults(|faults| faults.power_off_in = faults.power_off_in.or(Some(second)));
            let _ = running.snapshots.write(&meta, write);
        }
        node.disk.faults(|faults| faults.power_off_in = None);
    }

    pub(crate) fn snapshot_job(&mut self, id: NodeId, meta: SnapshotMeta, write: WriteSnapshot) {
        let takes = self.dice.micros(500, 40_000);
        let Some(running) = self.nodes.get_mut(&id).and_then(|node| node.running.as_mut()) else { return };
        running.snapshot_jobs.push_back(SnapshotJob { meta, write });
        let run = running.run;
        self.later(takes, Happening::SnapshotWritten(id, run));
    }

    pub(crate) fn snapshot_written(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(running) = &mut node.running else { return };
        let Some(SnapshotJob { meta, write }) = running.snapshot_jobs.pop_front() else { return };
        let last = meta.last;
        let event = match running.snapshots.write(&meta, write) {
            Ok(bytes) => {
                node.shadow.snapshot =
                    if last.index > node.shadow.snapshot.index { last } else { node.shadow.snapshot };
                let found = content(&running.snapshots, last, self.mix.keeps > 0);
                let verdict = self
                    .checks
                    .covers(last, &meta.membership)
                    .and_then(|()| found.and_then(|found| self.history.snapshotted(id, last, found)));
                self.coverage.saw("a snapshot is written");
                if let Some(trace) = &mut self.trace {
                    trace.has_snapshot(id, last, Origin::Made);
                }
                self.must(verdict);
                self.note(|| format!("{id} has written a snapshot of {last}"));
                Event::SnapshotWritten { last, bytes }
            }
            Err(error) => {
                self.coverage.saw("a snapshot fails");
                Event::SnapshotFailed { last, why: error.to_string() }
            }
        };
        self.tell(id, event);
    }
}
