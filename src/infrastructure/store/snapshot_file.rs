//! A snapshot's file: a header that says what it is a snapshot of, the machine's bytes in frames, and an end that proves
//! that all of them are there. `docs/snapshot-format.md` has every byte.
//!
//! Nothing in it depends on the member that wrote it, so it travels as it is, and a receiver verifies exactly what the
//! writer sealed. Every checksum goes on from the header's and takes in its frame's place: a frame of another snapshot,
//! or one that was moved, dropped or repeated, is never taken for the right one.

use std::io;
use std::path::Path;

use graft_domain::EntryId;
use graft_services::ports::StoreError;
use graft_services::snapshot_meta::SnapshotMeta;

use super::batch::Place;
use super::errors::{corrupt_with, io_error, newer, refused};
use super::files::{StoreFile, read_full};
use super::preamble::{self, BadPreamble, PREAMBLE_BYTES};

/// The machine's bytes in a frame: so many in each but the last. What is written and read is held in memory only so far.
pub(super) const FRAME_BYTES: usize = 1 << 20;
/// Length and checksum, before the bytes of a frame.
pub(super) const FRAME_HEAD_BYTES: usize = 8;
/// The end: a frame's head, how many bytes there are in all, and their checksum.
pub(super) const END_BYTES: usize = FRAME_HEAD_BYTES + 12;
/// More than the metadata of any cluster has. A damaged length must not ask for all memory.
const META_BYTES_MAX: usize = 16 << 20;
/// Before the metadata: the preamble, and the length.
const META_AT: usize = PREAMBLE_BYTES + 4;

const MAGIC: [u8; 8] = *b"GRAFTSNP";
const PREFIX: &str = "snapshot-";

/// Why a file cannot be read as a snapshot.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(io::Error),
    Damaged {
        offset: u64,
        what: String,
    },
    /// It never was one, as far as can be told.
    Foreign {
        offset: u64,
        what: String,
    },
    Newer {
        found: u32,
    },
}

/// A header, its checksum verified.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) meta: SnapshotMeta,
    /// The header's checksum, where all others of the file begin.
    pub(super) seed: u32,
    /// Where the frames begin.
    pub(super) bytes: u64,
}

/// What the end says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// The machine's bytes, without heads of frames.
    pub(super) total: u64,
    /// Over all of them, from the seed on.
    pub(super) running: u32,
}

impl Unreadable {
    pub(super) fn damaged(offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { offset, what: what.into() }
    }

    /// Of a file that was given as a backup, in the words of the port.
    pub(super) fn of_backup(self, path: &Path, remedy: &str) -> StoreError {
        match self {
            Self::Foreign { .. } => {
                refused(path, "it is no backup of Graft: give a file that `graft backup` or `backup()` wrote")
            }
            other => other.into_error(path, remedy),
        }
    }

    /// In the words of the port; damage comes with what can be done about it.
    pub(super) fn into_error(self, path: &Path, remedy: &str) -> StoreError {
        match self {
            Self::Io(error) => io_error(path, &error),
            Self::Damaged { offset, what } | Self::Foreign { offset, what } => corrupt_with(path, offset, what, remedy),
            Self::Newer { found } => newer(path, found),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BadPreamble> for Unreadable {
    fn from(bad: BadPreamble) -> Self {
        match bad {
            BadPreamble::Damaged { offset, what } => Self::damaged(offset, what),
            BadPreamble::Foreign { offset, what } => Self::Foreign { offset, what: what.to_owned() },
            BadPreamble::Newer { found } => Self::Newer { found },
        }
    }
}

impl Header {
    /// The header of a snapshot, and its checksum; none if there is more to say than a header holds.
    pub(super) fn encode(meta: &SnapshotMeta) -> Option<(Vec<u8>, u32)> {
        let meta = meta.encode();
        let length = u32::try_from(meta.len()).ok().filter(|_| meta.len() <= META_BYTES_MAX)?;
        let mut out = Vec::with_capacity(META_AT + meta.len() + 4);
        preamble::put(&mut out, MAGIC);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&meta);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        Some((out, crc))
    }

    /// Reads the header of a file of `length` bytes.
    pub(super) fn read(file: &impl StoreFile, length: u64) -> Result<Self, Unreadable> {
        let mut bytes = vec![0; META_AT];
        let count = read_full(file, 0, &mut bytes)?;
        let rest = preamble::judge(&bytes[..count], MAGIC)?;
        let Ok(meta_bytes) = <[u8; 4]>::try_from(rest) else {
            return Err(Unreadable::damaged(count as u64, "it ends within its header"));
        };
        let meta_bytes = u32::from_le_bytes(meta_bytes) as usize;
        let whole = META_AT + meta_bytes.min(META_BYTES_MAX) + 4;
        if meta_bytes > META_BYTES_MAX || whole as u64 > length {
            return Err(Unreadable::damaged(PREAMBLE_BYTES as u64, "its header is longer than it may be"));
        }
        bytes.resize(whole, 0);
        let count = read_full(file, 0, &mut bytes)?;
        let Some((covered, crc)) = bytes.split_last_chunk::<4>().filter(|_| count == whole) else {
            return Err(Unreadable::damaged(count as u64, "it ends within its header"));
        };
        let seed = u32::from_le_bytes(*crc);
        if crc32c::crc32c(covered) != seed {
            return Err(Unreadable::damaged(PREAMBLE_BYTES as u64, "its header fails the checksum"));
        }
        let meta = SnapshotMeta::decode(&covered[META_AT..]).map_err(|bad| {
            Unreadable::damaged(META_AT as u64, format!("what it says of itself is unreadable: {bad}"))
        })?;
        Ok(Self { meta, seed, bytes: whole as u64 })
    }

    /// The length of a file with this header and `total` bytes of the machine.
    pub(super) fn file_bytes(&self, total: u64) -> u64 {
        let heads = total.div_ceil(FRAME_BYTES as u64) * FRAME_HEAD_BYTES as u64;
        total.saturating_add(self.bytes + heads + END_BYTES as u64)
    }
}

impl End {
    pub(super) fn encode(&self, place: Place) -> [u8; END_BYTES] {
        let mut data = [0; END_BYTES - FRAME_HEAD_BYTES];
        data[..8].copy_from_slice(&self.total.to_le_bytes());
        data[8..].copy_from_slice(&self.running.to_le_bytes());
        let mut out = [0; END_BYTES];
        out[..FRAME_HEAD_BYTES].copy_from_slice(&frame_head(place, 0, &data));
        out[FRAME_HEAD_BYTES..].copy_from_slice(&data);
        out
    }

    /// Reads the end in the last bytes of a file of `length` bytes, and checks that the length is what it says.
    pub(super) fn read(file: &impl StoreFile, header: &Header, length: u64) -> Result<Self, Unreadable> {
        let Some(offset) = length.checked_sub(END_BYTES as u64).filter(|at| *at >= header.bytes) else {
            return Err(Unreadable::damaged(length, "it is cut off after its header"));
        };
        let mut bytes = [0; END_BYTES];
        let count = read_full(file, offset, &mut bytes)?;
        let [_, _, _, _, _, _, _, _, t0, t1, t2, t3, t4, t5, t6, t7, r0, r1, r2, r3] = bytes;
        let total = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        let end = Self { total, running: u32::from_le_bytes([r0, r1, r2, r3]) };
        if count < END_BYTES || end.encode(Place { seed: header.seed, offset }) != bytes {
            return Err(Unreadable::damaged(offset, "it has no good end: it is cut off, or the end is damaged"));
        }
        if header.file_bytes(total) != length {
            return Err(Unreadable::damaged(offset, format!("it has another length than {total} bytes of state make")));
        }
        Ok(end)
    }
}

/// What stands before the bytes of a frame: `length`, and the checksum over place, length and bytes.
pub(super) fn frame_head(place: Place, length: u32, data: &[u8]) -> [u8; FRAME_HEAD_BYTES] {
    let mut covered = [0; 12];
    covered[..8].copy_from_slice(&place.offset.to_le_bytes());
    covered[8..].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(place.seed, &covered), data);
    let mut head = [0; FRAME_HEAD_BYTES];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// The name of the snapshot of this entry.
pub(super) fn name(last: EntryId) -> String {
    format!("{PREFIX}{:010}-{:010}", last.index.0, last.term.0)
}

/// The entry in the name of a snapshot; none if it is not a name this store gives.
pub(super) fn last_of(file_name: &str) -> Option<EntryId> {
    let (index, term) = file_name.strip_prefix(PREFIX)?.split_once('-')?;
    let last = EntryId::new(term.parse().ok()?, index.parse().ok()?);
    (name(last) == file_name).then_some(last)
}

/// The name of one that is being written.
pub(super) fn new_name(last: EntryId) -> String {
    format!("{}.new", name(last))
}

/// The name of one that is being taken in.
pub(super) fn part_name(last: EntryId) -> String {
    format!("{}.part", name(last))
}

/// Whether it is a name of what was being written or taken in.
pub(super) fn is_unfinished(file_name: &str) -> bool {
    let stem = file_name.strip_suffix(".new").or_else(|| file_name.strip_suffix(".part"));
    stem.and_then(last_of).is_some()
}
