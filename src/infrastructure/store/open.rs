//! Opening a directory: taking the lock, telling whose it is, recovering the log, and making sure that what was read
//! is what the disk holds.

use std::path::Path;

use graft_domain::{ClusterId, Index, Recovered};
use graft_services::ports::{Identity, Opened, StoreError};

use super::batch::BASE_BATCH_BYTES;
use super::errors::{corrupt, full_or_io, io_error};
use super::files::{Files, Locking, StoreFile};
use super::recovery::{self, LastSegment, Replayed, Tail};
use super::segment::{self, SegmentHeader};
use super::segments::{self, Active, Segments};
use super::wal::{Progress, Wal};
use super::{Founding, StoreConfig, identity};

const LOCK_NAME: &str = "LOCK";
/// The cluster's name is recorded only once the entry that brings it is in the log.
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
) -> Result<(Wal<F>, Opened), StoreError> {
    files.make_directory(directory).map_err(|e| full_or_io(directory, &e))?;
    let lock = lock(&files, directory)?;
    let mut listing = list(&files, directory)?;
    let identity = if listing.identity {
        let identity = identity::read(&files, directory)?;
        if identity.id != founding.id {
            let path = directory.display().to_string();
            return Err(StoreError::WrongNode { path, found: identity.id, expected: founding.id });
        }
        identity
    } else {
        let identity = found(&files, directory, founding, config, &mut listing)?;
        listing.segments = vec![1];
        identity
    };

    // A stop amid forgetting may leave any of the forgotten segments; whether they were, the replay tells.
    let needed = listing.segments.len() - consecutive(&listing.segments);
    let (leftover, numbers) = listing.segments.split_at(needed);
    let replayed = recovery::replay(&files, directory, numbers, Some(identity.incarnation))?;
    if identity.cluster != ClusterId::UNKNOWN && replayed.state.last.index == Index::ZERO {
        let path = directory.join(segment::name(numbers.last().copied().unwrap_or(1)));
        return Err(corrupt(&path, segment::HEADER_BYTES as u64, EMPTIED));
    }

    let mut notes = Vec::new();
    for number in leftover {
        let path = directory.join(segment::name(*number));
        files.remove(&path).map_err(|e| io_error(&path, &e))?;
    }
    for spare in listing.spares.drain(config.spares_max.min(listing.spares.len())..) {
        let path = directory.join(spare);
        files.remove(&path).map_err(|e| io_error(&path, &e))?;
    }
    let Replayed { state, entries, batch, link, sealed, last } = replayed;
    let recovered = Recovered {
        term: state.hard.term,
        vote: state.hard.vote,
        snapshot: state.base,
        membership: founding.membership.clone(),
        entries: entries.into(),
        commit: state.hard.commit.min(state.last.index).max(state.base.index),
        applied: Index::ZERO,
    };
    let active = settle(last, config, &mut notes)?;
    files.sync_directory(directory).map_err(|e| io_error(directory, &e))?;
    let base = state.base.index;
    let mut segments =
        Segments { files, directory: directory.to_owned(), config, sealed, active, spares: listing.spares };
    segments.forget(base)?;
    let wal = Wal::new(segments, identity, Progress { state, batch, link }, lock);
    Ok((wal, Opened { identity, recovered, notes }))
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
fn consecutive(numbers: &[u64]) -> usize {
    let gaps = numbers.windows(2).rev().take_while(|pair| pair[1] - pair[0] == 1).count();
    if numbers.is_empty() { 0 } else { gaps + 1 }
}

/// Makes a new log. The identity comes last, so a directory that has one has all the rest.
fn found<F: Files>(
    files: &F,
    directory: &Path,
    founding: &Founding,
    config: StoreConfig,
    listing: &mut Listing,
) -> Result<Identity, StoreError> {
    if !listing.segments.is_empty() {
        // The first opening may have stopped between the two; then the log has never held anything.
        let path = directory.join(identity::NAME);
        let missing = || corrupt(&path, 0, "it is missing, though the directory holds a log");
        if listing.segments != [1] || recovery::replay(files, directory, &[1], None)?.batch > 0 {
            return Err(missing());
        }
    }
    segments::create(files, directory, &config, &mut listing.spares, SegmentHeader::first(founding.mint))?;
    let identity = Identity { id: founding.id, incarnation: founding.mint, cluster: ClusterId::UNKNOWN };
    identity::write(files, directory, &identity)?;
    Ok(identity)
}

/// Makes the last segment ready to be written to.
///
/// The torn tail is cut off by the file's length, so none of its bytes can ever come back. The last batch is written
/// again, in place: it may have come from the page cache of a process that was killed before its sync, or whose sync
/// failed and left pages that the system holds for clean; only after a write of its own does a sync vouch for it.
fn settle<F: StoreFile>(
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
