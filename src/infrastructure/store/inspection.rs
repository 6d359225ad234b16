//! What a data directory holds, told without changing its log or its snapshots. Nobody may have it open meanwhile.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use graft_domain::{Entry, EntryId, Index, Membership, NodeId, Payload, Term};
use graft_services::ports::{Identity, StoreError};
use graft_services::snapshot_meta::SnapshotMeta;

use super::errors::{REPLACE, io_error, refused};
use super::files::{Files, Locking};
use super::os::OsFiles;
use super::recovery::{self, Tail};
use super::snapshot_reader::SnapshotReader;
use super::survey::survey;
use super::{identity, open, segment, snapshot_file, snapshots};

/// All of a log, and the newest snapshot's head. It holds the directory's lock.
#[derive(Debug)]
pub struct Inspection {
    pub identity: Identity,
    pub term: Term,
    pub vote: Option<NodeId>,
    /// So far the log is known to be committed.
    pub commit: Index,
    /// Where it ends.
    pub last: EntryId,
    /// The newest snapshot and the bytes of its file.
    pub snapshot: Option<(SnapshotMeta, u64)>,
    /// What follows the snapshot, or all there is without one.
    pub entries: Vec<Entry>,
    /// The files of the log, in order, and their bytes.
    pub segments: Vec<(String, u64)>,
    /// Bytes after the last batch, of a write that was not finished.
    pub is_torn: bool,
    _lock: Option<Box<dyn fmt::Debug + Send + Sync>>,
}

/// Reads all of the log in `directory`, and the head and the end of its newest snapshot.
///
/// # Errors
/// [`StoreError::Locked`] while a node runs in it, [`StoreError::Corrupt`] and [`StoreError::NewerFormat`] if it cannot be
/// vouched for, [`StoreError::Io`] if it is no data directory, or as the operating system has it.
pub fn inspect(directory: &Path) -> Result<Inspection, StoreError> {
    inspect_in(&OsFiles, directory)
}

/// [`inspect`] on other files than the operating system's.
///
/// # Errors
/// Those of [`inspect`].
pub fn inspect_in<F: Files>(files: &F, directory: &Path) -> Result<Inspection, StoreError> {
    let inside = directory.join(snapshots::DIRECTORY);
    let listing = || files.list(directory).map_err(|e| io_error(directory, &e));
    if !listing()?.iter().any(|name| name == identity::NAME) {
        let what =
            "it is no data directory: it has no file named `identity`. A restored one has none before its first start";
        return Err(refused(directory, what));
    }
    let path = directory.join(open::LOCK_NAME);
    let lock = match files.lock(&path) {
        Ok(Locking::Held(lock)) => Some(Box::new(lock) as Box<dyn fmt::Debug + Send + Sync>),
        Ok(Locking::Taken { pid }) => {
            return Err(StoreError::Locked { path: directory.display().to_string(), pid });
        }
        // Nobody can write there.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => None,
        Err(error) => return Err(io_error(&path, &error)),
    };
    let names = listing()?;
    let identity = identity::read(files, directory)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    numbers.sort_unstable();
    let numbers = &numbers[numbers.len() - open::consecutive(&numbers)..];
    let survey = survey(files, &inside)?;
    let replayed = recovery::replay(files, directory, numbers, Some(identity.incarnation))?;
    open::check_log(directory, &identity, &replayed, survey.newest.as_ref().map(|(meta, _)| meta))?;
    let mut entries: Vec<Entry> = replayed.entries.into();
    let mut last = replayed.state.last;
    if let Some((meta, _)) = &survey.newest {
        if replayed.state.base_for(meta.last).reset {
            entries.clear();
            last = meta.last;
        }
        entries.retain(|entry| entry.index > meta.last.index);
    }
    let length = |number: &u64| {
        let name = segment::name(*number);
        let path = directory.join(&name);
        let length = files.open_to_read(&path).and_then(|file| super::files::StoreFile::length(&file));
        length.map(|length| (name, length)).map_err(|e| io_error(&path, &e))
    };
    let hard = replayed.state.hard;
    // Of a log that was being filled nobody knows how far it is committed.
    let known = if hard.commit == Index::LAST { Index::ZERO } else { hard.commit };
    let covered = survey.newest.as_ref().map_or(Index::ZERO, |(meta, _)| meta.last.index);
    Ok(Inspection {
        identity,
        term: hard.term.max(last.term),
        vote: hard.vote,
        commit: known.min(last.index).max(covered),
        last,
        snapshot: survey.newest,
        entries,
        segments: numbers.iter().map(length).collect::<Result<_, _>>()?,
        is_torn: replayed.last.tail == Tail::Torn,
        _lock: lock,
    })
}

impl Inspection {
    /// The membership in force at the end of the log; none if it says nothing of one.
    pub fn membership(&self) -> Option<&Arc<Membership>> {
        self.memberships().last()
    }

    /// That in force where the log is known to be committed, and all after it; none if it says nothing of one.
    pub fn memberships(&self) -> impl Iterator<Item = &Arc<Membership>> {
        let in_log = self.entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.index, membership)),
            _ => None,
        });
        let first = self.snapshot.as_ref().map(|(meta, _)| (meta.last.index, &meta.membership));
        let all: Vec<_> = first.into_iter().chain(in_log).collect();
        let certain = all.iter().rposition(|(index, _)| *index <= self.commit).unwrap_or_default();
        all.into_iter().skip(certain).map(|(_, membership)| membership)
    }

    /// Reads all of the snapshot, which was only looked at.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is damaged, [`StoreError::Io`].
    pub fn verify_snapshot(&self, directory: &Path) -> Result<(), StoreError> {
        let Some((meta, _)) = &self.snapshot else { return Ok(()) };
        let path = directory.join(snapshots::DIRECTORY).join(snapshot_file::name(meta.last));
        let reader = SnapshotReader::open(&OsFiles, &path);
        let verified = reader.and_then(SnapshotReader::verify);
        verified.map(drop).map_err(|bad| bad.into_error(&path, REPLACE))
    }
}
