//! Writes a snapshot's file frame by frame: of a state of any size no more than one frame is in memory.

use std::io;
use std::path::{Path, PathBuf};

use graft_services::ports::StoreError;
use graft_services::snapshot_meta::SnapshotMeta;

use super::batch::Place;
use super::errors::{full_or_io, refused};
use super::files::StoreFile;
use super::snapshot_file::{End, FRAME_BYTES, FRAME_HEAD_BYTES, Header, frame_head};

/// Bytes after which what was written is synced. One flush of a large file at its end would hold up the syncs of the log,
/// which is on the same disk.
pub(super) const SYNC_BYTES: u64 = 8 << 20;

/// Takes the machine's bytes. It remembers what the disk said, whatever the machine makes of the error.
#[derive(Debug)]
pub(super) struct SnapshotWriter<S> {
    file: S,
    path: PathBuf,
    seed: u32,
    /// Room for the head of the frame, and its bytes so far.
    frame: Vec<u8>,
    /// Where the next bytes go.
    position: u64,
    unsynced: u64,
    total: u64,
    running: u32,
    failed: Option<StoreError>,
}

impl<S: StoreFile> SnapshotWriter<S> {
    /// Begins in an empty file. After any error the file is of no use.
    pub(super) fn begin(file: S, path: &Path, meta: &SnapshotMeta) -> Result<Self, StoreError> {
        let Some((header, seed)) = Header::encode(meta) else {
            return Err(refused(path, "the membership is larger than a snapshot can hold: 16 MiB"));
        };
        let mut writer = Self {
            file,
            path: path.to_owned(),
            seed,
            frame: vec![0; FRAME_HEAD_BYTES],
            position: 0,
            unsynced: 0,
            total: 0,
            running: seed,
            failed: None,
        };
        writer.put(&header)?;
        Ok(writer)
    }

    /// Puts down the last frame and the end, and makes all of it durable. Answers the bytes of the file.
    pub(super) fn finish(mut self) -> Result<u64, StoreError> {
        self.check()?;
        self.put_frame()?;
        let end = End { total: self.total, running: self.running };
        let end = end.encode(self.place());
        self.put(&end)?;
        self.sync()?;
        Ok(self.position)
    }

    /// What the disk said, if it said no.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn place(&self) -> Place {
        Place { seed: self.seed, offset: self.position }
    }

    fn put_frame(&mut self) -> Result<(), StoreError> {
        let data = &self.frame[FRAME_HEAD_BYTES..];
        if data.is_empty() {
            return Ok(());
        }
        self.total += data.len() as u64;
        self.running = crc32c::crc32c_append(self.running, data);
        #[expect(clippy::cast_possible_truncation, reason = "a frame has at most FRAME_BYTES, 1 MiB")]
        let head = frame_head(self.place(), data.len() as u32, data);
        let mut frame = std::mem::take(&mut self.frame);
        frame[..FRAME_HEAD_BYTES].copy_from_slice(&head);
        let result = self.put(&frame);
        frame.truncate(FRAME_HEAD_BYTES);
        self.frame = frame;
        result
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_at(self.position, bytes).map_err(|e| full_or_io(&self.path, &e))?;
        self.position += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    /// A file system that allocates late may be found full only now. Nothing of the file is kept then.
    fn sync(&mut self) -> Result<(), StoreError> {
        self.unsynced = 0;
        self.file.sync_data().map_err(|e| full_or_io(&self.path, &e))
    }
}

impl<S: StoreFile> io::Write for SnapshotWriter<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check().map_err(io::Error::other)?;
        let count = bytes.len().min(FRAME_HEAD_BYTES + FRAME_BYTES - self.frame.len());
        self.frame.extend_from_slice(&bytes[..count]);
        if self.frame.len() == FRAME_HEAD_BYTES + FRAME_BYTES
            && let Err(error) = self.put_frame()
        {
            self.failed = Some(error.clone());
            return Err(io::Error::other(error));
        }
        Ok(count)
    }

    /// Frames are full, all but the last, so that the same state makes the same file whoever writes it. What is not a
    /// whole frame yet stays in memory.
    fn flush(&mut self) -> io::Result<()> {
        self.check().map_err(io::Error::other)
    }
}
