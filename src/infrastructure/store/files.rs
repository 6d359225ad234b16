//! What the log needs of a file system, and nothing more, so that a test or a simulator can put a failing one below it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::mpsc::Receiver;

use graft_services::ports::StoreError;

use super::errors::io_error;

/// A file system. Errors are the operating system's own; "no space" is [`io::ErrorKind::StorageFull`] or
/// [`io::ErrorKind::QuotaExceeded`]. Clones are the same file system: the log's thread has one and snapshots have one.
pub trait Files: Clone + fmt::Debug + Send + Sync + 'static {
    type File: StoreFile;
    /// Holds the lock for as long as it lives.
    type Lock: fmt::Debug + Send + Sync;

    /// Makes a directory, and those above it, durably. False if it was there already.
    fn make_directory(&self, path: &Path) -> io::Result<bool>;

    /// Takes the one lock there is on this file, making the file if needed, and leaves this process's pid in it.
    fn lock(&self, path: &Path) -> io::Result<Locking<Self::Lock>>;

    /// The names of the files in a directory, in any order; [`io::ErrorKind::NotFound`] if there is no such directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Opens an existing file to read and write.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens an existing file to read only, which may be all that is allowed.
    fn open_to_read(&self, path: &Path) -> io::Result<Self::File>;

    /// Makes a file, or empties an existing one, to read and write. Durable after [`Files::sync_directory`].
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Replaces `to` by `from`, atomically. Durable after [`Files::sync_directory`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Durable after [`Files::sync_directory`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Memory to read into, so many bytes at a time and whatever is in them, made ready beside whoever takes it; none if
    /// nobody is there to do so.
    fn memory(&self, bytes: usize) -> Option<Receiver<Vec<u8>>>;
}

/// An open file. It can be read after its name is gone.
pub trait StoreFile: fmt::Debug + Send + Sync + 'static {
    /// Bytes in it.
    fn length(&self) -> io::Result<u64>;

    /// Reads at most as much as fits, and answers how much; 0 only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of it. After an error any part of it may be written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file off.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Makes the bytes and the length durable.
    fn sync_data(&mut self) -> io::Result<()>;
}

/// What came of asking for a lock.
#[derive(Debug)]
pub enum Locking<L> {
    Held(L),
    /// Somebody has it: the process of this pid, if that could be read.
    Taken {
        pid: Option<u32>,
    },
}

/// Makes the names that lead to a directory durable. One that is there already may have been made by a process that was
/// killed before it could do that.
pub(super) fn sync_above(files: &impl Files, directory: &Path) -> Result<(), StoreError> {
    for above in directory.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match files.sync_directory(above) {
            Ok(()) => {}
            // Who cannot look into it did not make what is in it; and some file systems, above the one with the data, cannot.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported
                ) =>
            {
                break;
            }
            Err(error) => return Err(io_error(above, &error)),
        }
    }
    Ok(())
}

/// Fills `into` from `offset` on as far as the file goes, and answers how much that was.
pub(super) fn read_full(file: &impl StoreFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(offset + done as u64, &mut into[done..])? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Writes zeros over `from..to`.
pub(super) fn fill_zeros(file: &mut impl StoreFile, mut from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 1 << 18] = [0; 1 << 18];
    while from < to {
        let count = ZEROS.len().min(usize::try_from(to - from).unwrap_or(usize::MAX));
        file.write_at(from, &ZEROS[..count])?;
        from += count as u64;
    }
    Ok(())
}
