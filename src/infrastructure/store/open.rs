//! Opening a directory: taking the lock, telling whose it is, recovering the log and the newest snapshot, and making
//! sure that what was read is what the disk holds.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use graft_domain::{ClusterId, Entry, Index, Recovered};
use graft_services::ports::{Identity, LogStore, Opened, StoreError};
use graft_services::snapshot_meta::SnapshotMeta;

use super::batch::BASE_BATCH_BYTES;
use super::errors::{corrupt, full_or_io, io_error};
use super::files::{Files, Locking, StoreFile, sync_above};
use super::recovery::{self, LastSegment, Replayed, Tail};
use super::segment::{self, SegmentHeader};
use super::segments::{self, Active, Segments, Spare};
use super::snapshots::{self, Snapshots};
use super::state::LogState;
use super::survey::survey;
use super::wal::{Progress, Wal};
use super::{Founding, Store, StoreConfig, identity, restoring, snapshot_file};

pub(super) const LOCK_NAME: &str = "LOCK";
/// The cluster's name is recorded only once the entry that brings it, or a snapshot that covers it, is in the log.
const EMPTIED: &str = "the log is empty, but the node has belonged to a cluster: what it held is gone";

/// The store's files in a directory.
#[derive(Debug, Default)]
struct Listing {
    identity: bool,
    /// The numbers of the segments, ascending.
    segments: Vec<u64>,
    spares: Vec<String>,
}

pub(super) fn open<F: Files>(
    files: F,
    directory: &Path,
    founding: &Founding,
    config: StoreConfig,
) -> Result<Store<F>, StoreError> {
    files.make_directory(directory).map_err(|e| full_or_io(directory, &e))?;
    let lock = Arc::new(lock(&files, directory)?);
    let mut listing = list(&files, directory)?;
    let known = if listing.identity { Some(own_identity(&files, directory, founding)?) } else { None };
    let mut survey = survey(&files, &directory.join(snapshots::DIRECTORY))?;
    let mut identity = if let Some(identity) = known {
        identity
    } else {
        refuse_unowned(&files, directory, &listing.segments)?;
        // Before there is anything in it that must not be gone.
        sync_above(&files, directory)?;
        if survey.is_there {
            survey = restoring::adopt(&files, directory, survey, founding)?;
        }
        found(&files, directory, founding, config, &mut listing)?
    };
    let snapshot = survey.newest.as_ref().map(|(meta, _)| meta.clone());

    // A stop amid forgetting may leave any of the forgotten segments; whether they were, the replay tells.
    let needed = listing.segments.len() - consecutive(&listing.segments);
    let (leftover, numbers) = listing.segments.split_at(needed);
    let replayed = recovery::replay(&files, directory, numbers, Some(identity.incarnation))?;
    check_log(directory, &identity, &replayed, snapshot.as_ref())?;

    let promised = identity.promise;
    if founding.promise > promised {
        // Before anybody can be promised anything.
        identity.promise = founding.promise;
        identity::write(&files, directory, &identity)?;
    }
    let mut notes = Vec::new();
    for number in leftover {
        let path = directory.join(segment::name(*number));
        files.remove(&path).map_err(|e| io_error(&path, &e))?;
    }
    let spares = take_spares(&files, directory, listing.spares, &config)?;
    let Replayed { state, entries, batch, link, sealed, last } = replayed;
    let active = settle(last, config, &mut notes)?;
    let cluster = Arc::new(OnceLock::new());
    if identity.cluster != ClusterId::UNKNOWN {
        // It was made just now.
        let _ = cluster.set(identity.cluster);
    }
    if !survey.is_there {
        // The identity may have come from the cache of a process that was killed; it must not be gone when this is there.
        files.sync_directory(directory).map_err(|e| io_error(directory, &e))?;
    }
    let snapshots_directory = directory.join(snapshots::DIRECTORY);
    let snapshots =
        Snapshots::open(files.clone(), snapshots_directory, survey, Arc::clone(&cluster), Arc::clone(&lock))?;
    files.sync_directory(directory).map_err(|e| io_error(directory, &e))?;
    let base = state.base.index;
    let mut segments = Segments { files, directory: directory.to_owned(), config, sealed, active, spares };
    segments.forget(base)?;
    let mut wal = Wal::new(segments, identity, Progress { state, batch, link }, cluster, lock);
    let recovered = begin(&mut wal, entries, snapshot.as_ref(), founding, &mut notes)?;
    let recovered = Recovered { promised, ..recovered };
    Ok((wal, Arc::new(snapshots), Opened { identity, recovered, snapshot, notes }))
}

fn own_identity<F: Files>(files: &F, directory: &Path, founding: &Founding) -> Result<Identity, StoreError> {
    let identity = identity::read(files, directory)?;
    if identity.id != founding.id {
        let path = directory.display().to_string();
        return Err(StoreError::WrongNode { path, found: identity.id, expected: founding.id });
    }
    Ok(identity)
}

/// Whether log, identity and snapshot are of one life: a log never begins after what the newest snapshot covers.
pub(super) fn check_log<F>(
    directory: &Path,
    identity: &Identity,
    replayed: &Replayed<F>,
    snapshot: Option<&SnapshotMeta>,
) -> Result<(), StoreError> {
    let LogState { base, last, .. } = replayed.state;
    let snapshots = directory.join(snapshots::DIRECTORY);
    let known = identity.cluster != ClusterId::UNKNOWN;
    // Before a node takes a snapshot in it has written down the term of the leader who has it.
    if known && (replayed.batch == 0 || snapshot.is_none() && last.index == Index::ZERO) {
        return Err(corrupt(&replayed.last.path, segment::HEADER_BYTES as u64, EMPTIED));
    }
    let Some(meta) = snapshot else {
        let what = format!("the log begins after entry {base}, and the snapshot that covers it is missing");
        return if base.index == Index::ZERO { Ok(()) } else { Err(corrupt(&snapshots, 0, what)) };
    };
    let path = snapshots.join(snapshot_file::name(meta.last));
    if base.index > meta.last.index || base.index == meta.last.index && base != meta.last {
        let what = format!("it is the newest snapshot, and the log begins after entry {base}: a newer one is missing");
        return Err(corrupt(&path, 0, what));
    }
    let cluster = meta.membership.cluster;
    if known && cluster != ClusterId::UNKNOWN && cluster != identity.cluster {
        let what = format!("it is a snapshot of cluster {cluster}, and the node belongs to {}", identity.cluster);
        return Err(corrupt(&path, 0, what));
    }
    Ok(())
}

/// What the log amounts to after the newest snapshot, and makes the log on the disk begin there too: the machine may have
/// stopped between the two. It goes on after the snapshot only if it holds the very entry that the snapshot ends with;
/// entries behind a conflict must never be seen again.
fn begin<F: Files>(
    wal: &mut Wal<F>,
    mut entries: VecDeque<Entry>,
    snapshot: Option<&SnapshotMeta>,
    founding: &Founding,
    notes: &mut Vec<String>,
) -> Result<Recovered, StoreError> {
    let hard = wal.durable.state.hard;
    let membership = snapshot.map_or(&founding.membership, |meta| &meta.membership);
    let (mut term, mut vote) = (hard.term, hard.vote);
    if let Some(meta) = snapshot {
        if wal.durable.state.base_for(meta.last).reset {
            if let Some(first) = entries.iter().find(|entry| entry.index > meta.last.index) {
                let (from, to) = (first.index, wal.durable.state.last.index);
                notes.push(format!(
                    "entries {from} to {to} of the log are let go: they do not follow entry {}, which the newest                      snapshot ends with. The node stopped between taking that snapshot in and cutting the log",
                    meta.last
                ));
            }
            entries.clear();
        }
        let covered = entries.partition_point(|entry| entry.index <= meta.last.index);
        entries.drain(..covered);
        wal.compact(meta.last)?;
        if meta.last.term > term {
            (term, vote) = (meta.last.term, None);
        }
    }
    let LogState { base, .. } = wal.durable.state;
    let commit = hard.commit.max(base.index);
    let (membership, applied) = (Arc::clone(membership), Index::ZERO);
    Ok(Recovered {
        term,
        vote,
        snapshot: base,
        membership,
        entries: entries.into(),
        commit,
        applied,
        promised: Duration::ZERO,
    })
}

/// Keeps as many spare files as it may.
fn take_spares<F: Files>(
    files: &F,
    directory: &Path,
    names: Vec<String>,
    config: &StoreConfig,
) -> Result<Vec<Spare>, StoreError> {
    let mut spares = Vec::new();
    for name in names {
        let path = directory.join(&name);
        let length = files.open(&path).and_then(|file| file.length()).map_err(|e| io_error(&path, &e))?;
        if spares.len() < config.spares_max && segments::is_recycled(config, length) {
            spares.push(Spare { name, length });
        } else {
            files.remove(&path).map_err(|e| io_error(&path, &e))?;
        }
    }
    Ok(spares)
}

fn lock<F: Files>(files: &F, directory: &Path) -> Result<F::Lock, StoreError> {
    let path = directory.join(LOCK_NAME);
    match files.lock(&path).map_err(|e| full_or_io(&path, &e))? {
        Locking::Held(lock) => Ok(lock),
        Locking::Taken { pid } => Err(StoreError::Locked { path: directory.display().to_string(), pid }),
    }
}

fn list<F: Files>(files: &F, directory: &Path) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    for name in files.list(directory).map_err(|e| io_error(directory, &e))? {
        if name == identity::NAME {
            listing.identity = true;
        } else if let Some(number) = segment::number_of(&name) {
            listing.segments.push(number);
        } else if segment::is_spare(&name) {
            listing.spares.push(name);
        }
    }
    listing.segments.sort_unstable();
    listing.spares.sort_unstable();
    Ok(listing)
}

/// How many segments at the end of the list have no gap between them.
pub(super) fn consecutive(numbers: &[u64]) -> usize {
    let gaps = numbers.windows(2).rev().take_while(|pair| pair[1] - pair[0] == 1).count();
    if numbers.is_empty() { 0 } else { gaps + 1 }
}

/// Refuses a log without an identity, unless it has never held anything: the first opening may have stopped between the two.
fn refuse_unowned<F: Files>(files: &F, directory: &Path, segments: &[u64]) -> Result<(), StoreError> {
    if segments.is_empty() || segments == [1] && recovery::replay(files, directory, &[1], None)?.batch == 0 {
        return Ok(());
    }
    Err(corrupt(&directory.join(identity::NAME), 0, "it is missing, though the directory holds a log"))
}

/// Makes a new log. The identity comes last, so a directory that has one has all the rest.
fn found<F: Files>(
    files: &F,
    directory: &Path,
    founding: &Founding,
    config: StoreConfig,
    listing: &mut Listing,
) -> Result<Identity, StoreError> {
    let mut spares = take_spares(files, directory, std::mem::take(&mut listing.spares), &config)?;
    segments::create(files, directory, &config, &mut spares, SegmentHeader::first(founding.mint))?;
    let identity = Identity {
        id: founding.id,
        incarnation: founding.mint,
        cluster: ClusterId::UNKNOWN,
        promise: founding.promise,
    };
    identity::write(files, directory, &identity)?;
    (listing.segments, listing.spares) = (vec![1], spares.into_iter().map(|spare| spare.name).collect());
    Ok(identity)
}

/// Makes the last segment ready to be written to.
///
/// The torn tail is cut off by the file's length, so none of its bytes can ever come back. The last batch is written
/// again, in place: it may have come from the page cache of a process that was killed before its sync, or whose sync
/// failed and left pages that the system holds for clean; only after a write of its own does a sync vouch for it.
pub(super) fn settle<F: StoreFile>(
    last: LastSegment<F>,
    config: StoreConfig,
    notes: &mut Vec<String>,
) -> Result<Active<F>, StoreError> {
    let LastSegment { header, seed, file, path, end, length, greatest, last_batch, tail } = last;
    let allocated = if tail == Tail::Clean { length } else { end };
    let mut active = Active { number: header.number, seed, file, path, position: end, allocated, greatest };
    if tail == Tail::Torn {
        let bytes = length - end;
        notes.push(format!(
            "{}: cut off {bytes} bytes at byte {end}, as a write leaves them that had not become durable when the process \
             or the machine stopped. If they were damaged later, the last write is lost with them",
            active.path.display()
        ));
    }
    let path = active.path.clone();
    let io = |e: std::io::Error| io_error(&path, &e);
    if tail != Tail::Clean {
        active.file.truncate(end).map_err(io)?;
    }
    if active.allocated < active.position + BASE_BATCH_BYTES as u64 {
        active.write_ahead(&config)?;
    }
    if let Some((offset, batch)) = last_batch {
        active.file.write_at(offset, &batch).map_err(|e| full_or_io(&path, &e))?;
    }
    active.file.sync_data().map_err(io)?;
    Ok(active)
}
