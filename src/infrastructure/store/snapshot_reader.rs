//! Reads a snapshot's file and verifies every byte of it before it is handed out.

use std::io;
use std::path::{Path, PathBuf};

use graft_services::snapshot_meta::SnapshotMeta;

use super::batch::Place;
use super::files::{Files, StoreFile, read_full};
use super::snapshot_file::{End, FRAME_BYTES, FRAME_HEAD_BYTES, Header, Unreadable, frame_head};

/// For a file that is in its place and damaged.
pub(super) const AT_REST: &str = "A member that is up replaces it with its next snapshot; one that cannot start because \
    of it has to be replaced by one with a new id and an empty directory";

/// The machine's bytes of a snapshot, in order.
#[derive(Debug)]
pub(super) struct SnapshotReader<S> {
    file: S,
    path: PathBuf,
    header: Header,
    end: End,
    /// Where the next frame begins.
    position: u64,
    /// The machine's bytes in the frames up to there, and their checksum.
    total: u64,
    running: u32,
    /// The frame at hand, and how much of it is handed out.
    frame: Vec<u8>,
    given: usize,
}

impl<S: StoreFile> SnapshotReader<S> {
    /// Reads header and end, so that a file that is cut off is refused before any of it is used.
    pub(super) fn open<F: Files<File = S>>(files: &F, path: &Path) -> Result<Self, Unreadable> {
        let file = files.open_to_read(path)?;
        let length = file.length()?;
        let header = Header::read(&file, length)?;
        let end = End::read(&file, &header, length)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            position: header.bytes,
            running: header.seed,
            header,
            end,
            total: 0,
            frame: Vec::new(),
            given: 0,
        })
    }

    pub(super) fn meta(&self) -> &SnapshotMeta {
        &self.header.meta
    }

    /// How many bytes of state it has, and their checksum under its head.
    pub(super) fn seal(&self) -> (u64, u32) {
        (self.end.total, self.end.running)
    }

    /// The bytes of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.header.file_bytes(self.end.total)
    }

    /// Reads all that is left, and answers what it is a snapshot of.
    pub(super) fn verify(mut self) -> Result<SnapshotMeta, Unreadable> {
        while self.next_frame()? {}
        Ok(self.header.meta)
    }

    /// Goes on to the next frame, which is then verified; false at the end, which then is too.
    fn next_frame(&mut self) -> Result<bool, Unreadable> {
        (self.given, self.position) = (0, self.position + self.frame.len() as u64);
        self.frame.clear();
        let left = self.end.total - self.total;
        if left == 0 {
            // Good frames of another writing of the same snapshot are good frames; only all of them together tell.
            let same = self.running == self.end.running;
            let what = "its frames are good, but were not written together";
            return if same { Ok(false) } else { Err(Unreadable::damaged(self.position, what)) };
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(FRAME_BYTES);
        self.frame.resize(FRAME_HEAD_BYTES + count, 0);
        let place = Place { seed: self.header.seed, offset: self.position };
        if read_full(&self.file, self.position, &mut self.frame)? < self.frame.len() {
            return Err(Unreadable::damaged(self.position, "it became shorter while it was read"));
        }
        let (head, data) = self.frame.split_at(FRAME_HEAD_BYTES);
        #[expect(clippy::cast_possible_truncation, reason = "a frame has at most FRAME_BYTES, 1 MiB")]
        let length = count as u32;
        if frame_head(place, length, data) != *head {
            return Err(Unreadable::damaged(self.position, "a frame fails the checksum"));
        }
        self.running = crc32c::crc32c_append(self.running, data);
        (self.total, self.given) = (self.total + count as u64, FRAME_HEAD_BYTES);
        Ok(true)
    }
}

impl<S: StoreFile> io::Read for SnapshotReader<S> {
    /// After an error it can be asked again: the frame at hand is then read anew, so nothing is ever left out.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.frame.len() && !into.is_empty() {
            match self.next_frame() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    self.frame.clear();
                    let kind = match &error {
                        Unreadable::Io(error) => error.kind(),
                        Unreadable::Damaged { .. } | Unreadable::Foreign { .. } | Unreadable::Newer { .. } => {
                            io::ErrorKind::InvalidData
                        }
                    };
                    return Err(io::Error::new(kind, error.into_error(&self.path, AT_REST)));
                }
            }
        }
        let count = into.len().min(self.frame.len() - self.given);
        into[..count].copy_from_slice(&self.frame[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}
