//! Snapshots in memory, as files that verify themselves, with the faults that disks have.

use std::io;
use std::sync::Mutex;

use bytes::{Buf, BufMut};
use graft_domain::{EntryId, Index, Membership};
use graft_services::ports::{SnapshotError, SnapshotFiles, StoreError, WriteSnapshot};
use graft_services::snapshot_meta::SnapshotMeta;

use super::{Arc, id};

#[derive(Debug, Default)]
pub(super) struct Files(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    newest: Option<(EntryId, Vec<u8>)>,
    incoming: Option<(EntryId, u64, Vec<u8>)>,
    /// Bytes of incoming files for which there is space.
    space: Option<usize>,
    unreadable: bool,
    /// Taken in since it was made, over all files.
    taken: u64,
}

pub(super) fn meta(last: EntryId) -> SnapshotMeta {
    let membership = Arc::new(Membership::founding([(id("n1"), "127.0.0.1:7001")]));
    SnapshotMeta { last, command: Index(last.index.0), time: 7, membership }
}

/// Bytes of a machine that are not the same anywhere.
pub(super) fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap()).collect()
}

/// A file: its check, the length of what it says of itself, that, and the machine's bytes.
pub(super) fn file(last: EntryId, body: &[u8]) -> Vec<u8> {
    let meta = meta(last).encode();
    let mut rest = Vec::new();
    rest.put_u32_le(u32::try_from(meta.len()).unwrap());
    rest.extend_from_slice(&meta);
    rest.extend_from_slice(body);
    [&check(&rest).to_le_bytes()[..], &rest].concat()
}

fn check(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn read(file: &[u8]) -> Option<(SnapshotMeta, &[u8])> {
    let mut rest = file;
    let said = rest.try_get_u64_le().ok()?;
    if check(rest) != said {
        return None;
    }
    let meta = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
    let (meta, body) = rest.split_at_checked(meta)?;
    Some((SnapshotMeta::decode(meta).ok()?, body))
}

fn io_error(what: &str) -> StoreError {
    StoreError::Io { path: "memory".to_owned(), what: what.to_owned() }
}

impl Files {
    pub(super) fn with(last: EntryId, body: &[u8]) -> Arc<Self> {
        let files = Arc::new(Self::default());
        files.put(last, body);
        files
    }

    pub(super) fn put(&self, last: EntryId, body: &[u8]) {
        self.0.lock().unwrap().newest = Some((last, file(last, body)));
    }

    pub(super) fn spoil(&self) {
        let mut state = self.0.lock().unwrap();
        let (_, file) = state.newest.as_mut().unwrap();
        let middle = file.len() / 2;
        file[middle] ^= 1;
    }

    pub(super) fn cut(&self) {
        self.0.lock().unwrap().unreadable = true;
    }

    pub(super) fn limit(&self, space: Option<usize>) {
        self.0.lock().unwrap().space = space;
    }

    pub(super) fn body(&self) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        state.newest.as_ref().map(|(_, file)| read(file).unwrap().1.to_vec())
    }

    pub(super) fn taken(&self) -> u64 {
        self.0.lock().unwrap().taken
    }
}

impl SnapshotFiles for Files {
    fn newest(&self) -> Option<(EntryId, u64)> {
        self.0.lock().unwrap().newest.as_ref().map(|(last, file)| (*last, file.len() as u64))
    }

    fn write(&self, meta: &SnapshotMeta, write: WriteSnapshot) -> Result<u64, SnapshotError> {
        let mut body = Vec::new();
        write(&mut body).map_err(SnapshotError::Machine)?;
        self.put(meta.last, &body);
        Ok(body.len() as u64)
    }

    fn read(&self, last: EntryId) -> Result<(SnapshotMeta, Box<dyn io::Read + Send>), StoreError> {
        let state = self.0.lock().unwrap();
        let newest = state.newest.as_ref().filter(|(newest, _)| *newest == last);
        let (_, file) = newest.ok_or_else(|| io_error("no such file"))?;
        let (meta, body) = read(file).ok_or_else(|| io_error("damaged"))?;
        Ok((meta, Box::new(io::Cursor::new(body.to_vec()))))
    }

    fn send(&self, last: EntryId, offset: u64, into: &mut [u8]) -> Result<usize, StoreError> {
        let state = self.0.lock().unwrap();
        let newest = state.newest.as_ref().filter(|(newest, _)| *newest == last);
        let (_, file) = newest.ok_or_else(|| io_error("no such file"))?;
        let rest = &file[usize::try_from(offset).unwrap().min(file.len())..];
        if state.unreadable {
            return Err(io_error("input/output error"));
        }
        // Fewer than there is room for, as a file may give.
        let count = rest.len().min(into.len()).min(100_000);
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn begin(&self, last: EntryId, length: u64) -> Result<u64, StoreError> {
        let mut state = self.0.lock().unwrap();
        match &state.incoming {
            Some((begun, total, bytes)) if (*begun, *total) == (last, length) => Ok(bytes.len() as u64),
            _ => {
                state.incoming = Some((last, length, Vec::new()));
                Ok(0)
            }
        }
    }

    fn take(&self, last: EntryId, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        let mut state = self.0.lock().unwrap();
        let space = state.space;
        let (begun, length, bytes) = state.incoming.as_mut().ok_or_else(|| io_error("nothing was begun"))?;
        if *begun != last || bytes.len() as u64 != offset || offset + data.len() as u64 > *length {
            return Err(io_error("not the place"));
        }
        if space.is_some_and(|space| bytes.len() + data.len() > space) {
            return Err(StoreError::Full { path: "memory".to_owned() });
        }
        bytes.extend_from_slice(data);
        state.taken += data.len() as u64;
        Ok(())
    }

    fn accept(&self, last: EntryId) -> Result<SnapshotMeta, StoreError> {
        let mut state = self.0.lock().unwrap();
        let (_, _, file) = state.incoming.take().filter(|(begun, ..)| *begun == last).unwrap();
        let Some((meta, _)) = read(&file) else {
            return Err(StoreError::Corrupt { file: "memory".to_owned(), offset: 0, what: "a bad check".to_owned() });
        };
        state.newest = Some((last, file));
        Ok(meta)
    }
}
