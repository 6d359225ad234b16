//! Files in memory, on a disk that keeps apart what is synced and what is not, and that fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::files::{Files, Locking, StoreFile};

/// A disk with one directory on it, and directories in that. Files in those go by both names. Clones are the same disk; [`Disk::copy`] is another.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    /// What a process sees.
    names: BTreeMap<String, usize>,
    /// What a crash leaves, beside what it may leave of `pending_names`.
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    directories: BTreeSet<String>,
    durable_directories: BTreeSet<String>,
    inodes: Vec<Inode>,
    locked: bool,
    /// Changes so far, those that failed included.
    changes: u64,
    syncs: u64,
    faults: Faults,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// The change of this number, from 0, and all later ones fail; a write or a change of names may still have
    /// reached the disk, a sync has not happened.
    pub(super) power_off_at: Option<u64>,
    /// The sync of this number fails, and the pages it was for count as clean from then on.
    pub(super) sync_fails_at: Option<u64>,
    /// With "no space" instead of an IO error.
    pub(super) sync_fails_with_no_space: bool,
    /// Bytes that all files together can have.
    pub(super) capacity: Option<usize>,
    /// The change of this number does not happen and fails; the next ones do.
    pub(super) fails_at: Option<u64>,
    /// The sync of this number keeps another bit than was written, and says nothing.
    pub(super) lies_at: Option<u64>,
}

/// What becomes of unsynced changes in a crash.
#[derive(Clone, Copy, Debug)]
pub(super) enum Crash {
    Drop,
    Keep,
    /// Each sector of a write and each change of names for itself, by luck.
    Tear(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, usize),
    Rename(String, String),
    Remove(String),
    Directory(String),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<DataChange>,
}

#[derive(Clone, Debug)]
enum DataChange {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// Smaller than any real sector, so that small batches tear too.
const SECTOR_BYTES: usize = 64;

impl Disk {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(State { locked: false, ..self.state().clone() })))
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    pub(super) fn changes(&self) -> u64 {
        self.state().changes
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(super) fn used(&self) -> usize {
        self.state().used()
    }

    /// The bytes of a file.
    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[name]].cached.clone()
    }

    /// Changes the bytes of a file behind the store's back, durably.
    pub(super) fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[name];
        let inode = &mut state.inodes[inode];
        edit(&mut inode.cached);
        inode.durable.clone_from(&inode.cached);
    }

    /// Makes a file of another disk's bytes, or removes one, behind the store's back, durably.
    pub(super) fn put(&self, name: &str, bytes: Option<Vec<u8>>) {
        let mut state = self.state();
        if let Some(bytes) = bytes {
            state.inodes.push(Inode { cached: bytes.clone(), durable: bytes, pending: Vec::new() });
            let inode = state.inodes.len() - 1;
            state.names.insert(name.to_owned(), inode);
            state.directories.insert(directory_of(name).to_owned());
        } else {
            state.names.remove(name);
        }
        state.durable_names = state.names.clone();
        state.durable_directories = state.directories.clone();
    }

    /// The power goes and comes back. Nobody may have a file open.
    pub(super) fn crash(&self, crash: Crash) {
        let mut state = self.state();
        let mut luck = Luck(match crash {
            Crash::Tear(seed) => seed,
            Crash::Drop | Crash::Keep => 0,
        });
        let mut survives = || match crash {
            Crash::Drop => false,
            Crash::Keep => true,
            Crash::Tear(_) => luck.toss(),
        };
        for change in std::mem::take(&mut state.pending_names) {
            if survives() {
                state.persist_name(&change);
            }
        }
        let durable = &state.durable_directories;
        state.directories = durable.iter().filter(|name| State::is_reachable(name, durable)).cloned().collect();
        state.durable_directories = state.directories.clone();
        let there = state.durable_names.iter().filter(|(name, _)| State::is_reachable(name, &state.directories));
        state.durable_names = there.map(|(name, inode)| (name.clone(), *inode)).collect();
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            for change in std::mem::take(&mut inode.pending) {
                inode.persist(&change, &mut survives);
            }
            inode.cached.clone_from(&inode.durable);
        }
        (state.faults, state.locked) = (Faults::default(), false);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with the disk in its hand")
    }

    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let fails = state.faults.fails_at == Some(state.changes);
        state.changes += 1;
        match (state.is_off(), fails) {
            (true, _) => Err(io::Error::other("the power is off")),
            (false, true) => Err(io::Error::other("the disk says no")),
            (false, false) => Ok(state),
        }
    }

    /// A change that reaches the cache even if the power goes with it.
    fn last_change(&self, make: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let was_off = state.is_off();
        let fails = state.faults.fails_at == Some(state.changes);
        state.changes += 1;
        if fails {
            return Err(io::Error::other("the disk says no"));
        }
        let result = if was_off { Ok(()) } else { make(&mut state) };
        if state.is_off() { Err(io::Error::other("the power is off")) } else { result }
    }
}

impl State {
    /// Whether the power goes before the change that is being counted, or went earlier.
    fn is_off(&self) -> bool {
        self.faults.power_off_at.is_some_and(|at| self.changes > at)
    }

    fn used(&self) -> usize {
        self.names.values().map(|inode| self.inodes[*inode].cached.len()).sum()
    }

    /// Whether all directories above it are there.
    fn is_reachable(name: &str, directories: &BTreeSet<String>) -> bool {
        name.match_indices('/').all(|(at, _)| directories.contains(&name[..at]))
    }

    fn rename_all(&mut self, change: NameChange) {
        change.apply(&mut self.names, &mut self.directories);
        self.pending_names.push(change);
    }

    fn persist_name(&mut self, change: &NameChange) {
        change.apply(&mut self.durable_names, &mut self.durable_directories);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>, directories: &mut BTreeSet<String>) {
        match self {
            Self::Add(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Directory(name) => {
                directories.insert(name.clone());
            }
        }
    }

    /// The directory that it is a change of.
    fn directory(&self) -> &str {
        let (Self::Add(name, _) | Self::Rename(name, _) | Self::Remove(name) | Self::Directory(name)) = self;
        directory_of(name)
    }
}

impl Inode {
    fn persist(&mut self, change: &DataChange, survives: &mut impl FnMut() -> bool) {
        match change {
            DataChange::Truncate(length) => {
                if survives() {
                    self.durable.truncate(*length);
                }
            }
            DataChange::Write(offset, bytes) => {
                let mut done = 0;
                while done < bytes.len() {
                    let at = offset + done;
                    let count = (SECTOR_BYTES - at % SECTOR_BYTES).min(bytes.len() - done);
                    if survives() {
                        put_bytes(&mut self.durable, at, &bytes[done..done + count]);
                    }
                    done += count;
                }
            }
        }
    }
}

fn put_bytes(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

/// Luck from a seed (splitmix64).
#[derive(Debug)]
pub(super) struct Luck(pub(super) u64);

impl Luck {
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn toss(&mut self) -> bool {
        self.draw() & 1 == 1
    }
}

#[derive(Debug)]
pub(super) struct DiskFile {
    disk: Disk,
    inode: usize,
}

#[derive(Debug)]
pub(super) struct DiskLock(Disk);

impl Drop for DiskLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

/// The name inside of the one directory, which itself is the empty one.
fn name(path: &Path) -> String {
    path.iter().skip(1).map(|part| part.to_str().expect("names are text")).collect::<Vec<&str>>().join("/")
}

fn directory_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Files for Disk {
    type File = DiskFile;
    type Lock = DiskLock;

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        let is_there = |path: &Path| name(path).is_empty() || self.state().directories.contains(&name(path));
        let missing: Vec<&Path> = path.ancestors().take_while(|path| !is_there(path)).collect();
        for path in missing.iter().rev() {
            self.last_change(|state| {
                state.rename_all(NameChange::Directory(name(path)));
                Ok(())
            })?;
        }
        for path in missing.iter().rev() {
            self.sync_directory(path.parent().expect("it is in the one directory"))?;
        }
        Ok(!missing.is_empty())
    }

    fn lock(&self, path: &Path) -> io::Result<Locking<DiskLock>> {
        if self.state().locked {
            return Ok(Locking::Taken { pid: Some(7) });
        }
        if !self.state().names.contains_key(&name(path)) {
            self.create(path)?;
        }
        self.state().locked = true;
        Ok(Locking::Held(DiskLock(self.clone())))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let directory = name(directory);
        if !directory.is_empty() && !self.state().directories.contains(&directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = self.names().into_iter().filter(|name| directory_of(name) == directory);
        Ok(names.map(|name| name.rsplit('/').next().expect("a part").to_owned()).collect())
    }

    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        let inode = *self.state().names.get(&name(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(DiskFile { disk: self.clone(), inode })
    }

    fn open_to_read(&self, path: &Path) -> io::Result<DiskFile> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        let mut inode = 0;
        self.last_change(|state| {
            let directory = directory_of(&name(path)).to_owned();
            if !directory.is_empty() && !state.directories.contains(&directory) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.inodes.push(Inode::default());
            inode = state.inodes.len() - 1;
            state.rename_all(NameChange::Add(name(path), inode));
            Ok(())
        })?;
        Ok(DiskFile { disk: self.clone(), inode })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.last_change(|state| {
            state.names.get(&name(from)).ok_or(io::ErrorKind::NotFound)?;
            state.rename_all(NameChange::Rename(name(from), name(to)));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.last_change(|state| {
            state.names.get(&name(path)).ok_or(io::ErrorKind::NotFound)?;
            state.rename_all(NameChange::Remove(name(path)));
            Ok(())
        })
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        let directory = name(directory);
        let (synced, pending) =
            std::mem::take(&mut state.pending_names).into_iter().partition(|change| change.directory() == directory);
        state.pending_names = pending;
        for change in Vec::<NameChange>::from_iter(synced) {
            state.persist_name(&change);
        }
        Ok(())
    }

    fn memory(&self, _bytes: usize) -> Option<Receiver<Vec<u8>>> {
        None
    }
}

impl StoreFile for DiskFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].cached.len() as u64)
    }

    /// Short reads are legal, so here they are the rule.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let cached = &state.inodes[self.inode].cached;
        let ahead = usize::try_from(offset).ok().and_then(|offset| cached.get(offset..)).unwrap_or_default();
        let count = ahead.len().min(into.len()).min(700_000);
        into[..count].copy_from_slice(&ahead[..count]);
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("tests write small files");
        self.disk.last_change(|state| {
            let length = state.inodes[self.inode].cached.len();
            let free = state.faults.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(state.used()));
            let fits = bytes.len().min(length.saturating_add(free).saturating_sub(offset));
            if fits > 0 {
                let inode = &mut state.inodes[self.inode];
                put_bytes(&mut inode.cached, offset, &bytes[..fits]);
                inode.pending.push(DataChange::Write(offset, bytes[..fits].to_vec()));
            }
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).expect("tests write small files");
        self.disk.last_change(|state| {
            let inode = &mut state.inodes[self.inode];
            inode.cached.truncate(length);
            inode.pending.push(DataChange::Truncate(length));
            Ok(())
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.disk.change()?;
        let nth = state.syncs;
        state.syncs += 1;
        let faults = state.faults;
        let inode = &mut state.inodes[self.inode];
        let pending = std::mem::take(&mut inode.pending);
        if faults.sync_fails_at == Some(nth) {
            let no_space = io::ErrorKind::StorageFull.into();
            return Err(if faults.sync_fails_with_no_space { no_space } else { io::Error::other("the sync failed") });
        }
        for change in pending {
            inode.persist(&change, &mut || true);
        }
        if faults.lies_at == Some(nth) {
            let middle = inode.durable.len() / 2;
            inode.durable[middle] ^= 1;
            inode.cached.clone_from(&inode.durable);
        }
        Ok(())
    }
}
