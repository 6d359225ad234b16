//! A data directory of a new cluster, made of what one member of a lost one has.
//!
//! The new cluster has another name, so that nobody who comes back from the lost one has anything to do with it. Its log is
//! that of the survivor, all of it: whether its end was committed nobody can tell any more, and what was acknowledged must not
//! be lost. Memberships in it are passed over, and the last entry makes the survivor the only member.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use graft_domain::{ClusterId, Entry, EntryId, Incarnation, Member, Membership, NodeId, Payload, Target, Write};
use graft_services::ports::{Identity, LogStore, StoreError};
use graft_services::snapshot_meta::SnapshotMeta;

use super::errors::{REPLACE, full_or_io};
use super::files::Files;
use super::inspection::Inspection;
use super::os::OsFiles;
use super::segment::SegmentHeader;
use super::segments::{self, Segments};
use super::snapshot_reader::SnapshotReader;
use super::wal::{Progress, Wal};
use super::{StoreConfig, identity, open, recovery, restoring, snapshot_file, snapshots};

/// Bytes of entries that are written at once.
const BATCH_BYTES: usize = 4 << 20;

/// Who goes on alone.
#[derive(Clone, Debug)]
pub struct Successor {
    pub id: NodeId,
    pub address: String,
    /// Of the new cluster, and of the new directory: drawn at random by the caller.
    pub cluster: ClusterId,
    pub mint: Incarnation,
    /// As of [`super::Founding`].
    pub promise: Duration,
}

/// Makes `target`, which must be empty or not there, the directory of `successor` with everything that was found in `source`.
/// Nothing in `source` is changed. Answers where the new log ends.
///
/// # Errors
/// [`StoreError::Corrupt`] if the snapshot in `source` is damaged, [`StoreError::Locked`] if somebody uses `target`,
/// [`StoreError::Full`] and [`StoreError::Io`] as the operating system has it, or if something is in `target`.
pub fn recover(source: &Path, found: &Inspection, target: &Path, successor: &Successor) -> Result<EntryId, StoreError> {
    recover_in(&OsFiles, source, found, target, successor)
}

/// [`recover`] on other files than the operating system's.
///
/// # Errors
/// Those of [`recover`].
pub fn recover_in<F: Files>(
    files: &F,
    source: &Path,
    found: &Inspection,
    target: &Path,
    successor: &Successor,
) -> Result<EntryId, StoreError> {
    let lock = Arc::new(restoring::empty(files, target)?);
    let membership = Arc::new(alone(successor));
    let inside = target.join(snapshots::DIRECTORY);
    files.make_directory(&inside).map_err(|e| full_or_io(&inside, &e))?;
    if let Some((meta, _)) = &found.snapshot {
        let path = source.join(snapshots::DIRECTORY).join(snapshot_file::name(meta.last));
        let reader = SnapshotReader::open(files, &path).map_err(|bad| bad.into_error(&path, REPLACE))?;
        let ours = SnapshotMeta { membership: Arc::clone(&membership), ..meta.clone() };
        restoring::rewrite(files, reader, &path, &inside, &ours, REPLACE)?;
    }
    let identity = Identity {
        id: successor.id,
        incarnation: successor.mint,
        cluster: successor.cluster,
        promise: successor.promise,
    };
    let mut wal = log(files, target, identity, lock)?;
    if let Some((meta, _)) = &found.snapshot {
        wal.compact(meta.last)?;
    }
    let last = EntryId { term: found.term.next(), index: found.last.index.next() };
    let end = Entry { index: last.index, term: last.term, payload: Payload::Membership(membership) };
    let mut bytes = 0;
    let mut batch = Vec::new();
    for entry in found.entries.iter().cloned().map(without_membership).chain([end]) {
        bytes += entry.size();
        let is_last = entry.index == last.index;
        batch.push(entry);
        if is_last || bytes >= BATCH_BYTES {
            bytes = 0;
            let entries = std::mem::take(&mut batch);
            let commit = if is_last { last.index } else { found.commit.min(entries[entries.len() - 1].index) };
            wal.persist(&[Write { seq: 0, term: last.term, vote: Some(successor.id), entries, commit }])?;
        }
    }
    // A directory that has one has all the rest.
    identity::write(files, target, &identity)?;
    Ok(last)
}

fn alone(successor: &Successor) -> Membership {
    let member = Member {
        address: Arc::from(&*successor.address),
        incarnation: successor.mint,
        voter: true,
        outgoing: false,
        target: Target::Voter,
    };
    Membership { cluster: successor.cluster, members: [(successor.id, member)].into(), ..Membership::default() }
}

fn without_membership(entry: Entry) -> Entry {
    match entry.payload {
        Payload::Membership(_) => Entry { payload: Payload::Noop, ..entry },
        _ => entry,
    }
}

/// A new log in a directory that has no identity yet.
fn log<F: Files>(files: &F, directory: &Path, identity: Identity, lock: Arc<F::Lock>) -> Result<Wal<F>, StoreError> {
    let config = StoreConfig::default();
    segments::create(files, directory, &config, &mut Vec::new(), SegmentHeader::first(identity.incarnation))?;
    let replayed = recovery::replay(files, directory, &[1], Some(identity.incarnation))?;
    let recovery::Replayed { state, entries: _, batch, link, sealed, last } = replayed;
    let active = open::settle(last, config, &mut Vec::new())?;
    let segments =
        Segments { files: files.clone(), directory: directory.to_owned(), config, sealed, active, spares: Vec::new() };
    Ok(Wal::new(segments, identity, Progress { state, batch, link }, Arc::new(OnceLock::new()), lock))
}
