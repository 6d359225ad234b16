//! The first 16 bytes of every file of the store: which kind of file, which version of its format. They have a
//! checksum of their own, in every version the same, so that a newer format is told from a damaged number.

use std::path::Path;

use graft_services::ports::StoreError;

use super::errors::{corrupt, newer};

/// The newest format that this program reads, and the one it writes.
pub(super) const FORMAT: u32 = 1;
pub(super) const PREAMBLE_BYTES: usize = 16;

pub(super) fn put(out: &mut Vec<u8>, magic: [u8; 8]) {
    let start = out.len();
    out.extend_from_slice(&magic);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Why the first bytes of a file are no preamble that this program knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadPreamble {
    Damaged {
        offset: u64,
        what: &'static str,
    },
    /// Hardly a byte of it is that of such a file.
    Foreign {
        offset: u64,
        what: &'static str,
    },
    Newer {
        found: u32,
    },
}

/// Checks that `bytes`, from the start of a file, begin with a preamble this program knows, and answers the rest.
pub(super) fn judge(bytes: &[u8], magic: [u8; 8]) -> Result<&[u8], BadPreamble> {
    let damaged = |offset, what| Err(BadPreamble::Damaged { offset, what });
    let Some((preamble, rest)) = bytes.split_first_chunk::<PREAMBLE_BYTES>() else {
        let (offset, what) = (bytes.len() as u64, "it ends within its header");
        return if is_like(bytes, magic) { damaged(offset, what) } else { Err(BadPreamble::Foreign { offset, what }) };
    };
    let [found_magic @ .., v0, v1, v2, v3, c0, c1, c2, c3] = *preamble;
    if crc32c::crc32c(&preamble[..12]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        let (offset, what) = (0, "its header fails the checksum");
        return if is_like(bytes, magic) { damaged(offset, what) } else { Err(BadPreamble::Foreign { offset, what }) };
    }
    if found_magic != magic {
        return damaged(0, "it is another kind of file than its name says");
    }
    match u32::from_le_bytes([v0, v1, v2, v3]) {
        FORMAT => Ok(rest),
        0 => damaged(8, "format version 0 does not exist"),
        found => Err(BadPreamble::Newer { found }),
    }
}

/// Whether a file began as one of this kind, though bytes of it have changed since: so few do not agree by chance.
fn is_like(bytes: &[u8], magic: [u8; 8]) -> bool {
    bytes.iter().zip(&magic).filter(|(byte, wanted)| byte == wanted).count() * 2 >= magic.len()
}

/// [`judge`], in the words of the port.
pub(super) fn check<'a>(bytes: &'a [u8], magic: [u8; 8], path: &Path) -> Result<&'a [u8], StoreError> {
    judge(bytes, magic).map_err(|bad| match bad {
        BadPreamble::Damaged { offset, what } | BadPreamble::Foreign { offset, what } => corrupt(path, offset, what),
        BadPreamble::Newer { found } => newer(path, found),
    })
}
