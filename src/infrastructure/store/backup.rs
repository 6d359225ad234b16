//! A snapshot's file outside any data directory: put down byte by byte as it is, and verified before it gets its name.

use std::io;
use std::path::{Path, PathBuf};

use graft_services::ports::StoreError;
use graft_services::snapshot_meta::SnapshotMeta;

use super::errors::{full_or_io, io_error, refused};
use super::files::{Files, StoreFile};
use super::os::{OsFile, OsFiles};
use super::snapshot_file::Unreadable;
use super::snapshot_reader::SnapshotReader;
use super::snapshot_writer::SYNC_BYTES;

const DAMAGED: &str =
    "It was damaged where it came from, on its way, or by this disk: nothing of it is kept. Make it again";
const TAKEN: &str = "it is there already, and is not written over: choose another name, or remove it";
const UNFIT: &str = "Take another backup";

/// A backup that is being written. Dropped before it is finished, nothing of it is left.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    /// It has a name that nobody else has.
    part: PathBuf,
    file: OsFile,
    position: u64,
    unsynced: u64,
}

impl Backup {
    /// Begins one that is to be at `path`, where nothing may be yet, in a directory that is there.
    ///
    /// # Errors
    /// [`StoreError::Io`] if something is there or the file cannot be made.
    pub fn begin(path: &Path) -> Result<Self, StoreError> {
        if path.file_name().is_none() {
            return Err(refused(path, "it is not the name of a file"));
        }
        if path.try_exists().map_err(|e| io_error(path, &e))? {
            return Err(refused(path, TAKEN));
        }
        let (part, file) = OsFiles::create_beside(path).map_err(|e| full_or_io(path, &e))?;
        Ok(Self { path: path.to_owned(), part, file, position: 0, unsynced: 0 })
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
        let reader = SnapshotReader::open(&OsFiles, &self.part);
        let verified = reader.and_then(SnapshotReader::verify);
        let meta = verified.map_err(|bad| bad.into_error(&self.part, DAMAGED))?;
        OsFiles::publish(&self.part, &self.path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => refused(&self.path, TAKEN),
            _ => full_or_io(&self.path, &error),
        })?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        OsFiles.sync_directory(directory).map_err(|error| {
            // Whoever hears of a failure finds nothing there, and can take it again.
            let _ = OsFiles.remove(&self.path);
            io_error(directory, &error)
        })?;
        Ok(meta)
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        // It is not there any more if it got its name.
        let _ = OsFiles.remove(&self.part);
    }
}

/// Reads all of a backup. Answers what it is a backup of, and its bytes.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::NewerFormat`] and [`StoreError::Io`].
pub fn verify(path: &Path) -> Result<(SnapshotMeta, u64), StoreError> {
    verify_in(&OsFiles, path)
}

/// [`verify`] on other files than the operating system's.
pub fn verify_in<F: Files>(files: &F, path: &Path) -> Result<(SnapshotMeta, u64), StoreError> {
    let unfit = |bad: Unreadable| bad.of_backup(path, UNFIT);
    let reader = SnapshotReader::open(files, path).map_err(unfit)?;
    let bytes = reader.file_bytes();
    Ok((reader.verify().map_err(unfit)?, bytes))
}
