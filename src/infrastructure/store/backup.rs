//! A snapshot's file outside any data directory: put down byte by byte as it is, and verified before it gets its name.

use std::path::{Path, PathBuf};

use graft_services::ports::StoreError;
use graft_services::snapshot_meta::SnapshotMeta;

use super::errors::{full_or_io, io_error, refused};
use super::files::{Files, StoreFile};
use super::os::OsFiles;
use super::snapshot_reader::SnapshotReader;
use super::snapshot_writer::SYNC_BYTES;

const DAMAGED: &str =
    "It was damaged where it came from, on its way, or by this disk: nothing of it is kept. Make it again";
const UNFIT: &str = "Take another backup";

/// A backup that is being written. Dropped before it is finished, nothing of it is left.
#[derive(Debug)]
pub struct Backup<F: Files = OsFiles> {
    files: F,
    path: PathBuf,
    part: PathBuf,
    file: F::File,
    position: u64,
    unsynced: u64,
}

impl Backup {
    /// Begins one that is to be at `path`, where nothing may be yet, in a directory that is there.
    ///
    /// # Errors
    /// [`StoreError::Io`] if something is there or the file cannot be made.
    pub fn begin(path: &Path) -> Result<Self, StoreError> {
        Self::begin_in(OsFiles, path)
    }
}

impl<F: Files> Backup<F> {
    fn begin_in(files: F, path: &Path) -> Result<Self, StoreError> {
        let Some(name) = path.file_name() else { return Err(refused(path, "it is not the name of a file")) };
        let mut part_name = name.to_owned();
        part_name.push(".part");
        let part = path.with_file_name(part_name);
        refuse_existing(&files, path)?;
        let file = files.create(&part).map_err(|e| full_or_io(&part, &e))?;
        Ok(Self { files, path: path.to_owned(), part, file, position: 0, unsynced: 0 })
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::Io`], after which it cannot be finished.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_at(self.position, bytes).map_err(|e| full_or_io(&self.part, &e))?;
        self.position += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced < SYNC_BYTES {
            return Ok(());
        }
        self.unsynced = 0;
        self.file.sync_data().map_err(|e| full_or_io(&self.part, &e))
    }

    /// It is to be another one: what was put down is let go.
    ///
    /// # Errors
    /// [`StoreError::Io`], after which it cannot be finished.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        (self.position, self.unsynced) = (0, 0);
        self.file.truncate(0).map_err(|e| io_error(&self.part, &e))
    }

    /// All of it is here: makes it durable, reads it back, and gives it its name. Answers what it is a backup of.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is not what a member sealed; [`StoreError::Full`] and [`StoreError::Io`] as the system has
    /// it, or if something has its name by now.
    pub fn finish(mut self) -> Result<SnapshotMeta, StoreError> {
        self.file.sync_data().map_err(|e| full_or_io(&self.part, &e))?;
        let reader = SnapshotReader::open(&self.files, &self.part);
        let verified = reader.and_then(SnapshotReader::verify);
        let meta = verified.map_err(|bad| bad.into_error(&self.part, DAMAGED))?;
        refuse_existing(&self.files, &self.path)?;
        self.files.rename(&self.part, &self.path).map_err(|e| full_or_io(&self.path, &e))?;
        let directory = parent(&self.path);
        self.files.sync_directory(directory).map_err(|e| io_error(directory, &e))?;
        Ok(meta)
    }
}

impl<F: Files> Drop for Backup<F> {
    fn drop(&mut self) {
        // It is not there any more if it got its name.
        let _ = self.files.remove(&self.part);
    }
}

/// Reads all of a backup. Answers what it is a backup of, and its bytes.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::NewerFormat`] and [`StoreError::Io`].
pub fn verify(path: &Path) -> Result<(SnapshotMeta, u64), StoreError> {
    let unfit = |bad: super::snapshot_file::Unreadable| bad.into_error(path, UNFIT);
    let reader = SnapshotReader::open(&OsFiles, path).map_err(unfit)?;
    let bytes = reader.file_bytes();
    Ok((reader.verify().map_err(unfit)?, bytes))
}

fn refuse_existing(files: &impl Files, path: &Path) -> Result<(), StoreError> {
    let directory = parent(path);
    let names = files.list(directory).map_err(|e| io_error(directory, &e))?;
    let is_there = path.file_name().is_some_and(|name| names.iter().any(|there| name == there.as_str()));
    if is_there { Err(refused(path, "it is there already, and is not written over")) } else { Ok(()) }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
