//! The first 16 bytes of every file of the store: which kind of file, which version of its format. They have a
//! checksum of their own, in every version the same, so that a newer format is told from a damaged number.

use std::path::Path;

use graft_services::ports::StoreError;

use super::errors::corrupt;

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

/// Checks that `bytes`, from the start of `path`, begin with a preamble this program knows, and answers the rest.
pub(super) fn check<'a>(bytes: &'a [u8], magic: [u8; 8], path: &Path) -> Result<&'a [u8], StoreError> {
    let Some((preamble, rest)) = bytes.split_first_chunk::<PREAMBLE_BYTES>() else {
        return Err(corrupt(path, bytes.len() as u64, "it ends within its header"));
    };
    let [found_magic @ .., v0, v1, v2, v3, c0, c1, c2, c3] = *preamble;
    if crc32c::crc32c(&preamble[..12]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(corrupt(path, 0, "its header fails the checksum"));
    }
    if found_magic != magic {
        return Err(corrupt(path, 0, "it is another kind of file than its name says"));
    }
    let found = u32::from_le_bytes([v0, v1, v2, v3]);
    match found {
        FORMAT => Ok(rest),
        0 => Err(corrupt(path, 8, "format version 0 does not exist")),
        _ => Err(StoreError::NewerFormat { file: path.display().to_string(), found, known: FORMAT }),
    }
}
