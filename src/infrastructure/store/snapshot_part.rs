//! A snapshot's file that is being taken in, piece by piece, in order.

use std::path::PathBuf;

use graft_domain::EntryId;
use graft_services::ports::StoreError;

use super::errors::{full_or_io, refused};
use super::files::StoreFile;
use super::snapshot_writer::SYNC_BYTES;

#[derive(Debug)]
pub(super) struct Part<S> {
    pub(super) last: EntryId,
    /// Bytes that the whole file has.
    pub(super) length: u64,
    /// Bytes that are here.
    pub(super) received: u64,
    pub(super) path: PathBuf,
    file: S,
    unsynced: u64,
}

/// Whether what is here can be gone on with.
#[derive(Debug)]
pub(super) enum PartError {
    /// All that was taken in is as it was.
    Kept(StoreError),
    /// Nobody knows what of it is on the disk.
    Lost(StoreError),
}

impl<S: StoreFile> Part<S> {
    /// Begins with an empty file.
    pub(super) fn new(last: EntryId, length: u64, file: S, path: PathBuf) -> Self {
        Self { last, length, received: 0, path, file, unsynced: 0 }
    }

    /// Takes in what follows. Without space the same bytes can be taken in again.
    pub(super) fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PartError> {
        let count = bytes.len() as u64;
        if offset != self.received {
            let what = format!("bytes from {offset} on do not follow the {} that are here", self.received);
            return Err(PartError::Kept(refused(&self.path, what)));
        }
        if count > self.length - self.received {
            let what = format!("{count} bytes at {offset} are more than the {} that were announced", self.length);
            return Err(PartError::Kept(refused(&self.path, what)));
        }
        if let Err(error) = self.file.write_at(offset, bytes) {
            let error = full_or_io(&self.path, &error);
            let full = matches!(error, StoreError::Full { .. });
            return Err(if full { PartError::Kept(error) } else { PartError::Lost(error) });
        }
        self.received += count;
        self.unsynced += count;
        if self.unsynced >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    /// Makes a file that is here as a whole durable.
    pub(super) fn finish(&mut self) -> Result<(), PartError> {
        if self.received < self.length {
            let what = format!("only {} of {} bytes are here", self.received, self.length);
            return Err(PartError::Kept(refused(&self.path, what)));
        }
        self.sync()
    }

    /// A failed sync may leave pages that count as clean and are not on the disk: what they held has to come again.
    fn sync(&mut self) -> Result<(), PartError> {
        self.unsynced = 0;
        self.file.sync_data().map_err(|e| PartError::Lost(full_or_io(&self.path, &e)))
    }
}
