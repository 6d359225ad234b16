//! A segment: one file of the log. Its header is durable before the file gets its name, so a named segment without a
//! good header is damage, never a crash. The header repeats all that the segments before it amount to, so that they
//! can be forgotten.

use std::path::Path;

use bytes::{Buf, Bytes};
use graft_domain::{EntryId, Incarnation, Index, NodeId, Term};
use graft_services::ports::StoreError;

use super::errors::{corrupt, io_error};
use super::files::{StoreFile, read_full};
use super::preamble::{self, PREAMBLE_BYTES};
use super::state::HardState;

/// A page, so that no batch shares one with the header and a torn page cannot take it along.
pub(super) const HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"GRAFTLOG";
const VOTE_BYTES: usize = 64;
const PREFIX: &str = "log-";
const SPARE_PREFIX: &str = "spare-";
const RECYCLED: u8 = 1;

/// What a segment says of itself and of what came before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    /// Segments are numbered from 1, without gaps.
    pub(super) number: u64,
    /// Of the directory it was written in.
    pub(super) incarnation: Incarnation,
    /// The number of its first batch.
    pub(super) first_batch: u64,
    /// The checksum of the last batch before it, 0 without one. Nobody outside can know it, hence nobody can craft
    /// a command that looks like a batch of this segment.
    pub(super) link: u32,
    /// The last entry before it.
    pub(super) prev: EntryId,
    pub(super) base: EntryId,
    pub(super) hard: HardState,
    /// The file held another segment before, whose bytes may follow the last batch.
    pub(super) recycled: bool,
}

impl SegmentHeader {
    /// Header and checksum; the checksum is where those of the segment's batches begin.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        preamble::put(&mut out, MAGIC);
        let id = |out: &mut Vec<u8>, id: EntryId| {
            out.extend_from_slice(&id.term.0.to_le_bytes());
            out.extend_from_slice(&id.index.0.to_le_bytes());
        };
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.incarnation.0.to_le_bytes());
        out.extend_from_slice(&self.first_batch.to_le_bytes());
        id(&mut out, self.prev);
        id(&mut out, self.base);
        id(&mut out, EntryId { term: self.hard.term, index: self.hard.commit });
        out.extend_from_slice(&self.link.to_le_bytes());
        let (vote_bytes, vote) = self.hard.vote_text();
        let flags = if self.recycled { RECYCLED } else { 0 };
        out.extend_from_slice(&[flags, vote_bytes, 0, 0]);
        out.extend_from_slice(vote);
        out.resize(HEADER_BYTES - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Reads the header of `path`, and its checksum.
    pub(super) fn read(file: &impl StoreFile, path: &Path) -> Result<(Self, u32), StoreError> {
        let mut bytes = vec![0; HEADER_BYTES];
        let count = read_full(file, 0, &mut bytes).map_err(|e| io_error(path, &e))?;
        bytes.truncate(count);
        let rest_bytes = preamble::check(&bytes, MAGIC, path)?.len();
        let Some((covered, crc)) = bytes.split_last_chunk::<4>().filter(|_| count == HEADER_BYTES) else {
            return Err(corrupt(path, count as u64, "it ends within its header"));
        };
        let crc = u32::from_le_bytes(*crc);
        if crc32c::crc32c(covered) != crc {
            return Err(corrupt(path, PREAMBLE_BYTES as u64, "its header fails the checksum"));
        }
        let body = Bytes::copy_from_slice(&bytes[HEADER_BYTES - rest_bytes..]);
        let header = Self::decode(body)
            .ok_or_else(|| corrupt(path, PREAMBLE_BYTES as u64, "its header holds what no version writes"))?;
        Ok((header, crc))
    }

    fn decode(mut body: Bytes) -> Option<Self> {
        let (number, incarnation, first_batch) = (body.get_u64_le(), body.get_u64_le(), body.get_u64_le());
        let mut id = || EntryId::new(body.get_u64_le(), body.get_u64_le());
        let (prev, base, hard) = (id(), id(), id());
        let (link, flags, vote_bytes, _reserved) =
            (body.get_u32_le(), body.get_u8(), usize::from(body.get_u8()), body.get_u16_le());
        let vote = match vote_bytes {
            0 => None,
            1..VOTE_BYTES => Some(NodeId::new(std::str::from_utf8(&body[..vote_bytes]).ok()?).ok()?),
            _ => return None,
        };
        let hard = HardState { term: hard.term, vote, commit: hard.index };
        let header = Self {
            number,
            incarnation: Incarnation(incarnation),
            first_batch,
            link,
            prev,
            base,
            hard,
            recycled: flags & RECYCLED != 0,
        };
        let is_written = number > 0 && first_batch > 0 && flags & !RECYCLED == 0;
        (is_written && header.is_of_a_log()).then_some(header)
    }

    /// Whether a log can have come so far: the place before the first entry is of no term, and no log ends before it begins.
    fn is_of_a_log(&self) -> bool {
        let is_place = |id: EntryId| id.index > Index::ZERO || id == EntryId::ZERO;
        is_place(self.prev) && is_place(self.base) && self.base.index <= self.prev.index
    }

    /// The header of the first segment of all.
    pub(super) fn first(incarnation: Incarnation) -> Self {
        Self {
            number: 1,
            incarnation,
            first_batch: 1,
            link: 0,
            prev: EntryId { term: Term::ZERO, index: Index::ZERO },
            base: EntryId::ZERO,
            hard: HardState::default(),
            recycled: false,
        }
    }
}

/// The name of the segment of this number.
pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

/// The number in the name of a segment; none if it is not a name this store gives.
pub(super) fn number_of(file_name: &str) -> Option<u64> {
    let number = file_name.strip_prefix(PREFIX)?.parse().ok()?;
    (number > 0 && name(number) == file_name).then_some(number)
}

/// The name of a file that will be, or was, the segment of this number. What it holds means nothing.
pub(super) fn spare_name(number: u64) -> String {
    format!("{SPARE_PREFIX}{number:010}")
}

pub(super) fn is_spare(file_name: &str) -> bool {
    file_name.starts_with(SPARE_PREFIX)
}
