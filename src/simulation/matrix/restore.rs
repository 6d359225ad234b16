//! Power cuts while a backup is restored, while what it left is opened for the first time, and while what is left of a cluster
//! is copied. What was not finished is refused, or is not there at all; it never founds an empty cluster.

use std::path::Path;
use std::time::Duration;

use graft_domain::{ClusterId, Entry, EntryId, Incarnation, Index, Term};
use graft_services::ports::StoreError;
use graft_store::{StoreConfig, Successor, inspect_in, open_in, recover_in, restore_in};

use super::crash::{Expected, Left, Recorded, examine};
use super::disk::Disk;
use super::image::Image;
use super::lives::Life;
use super::model::{DIRECTORY, Model, Store, founding, node, snapshot_file};
use super::tally::{Share, Tally, Turns, Verdict};

const LAST: EntryId = EntryId { term: Term(3), index: Index(40) };
const BACKUP: &str = "elsewhere/backup";
const TARGET: &str = "new";
/// The new directory of a recovery has segments of the usual size: many sectors, in few pieces.
const LARGE_SECTOR: usize = 512;

/// A restore and a recovery, as they went without any misfortune.
#[derive(Debug)]
pub(super) struct Restores {
    life: Life,
    /// The disk before a restore, and after each operation of it.
    restored: Vec<Image>,
    /// The same of the first opening.
    opened: Vec<Image>,
    recovered: Vec<Image>,
    /// Entries, and the last of them, that the recovery is to come to.
    entries: (usize, EntryId),
}

fn restore(disk: &Disk) -> Result<(), StoreError> {
    restore_in(disk, Path::new(BACKUP), Path::new(DIRECTORY)).map(drop)
}

impl Restores {
    pub(super) fn of(recorded: &Recorded) -> Result<Self, String> {
        let told = |error: StoreError| error.to_string();
        let life = recorded.life.clone();
        let backup = snapshot_file(LAST).map_err(told)?;
        let disk = Disk::recording(Image::empty().with_directory("elsewhere").with_file(BACKUP, backup.to_vec()));
        restore(&disk).map_err(told)?;
        let restored = disk.trail();
        let disk = Disk::recording(disk.image());
        Store::open(&disk, life.config).map_err(told)?;
        let opened = disk.trail();
        let end = recorded.lived.last().and_then(|step| step.images.last()).ok_or("a life without an end")?;
        let disk = Disk::recording(end.clone());
        let (last, entries) = recover(&disk).map_err(told)?;
        Ok(Self { life, restored, opened, recovered: disk.trail(), entries: (entries, last) })
    }
}

/// Goes on alone in another directory. Answers the last entry there, and how many there are.
fn recover(disk: &Disk) -> Result<(EntryId, usize), StoreError> {
    let found = inspect_in(disk, Path::new(DIRECTORY))?;
    let successor = Successor {
        id: node("n1"),
        address: "127.0.0.1:7001".to_owned(),
        cluster: ClusterId(88),
        mint: Incarnation(12),
        promise: Duration::ZERO,
    };
    let last = recover_in(disk, Path::new(DIRECTORY), &found, Path::new(TARGET), &successor)?;
    Ok((last, found.entries.len() + 1))
}

/// What a restored directory begins with.
fn begun() -> Model {
    Model { base: LAST, snapshot: LAST, ..Model::founded() }
}

pub(super) fn cut_power(restores: &Restores, share: Share, tally: &mut Tally) {
    let mut turns = Turns::new(share);
    let sector = restores.life.sector;
    each(&restores.restored, sector, &mut turns, |image, acknowledged, number, what| {
        let result = restored(image, acknowledged, restores, number);
        tally.count("power cut", "restore", result.map_err(|why| format!("{what}: {why}")));
    });
    let expected = Expected::new(&begun(), &begun());
    each(&restores.opened, sector, &mut turns, |image, _, number, what| {
        let (first, again) = examine(image, &expected, &restores.life, number);
        let kind = "first start after a restore";
        tally.count("power cut", kind, first.map_err(|why| format!("{what}: {why}")));
        if let Some(again) = again {
            tally.count("power cut after that", kind, again.map_err(|why| format!("{what}, then again: {why}")));
        }
    });
    each(&restores.recovered, LARGE_SECTOR, &mut turns, |image, acknowledged, _, what| {
        let result = recovered(image, acknowledged, restores);
        tally.count("power cut", "recovery of a lost cluster", result.map_err(|why| format!("{what}: {why}")));
    });
}

/// All that is there when the process is killed after an operation, and all that a power cut may leave.
fn each(trail: &[Image], sector: usize, turns: &mut Turns, mut run: impl FnMut(Image, bool, u64, String)) {
    for (done, image) in trail.iter().enumerate() {
        let acknowledged = done + 1 == trail.len();
        if let Some(number) = turns.take() {
            run(image.clone(), acknowledged, number, format!("after {done} operations, killed"));
        }
        let atoms = image.atoms(sector);
        for left in Left::of(atoms.len()) {
            let Some(number) = turns.take() else { continue };
            let image = image.after_power_cut(&atoms, |nth| left.leaves(nth));
            run(image, acknowledged, number, format!("after {done} operations, left {left:?}"));
        }
    }
}

fn restored(image: Image, acknowledged: bool, restores: &Restores, number: u64) -> Result<Verdict, String> {
    let is_begun = image.named("data/snapshots").is_some();
    let disk = Disk::on(image);
    let verdict = match is_begun.then(|| Store::open(&disk, restores.life.config).map(drop)) {
        Some(Ok(())) if acknowledged => Verdict::Whole,
        Some(Ok(())) => Verdict::Later,
        Some(Err(StoreError::Io { what, .. })) if what.contains("not finished") && !acknowledged => Verdict::Refused,
        None if !acknowledged => Verdict::Whole,
        other => return Err(format!("{other:?}, acknowledged: {acknowledged}")),
    };
    if !is_begun || verdict == Verdict::Refused {
        restore(&disk).map_err(|error| format!("again: {error}"))?;
    }
    let expected = Expected::new(&begun(), &begun());
    let (first, again) = examine(disk.image().dropped(), &expected, &restores.life, number);
    first.and(again.unwrap_or(Ok(verdict))).map(|_| verdict)
}

fn recovered(image: Image, acknowledged: bool, restores: &Restores) -> Result<Verdict, String> {
    let is_begun = image.named("new/snapshots").is_some();
    let files = Disk::on(image);
    if !is_begun {
        return if acknowledged { Err("nothing is there".to_owned()) } else { Ok(Verdict::Whole) };
    }
    match open_in(files, Path::new(TARGET), &founding(), StoreConfig::default()) {
        Ok((_, _, opened)) => {
            let found = &opened.recovered;
            let last = found.entries.last().map(Entry::id);
            let (entries, wanted) = restores.entries;
            let same = found.entries.len() == entries && last == Some(wanted) && found.commit == wanted.index;
            let ours = opened.identity.cluster == ClusterId(88);
            if !same || !ours {
                return Err(format!("found {found:?}, not {entries} entries up to {wanted}"));
            }
            Ok(if acknowledged { Verdict::Whole } else { Verdict::Later })
        }
        Err(_) if !acknowledged => Ok(Verdict::Refused),
        Err(error) => Err(error.to_string()),
    }
}
