//! A disk in memory that keeps apart what is synced and what is not, and fails as it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_store::{Files, Locking, StoreFile};

use crate::dice::Dice;

/// What a write is torn into. Smaller than any real sector, so that small batches tear too.
const SECTOR_BYTES: usize = 64;

/// The disk of one machine. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a process sees.
    names: BTreeMap<String, u64>,
    /// What a power cut leaves, beside what it may leave of `pending_names`.
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    directories: BTreeSet<String>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Bytes of everything that has a name.
    used: usize,
    faults: DiskFaults,
}

/// What goes wrong, until it is set to something else.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskFaults {
    /// After so many more changes the power is off: the change that comes then may reach the cache, and all fail.
    pub(crate) power_off_in: Option<u64>,
    /// The next sync fails, and what it was for counts as clean from then on.
    pub(crate) sync_fails: bool,
    /// The next change of a name or of bytes fails and does not happen.
    pub(crate) change_fails: bool,
    /// Bytes that all files together can have.
    pub(crate) capacity: Option<usize>,
    /// A sync says that it was done, and did nothing.
    pub(crate) lies: bool,
}

/// How a machine goes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The process is killed: the operating system still has all of it.
    Kill,
    /// The power goes: nothing that was not synced is left.
    Clean,
    /// The power goes: of what was not synced, each sector and each change of a name is left or not, by luck.
    Torn,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, u64),
    /// A rename moves the very file, whatever becomes of changes to its name before.
    Rename(String, String, u64),
    Remove(String),
}

#[derive(Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<DataChange>,
    /// Where the last write began of which a sync said that it was done: what lies before that is at rest.
    at_rest: usize,
}

#[derive(Debug)]
enum DataChange {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.state().faults);
    }

    pub(crate) fn used(&self) -> usize {
        self.state().used
    }

    /// The machine goes down. Nobody may have a file open any more.
    pub(crate) fn stop(&self, stop: Stop, dice: &mut Dice) {
        let mut state = self.state();
        let mut survives = || match stop {
            Stop::Kill => true,
            Stop::Clean => false,
            Stop::Torn => dice.chance(500),
        };
        for change in std::mem::take(&mut state.pending_names) {
            if survives() {
                change.apply(&mut state.durable_names);
            }
        }
        if stop == Stop::Kill {
            state.durable_names = state.names.clone();
        }
        let (names, inodes) = (&state.durable_names, &state.inodes);
        let names = names.iter().filter(|(_, inode)| inodes.contains_key(inode));
        state.names = names.map(|(name, inode)| (name.clone(), *inode)).collect();
        state.durable_names = state.names.clone();
        let kept: BTreeSet<u64> = state.names.values().copied().collect();
        state.inodes.retain(|inode, _| kept.contains(inode));
        for inode in state.inodes.values_mut() {
            for change in std::mem::take(&mut inode.pending) {
                inode.persist(&change, &mut survives);
            }
            inode.cached.clone_from(&inode.durable);
        }
        state.faults = DiskFaults { lies: state.faults.lies, ..DiskFaults::default() };
        state.used = state.names.values().filter_map(|inode| state.inodes.get(inode)).map(|i| i.cached.len()).sum();
    }

    /// Flips one bit of what is at rest: of anything but the last write to a file, which nobody could tell from a torn one.
    pub(crate) fn rot(&self, dice: &mut Dice) -> Option<String> {
        let mut state = self.state();
        let (name, inode, at_rest) = state.any_at_rest(dice)?;
        let (place, bit) = (dice.size(at_rest), dice.below(8));
        let inode = state.inodes.get_mut(&inode)?;
        inode.damage(place, &[inode.durable[place] ^ 1 << bit]);
        Some(format!("bit {bit} of byte {place} of {name}"))
    }

    /// Some sectors of what is at rest are written over with others that are: a write went to the wrong place.
    pub(crate) fn misdirect(&self, dice: &mut Dice) -> Option<String> {
        let mut state = self.state();
        let (from, source, before) = state.any_at_rest(dice)?;
        let (to, target, after) = state.any_at_rest(dice)?;
        let sector = |dice: &mut Dice, bytes: usize| dice.size(bytes.div_ceil(SECTOR_BYTES)) * SECTOR_BYTES;
        let (begin, place) = (sector(dice, before), sector(dice, after));
        let count = (SECTOR_BYTES * (1 + dice.size(8))).min(before - begin).min(after - place);
        let bytes = state.inodes.get(&source)?.durable[begin..begin + count].to_vec();
        state.inodes.get_mut(&target)?.damage(place, &bytes);
        Some(format!("{count} bytes at {begin} of {from} are written to {place} of {to}"))
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

impl State {
    /// A file of which something is at rest, and how much from its beginning.
    fn any_at_rest(&self, dice: &mut Dice) -> Option<(String, u64, usize)> {
        let rests = |(name, inode): (&String, &u64)| {
            let at_rest = self.inodes.get(inode).map_or(0, |inode| inode.at_rest.min(inode.durable.len()));
            (at_rest > 0 && !name.ends_with("LOCK")).then(|| (name.clone(), *inode, at_rest))
        };
        let files: Vec<_> = self.names.iter().filter_map(rests).collect();
        (!files.is_empty()).then(|| dice.one_of(&files))
    }

    /// Counts a change: whether it may reach the cache, and whether it may say so.
    fn change(&mut self) -> (bool, io::Result<()>) {
        if std::mem::take(&mut self.faults.change_fails) {
            return (false, Err(broken("the disk says no")));
        }
        match &mut self.faults.power_off_in {
            None => (true, Ok(())),
            Some(0) => (false, Err(broken("the power is off"))),
            Some(left) => {
                *left -= 1;
                (true, if *left == 0 { Err(broken("the power goes")) } else { Ok(()) })
            }
        }
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn length(&self, name: &str) -> usize {
        self.names.get(name).and_then(|inode| self.inodes.get(inode)).map_or(0, |inode| inode.cached.len())
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }

    fn directory(&self) -> &str {
        let (Self::Add(name, _) | Self::Rename(name, ..) | Self::Remove(name)) = self;
        name.rsplit_once('/').map_or("", |(directory, _)| directory)
    }
}

impl Inode {
    /// What is at rest there becomes this.
    fn damage(&mut self, place: usize, bytes: &[u8]) {
        self.durable[place..place + bytes.len()].copy_from_slice(bytes);
        if let Some(cached) = self.cached.get_mut(place..place + bytes.len()) {
            cached.copy_from_slice(bytes);
        }
    }

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
                        put(&mut self.durable, at, &bytes[done..done + count]);
                    }
                    done += count;
                }
            }
        }
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

fn name_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A file that a process has open.
#[derive(Debug)]
pub(crate) struct DiskFile {
    disk: Disk,
    inode: u64,
}

/// It is held as long as the process lives, and a process has one directory.
#[derive(Debug)]
pub(crate) struct Held;

impl Files for Disk {
    type File = DiskFile;
    type Lock = Held;

    fn make_directory(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state().directories.insert(name_of(path)))
    }

    fn lock(&self, _path: &Path) -> io::Result<Locking<Held>> {
        Ok(Locking::Held(Held))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let (state, directory) = (self.state(), name_of(directory));
        if !state.directories.contains(&directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |name: &String| {
            let (parent, own) = name.rsplit_once('/')?;
            (parent == directory).then(|| own.to_owned())
        };
        Ok(state.names.keys().filter_map(inside).collect())
    }

    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        let inode = self.state().names.get(&name_of(path)).copied();
        inode.map(|inode| DiskFile { disk: self.clone(), inode }).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open_to_read(&self, path: &Path) -> io::Result<DiskFile> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        let mut state = self.state();
        let (may, said) = state.change();
        let name = name_of(path);
        let inode = match state.names.get(&name).copied() {
            Some(inode) if may => {
                state.used -= state.length(&name);
                if let Some(inode) = state.inodes.get_mut(&inode) {
                    inode.cached.clear();
                    inode.pending.push(DataChange::Truncate(0));
                    inode.at_rest = 0;
                }
                inode
            }
            None if may => {
                state.next_inode += 1;
                let inode = state.next_inode;
                state.inodes.insert(inode, Inode::default());
                state.rename(NameChange::Add(name, inode));
                inode
            }
            _ => 0,
        };
        drop(state);
        said.map(|()| DiskFile { disk: self.clone(), inode })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (from, to) = (name_of(from), name_of(to));
        let (may, said) = state.change();
        if may {
            let Some(inode) = state.names.get(&from).copied() else {
                return Err(io::ErrorKind::NotFound.into());
            };
            state.used -= state.length(&to);
            state.rename(NameChange::Rename(from, to, inode));
        }
        said
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (may, said) = state.change();
        if may {
            let name = name_of(path);
            if !state.names.contains_key(&name) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.used -= state.length(&name);
            state.rename(NameChange::Remove(name));
        }
        said
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (may, said) = state.change();
        if may && said.is_ok() && !state.faults.lies {
            let directory = name_of(directory);
            let (synced, pending): (Vec<_>, Vec<_>) =
                std::mem::take(&mut state.pending_names).into_iter().partition(|c| c.directory() == directory);
            state.pending_names = pending;
            for change in synced {
                change.apply(&mut state.durable_names);
            }
        }
        said
    }

    fn memory(&self, _bytes: usize) -> Option<Receiver<Vec<u8>>> {
        None
    }
}

impl StoreFile for DiskFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes.get(&self.inode).map_or(0, |inode| inode.cached.len()) as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let cached = state.inodes.get(&self.inode).map_or(&[][..], |inode| &inode.cached);
        let ahead = usize::try_from(offset).ok().and_then(|offset| cached.get(offset..)).unwrap_or_default();
        // A read may always be short.
        let count = ahead.len().min(into.len()).min(3_000);
        into[..count].copy_from_slice(&ahead[..count]);
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let mut state = self.disk.state();
        let (may, said) = state.change();
        if !may {
            return said;
        }
        let length = state.inodes.get(&self.inode).map_or(0, |inode| inode.cached.len());
        let free = state.faults.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(state.used));
        let fits = bytes.len().min(length.saturating_add(free).saturating_sub(offset));
        if fits > 0 {
            state.used += (offset + fits).saturating_sub(length);
            if let Some(inode) = state.inodes.get_mut(&self.inode) {
                put(&mut inode.cached, offset, &bytes[..fits]);
                inode.pending.push(DataChange::Write(offset, bytes[..fits].to_vec()));
            }
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { said }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut state = self.disk.state();
        let (may, said) = state.change();
        if may {
            let mut gone = 0;
            if let Some(inode) = state.inodes.get_mut(&self.inode) {
                gone = inode.cached.len().saturating_sub(length);
                inode.cached.truncate(length);
                inode.pending.push(DataChange::Truncate(length));
                inode.at_rest = inode.at_rest.min(length);
            }
            state.used = state.used.saturating_sub(gone);
        }
        said
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let (may, said) = state.change();
        if !may || said.is_err() {
            return said;
        }
        let (fails, lies) = (std::mem::take(&mut state.faults.sync_fails), state.faults.lies);
        if lies {
            return Ok(());
        }
        let Some(inode) = state.inodes.get_mut(&self.inode) else { return Ok(()) };
        let pending = std::mem::take(&mut inode.pending);
        if fails {
            return Err(broken("the sync failed"));
        }
        for change in pending {
            inode.persist(&change, &mut || true);
            if let DataChange::Write(offset, bytes) = &change
                && bytes.iter().any(|byte| *byte != 0)
            {
                inode.at_rest = *offset;
            }
        }
        Ok(())
    }
}
