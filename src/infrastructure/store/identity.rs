//! The file that says whose directory it is. It is replaced as a whole, so it is never seen half written.

use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes};
use graft_domain::{ClusterId, Incarnation, NodeId};
use graft_services::ports::{Identity, StoreError};

use super::errors::{corrupt, full_or_io, io_error};
use super::files::{Files, StoreFile, read_full};
use super::preamble;

pub(super) const NAME: &str = "identity";
const NEW_NAME: &str = "identity.new";
const MAGIC: [u8; 8] = *b"GRAFT-ID";
const ID_BYTES: usize = 64;
const FILE_BYTES: usize = preamble::PREAMBLE_BYTES + ID_BYTES + 8 + 16 + 8 + 4;

/// Reads the identity of a directory that is known to have one.
pub(super) fn read<F: Files>(files: &F, directory: &Path) -> Result<Identity, StoreError> {
    let path = directory.join(NAME);
    let file = files.open(&path).map_err(|e| io_error(&path, &e))?;
    let mut bytes = vec![0; FILE_BYTES + 1];
    let count = read_full(&file, 0, &mut bytes).map_err(|e| io_error(&path, &e))?;
    bytes.truncate(count);
    preamble::check(&bytes, MAGIC, &path)?;
    let Some((covered, crc)) = bytes.split_last_chunk::<4>().filter(|_| count == FILE_BYTES) else {
        return Err(corrupt(&path, count.min(FILE_BYTES) as u64, "it has another length than an identity"));
    };
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return Err(corrupt(&path, preamble::PREAMBLE_BYTES as u64, "it fails the checksum"));
    }
    let mut body = Bytes::copy_from_slice(&covered[preamble::PREAMBLE_BYTES..]);
    let id = body.split_to(ID_BYTES);
    let end = id.iter().position(|b| *b == 0).unwrap_or(ID_BYTES);
    let id = std::str::from_utf8(&id[..end]).ok().and_then(|text| NodeId::new(text).ok());
    let id = id.ok_or_else(|| corrupt(&path, preamble::PREAMBLE_BYTES as u64, "it names no node"))?;
    Ok(Identity {
        id,
        incarnation: Incarnation(body.get_u64_le()),
        cluster: ClusterId(body.get_u128_le()),
        promise: Duration::from_nanos(body.get_u64_le()),
    })
}

/// Writes the identity, atomically and durably. After [`StoreError::Full`] the old one is in force.
pub(super) fn write<F: Files>(files: &F, directory: &Path, identity: &Identity) -> Result<(), StoreError> {
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    preamble::put(&mut bytes, MAGIC);
    bytes.extend_from_slice(identity.id.as_str().as_bytes());
    bytes.resize(preamble::PREAMBLE_BYTES + ID_BYTES, 0);
    bytes.extend_from_slice(&identity.incarnation.0.to_le_bytes());
    bytes.extend_from_slice(&identity.cluster.0.to_le_bytes());
    bytes.extend_from_slice(&nanos(identity.promise).to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());

    let (new, path) = (directory.join(NEW_NAME), directory.join(NAME));
    let mut file = files.create(&new).map_err(|e| full_or_io(&new, &e))?;
    file.write_at(0, &bytes).map_err(|e| full_or_io(&new, &e))?;
    file.sync_data().map_err(|e| io_error(&new, &e))?;
    files.rename(&new, &path).map_err(|e| full_or_io(&new, &e))?;
    files.sync_directory(directory).map_err(|e| io_error(directory, &e))
}

/// Five hundred years stand for more.
fn nanos(promise: Duration) -> u64 {
    u64::try_from(promise.as_nanos()).unwrap_or(u64::MAX)
}
