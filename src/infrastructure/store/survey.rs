//! What there is of snapshots in a data directory, found without changing anything.

use std::io;
use std::path::Path;

use graft_services::ports::StoreError;
use graft_services::snapshot_meta::SnapshotMeta;

use super::errors::{REPLACE, io_error};
use super::files::Files;
use super::snapshot_file::{self, Unreadable};
use super::snapshot_reader::SnapshotReader;

/// The newest snapshot, and what is left of others.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// What it says of itself, and the bytes of its file.
    pub(super) newest: Option<(SnapshotMeta, u64)>,
    /// Names of those that the newest one replaces.
    pub(super) older: Vec<String>,
    /// Whether there is a directory for them at all: a node makes it after its identity.
    pub(super) is_there: bool,
    /// Names of those that were being written or taken in when the process stopped.
    pub(super) unfinished: Vec<String>,
}

/// Looks through `directory`, which may not be there yet. Of the newest snapshot the header and the end are read: all of
/// it is verified whenever it is restored from, and by whoever fetches it.
///
/// A damaged one is refused, even beside an older one or a log that reaches back to the first entry: it was durable, and
/// what this node has promised since may rest on it. A node that goes back forgets that it holds entries which count as
/// committed because it does.
pub(super) fn survey<F: Files>(files: &F, directory: &Path) -> Result<Survey, StoreError> {
    let names = match files.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Survey::default()),
        other => other.map_err(|e| io_error(directory, &e))?,
    };
    let (mut snapshots, mut unfinished) = (Vec::new(), Vec::new());
    for name in names {
        if let Some(last) = snapshot_file::last_of(&name) {
            snapshots.push((last.index, last.term, name));
        } else if snapshot_file::is_unfinished(&name) {
            unfinished.push(name);
        }
    }
    snapshots.sort_unstable();
    unfinished.sort_unstable();
    let newest = match snapshots.pop() {
        None => None,
        Some((_, _, name)) => {
            let path = directory.join(&name);
            Some(look(files, &path, &name).map_err(|bad| bad.into_error(&path, REPLACE))?)
        }
    };
    let older = snapshots.into_iter().map(|(_, _, name)| name).collect();
    Ok(Survey { newest, older, is_there: true, unfinished })
}

fn look<F: Files>(files: &F, path: &Path, name: &str) -> Result<(SnapshotMeta, u64), Unreadable> {
    let reader = SnapshotReader::open(files, path)?;
    let meta = reader.meta().clone();
    if snapshot_file::name(meta.last) != name {
        return Err(Unreadable::damaged(0, format!("it is a snapshot of entry {} under another name", meta.last)));
    }
    Ok((meta, reader.file_bytes()))
}
