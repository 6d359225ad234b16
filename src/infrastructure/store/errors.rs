//! What the operating system or a damaged file said, in the words of the port.

use std::io;
use std::path::Path;

use graft_services::ports::StoreError;

/// For a call that leaves everything as it was when space runs out.
pub(super) fn full_or_io(path: &Path, error: &io::Error) -> StoreError {
    if is_no_space(error) { StoreError::Full { path: path.display().to_string() } } else { io_error(path, error) }
}

/// For a call after which nobody knows what is on the disk: a sync, above all.
pub(super) fn io_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { path: path.display().to_string(), what: error.to_string() }
}

/// Bytes that had been durable are not what they were. No local remedy is safe: a log restored from a copy may lack
/// what this node has promised since.
pub(super) fn corrupt(path: &Path, offset: u64, what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt {
        file: path.display().to_string(),
        offset,
        what: format!("{what}. Replace this member by one with a new id and an empty directory"),
    }
}

pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
