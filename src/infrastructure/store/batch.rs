//! A batch: what one `persist` adds to the log, under one checksum. It is valid in one place only: its checksum begins
//! from its segment's and takes in its offset, so neither what a recycled file held before nor a copy of a log inside
//! a command can be taken for it.

use std::ops::Range;

use super::record;

/// Before the records of every batch.
pub(super) const HEADER_BYTES: usize = 24;
/// Every batch begins at a multiple of this, which makes looking for one in a damaged file cheap.
pub(super) const ALIGNMENT: usize = 8;
/// A batch that holds nothing but a base: what must always fit, so that a full disk can be told to forget.
pub(super) const BASE_BATCH_BYTES: usize = HEADER_BYTES + record::HEAD_BYTES;

/// The number of what ends a segment that another one follows, so that the loss of the last segment is seen.
pub(super) const CONTINUED: u64 = u64::MAX;

const MAGIC: [u8; 4] = *b"GBAT";

/// Where a batch lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The checksum of the segment's header.
    pub(super) seed: u32,
    /// Bytes from the start of the file.
    pub(super) offset: u64,
}

/// The header of a batch, its checksum verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHeader {
    pub(super) number: u64,
    /// Bytes of records, without the padding after them.
    body_bytes: u32,
    body_crc: u32,
    /// Its own checksum, which the next segment's header repeats.
    pub(super) crc: u32,
}

/// Starts a batch in a buffer that is used again and again.
pub(super) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER_BYTES, 0);
}

pub(super) fn is_empty(buffer: &[u8]) -> bool {
    buffer.len() <= HEADER_BYTES
}

/// Bytes that the batch takes in a segment.
pub(super) fn padded(buffer: &[u8]) -> u64 {
    buffer.len().next_multiple_of(ALIGNMENT) as u64
}

/// Puts number, length and checksums before the records in `buffer` and pads them. None if they are too many for a
/// length of four bytes.
pub(super) fn seal(buffer: &mut Vec<u8>, place: Place, number: u64) -> Option<BatchHeader> {
    let body = buffer.get(HEADER_BYTES..)?;
    let body_bytes = u32::try_from(body.len()).ok()?;
    let body_crc = crc32c::crc32c_append(place.seed, body);
    let mut header = BatchHeader { number, body_bytes, body_crc, crc: 0 };
    header.crc = header.checksum(place);
    buffer[..4].copy_from_slice(&MAGIC);
    buffer[4..8].copy_from_slice(&header.crc.to_le_bytes());
    buffer[8..HEADER_BYTES].copy_from_slice(&header.numbers());
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
    Some(header)
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, if there is one that was written in this place.
    pub(super) fn read(bytes: &[u8], place: Place) -> Option<Self> {
        let [m0, m1, m2, m3, c0, c1, c2, c3, rest @ ..] = *bytes.first_chunk::<HEADER_BYTES>()?;
        if [m0, m1, m2, m3] != MAGIC {
            return None;
        }
        let [n0, n1, n2, n3, n4, n5, n6, n7, l0, l1, l2, l3, b0, b1, b2, b3] = rest;
        let header = Self {
            number: u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
            body_bytes: u32::from_le_bytes([l0, l1, l2, l3]),
            body_crc: u32::from_le_bytes([b0, b1, b2, b3]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        };
        (header.checksum(place) == header.crc).then_some(header)
    }

    /// Whether these are the records that the header was written for.
    pub(super) fn vouches_for(&self, body: &[u8], place: Place) -> bool {
        crc32c::crc32c_append(place.seed, body) == self.body_crc
    }

    /// Where its records are, from its start.
    pub(super) fn body(&self) -> Range<usize> {
        HEADER_BYTES..HEADER_BYTES + self.body_bytes as usize
    }

    /// Header, records and padding.
    pub(super) fn total_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.body_bytes)).next_multiple_of(ALIGNMENT as u64)
    }

    fn numbers(&self) -> [u8; 16] {
        let mut numbers = [0; 16];
        numbers[..8].copy_from_slice(&self.number.to_le_bytes());
        numbers[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        numbers[12..].copy_from_slice(&self.body_crc.to_le_bytes());
        numbers
    }

    fn checksum(&self, place: Place) -> u32 {
        let mut covered = [0; 24];
        covered[..8].copy_from_slice(&place.offset.to_le_bytes());
        covered[8..].copy_from_slice(&self.numbers());
        crc32c::crc32c_append(place.seed, &covered)
    }
}
