//! Damage in place: every bit, every length, and whatever may stand in the place of a file's end.

use crate::dice::Dice;

use super::scene::{File, Kind, Scene};
use super::tally::{Share, Tally, Turns};

/// Bytes of a sector of a disk, and of one that a cache line is lost from.
const SECTORS: [usize; 2] = [64, 512];

/// Flips every bit of every file.
pub(super) fn flip(scene: &Scene, share: Share, tally: &mut Tally) {
    let mut turns = Turns::new(share);
    for (nth, file) in scene.files.iter().enumerate() {
        for bit in 0..file.bytes.len() * 8 {
            let Some(number) = turns.take() else { continue };
            let result = scene.try_one(nth, number, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            tally.count("bit flipped", kind_of(file), result.map_err(|what| format!("bit {bit}: {what}")));
        }
    }
}

/// Replaces everything from each byte on: by nothing, by zeros, by garbage, and by what lies there in other files and in
/// what this file held before.
pub(super) fn replace_tails(scene: &Scene, share: Share, tally: &mut Tally) {
    let mut turns = Turns::new(share);
    for (nth, file) in scene.files.iter().enumerate() {
        let others = scene.segments().filter(|(other, ..)| *other != nth).map(|(_, other, _)| &other.bytes);
        let others: Vec<_> = others.collect();
        let mut tell = |part, from: usize, edit: &dyn Fn(&mut Vec<u8>)| {
            let Some(number) = turns.take() else { return };
            let result = scene.try_one(nth, number, edit);
            tally.count(part, kind_of(file), result.map_err(|what| format!("from byte {from}: {what}")));
        };
        for from in 0..file.bytes.len() {
            tell("cut off", from, &|bytes| bytes.truncate(from));
            tell("zeros to the end", from, &|bytes| bytes[from..].fill(0));
            tell("garbage to the end", from, &|bytes| {
                let mut dice = Dice::new(from as u64);
                bytes[from..].fill_with(|| dice.draw().to_le_bytes()[0]);
            });
            for older in &file.older {
                tell("end of an older copy", from, &|bytes| graft(bytes, from, older));
            }
            for other in &others {
                tell("end of another segment", from, &|bytes| graft(bytes, from, other));
            }
        }
    }
}

/// Puts the end of one file in the place of another's.
fn graft(bytes: &mut Vec<u8>, from: usize, donor: &[u8]) {
    bytes.truncate(from);
    bytes.extend_from_slice(donor.get(from..).unwrap_or_default());
}

/// Holes of zeros, and sectors in which an older copy of the file is left: a write that was lost, though it was synced.
pub(super) fn lose_sectors(scene: &Scene, share: Share, tally: &mut Tally) {
    let mut turns = Turns::new(share);
    for (nth, file) in scene.files.iter().enumerate() {
        for sector in SECTORS {
            for from in (0..file.bytes.len()).step_by(sector) {
                let to = file.bytes.len().min(from + sector);
                if let Some(number) = turns.take() {
                    let result = scene.try_one(nth, number, |bytes| bytes[from..to].fill(0));
                    tally.count(
                        "sector of zeros",
                        kind_of(file),
                        result.map_err(|what| format!("{from}..{to}: {what}")),
                    );
                }
                for older in &file.older {
                    let Some(number) = turns.take() else { continue };
                    let result = scene.try_one(nth, number, |bytes| {
                        let there = older.get(from..to.min(older.len())).unwrap_or_default();
                        bytes[from..from + there.len()].copy_from_slice(there);
                    });
                    let result = result.map_err(|what| format!("{from}..{to}: {what}"));
                    tally.count("sector of an older copy", kind_of(file), result);
                }
            }
        }
        for older in &file.older {
            let Some(number) = turns.take() else { continue };
            let result = scene.try_one(nth, number, |bytes| bytes.clone_from(older));
            tally.count("an older copy", kind_of(file), result);
        }
    }
}

pub(super) fn kind_of(file: &File) -> &'static str {
    match file.kind {
        Kind::Identity => "identity",
        Kind::Snapshot => "snapshot",
        Kind::Segment { last: true, .. } => "the last segment",
        Kind::Segment { last: false, .. } => "a full segment",
        Kind::Nothing => "spare files, the lock",
    }
}
