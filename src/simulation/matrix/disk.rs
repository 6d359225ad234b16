//! Files in memory that keep apart what is synced and what is not, and keep an image of themselves after every operation:
//! a case of the matrix begins with an image, not with the run that led to it.

use std::io;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_store::{Files, Locking, StoreFile};

use super::image::{Change, Image, Named};

/// The disk of one machine. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    image: Image,
    /// Operations that change something, syncs included.
    operations: usize,
    /// The image before the first operation, and after each.
    trail: Option<Vec<Image>>,
    /// The image after so many operations is wanted.
    mark: Option<(usize, Option<Image>)>,
    fault: Option<(usize, Fault)>,
}

/// What becomes of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// It fails, and nothing happened.
    Refused,
    /// It fails, though it happened; after a sync of a file what was to become durable counts as clean, and is not.
    Lost,
    /// No space: of a write the first half is there.
    Full,
}

impl Disk {
    pub(super) fn on(image: Image) -> Self {
        Self(Arc::new(Mutex::new(State { image, operations: 0, trail: None, mark: None, fault: None })))
    }

    /// A disk that remembers all of its images.
    pub(super) fn recording(image: Image) -> Self {
        let disk = Self::on(image);
        {
            let mut state = disk.state();
            state.trail = Some(vec![state.image.clone()]);
        }
        disk
    }

    /// All images so far, if it was recording.
    pub(super) fn trail(&self) -> Vec<Image> {
        self.state().trail.clone().unwrap_or_default()
    }

    pub(super) fn operations(&self) -> usize {
        self.state().operations
    }

    pub(super) fn image(&self) -> Image {
        self.state().image.clone()
    }

    /// Keeps the image after this operation.
    pub(super) fn mark_at(&self, operation: usize) {
        let mut state = self.state();
        let image = (operation == state.operations).then(|| state.image.clone());
        state.mark = Some((operation, image));
    }

    /// The image that was to be kept, if it came to that.
    pub(super) fn marked(&self) -> Option<(usize, Image)> {
        self.state().mark.take().and_then(|(at, image)| Some((at, image?)))
    }

    /// What becomes of the operation after this one.
    pub(super) fn fail_at(&self, operation: usize, fault: Fault) {
        self.state().fault = Some((operation, fault));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation, and whether it fails.
    fn fault(&mut self) -> Option<Fault> {
        let at = self.operations;
        self.operations += 1;
        self.fault.filter(|(when, _)| *when == at).map(|(_, fault)| fault)
    }

    fn done(&mut self) {
        if let Some(trail) = &mut self.trail {
            trail.push(self.image.clone());
        }
        if let Some((at, image)) = &mut self.mark
            && *at == self.operations
        {
            *image = Some(self.image.clone());
        }
    }

    /// An operation that happens or does not.
    fn change<T>(&mut self, make: impl FnOnce(&mut Image) -> io::Result<T>) -> io::Result<T> {
        let fault = self.fault();
        let result = match fault {
            Some(Fault::Refused) => Err(failed()),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Lost) => make(&mut self.image).and(Err(failed())),
            None => make(&mut self.image),
        };
        self.done();
        result
    }
}

fn failed() -> io::Error {
    io::Error::other("the disk says no")
}

/// Where a process is, all begins.
fn text(path: &Path) -> &str {
    path.to_str().filter(|text| *text != ".").unwrap_or_default()
}

fn not_found<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}

/// A file that a process has open.
#[derive(Debug)]
pub(super) struct DiskFile {
    disk: Disk,
    inode: usize,
}

/// Nobody else is there.
#[derive(Debug)]
pub(super) struct Held;

impl Files for Disk {
    type File = DiskFile;
    type Lock = Held;

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        if self.state().image.named(text(path)) == Some(Named::Directory) {
            return Ok(false);
        }
        self.state().change(|image| {
            image.rename(Change::Add(text(path).into(), Named::Directory));
            Ok(())
        })?;
        self.sync_directory(path.parent().unwrap_or(Path::new(".")))?;
        Ok(true)
    }

    fn lock(&self, path: &Path) -> io::Result<Locking<Held>> {
        if self.state().image.named(text(path)).is_none() {
            self.create(path)?;
        }
        Ok(Locking::Held(Held))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        match state.image.named(text(directory)) {
            Some(Named::Directory) => Ok(state.image.inside(text(directory)).map(str::to_owned).collect()),
            _ => not_found(),
        }
    }

    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        match self.state().image.named(text(path)) {
            Some(Named::File(inode)) => Ok(DiskFile { disk: self.clone(), inode }),
            _ => not_found(),
        }
    }

    fn open_to_read(&self, path: &Path) -> io::Result<DiskFile> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        let inode = self.state().change(|image| {
            if let Some(Named::File(inode)) = image.named(text(path)) {
                image.truncate(inode, 0);
                return Ok(inode);
            }
            let inode = image.add_file();
            image.rename(Change::Add(text(path).into(), Named::File(inode)));
            Ok(inode)
        })?;
        Ok(DiskFile { disk: self.clone(), inode })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().change(|image| match image.named(text(from)) {
            Some(Named::File(inode)) => {
                image.rename(Change::Rename(text(from).into(), text(to).into(), inode));
                Ok(())
            }
            _ => not_found(),
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().change(|image| match image.named(text(path)) {
            Some(Named::File(_)) => {
                image.rename(Change::Remove(text(path).into()));
                Ok(())
            }
            _ => not_found(),
        })
    }

    /// Names stay unsynced if it fails: they are in a journal, or the file system is no more.
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.fault();
        if fault.is_none() {
            state.image.sync_names(text(directory));
        }
        state.done();
        fault.map_or(Ok(()), |_| Err(failed()))
    }

    fn memory(&self, _bytes: usize) -> Option<Receiver<Vec<u8>>> {
        None
    }
}

impl StoreFile for DiskFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().image.cached(self.inode).len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let cached = state.image.cached(self.inode);
        let ahead = usize::try_from(offset).ok().and_then(|offset| cached.get(offset..)).unwrap_or_default();
        let count = ahead.len().min(into.len());
        into[..count].copy_from_slice(&ahead[..count]);
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let mut state = self.disk.state();
        let fault = state.fault();
        let (count, result) = match fault {
            None => (bytes.len(), Ok(())),
            Some(Fault::Refused) => (0, Err(failed())),
            Some(Fault::Lost) => (bytes.len(), Err(failed())),
            Some(Fault::Full) => (bytes.len() / 2, Err(io::ErrorKind::StorageFull.into())),
        };
        if count > 0 {
            state.image.write(self.inode, offset, &bytes[..count]);
        }
        state.done();
        result
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let inode = self.inode;
        self.disk.state().change(|image| {
            image.truncate(inode, length);
            Ok(())
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.fault();
        match fault {
            None => state.image.sync_file(self.inode),
            Some(Fault::Refused) => {}
            Some(Fault::Lost | Fault::Full) => state.image.forget_unsynced(self.inode),
        }
        state.done();
        match fault {
            None => Ok(()),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Refused | Fault::Lost) => Err(failed()),
        }
    }
}
