//! What the operating system or a damaged file said, in the words of the port.

use std::fmt;
use std::io;
use std::path::Path;

use graft_services::ports::StoreError;

use super::preamble::FORMAT;

/// For a call that leaves everything as it was when space runs out.
pub(super) fn full_or_io(path: &Path, error: &io::Error) -> StoreError {
    if is_no_space(error) { StoreError::Full { path: path.display().to_string() } } else { io_error(path, error) }
}

/// For a call after which nobody knows what is on the disk: a sync, above all.
pub(super) fn io_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { path: path.display().to_string(), what: error.to_string() }
}

/// What is left to do about a directory that cannot be vouched for.
pub(super) const REPLACE: &str = "Replace this member by one with a new id and an empty directory";

/// Bytes that had been durable are not what they were. No local remedy is safe: a log restored from a copy may lack
/// what this node has promised since.
pub(super) fn corrupt(path: &Path, offset: u64, what: impl fmt::Display) -> StoreError {
    corrupt_with(path, offset, what, REPLACE)
}

/// Bytes are not what they were, and this is what can be done about it.
pub(super) fn corrupt_with(path: &Path, offset: u64, what: impl fmt::Display, remedy: &str) -> StoreError {
    StoreError::Corrupt { file: path.display().to_string(), offset, what: format!("{what}. {remedy}") }
}

pub(super) fn newer(path: &Path, found: u32) -> StoreError {
    StoreError::NewerFormat { file: path.display().to_string(), found, known: FORMAT }
}

/// The caller asked for what cannot be; nothing was changed.
pub(super) fn refused(path: &Path, what: impl fmt::Display) -> StoreError {
    StoreError::Io { path: path.display().to_string(), what: what.to_string() }
}

pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
