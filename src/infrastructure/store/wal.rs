//! The write-ahead log as the services see it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use graft_domain::{ClusterId, EntryId, Index, Write};
use graft_services::ports::{Identity, LogStore, StoreError};

use super::batch;
use super::errors::io_error;
use super::files::Files;
use super::identity;
use super::os::PlacedFiles;
use super::record;
use super::segment::SegmentHeader;
use super::segments::{Leave, Segments};
use super::state::{HardState, LogState, Misfit};

/// Bytes of the write buffer that are kept from one batch to the next.
const BUFFER_BYTES_KEPT: usize = 8 << 20;

/// An open log. It holds the directory's lock until it, and whoever shares the lock, is dropped.
#[derive(Debug)]
pub struct Wal<F: Files = PlacedFiles> {
    pub(super) segments: Segments<F>,
    identity: Identity,
    pub(super) durable: Progress,
    /// What `durable.state` becomes once the batch at hand is durable.
    pub(super) next: LogState,
    pub(super) buffer: Vec<u8>,
    poisoned: bool,
    /// The cluster in `identity`, for whoever else has to know.
    cluster: Arc<OnceLock<ClusterId>>,
    lock: Arc<F::Lock>,
}

/// How far the log has come.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) state: LogState,
    /// The number of the last batch.
    pub(super) batch: u64,
    /// The checksum of the last batch.
    pub(super) link: u32,
}

impl<F: Files> Wal<F> {
    /// The directory's lock, for whoever else still writes into the directory: it is free when all have let go.
    pub fn lock(&self) -> Arc<F::Lock> {
        Arc::clone(&self.lock)
    }

    pub(super) fn new(
        segments: Segments<F>,
        identity: Identity,
        durable: Progress,
        cluster: Arc<OnceLock<ClusterId>>,
        lock: Arc<F::Lock>,
    ) -> Self {
        let next = durable.state.clone();
        Self { segments, identity, durable, next, buffer: Vec::new(), poisoned: false, cluster, lock }
    }

    /// Bytes that the log's files take on the disk: space written ahead and spare files are counted.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.disk_bytes()
    }

    /// What the directory says of itself.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Writes down, atomically and durably, which cluster this directory belongs to. Once known it never changes.
    ///
    /// # Errors
    /// [`StoreError::Io`] if another cluster is known already (nothing is changed and the store goes on);
    /// [`StoreError::Full`], after which it can be tried again; anything else poisons.
    pub fn record_cluster(&mut self, cluster: ClusterId) -> Result<(), StoreError> {
        self.guarded(|wal| {
            let known = wal.identity.cluster;
            if known == cluster {
                return Ok(Ok(()));
            }
            if known != ClusterId::UNKNOWN {
                let path = wal.segments.directory.join(identity::NAME).display().to_string();
                let what = format!(
                    "this node belongs to cluster {known}, not to {cluster}: start it with the members of its own \
                     cluster, or with an empty directory"
                );
                return Ok(Err(StoreError::Io { path, what }));
            }
            let identity = Identity { cluster, ..wal.identity };
            identity::write(&wal.segments.files, &wal.segments.directory, &identity)?;
            wal.identity = identity;
            // It is set nowhere else, and only once.
            let _ = wal.cluster.set(cluster);
            Ok(Ok(()))
        })?
    }

    /// Writes down, atomically and durably, that no promise of an earlier run is longer than this any more.
    ///
    /// # Errors
    /// [`StoreError::Full`], after which it can be tried again; anything else poisons.
    pub fn keep_promise(&mut self, promise: Duration) -> Result<(), StoreError> {
        self.guarded(|wal| {
            let identity = Identity { promise, ..wal.identity };
            identity::write(&wal.segments.files, &wal.segments.directory, &identity)?;
            wal.identity = identity;
            Ok(())
        })
    }

    /// Runs what may fail, and remembers if it did. On a full disk the spare files are given back first of all.
    fn guarded<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let result = run(self);
        match &result {
            Ok(_) => {}
            Err(StoreError::Full { .. }) => self.segments.release_spares(),
            Err(_) => self.poisoned = true,
        }
        result
    }

    fn append(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.next.copy_from(&self.durable.state);
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        batch::begin(&mut self.buffer);
        for write in writes {
            let hard = HardState { term: write.term, vote: write.vote, commit: write.commit };
            self.next.advance(hard).map_err(|misfit| self.misfit(misfit))?;
        }
        if self.next.hard != self.durable.state.hard {
            record::put_hard_state(&mut self.buffer, &self.next.hard);
        }
        let mut greatest = Index::ZERO;
        for write in writes {
            for (nth, entry) in write.entries.iter().enumerate() {
                let last = self.next.last.index;
                if nth > 0 && entry.index.prev() != last {
                    return Err(self.misfit(Misfit::Gap { last, index: entry.index }));
                }
                self.next.append(entry.id()).map_err(|misfit| self.misfit(misfit))?;
                if !record::put_entry(&mut self.buffer, entry) {
                    return Err(self.too_large());
                }
                greatest = greatest.max(entry.index);
            }
        }
        if batch::is_empty(&self.buffer) {
            // All of it is durable already.
            return Ok(());
        }
        if self.segments.is_full_for(batch::padded(&self.buffer)) {
            self.segments.roll(self.next_segment())?;
        }
        self.commit(Leave::RoomForBase, greatest)
    }

    /// Makes the batch in the buffer durable, and `next` the state of the log.
    pub(super) fn commit(&mut self, leave: Leave, greatest: Index) -> Result<(), StoreError> {
        let number = self.durable.batch + 1;
        let header = batch::seal(&mut self.buffer, self.segments.place(), number).ok_or_else(|| self.too_large())?;
        self.segments.write(&mut self.buffer, leave, greatest)?;
        std::mem::swap(&mut self.durable.state, &mut self.next);
        (self.durable.batch, self.durable.link) = (number, header.crc);
        Ok(())
    }

    fn rebase(&mut self, covered: EntryId) -> Result<(), StoreError> {
        if covered.index > self.durable.state.base.index {
            self.next.copy_from(&self.durable.state);
            let base = self.next.base_for(covered);
            self.next.rebase(base).map_err(|misfit| self.misfit(misfit))?;
            batch::begin(&mut self.buffer);
            record::put_base(&mut self.buffer, &base);
            // It stays in this segment, however full: a disk without room for a new one must be able to forget.
            self.commit(Leave::Nothing, Index::ZERO)?;
        }
        self.segments.forget(self.durable.state.base.index)
    }

    fn next_segment(&self) -> SegmentHeader {
        let Progress { state, batch, link } = &self.durable;
        SegmentHeader {
            number: 0, // given by the roll
            incarnation: self.identity.incarnation,
            first_batch: batch + 1,
            link: *link,
            prev: state.last,
            base: state.base,
            hard: state.hard,
            recycled: false,
        }
    }

    /// The caller broke the rules of the log; rather than write what recovery would refuse, the store stops.
    fn misfit(&self, misfit: Misfit) -> StoreError {
        let what = format!("refused to write what the log cannot hold: {misfit}. This is a bug, please report it");
        io_error(&self.segments.directory, &std::io::Error::other(what))
    }

    fn too_large(&self) -> StoreError {
        io_error(&self.segments.directory, &std::io::Error::other("one write of 4 GiB or more is too large"))
    }
}

impl<F: Files> LogStore for Wal<F> {
    fn persist(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.guarded(|wal| wal.append(writes))
    }

    /// A snapshot of what the log does not have, or has otherwise, leaves nothing of the log.
    fn compact(&mut self, covered: EntryId) -> Result<(), StoreError> {
        self.guarded(|wal| wal.rebase(covered))
    }

    /// Up to the write position of each segment: space written ahead and spare files are not counted.
    fn bytes(&self) -> u64 {
        self.segments.bytes()
    }
}
