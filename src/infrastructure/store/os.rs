//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf, absolute};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use graft_services::ports::StoreError;

use super::files::{Files, Locking, StoreFile};

const GONE: &str = "the data directory was removed or moved while the node ran, and what is written into it would be lost. \
                    Bring it back and start the node again, or replace the member by one with a new id";

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFiles;

/// A file of the operating system.
#[derive(Debug)]
pub struct OsFile(File);

/// A lock of the operating system. It is given up by name: closing the file would not do while a forked child has it open.
#[derive(Debug)]
pub struct OsLock(File);

impl Drop for OsLock {
    fn drop(&mut self) {
        // Closing it is what is left otherwise.
        let _ = self.0.unlock();
    }
}

/// The directory that a store has open, under the name that it had then: whoever removes or renames it does not ask who has it
/// open. Another one may stand there, and is none of this store's business.
#[derive(Debug)]
pub struct OsPlace {
    lock: PathBuf,
    file: File,
}

impl OsPlace {
    /// That of a directory with a store, which has a file that is never replaced.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn of(directory: &Path) -> io::Result<Self> {
        // The process may go elsewhere. A link is a part of the name.
        let lock = absolute(directory)?.join(super::open::LOCK_NAME);
        let file = File::open(&lock)?;
        Ok(Self { lock, file })
    }

    /// False once it certainly is not there any more.
    pub fn is_there(&self) -> bool {
        match (fs::metadata(&self.lock), self.file.metadata()) {
            // Numbers of the same moment: there are file systems that change them, of files that are open as well.
            (Ok(found), Ok(own)) => inode(&found) == inode(&own),
            (Ok(_), Err(_)) => true,
            (Err(error), _) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }

    /// What is wrong if it is not there any more.
    pub fn gone(&self) -> StoreError {
        let path = self.lock.parent().unwrap_or(&self.lock).display().to_string();
        StoreError::Io { path, what: GONE.to_owned() }
    }
}

/// Which file it is, where files have numbers.
#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there is none")]
fn inode(found: &fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn inode(_found: &fs::Metadata) -> Option<(u64, u64)> {
    None
}

impl OsFiles {
    /// Makes a file in the same directory under a name that nobody else has.
    pub(super) fn create_beside(path: &Path) -> io::Result<(PathBuf, OsFile)> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        loop {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}-{}.part", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
            let beside = path.with_file_name(name);
            match to_make().create_new(true).open(&beside) {
                // Of a process that had this number before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return opened.map(|file| (beside, OsFile(file))),
            }
        }
    }

    /// Gives a file another name, which nothing may have: [`io::ErrorKind::AlreadyExists`] otherwise.
    pub(super) fn publish(from: &Path, to: &Path) -> io::Result<()> {
        match fs::hard_link(from, to) {
            Ok(()) => {
                // Both names are of the one file: a name too many does no harm.
                let _ = fs::remove_file(from);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // Not every file system can: then somebody else may take the name between the two.
            Err(_) if !to.try_exists()? => fs::rename(from, to),
            Err(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }
}

/// For files that hold the state of a cluster, which is nobody's business but their owner's.
fn to_make() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

impl Files for OsFiles {
    type File = OsFile;
    type Lock = OsLock;

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        let missing: Vec<&Path> =
            path.ancestors().filter(|p| !p.as_os_str().is_empty()).take_while(|p| !p.exists()).collect();
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(path)?;
        for made in missing.iter().rev() {
            let parent = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            self.sync_directory(parent)?;
        }
        Ok(!missing.is_empty())
    }

    fn lock(&self, path: &Path) -> io::Result<Locking<OsLock>> {
        let mut file = to_make().create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.write_all(std::process::id().to_string().as_bytes())?;
                Ok(Locking::Held(OsLock(file)))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Where locks are mandatory the owner's pid cannot be read; it is worth no error of its own.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                Ok(Locking::Taken { pid })
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in fs::read_dir(directory)? {
            // A name that is not text is none of the store's.
            names.extend(item?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<OsFile> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        match opened {
            // It can be looked into all the same; whoever writes is told then.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) =>
            {
                self.open_to_read(path).map_err(|_| error)
            }
            opened => opened.map(OsFile),
        }
    }

    fn open_to_read(&self, path: &Path) -> io::Result<OsFile> {
        OpenOptions::new().read(true).open(path).map(OsFile)
    }

    fn create(&self, path: &Path) -> io::Result<OsFile> {
        to_make().create(true).truncate(true).open(path).map(OsFile)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    #[cfg(unix)]
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    /// Windows has no handle to sync a directory by; NTFS journals its names in order.
    #[cfg(not(unix))]
    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn memory(&self, bytes: usize) -> Option<Receiver<Vec<u8>>> {
        let (give, ready) = sync_channel(READY_MAX);
        // It ends when nobody takes any more.
        let body = move || while give.send(written(bytes)).is_ok() {};
        thread::Builder::new().name("graft-memory".to_owned()).spawn(body).ok().map(|_| ready)
    }
}

/// Pieces of memory that are ready before anybody takes one.
const READY_MAX: usize = 16;
/// The system gives memory in pages of so many bytes, or more.
const PAGE_BYTES: usize = 4096;

/// Each page was written to: only then the system clears it, and gives it.
fn written(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0; bytes];
    memory.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
    memory
}

/// The operating system's files as one store has them: once it has its lock, it is looked whether its directory is still there
/// before a name in it is made, changed or opened.
#[derive(Clone, Debug, Default)]
pub struct PlacedFiles {
    place: Arc<OnceLock<OsPlace>>,
}

impl PlacedFiles {
    fn here(&self) -> io::Result<OsFiles> {
        match self.place.get() {
            Some(place) if !place.is_there() => Err(io::Error::other(GONE)),
            _ => Ok(OsFiles),
        }
    }
}

impl Files for PlacedFiles {
    type File = OsFile;
    type Lock = OsLock;

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        self.here()?.make_directory(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Locking<OsLock>> {
        let locking = OsFiles.lock(path)?;
        if let (Locking::Held(_), Some(directory)) = (&locking, path.parent()) {
            // A store has one lock.
            let _ = self.place.set(OsPlace::of(directory)?);
        }
        Ok(locking)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.here()?.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<OsFile> {
        self.here()?.open(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<OsFile> {
        self.here()?.open_to_read(path)
    }

    fn create(&self, path: &Path) -> io::Result<OsFile> {
        self.here()?.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.here()?.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.here()?.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.here()?.sync_directory(directory)
    }

    fn memory(&self, bytes: usize) -> Option<Receiver<Vec<u8>>> {
        OsFiles.memory(bytes)
    }
}

impl StoreFile for OsFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match positioned::read(&self.0, into, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&mut self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match positioned::write(&self.0, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    /// `fdatasync` on Linux, which also flushes a changed length; `F_FULLFSYNC` on macOS, where less does not reach
    /// the platter.
    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(unix)]
mod positioned {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    pub(super) fn read(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(into, offset)
    }

    pub(super) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }
}

#[cfg(windows)]
mod positioned {
    use std::fs::File;
    use std::io;
    use std::os::windows::fs::FileExt;

    pub(super) fn read(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(into, offset)
    }

    pub(super) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.seek_write(bytes, offset)
    }
}
