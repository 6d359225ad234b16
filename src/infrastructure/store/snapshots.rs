//! The snapshots of a data directory as the services see them.
//!
//! A file gets its name when all of it is durable and was read back; then the name is made durable; only then older
//! files go. So whenever the machine stops, the old snapshot is there or the new one, and each is whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use graft_domain::{ClusterId, EntryId};
use graft_services::ports::{SnapshotError, SnapshotFiles, StoreError, WriteSnapshot};
use graft_services::snapshot_meta::SnapshotMeta;

use super::errors::{full_or_io, io_error, refused};
use super::files::{Files, read_full};
use super::os::PlacedFiles;
use super::sending::Sending;
use super::snapshot_file::{self, Unreadable};
use super::snapshot_part::{Part, PartError};
use super::snapshot_reader::{AT_REST, SnapshotReader};
use super::snapshot_writer::SnapshotWriter;
use super::survey::Survey;

/// The directory's name, inside the data directory.
pub(super) const DIRECTORY: &str = "snapshots";

const WRITTEN: &str = "The disk did not keep what was just written to it: nothing of it is kept, the snapshot before is \
    untouched. Look at the disk";
const TAKEN_IN: &str = "It was damaged where it came from, on its way, or by this disk: nothing of it is kept, it has to \
    be sent again";

/// The snapshots of an open data directory. It holds the directory's lock as long as it lives.
#[derive(Debug)]
pub struct Snapshots<F: Files = PlacedFiles> {
    files: F,
    directory: PathBuf,
    /// The cluster that the data directory belongs to, once that is known.
    cluster: Arc<OnceLock<ClusterId>>,
    /// What it says of itself, and the bytes of its file. Held for no longer than a look.
    newest: Mutex<Option<(SnapshotMeta, u64)>>,
    /// Whose turn it is to replace the newest.
    installing: Mutex<()>,
    writing: Mutex<()>,
    taking: Mutex<Option<Part<F::File>>>,
    sending: Sending<F::File>,
    _lock: Arc<F::Lock>,
}

/// A file that is being written: gone, unless it got its own name.
struct Draft<'a, F: Files> {
    files: &'a F,
    path: &'a Path,
    named: bool,
}

impl<F: Files> Drop for Draft<'_, F> {
    fn drop(&mut self) {
        if !self.named {
            // What cannot be removed now is at the next opening.
            let _ = self.files.remove(self.path);
        }
    }
}

impl<F: Files> Snapshots<F> {
    /// Takes over what a survey found: makes the directory if there is none, makes sure of the newest snapshot's name, and
    /// removes everything else.
    pub(super) fn open(
        files: F,
        directory: PathBuf,
        survey: Survey,
        cluster: Arc<OnceLock<ClusterId>>,
        lock: Arc<F::Lock>,
    ) -> Result<Self, StoreError> {
        files.make_directory(&directory).map_err(|e| full_or_io(&directory, &e))?;
        // A process that was killed may have left the newest name in memory only; until it is durable the older ones stay.
        files.sync_directory(&directory).map_err(|e| io_error(&directory, &e))?;
        for name in survey.older.iter().chain(&survey.unfinished) {
            let path = directory.join(name);
            files.remove(&path).map_err(|e| io_error(&path, &e))?;
        }
        Ok(Self {
            files,
            directory,
            cluster,
            newest: Mutex::new(survey.newest),
            installing: Mutex::default(),
            writing: Mutex::default(),
            taking: Mutex::default(),
            sending: Sending::default(),
            _lock: lock,
        })
    }

    /// How many bytes of state the newest has, and their checksum under its head; none if there is none, or it cannot be read.
    pub fn seal(&self) -> Option<(u64, u32)> {
        let (meta, _) = held(&self.newest).clone()?;
        SnapshotReader::open(&self.files, &self.path(meta.last)).ok().map(|reader| reader.seal())
    }

    fn path(&self, last: EntryId) -> PathBuf {
        self.directory.join(snapshot_file::name(last))
    }

    /// Whether this very snapshot is the newest and good, and how many bytes its file has. Writing it again would take the
    /// file from under those who fetch it.
    fn has(&self, meta: &SnapshotMeta) -> Option<u64> {
        let newest = held(&self.newest).clone().filter(|(newest, _)| newest == meta)?;
        (self.verified(&self.path(meta.last)).ok()? == newest).then_some(newest.1)
    }

    /// Refuses what must not replace the newest snapshot. The newest itself may be replaced: it may be damaged.
    fn check_follows(&self, last: EntryId) -> Result<(), StoreError> {
        let newest = self.newest();
        let follows = |n: EntryId| n == last || n.index < last.index && n.term <= last.term;
        match newest {
            Some((newest, _)) if !follows(newest) => {
                let what = format!("the snapshot of entry {newest} is here, and one of entry {last} cannot replace it");
                Err(refused(&self.directory, what))
            }
            _ => Ok(()),
        }
    }

    fn check_cluster(&self, path: &Path, meta: &SnapshotMeta) -> Result<(), StoreError> {
        let cluster = meta.membership.cluster;
        match self.cluster.get() {
            Some(own) if cluster != ClusterId::UNKNOWN && cluster != *own => {
                let what = format!("it is a snapshot of cluster {cluster}, and this node belongs to cluster {own}");
                Err(refused(path, what))
            }
            _ => Ok(()),
        }
    }

    fn write_new(&self, meta: &SnapshotMeta, write: WriteSnapshot) -> Result<u64, SnapshotError> {
        self.check_follows(meta.last).map_err(SnapshotError::Store)?;
        let path = &self.directory.join(snapshot_file::new_name(meta.last));
        let mut draft = Draft { files: &self.files, path, named: false };
        let file = self.files.create(path).map_err(|e| SnapshotError::Store(full_or_io(path, &e)))?;
        let mut writer = SnapshotWriter::begin(file, path, meta).map_err(SnapshotError::Store)?;
        let outcome = write(&mut writer);
        // What the disk said counts, whatever the machine made of it.
        writer.check().map_err(SnapshotError::Store)?;
        outcome.map_err(SnapshotError::Machine)?;
        let bytes = writer.finish().map_err(SnapshotError::Store)?;
        let damage = |bad: Unreadable| SnapshotError::Store(bad.into_error(path, WRITTEN));
        if self.verified(path).map_err(damage)? != (meta.clone(), bytes) {
            return Err(damage(Unreadable::damaged(0, "it is another snapshot than the one that was written")));
        }
        self.install(path, meta.clone(), bytes).map_err(SnapshotError::Store)?;
        draft.named = true;
        Ok(bytes)
    }

    /// Reads all of a file. Answers what it is a snapshot of, and its bytes.
    fn verified(&self, path: &Path) -> Result<(SnapshotMeta, u64), Unreadable> {
        let reader = SnapshotReader::open(&self.files, path)?;
        let bytes = reader.file_bytes();
        Ok((reader.verify()?, bytes))
    }

    /// Makes a good and durable file the newest snapshot, durably.
    fn install(&self, from: &Path, meta: SnapshotMeta, bytes: u64) -> Result<(), StoreError> {
        let _turn = held(&self.installing);
        self.check_cluster(from, &meta)?;
        self.check_follows(meta.last)?;
        let (path, before) = (self.path(meta.last), self.newest().map(|(last, _)| last));
        self.files.rename(from, &path).map_err(|e| full_or_io(&path, &e))?;
        let durable = self.files.sync_directory(&self.directory).map_err(|e| io_error(&self.directory, &e));
        self.sending.replaced_by(meta.last);
        if durable.is_err() && before != Some(meta.last) {
            // A crash may bring either back, and both are good; until then the one before is the newest.
            let _ = self.files.remove(&path);
            return durable;
        }
        let last = meta.last;
        *held(&self.newest) = Some((meta, bytes));
        if let Some(older) = before.filter(|older| *older != last) {
            // What cannot be removed now is at the next opening.
            let _ = self.files.remove(&self.path(older));
        }
        durable
    }

    /// Lets go of what was taken in, if anything was.
    fn drop_part(&self, taking: &mut Option<Part<F::File>>) {
        if let Some(part) = taking.take() {
            // What cannot be removed now is at the next opening, or written over.
            let _ = self.files.remove(&part.path);
        }
    }

    /// Does something to the part of this snapshot, and lets go of it if it is lost.
    fn with_part<T>(
        &self,
        taking: &mut Option<Part<F::File>>,
        last: EntryId,
        run: impl FnOnce(&mut Part<F::File>) -> Result<T, PartError>,
    ) -> Result<T, StoreError> {
        let Some(part) = taking.as_mut().filter(|part| part.last == last) else {
            return Err(refused(&self.directory, format!("no snapshot of entry {last} is being taken in: begin it")));
        };
        run(part).map_err(|error| match error {
            PartError::Kept(error) => error,
            PartError::Lost(error) => {
                self.drop_part(taking);
                error
            }
        })
    }
}

impl<F: Files> SnapshotFiles for Snapshots<F> {
    fn newest(&self) -> Option<(EntryId, u64)> {
        held(&self.newest).as_ref().map(|(meta, bytes)| (meta.last, *bytes))
    }

    /// One at a time: a second one is refused, not kept waiting. A snapshot that is here already and good is not written
    /// again. One that the newest is not older than is refused.
    fn write(&self, meta: &SnapshotMeta, write: WriteSnapshot) -> Result<u64, SnapshotError> {
        let _one = match self.writing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let what = "another snapshot is being written; this one can be when that is done";
                return Err(SnapshotError::Store(refused(&self.directory, what)));
            }
        };
        match self.has(meta) {
            Some(bytes) => Ok(bytes),
            None => self.write_new(meta, write),
        }
    }

    fn read(&self, last: EntryId) -> Result<(SnapshotMeta, Box<dyn io::Read + Send>), StoreError> {
        let path = self.path(last);
        let reader = SnapshotReader::open(&self.files, &path).map_err(|bad| bad.into_error(&path, AT_REST))?;
        let meta = reader.meta().clone();
        if meta.last != last {
            let bad = Unreadable::damaged(0, format!("it is a snapshot of entry {} under another name", meta.last));
            return Err(bad.into_error(&path, AT_REST));
        }
        Ok((meta, Box::new(reader)))
    }

    /// Sends what is on the disk: who takes it in verifies it.
    fn send(&self, last: EntryId, offset: u64, into: &mut [u8]) -> Result<usize, StoreError> {
        let path = self.path(last);
        let file = self.sending.file(last, || self.files.open(&path)).map_err(|e| io_error(&path, &e))?;
        read_full(&*file, offset, into).map_err(|e| io_error(&path, &e))
    }

    /// Goes on only with the same snapshot and the same length. One that cannot replace the newest is refused here already.
    fn begin(&self, last: EntryId, length: u64) -> Result<u64, StoreError> {
        self.check_follows(last)?;
        let mut taking = held(&self.taking);
        if let Some(part) = taking.as_ref().filter(|part| (part.last, part.length) == (last, length)) {
            return Ok(part.received);
        }
        self.drop_part(&mut taking);
        let path = self.directory.join(snapshot_file::part_name(last));
        let file = self.files.create(&path).map_err(|e| full_or_io(&path, &e))?;
        *taking = Some(Part::new(last, length, file, path));
        Ok(0)
    }

    /// After [`StoreError::Full`] it can go on, from where [`SnapshotFiles::begin`] says; so it can after bytes that were
    /// refused. After any other error it begins anew.
    fn take(&self, last: EntryId, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.with_part(&mut held(&self.taking), last, |part| part.take(offset, bytes))
    }

    /// One that cannot replace the newest is refused and let go, as is one of another cluster.
    fn accept(&self, last: EntryId) -> Result<SnapshotMeta, StoreError> {
        let mut taking = held(&self.taking);
        let meta = self.with_part(&mut taking, last, |part| {
            part.finish()?;
            let damaged = |bad: Unreadable| PartError::Lost(bad.into_error(&part.path, TAKEN_IN));
            let (meta, bytes) = self.verified(&part.path).map_err(damaged)?;
            if meta.last != last {
                return Err(damaged(Unreadable::damaged(0, format!("it is a snapshot of entry {}", meta.last))));
            }
            self.install(&part.path, meta.clone(), bytes).map_err(|error| match error {
                StoreError::Full { .. } => PartError::Kept(error),
                other => PartError::Lost(other),
            })?;
            Ok(meta)
        })?;
        *taking = None;
        Ok(meta)
    }
}

/// What a panic elsewhere leaves is as good: every change under these locks is one assignment.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
