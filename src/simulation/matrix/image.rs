//! What is on a disk and in its cache at one moment, and what a power cut may leave of that.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What a name is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    Directory,
    File(usize),
}

type Names = BTreeMap<Arc<str>, Named>;

/// Copies share everything that did not change between them.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// What a process sees.
    names: Arc<Names>,
    /// What a power cut leaves, beside what it may leave of `pending`.
    durable_names: Arc<Names>,
    files: Vec<File>,
    /// What is not synced, in order.
    pending: Vec<Change>,
}

#[derive(Clone, Default, Debug)]
struct File {
    cached: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// Something in the cache counts as clean, and is not durable.
    lost: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Add(Arc<str>, Named),
    /// It moves the very file, whatever becomes of changes to its name before.
    Rename(Arc<str>, Arc<str>, usize),
    Remove(Arc<str>),
    Write {
        file: usize,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    Truncate {
        file: usize,
        length: usize,
    },
}

/// The least that a power cut leaves or takes, for itself.
#[derive(Clone, Debug)]
pub(super) enum Atom {
    /// A change of a name, or a truncation.
    Whole(usize),
    /// A part of a write, within one sector.
    Part { change: usize, range: Range<usize> },
    /// The file is so long, whether its bytes are there or not.
    Length { file: usize, length: usize },
}

impl Image {
    /// A disk with nothing on it.
    pub(super) fn empty() -> Self {
        let names = Arc::new(Names::from([("".into(), Named::Directory)]));
        Self { durable_names: Arc::clone(&names), names, files: Vec::new(), pending: Vec::new() }
    }

    pub(super) fn named(&self, name: &str) -> Option<Named> {
        self.names.get(name).copied()
    }

    /// The files that have names, and their bytes as a process sees them.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Arc<str>, usize, &Arc<Vec<u8>>)> {
        self.names.iter().filter_map(|(name, named)| match named {
            Named::File(file) => Some((name, *file, &self.files[*file].cached)),
            Named::Directory => None,
        })
    }

    /// The names in a directory, without the directory's.
    pub(super) fn inside<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a str> {
        self.names.keys().filter_map(move |name| {
            let (above, own) = name.rsplit_once('/')?;
            (above == directory).then_some(own)
        })
    }

    pub(super) fn cached(&self, file: usize) -> &Arc<Vec<u8>> {
        &self.files[file].cached
    }

    /// Whether there is a file of this number, with a name or without.
    pub(super) fn has(&self, file: usize) -> bool {
        file < self.files.len()
    }

    pub(super) fn durable(&self, file: usize) -> &Arc<Vec<u8>> {
        &self.files[file].durable
    }

    /// Puts other bytes in the place of a file's, durably.
    pub(super) fn with(&self, file: usize, bytes: Vec<u8>) -> Self {
        let mut image = self.clone();
        let bytes = Arc::new(bytes);
        image.files[file] = File { cached: Arc::clone(&bytes), durable: bytes, lost: false };
        image
    }

    /// Gives a name to another file, or to none, durably.
    pub(super) fn with_name(&self, name: &str, file: Option<usize>) -> Self {
        let mut image = self.clone();
        let names = Arc::make_mut(&mut image.names);
        match file {
            Some(file) => drop(names.insert(name.into(), Named::File(file))),
            None => drop(names.remove(name)),
        }
        image.durable_names = Arc::clone(&image.names);
        image
    }

    /// Makes a file of these bytes, durably.
    pub(super) fn with_file(&self, name: &str, bytes: Vec<u8>) -> Self {
        let mut image = self.clone();
        let file = image.add_file();
        image.with(file, bytes).with_name(name, Some(file))
    }

    /// Makes a directory, durably.
    pub(super) fn with_directory(&self, name: &str) -> Self {
        let mut image = self.clone();
        Arc::make_mut(&mut image.names).insert(name.into(), Named::Directory);
        image.durable_names = Arc::clone(&image.names);
        image
    }

    /// A file without a name yet.
    pub(super) fn add_file(&mut self) -> usize {
        self.files.push(File::default());
        self.files.len() - 1
    }

    /// A change of names.
    pub(super) fn rename(&mut self, change: Change) {
        change.rename(&mut self.names);
        self.pending.push(change);
    }

    pub(super) fn write(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        put(Arc::make_mut(&mut self.files[file].cached), offset, bytes);
        self.pending.push(Change::Write { file, offset, bytes: bytes.into() });
    }

    pub(super) fn truncate(&mut self, file: usize, length: usize) {
        if self.files[file].cached.len() > length {
            Arc::make_mut(&mut self.files[file].cached).truncate(length);
            self.pending.push(Change::Truncate { file, length });
        }
    }

    pub(super) fn sync_file(&mut self, file: usize) {
        let synced = &mut self.files[file];
        if synced.lost {
            let durable = Arc::make_mut(&mut synced.durable);
            for change in &self.pending {
                match change {
                    Change::Write { file: of, offset, bytes } if *of == file => put(durable, *offset, bytes),
                    Change::Truncate { file: of, length } if *of == file => durable.truncate(*length),
                    _ => {}
                }
            }
        } else {
            synced.durable = Arc::clone(&synced.cached);
        }
        self.pending.retain(|change| !change.is_of(file));
    }

    /// A sync failed: what was written counts as clean, and is in the cache only.
    pub(super) fn forget_unsynced(&mut self, file: usize) {
        self.files[file].lost = true;
        self.pending.retain(|change| !change.is_of(file));
    }

    pub(super) fn sync_names(&mut self, directory: &str) {
        let durable = &mut self.durable_names;
        self.pending.retain(|change| {
            let synced = change.directory() == Some(directory);
            if synced {
                change.rename(durable);
            }
            !synced
        });
    }

    /// What a power cut decides about. A part of a write that changes nothing is none: zeros over zeros, above all.
    pub(super) fn atoms(&self, sector: usize) -> Vec<Atom> {
        let mut atoms = Vec::new();
        for (nth, change) in self.pending.iter().enumerate() {
            let Change::Write { file, offset, bytes } = change else {
                atoms.push(Atom::Whole(nth));
                continue;
            };
            let durable = &self.files[*file].durable;
            let mut from = 0;
            while from < bytes.len() {
                let to = bytes.len().min(from + sector - (offset + from) % sector);
                let place = offset + from..offset + to;
                let over = self.pending[..nth].iter().any(|earlier| earlier.touches(*file, &place));
                if over || !is_same(durable, place.start, &bytes[from..to]) {
                    atoms.push(Atom::Part { change: nth, range: from..to });
                }
                from = to;
            }
            let length = offset + bytes.len();
            if length > durable.len() {
                atoms.push(Atom::Length { file: *file, length });
            }
        }
        atoms
    }

    /// What is there after a power cut that leaves these atoms.
    pub(super) fn after_power_cut(&self, atoms: &[Atom], leaves: impl Fn(usize) -> bool) -> Self {
        let mut names = Arc::clone(&self.durable_names);
        let mut files: Vec<Arc<Vec<u8>>> = self.files.iter().map(|file| Arc::clone(&file.durable)).collect();
        for (_, atom) in atoms.iter().enumerate().filter(|(nth, _)| leaves(*nth)) {
            match atom {
                Atom::Length { file, length } if files[*file].len() < *length => {
                    Arc::make_mut(&mut files[*file]).resize(*length, 0);
                }
                Atom::Length { .. } => {}
                Atom::Part { change, range } => {
                    if let Change::Write { file, offset, bytes } = &self.pending[*change] {
                        put(Arc::make_mut(&mut files[*file]), offset + range.start, &bytes[range.clone()]);
                    }
                }
                Atom::Whole(change) => match &self.pending[*change] {
                    Change::Truncate { file, length } => Arc::make_mut(&mut files[*file]).truncate(*length),
                    change => change.rename(&mut names),
                },
            }
        }
        Self::of(&names, &files)
    }

    /// Nothing pending, and no file or directory that no name leads to.
    fn of(names: &Names, files: &[Arc<Vec<u8>>]) -> Self {
        let (mut kept, mut next) = (Vec::new(), Names::new());
        for (name, what) in names {
            // In this order a directory comes before what is in it.
            let above = name.rsplit_once('/').map_or("", |(above, _)| above);
            if !name.is_empty() && next.get(above) != Some(&Named::Directory) {
                continue;
            }
            let what = match what {
                Named::Directory => Named::Directory,
                Named::File(file) => {
                    let bytes = &files[*file];
                    kept.push(File { cached: Arc::clone(bytes), durable: Arc::clone(bytes), lost: false });
                    Named::File(kept.len() - 1)
                }
            };
            next.insert(Arc::clone(name), what);
        }
        let names = Arc::new(next);
        Self { durable_names: Arc::clone(&names), names, files: kept, pending: Vec::new() }
    }

    /// What is there after a power cut that leaves nothing of what was not synced.
    pub(super) fn dropped(&self) -> Self {
        self.after_power_cut(&[], |_| false)
    }
}

impl Change {
    fn rename(&self, names: &mut Arc<Names>) {
        let names = Arc::make_mut(names);
        match self {
            Self::Add(name, what) => drop(names.insert(Arc::clone(name), *what)),
            Self::Rename(from, to, file) => {
                if names.get(from) == Some(&Named::File(*file)) {
                    names.remove(from);
                }
                names.insert(Arc::clone(to), Named::File(*file));
            }
            Self::Remove(name) => drop(names.remove(name)),
            Self::Write { .. } | Self::Truncate { .. } => {}
        }
    }

    /// Whose names it changes, if it changes any.
    fn directory(&self) -> Option<&str> {
        match self {
            Self::Add(name, _) | Self::Rename(name, ..) | Self::Remove(name) => {
                Some(name.rsplit_once('/').map_or("", |(directory, _)| directory))
            }
            Self::Write { .. } | Self::Truncate { .. } => None,
        }
    }

    fn is_of(&self, of: usize) -> bool {
        matches!(self, Self::Write { file, .. } | Self::Truncate { file, .. } if *file == of)
    }

    /// Whether it changes bytes there.
    fn touches(&self, of: usize, place: &Range<usize>) -> bool {
        match self {
            Self::Write { file, offset, bytes } => {
                *file == of && *offset < place.end && place.start < offset + bytes.len()
            }
            Self::Truncate { file, length } => *file == of && *length < place.end,
            Self::Add(..) | Self::Rename(..) | Self::Remove(_) => false,
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

/// Whether these bytes are there already, zeros beyond the file's end.
fn is_same(file: &[u8], offset: usize, bytes: &[u8]) -> bool {
    let there = file.get(offset..).unwrap_or_default();
    let count = there.len().min(bytes.len());
    there[..count] == bytes[..count] && bytes[count..].iter().all(|byte| *byte == 0)
}
