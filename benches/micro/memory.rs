//! Files in memory that never fail: what is left of the log's work is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_store::{Files, Locking, StoreFile};

type Content = Arc<Mutex<Vec<u8>>>;

/// Of each file, so that none is copied as it grows: a segment, and what may be behind it.
const ROOM_BYTES: usize = 17 << 20;

/// A file system. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Content>,
}

/// One of its files.
#[derive(Debug)]
pub struct MemoryFile(Content);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Memory {
    fn find(&self, path: &Path) -> io::Result<MemoryFile> {
        locked(&self.0).files.get(path).cloned().map(MemoryFile).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Files for Memory {
    type File = MemoryFile;
    type Lock = ();

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        Ok(locked(&self.0).directories.insert(path.to_owned()))
    }

    fn lock(&self, _path: &Path) -> io::Result<Locking<()>> {
        Ok(Locking::Held(()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let names = locked(&self.0);
        if !names.directories.contains(directory) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = names.files.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        self.find(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<MemoryFile> {
        self.find(path)
    }

    fn create(&self, path: &Path) -> io::Result<MemoryFile> {
        let content = Arc::new(Mutex::new(Vec::with_capacity(ROOM_BYTES)));
        locked(&self.0).files.insert(path.to_owned(), Arc::clone(&content));
        Ok(MemoryFile(content))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = locked(&self.0);
        let content = names.files.remove(from).ok_or(ErrorKind::NotFound)?;
        names.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        locked(&self.0).files.remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn memory(&self, _bytes: usize) -> Option<Receiver<Vec<u8>>> {
        None
    }
}

impl StoreFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let content = locked(&self.0);
        let rest = content.get(place(offset)..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = locked(&self.0);
        let (from, to) = (place(offset), place(offset) + bytes.len());
        if content.len() < to {
            content.resize(to, 0);
        }
        content[from..to].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        locked(&self.0).truncate(place(length));
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Ok(())
    }
}
