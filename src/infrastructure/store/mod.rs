//! The log on disk: one ordered stream of checksummed batches in numbered segment files, and the identity of the
//! directory that holds them. `docs/wal-format.md` has every byte.
//!
//! One [`persist`](graft_services::ports::LogStore::persist) is one batch: one checksum, one write call, one sync.
//! A batch is there whole or not at all, so a crash can only ever cost batches that nobody was told of. Batches are
//! numbered without gaps and each is written only after the one before it is durable; that is how a torn tail, which
//! a crash may leave, is told from damage, which it may not.
//!
//! Nothing but [`OsFiles`] touches the file system: everything else speaks to [`Files`].

use std::path::Path;
use std::sync::Arc;

use graft_domain::{Incarnation, Membership, NodeId};
use graft_services::ports::{Opened, StoreError};

mod batch;
mod errors;
mod files;
mod identity;
mod open;
mod os;
mod preamble;
mod reader;
mod record;
mod recovery;
mod segment;
mod segments;
mod state;
mod wal;

#[cfg(test)]
mod tests;

pub use files::{Files, Locking, StoreFile};
pub use os::{OsFile, OsFiles, OsLock};
pub use wal::Wal;

/// Who opens a directory, and what a new one is made with.
#[derive(Clone, Debug)]
pub struct Founding {
    pub id: NodeId,
    /// What the cluster is founded with; in force while there is no snapshot.
    pub membership: Arc<Membership>,
    /// Drawn at random by the caller; it becomes the incarnation of a new directory and is unused otherwise.
    pub mint: Incarnation,
}

/// How a store spends disk space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// Bytes after which the log goes on in another segment; a batch larger than this has a segment of its own.
    /// Whole segments are the unit of forgetting. 64 MiB unless told otherwise.
    pub segment_bytes: u64,
    /// Bytes of zeros written ahead of the log's end, so that a small batch changes neither the file's length nor its
    /// block map and its sync is one device write without a journal commit. 1 MiB unless told otherwise: a new
    /// directory is ready after one such step instead of after a whole segment.
    pub preallocate_bytes: u64,
    /// Forgotten segments kept to be written over, which costs less than growing a file. 1 unless told otherwise.
    pub spares_max: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, preallocate_bytes: 1 << 20, spares_max: 1 }
    }
}

/// Opens the log in `directory`, making the directory if there is none, and recovers what it holds.
///
/// # Errors
/// [`StoreError::Locked`] while another [`Wal`] has it open, [`StoreError::WrongNode`] if it was made by another node,
/// [`StoreError::Corrupt`] or [`StoreError::NewerFormat`] if it cannot be vouched for (nothing is changed then),
/// [`StoreError::Full`] and [`StoreError::Io`] as the operating system has it.
pub fn open(directory: &Path, founding: &Founding, config: StoreConfig) -> Result<(Wal, Opened), StoreError> {
    open_in(OsFiles, directory, founding, config)
}

/// [`open`] on other files than the operating system's.
pub fn open_in<F: Files>(
    files: F,
    directory: &Path,
    founding: &Founding,
    config: StoreConfig,
) -> Result<(Wal<F>, Opened), StoreError> {
    open::open(files, directory, founding, config)
}
