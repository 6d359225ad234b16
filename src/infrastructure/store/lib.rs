//! The log on disk: one ordered stream of checksummed batches in numbered segment files; the snapshots that the log
//! begins after; and the identity of the directory that holds them. `docs/wal-format.md` and `docs/snapshot-format.md`
//! have every byte.
//!
//! One [`persist`](graft_services::ports::LogStore::persist) is one batch: one checksum, one write call, one sync.
//! A batch is there whole or not at all, so a crash can only ever cost batches that nobody was told of. Batches are
//! numbered without gaps and each is written only after the one before it is durable; that is how a torn tail, which
//! a crash may leave, is told from damage, which it may not.
//!
//! Nothing but `os.rs` touches the file system: everything else speaks to [`Files`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use graft_domain::{Incarnation, Membership, NodeId};
use graft_services::ports::{Opened, StoreError};

mod backup;
mod batch;
mod errors;
mod files;
mod identity;
mod inspection;
mod open;
mod os;
mod preamble;
mod reader;
mod record;
mod recovering;
mod recovery;
mod restoring;
mod segment;
mod segments;
mod sending;
mod snapshot_file;
mod snapshot_part;
mod snapshot_reader;
mod snapshot_writer;
mod snapshots;
mod state;
mod survey;
mod wal;

#[cfg(test)]
mod tests;

pub use backup::{Backup, verify as verify_backup, verify_in as verify_backup_in};
pub use files::{Files, Locking, StoreFile};
pub use inspection::{Inspection, inspect, inspect_in};
pub use os::{OsFile, OsFiles, OsLock, OsPlace, PlacedFiles};
pub use recovering::{Successor, recover, recover_in};
pub use restoring::{is_restored, restore, restore_in};
pub use snapshots::Snapshots;
pub use wal::Wal;

/// Who opens a directory, and what a new one is made with.
#[derive(Clone, Debug)]
pub struct Founding {
    pub id: NodeId,
    /// What the cluster is founded with; in force while there is no snapshot.
    pub membership: Arc<Membership>,
    /// Drawn at random by the caller; it becomes the incarnation of a new directory and is unused otherwise.
    pub mint: Incarnation,
    /// For how long this run promises a leader to vote for nobody else: its election timeout.
    pub promise: Duration,
}

/// How a store spends disk space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// Bytes after which the log goes on in another segment; a batch larger than this has a segment of its own.
    /// Whole segments are the unit of forgetting. 16 MiB unless told otherwise: that much may be kept in vain.
    pub segment_bytes: u64,
    /// Bytes of zeros written ahead of the log's end, so that a small batch changes neither the file's length nor its
    /// block map and its sync is one device write without a journal commit. 1 MiB unless told otherwise: a new
    /// directory is ready after one such step instead of after a whole segment.
    pub preallocate_bytes: u64,
    /// Forgotten segments kept to be written over, which costs less than growing a file. 4 unless told otherwise: what a
    /// log of 64 MiB between two snapshots writes over, again and again, without a new block.
    pub spares_max: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, preallocate_bytes: 1 << 20, spares_max: 4 }
    }
}

/// The log, the snapshots, and what was found.
pub type Store<F = PlacedFiles> = (Wal<F>, Arc<Snapshots<F>>, Opened);

/// Opens log and snapshots in `directory`, making the directory if there is none, and recovers what they hold. The log
/// begins after the newest snapshot from then on, in memory and on the disk.
///
/// # Errors
/// [`StoreError::Locked`] while another [`Wal`] or [`Snapshots`] has it open, [`StoreError::WrongNode`] if it was made by another node,
/// [`StoreError::Corrupt`] or [`StoreError::NewerFormat`] if it cannot be vouched for (nothing is changed then),
/// [`StoreError::Full`] and [`StoreError::Io`] as the operating system has it.
pub fn open(directory: &Path, founding: &Founding, config: StoreConfig) -> Result<Store, StoreError> {
    open_in(PlacedFiles::default(), directory, founding, config)
}

/// [`open`] on other files than the operating system's.
pub fn open_in<F: Files>(
    files: F,
    directory: &Path,
    founding: &Founding,
    config: StoreConfig,
) -> Result<Store<F>, StoreError> {
    open::open(files, directory, founding, config)
}
