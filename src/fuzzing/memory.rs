//! Files in memory: they do as they are told. What a disk can do to them is the simulator's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_store::{Files, Locking, StoreFile};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A file system. Clones are the same one; [`Memory::copy`] is another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Bytes>,
    directories: BTreeSet<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct MemoryFile(Bytes);

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Memory {
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = held(&self.0);
        if let Some(parent) = path.parent() {
            state.directories.insert(parent.to_owned());
        }
        state.files.insert(path.to_owned(), Arc::new(Mutex::new(bytes)));
    }

    /// Every file and its bytes.
    pub(crate) fn all(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        held(&self.0).files.iter().map(|(path, bytes)| (path.clone(), held(bytes).clone())).collect()
    }

    /// The same files, on a disk of their own.
    pub(crate) fn copy(&self) -> Self {
        let files = self.all().into_iter().map(|(path, bytes)| (path, Arc::new(Mutex::new(bytes)))).collect();
        let directories = held(&self.0).directories.clone();
        Self(Arc::new(Mutex::new(State { files, directories })))
    }

    fn find(&self, path: &Path) -> io::Result<MemoryFile> {
        held(&self.0).files.get(path).map(|bytes| MemoryFile(Arc::clone(bytes))).ok_or_else(missing)
    }
}

impl Files for Memory {
    type File = MemoryFile;
    type Lock = ();

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        Ok(held(&self.0).directories.insert(path.to_owned()))
    }

    /// There is one process.
    fn lock(&self, path: &Path) -> io::Result<Locking<()>> {
        self.put(path, Vec::new());
        Ok(Locking::Held(()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = held(&self.0);
        if !state.directories.contains(directory) {
            return Err(missing());
        }
        let inside = state.files.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        self.find(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<MemoryFile> {
        self.find(path)
    }

    fn create(&self, path: &Path) -> io::Result<MemoryFile> {
        self.put(path, Vec::new());
        self.find(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = held(&self.0);
        let bytes = state.files.remove(from).ok_or_else(missing)?;
        state.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        held(&self.0).files.remove(path).map(drop).ok_or_else(missing)
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn memory(&self, _bytes: usize) -> Option<Receiver<Vec<u8>>> {
        None
    }
}

impl StoreFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(held(&self.0).len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let bytes = held(&self.0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = into.len().min(bytes.len() - from);
        into[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = held(&self.0);
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::StorageFull)?;
        let end = from + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[from..end].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        held(&self.0).truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Ok(())
    }
}
