//! Directories that begin with the state of a backup, and found a cluster of their own with it.
//!
//! A restored directory holds one snapshot, in which nobody is a member of no cluster, and nothing else. Whoever opens it
//! first fills in whom it founds with; the first leader gives the cluster its name, so that no member of the cluster that the
//! backup was made of has to do with it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use graft_domain::{ClusterId, Membership};
use graft_services::ports::StoreError;
use graft_services::snapshot_meta::SnapshotMeta;

use super::errors::{corrupt, corrupt_with, full_or_io, io_error, refused};
use super::files::{Files, Locking, sync_above};
use super::os::OsFiles;
use super::snapshot_reader::{AT_REST, SnapshotReader};
use super::snapshot_writer::SnapshotWriter;
use super::survey::{Survey, survey};
use super::{Founding, identity, snapshot_file, snapshots};

const UNOWNED: &str = "it is missing, though the directory holds a snapshot";
const UNFIT: &str = "Restore from another backup";

/// Whether a directory with this newest snapshot was restored, and the cluster that it founds has no name yet, as far as the
/// snapshot tells.
pub fn is_restored(meta: &SnapshotMeta) -> bool {
    meta.membership.cluster == ClusterId::UNKNOWN
}

/// Makes `directory`, which must be empty or not there, one that begins with the state of the backup at `backup`. Answers
/// what that is a backup of.
///
/// # Errors
/// [`StoreError::Corrupt`] and [`StoreError::NewerFormat`] if the backup cannot be used, [`StoreError::Locked`] if somebody
/// uses the directory, [`StoreError::Full`] and [`StoreError::Io`] as the operating system has it, or if something is there.
pub fn restore(backup: &Path, directory: &Path) -> Result<SnapshotMeta, StoreError> {
    restore_in(&OsFiles, backup, directory)
}

/// [`restore`] on other files than the operating system's.
///
/// # Errors
/// Those of [`restore`].
pub fn restore_in<F: Files>(files: &F, backup: &Path, directory: &Path) -> Result<SnapshotMeta, StoreError> {
    let reader = SnapshotReader::open(files, backup).map_err(|bad| bad.of_backup(backup, UNFIT))?;
    let meta = reader.meta().clone();
    let _lock = empty(files, directory)?;
    let inside = directory.join(snapshots::DIRECTORY);
    files.make_directory(&inside).map_err(|e| full_or_io(&inside, &e))?;
    // It may have been there, in memory only.
    files.sync_directory(directory).map_err(|e| io_error(directory, &e))?;
    let nobodys = SnapshotMeta { membership: Arc::new(Membership::default()), ..meta.clone() };
    rewrite(files, reader, backup, &inside, &nobodys, UNFIT)?;
    Ok(meta)
}

/// Takes the lock of a directory in which there may be nothing, but for what a restore left that was not finished.
pub(super) fn empty<F: Files>(files: &F, directory: &Path) -> Result<F::Lock, StoreError> {
    files.make_directory(directory).map_err(|e| full_or_io(directory, &e))?;
    refuse_filled(files, directory)?;
    sync_above(files, directory)?;
    let path = directory.join(super::open::LOCK_NAME);
    match files.lock(&path).map_err(|e| full_or_io(&path, &e))? {
        Locking::Held(lock) => {
            // Somebody may have been there in between.
            let left = refuse_filled(files, directory)?;
            for name in left.unfinished {
                let path = directory.join(snapshots::DIRECTORY).join(name);
                files.remove(&path).map_err(|e| io_error(&path, &e))?;
            }
            Ok(lock)
        }
        Locking::Taken { pid } => Err(StoreError::Locked { path: directory.display().to_string(), pid }),
    }
}

fn refuse_filled<F: Files>(files: &F, directory: &Path) -> Result<Survey, StoreError> {
    let names = files.list(directory).map_err(|e| io_error(directory, &e))?;
    let left = survey(files, &directory.join(snapshots::DIRECTORY))?;
    let is_free = |name: &String| name == super::open::LOCK_NAME || name == snapshots::DIRECTORY;
    if left.newest.is_some() || !names.iter().all(is_free) {
        return Err(refused(
            directory,
            "there is something in it already: give a directory that is empty, or not there",
        ));
    }
    Ok(left)
}

/// Opens a directory without an identity for the first time: if it was restored, this is the node whose it is, and those are
/// the members that it founds with.
pub(super) fn adopt<F: Files>(
    files: &F,
    directory: &Path,
    found: Survey,
    founding: &Founding,
) -> Result<Survey, StoreError> {
    let Some((meta, _)) = found.newest else {
        let what = "it has a place for snapshots and no identity: a restore or a recovery into it was not finished. Do \
                    it again, or remove the directory";
        return Err(refused(directory, what));
    };
    if !is_restored(&meta) {
        return Err(corrupt(&directory.join(identity::NAME), 0, UNOWNED));
    }
    if founding.membership.members.is_empty() {
        let what = "it was restored from a backup, and founds a cluster with that: start it alone or with `members`, without \
                    `join`; who joins begins with an empty directory";
        return Err(refused(directory, what));
    }
    let inside = directory.join(snapshots::DIRECTORY);
    let path = inside.join(snapshot_file::name(meta.last));
    let reader = SnapshotReader::open(files, &path).map_err(|bad| bad.into_error(&path, UNFIT))?;
    let ours = SnapshotMeta { membership: Arc::clone(&founding.membership), ..meta };
    rewrite(files, reader, &path, &inside, &ours, UNFIT)?;
    survey(files, &inside)
}

/// Writes the state of a snapshot under another head into `directory`, and puts it in its place there, durably.
pub(super) fn rewrite<F: Files>(
    files: &F,
    mut reader: SnapshotReader<F::File>,
    from: &Path,
    directory: &Path,
    meta: &SnapshotMeta,
    remedy: &str,
) -> Result<(), StoreError> {
    let new = directory.join(snapshot_file::new_name(meta.last));
    let path = directory.join(snapshot_file::name(meta.last));
    let file = files.create(&new).map_err(|e| full_or_io(&new, &e))?;
    let mut writer = SnapshotWriter::begin(file, &new, meta)?;
    let copied = io::copy(&mut reader, &mut writer);
    // What the disk said that is written to counts first.
    writer.check()?;
    copied.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => match error.downcast() {
            // The reader's remedy is that of a snapshot in its place.
            Ok(StoreError::Corrupt { file, offset, what }) => {
                let what = format!("{}{remedy}", what.trim_end_matches(AT_REST));
                StoreError::Corrupt { file, offset, what }
            }
            Ok(other) => other,
            Err(error) => corrupt_with(from, 0, error, remedy),
        },
        _ => io_error(from, &error),
    })?;
    writer.finish()?;
    files.rename(&new, &path).map_err(|e| full_or_io(&path, &e))?;
    files.sync_directory(directory).map_err(|e| io_error(directory, &e))
}
