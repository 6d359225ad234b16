//! A file to write to as a log does, with nothing of a log in it: what is added is written over what was there.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::load::Counts;

const FILE_BYTES: u64 = 32 << 20;
/// What a kernel counts by when a file is written to.
const PAGE_BYTES: u64 = 4096;

static SYNCS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// What the disks of this process did: syncs, and the bytes of pages that were touched for each.
pub(crate) fn counts() -> Counts {
    Counts { syncs: SYNCS.load(Ordering::Relaxed), bytes: BYTES.load(Ordering::Relaxed) }
}

/// A file that was written before, and is written again from its beginning when it is full. It has no name, so it is
/// gone with this process, however that ends.
pub(crate) struct Disk {
    file: File,
    at: u64,
}

impl Disk {
    pub(crate) fn new(directory: &Path) -> Self {
        let file = tempfile::tempfile_in(directory).unwrap();
        file.write_all_at(&vec![0; FILE_BYTES as usize], 0).unwrap();
        file.sync_all().unwrap();
        Self { file, at: 0 }
    }

    /// Writes all in one piece, with one sync.
    pub(crate) fn append(&mut self, pieces: &[Bytes]) {
        let all: Vec<u8> = pieces.concat();
        let length = all.len() as u64;
        if self.at + length > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&all, self.at).unwrap();
        self.file.sync_data().unwrap();
        let pages = (self.at + length).div_ceil(PAGE_BYTES) - self.at / PAGE_BYTES;
        SYNCS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(pages * PAGE_BYTES, Ordering::Relaxed);
        self.at += length;
    }
}
