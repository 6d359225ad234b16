//! The segment files of an open log: the one that grows, the full ones before it, the spare ones for later.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use graft_domain::Index;
use graft_services::ports::StoreError;

use super::StoreConfig;
use super::batch::{self, BASE_BATCH_BYTES, Place};
use super::errors::{full_or_io, io_error, is_no_space};
use super::files::{Files, StoreFile, fill_zeros};
use super::segment::{self, HEADER_BYTES, SegmentHeader};

/// A segment that is written no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sealed {
    pub(super) number: u64,
    /// Up to the end of its last batch.
    pub(super) bytes: u64,
    /// Of the file.
    pub(super) length: u64,
    /// The greatest index it holds, replaced entries included; zero if none.
    pub(super) greatest: Index,
}

/// The segment that grows.
#[derive(Debug)]
pub(super) struct Active<F> {
    pub(super) number: u64,
    pub(super) seed: u32,
    pub(super) file: F,
    pub(super) path: PathBuf,
    /// Where the next batch goes.
    pub(super) position: u64,
    /// Bytes of the file that have been written once, with zeros or otherwise. A base fits before it, unless the last
    /// batch is one or the disk was full when the log was opened.
    pub(super) allocated: u64,
    pub(super) greatest: Index,
}

/// A file for a segment to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Spare {
    pub(super) name: String,
    pub(super) length: u64,
}

/// Room to leave behind a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    /// Enough for a base, so that a full disk can be relieved by compaction.
    RoomForBase,
    /// None: this is the base.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Segments<F: Files> {
    pub(super) files: F,
    pub(super) directory: PathBuf,
    pub(super) config: StoreConfig,
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) active: Active<F::File>,
    /// Files to write the next segments over.
    pub(super) spares: Vec<Spare>,
}

impl<F: Files> Segments<F> {
    /// Where the next batch goes.
    pub(super) fn place(&self) -> Place {
        Place { seed: self.active.seed, offset: self.active.position }
    }

    /// Whether a batch of this size belongs in another segment.
    pub(super) fn is_full_for(&self, bytes: u64) -> bool {
        self.active.position > HEADER_BYTES as u64 && self.active.position + bytes > self.config.segment_bytes
    }

    /// Up to the end of the last batch in each.
    pub(super) fn bytes(&self) -> u64 {
        self.sealed.iter().map(|s| s.bytes).sum::<u64>() + self.active.position
    }

    /// All of their files.
    pub(super) fn disk_bytes(&self) -> u64 {
        let spares = self.spares.iter().map(|s| s.length);
        self.sealed.iter().map(|s| s.length).chain(spares).sum::<u64>() + self.active.allocated
    }

    /// Goes on in another segment. The number in `header` is set here.
    pub(super) fn roll(&mut self, mut header: SegmentHeader) -> Result<(), StoreError> {
        header.number = self.active.number + 1;
        let next = create(&self.files, &self.directory, &self.config, &mut self.spares, header)?;
        // From here on nothing may be written to the old one: recovery takes the new one's word for where it ends.
        let mut full = std::mem::replace(&mut self.active, next);
        let (bytes, length) = (full.position, full.allocated);
        self.sealed.push_back(Sealed { number: full.number, bytes, length, greatest: full.greatest });
        full.mark_continued()
    }

    /// Writes a sealed batch at the end and syncs it. After [`StoreError::Full`] it can be written again, in the same
    /// place: what is there of it is not the whole, or is replaced by the next attempt.
    pub(super) fn write(&mut self, batch: &mut Vec<u8>, leave: Leave, greatest: Index) -> Result<(), StoreError> {
        let active = &mut self.active;
        let end = active.position + batch.len() as u64;
        let room = if leave == Leave::RoomForBase { BASE_BATCH_BYTES } else { 0 };
        let wanted = end + room as u64;
        let grows = wanted > active.allocated;
        if grows {
            batch.resize(batch.len() + room, 0);
        }
        active.file.write_at(active.position, batch).map_err(|e| full_or_io(&active.path, &e))?;
        if grows {
            active.allocated = wanted;
            // Zeros ahead spare small batches many journal commits; a large one would only be written twice.
            if (batch.len() as u64) < self.config.preallocate_bytes / 4 {
                active.write_ahead(&self.config)?;
            }
        }
        active.file.sync_data().map_err(|e| io_error(&active.path, &e))?;
        active.position = end;
        active.greatest = active.greatest.max(greatest);
        Ok(())
    }

    /// Forgets the segments that hold nothing after `base`, which must be durable. Should the machine stop in between,
    /// any of them may be left: recovery knows by the base that they are not needed.
    pub(super) fn forget(&mut self, base: Index) -> Result<(), StoreError> {
        let mut changed = false;
        while let Some(first) = self.sealed.front().filter(|s| s.greatest <= base) {
            let path = self.directory.join(segment::name(first.number));
            if self.spares.len() < self.config.spares_max && is_recycled(&self.config, first.length) {
                let spare = Spare { name: segment::spare_name(first.number), length: first.length };
                self.files.rename(&path, &self.directory.join(&spare.name)).map_err(|e| io_error(&path, &e))?;
                // A stop amid the making of that segment may have left a spare of its name, which this one replaces.
                self.spares.retain(|other| other.name != spare.name);
                self.spares.push(spare);
            } else {
                self.files.remove(&path).map_err(|e| io_error(&path, &e))?;
            }
            self.sealed.pop_front();
            changed = true;
        }
        if changed {
            self.files.sync_directory(&self.directory).map_err(|e| io_error(&self.directory, &e))?;
        }
        Ok(())
    }

    /// Gives the spare files back to a full disk. What cannot be removed now is found again at the next opening.
    pub(super) fn release_spares(&mut self) {
        for spare in self.spares.drain(..) {
            let _ = self.files.remove(&self.directory.join(spare.name));
        }
    }
}

impl<F: StoreFile> Active<F> {
    /// Says at the end of a full segment that the log goes on. Without space for it the log is as good, only the loss
    /// of the whole next segment would not be seen.
    fn mark_continued(&mut self) -> Result<(), StoreError> {
        let mut mark = Vec::new();
        batch::begin(&mut mark);
        batch::seal(&mut mark, Place { seed: self.seed, offset: self.position }, batch::CONTINUED);
        match self.file.write_at(self.position, &mark) {
            Ok(()) => self.file.sync_data().map_err(|e| io_error(&self.path, &e)),
            Err(error) if is_no_space(&error) => Ok(()),
            Err(error) => Err(io_error(&self.path, &error)),
        }
    }

    /// Extends the file with zeros. Lack of space is no failure yet: the batches that need it will meet it.
    pub(super) fn write_ahead(&mut self, config: &StoreConfig) -> Result<(), StoreError> {
        let target = (self.allocated + config.preallocate_bytes).min(config.segment_bytes);
        match fill_zeros(&mut self.file, self.allocated, target) {
            Ok(()) => self.allocated = self.allocated.max(target),
            Err(error) if is_no_space(&error) => {}
            Err(error) => return Err(io_error(&self.path, &error)),
        }
        Ok(())
    }
}

/// Whether a file of this length is worth keeping: one that held an oversized batch would never give its space back.
pub(super) fn is_recycled(config: &StoreConfig, length: u64) -> bool {
    // Bases are written behind a full segment.
    length <= config.segment_bytes + HEADER_BYTES as u64
}

/// Makes the segment that `header` describes, durably, out of a spare file if there is one. It gets its name last.
pub(super) fn create<F: Files>(
    files: &F,
    directory: &Path,
    config: &StoreConfig,
    spares: &mut Vec<Spare>,
    mut header: SegmentHeader,
) -> Result<Active<F::File>, StoreError> {
    let recycled = spares.last().map(|spare| spare.name.clone());
    header.recycled = recycled.is_some();
    let spare_path = directory.join(recycled.unwrap_or_else(|| segment::spare_name(header.number)));
    let path = directory.join(segment::name(header.number));
    let file = if header.recycled { files.open(&spare_path) } else { files.create(&spare_path) }
        .map_err(|e| full_or_io(&spare_path, &e))?;
    let (mut bytes, seed) = header.encode();
    let (position, room) = (bytes.len() as u64, (bytes.len() + BASE_BATCH_BYTES) as u64);
    let length = file.length().map_err(|e| io_error(&spare_path, &e))?;
    if length < room {
        bytes.resize(bytes.len() + BASE_BATCH_BYTES, 0);
    }
    let mut active = Active {
        number: header.number,
        seed,
        file,
        path: spare_path,
        position,
        allocated: length.max(room),
        greatest: Index::ZERO,
    };
    active.file.write_at(0, &bytes).map_err(|e| full_or_io(&active.path, &e))?;
    if !header.recycled {
        active.write_ahead(config)?;
    }
    active.file.sync_data().map_err(|e| io_error(&active.path, &e))?;
    files.rename(&active.path, &path).map_err(|e| full_or_io(&active.path, &e))?;
    // The one it was made of, if any.
    spares.pop();
    files.sync_directory(directory).map_err(|e| io_error(directory, &e))?;
    active.path = path;
    Ok(active)
}
