//! Reads a segment from front to back through a window of bounded size. What is taken from it shares the window's
//! memory, so entries come into memory without a copy each.

use std::io;
use std::sync::mpsc::Receiver;

use bytes::Bytes;

use super::files::{Files, StoreFile, read_full};

/// Bytes read at a time.
const WINDOW_BYTES: usize = 1 << 20;
/// Of fewer segments nobody is asked to make memory ready.
const SEGMENTS_MIN: usize = 3;

/// What segments are read into. It stays in memory, and to get that costs more than to read into it.
#[derive(Debug)]
pub(super) struct Windows(Option<Receiver<Vec<u8>>>);

impl Windows {
    /// To read so many segments.
    pub(super) fn of(files: &impl Files, segments: usize) -> Self {
        Self(if segments < SEGMENTS_MIN { None } else { files.memory(WINDOW_BYTES) })
    }

    /// So many bytes to write over.
    fn take(&self, bytes: usize) -> Vec<u8> {
        let ready = self.0.as_ref().filter(|_| bytes == WINDOW_BYTES).and_then(|ready| ready.try_recv().ok());
        // Rather than to wait for it.
        ready.unwrap_or_else(|| vec![0; bytes])
    }
}

#[derive(Debug)]
pub(super) struct Reader<'a, F> {
    file: &'a F,
    windows: &'a Windows,
    length: u64,
    /// Where the window begins.
    position: u64,
    window: Bytes,
}

impl<'a, F: StoreFile> Reader<'a, F> {
    pub(super) fn new(file: &'a F, position: u64, windows: &'a Windows) -> io::Result<Self> {
        Ok(Self { file, windows, length: file.length()?, position, window: Bytes::new() })
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes from here to the end of the file.
    pub(super) fn remaining(&self) -> u64 {
        self.length.saturating_sub(self.position)
    }

    /// What lies ahead: `count` bytes of it at least, or all that the file has.
    pub(super) fn ahead(&mut self, count: u64) -> io::Result<&[u8]> {
        let count = count.min(self.remaining());
        if (self.window.len() as u64) < count {
            let target = count.max(WINDOW_BYTES as u64).min(self.remaining());
            let target = usize::try_from(target).map_err(|_| io::ErrorKind::OutOfMemory)?;
            let kept = self.window.len();
            let mut next = self.windows.take(target);
            next[..kept].copy_from_slice(&self.window);
            let read = read_full(self.file, self.position + kept as u64, &mut next[kept..])?;
            next.truncate(kept + read);
            if next.len() < target {
                // Nobody else writes to a locked directory.
                return Err(io::Error::other("the file became shorter while it was read"));
            }
            self.window = Bytes::from(next);
        }
        Ok(&self.window)
    }

    /// Moves on by `count` bytes, which must lie ahead, and hands them out.
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        self.position += count as u64;
        self.window.split_to(count)
    }

    /// What lies ahead, in a size that suits going through the whole file.
    pub(super) fn window(&mut self) -> io::Result<Bytes> {
        self.ahead(WINDOW_BYTES as u64)?;
        Ok(self.window.clone())
    }
}
