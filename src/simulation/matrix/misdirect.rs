//! Good bytes in a wrong place: records, batches, sectors and files that were swapped, or written where others belong.

use std::ops::Range;

use super::damage::kind_of;
use super::layout::Segment;
use super::scene::{Edit, Scene};
use super::tally::{Share, Tally, Turns};

/// Bytes that a disk puts down at once, and that it may put down elsewhere.
const SECTORS: [usize; 2] = [64, 512];

/// A piece of a file of this number.
#[derive(Clone, Debug)]
struct Piece {
    nth: usize,
    range: Range<usize>,
}

/// Swaps every pair of records and of batches, and puts each in the place of every other.
pub(super) fn records(scene: &Scene, share: Share, tally: &mut Tally) {
    let mut turns = Turns::new(share);
    let (mut batches, mut records) = (Vec::new(), Vec::new());
    for (nth, _, segment) in scene.segments() {
        for batch in &segment.batches {
            batches.push(Piece { nth, range: batch.start..batch.end });
            records.extend(batch.records.iter().map(|range| Piece { nth, range: range.clone() }));
        }
    }
    for (kind, pieces) in [("of batches", &batches), ("of records", &records)] {
        for (one, other) in pieces.iter().flat_map(|one| pieces.iter().map(move |other| (one, other))) {
            if one.nth == other.nth && one.range == other.range {
                continue;
            }
            let told = |what| format!("{one:?}, {other:?}: {what}");
            if let Some(number) = turns.take() {
                let edits = put(scene, vec![], one, other);
                tally.count("misdirected", kind, scene.try_edits(&edits, number).map_err(told));
            }
            if let Some(number) = turns.take() {
                let edits = put(scene, put(scene, vec![], one, other), other, one);
                tally.count("swapped", kind, scene.try_edits(&edits, number).map_err(told));
            }
        }
    }
    older(scene, &batches, &mut turns, tally);
}

/// Batches of older copies of a file, in their own place and in the place of every batch there is now.
fn older(scene: &Scene, batches: &[Piece], turns: &mut Turns, tally: &mut Tally) {
    for (nth, file, _) in scene.segments() {
        for copy in &file.older {
            for batch in &Segment::read(copy).batches {
                let own = Piece { nth, range: batch.start..batch.end };
                for place in std::iter::once(&own).chain(batches) {
                    let Some(number) = turns.take() else { continue };
                    let edits = put_bytes(scene, vec![], &copy[batch.start..batch.end], place.nth, place.range.start);
                    let result = scene.try_edits(&edits, number);
                    let result = result.map_err(|what| format!("batch {} in {place:?}: {what}", batch.number));
                    tally.count("misdirected", "of an older copy's batches", result);
                }
            }
        }
    }
}

/// Puts every sector of every file in the place of every other.
pub(super) fn sectors(scene: &Scene, share: Share, tally: &mut Tally) {
    let mut turns = Turns::new(share);
    for (sector, kind) in SECTORS.into_iter().zip(["of sectors of 64 bytes", "of sectors of 512 bytes"]) {
        let mut pieces = Vec::new();
        for (nth, file) in scene.files.iter().enumerate() {
            let length = file.bytes.len();
            pieces.extend((0..length).step_by(sector).map(|at| Piece { nth, range: at..length.min(at + sector) }));
        }
        for (from, to) in pieces.iter().flat_map(|one| pieces.iter().map(move |other| (one, other))) {
            let bytes = |piece: &Piece| &scene.files[piece.nth].bytes[piece.range.clone()];
            // What is the same there changes nothing, and is most of a header.
            if bytes(from) == bytes(to) {
                continue;
            }
            let Some(number) = turns.take() else { continue };
            let edits = put(scene, vec![], from, to);
            let result = scene.try_edits(&edits, number);
            tally.count("misdirected", kind, result.map_err(|what| format!("{from:?}, {to:?}: {what}")));
        }
    }
}

/// Takes every file away, gives every pair each other's names, and one the bytes of the other.
pub(super) fn files(scene: &Scene, share: Share, tally: &mut Tally) {
    let mut turns = Turns::new(share);
    for (one, file) in scene.files.iter().enumerate() {
        if let Some(number) = turns.take() {
            let image = scene.image.with_name(&file.name, None);
            let told = |what| format!("{}: {what}", file.name);
            tally.count("file missing", kind_of(file), scene.try_names(image, number).map_err(told));
        }
        for (other, second) in scene.files.iter().enumerate() {
            let told = |what| format!("{}, {}: {what}", file.name, second.name);
            if one == other {
                continue;
            }
            if let Some(number) = turns.take() {
                let (here, there) = (scene.image.with_name(&file.name, Some(second.number)), Some(file.number));
                let result = scene.try_names(here.with_name(&second.name, there), number);
                tally.count("swapped", "of files", result.map_err(told));
            }
            if let Some(number) = turns.take() {
                let result = scene.try_edits(&[(one, second.bytes.to_vec())], number);
                tally.count("misdirected", "of files", result.map_err(told));
            }
        }
    }
}

/// Writes what is in one place over what begins in another.
fn put(scene: &Scene, edits: Vec<Edit>, from: &Piece, to: &Piece) -> Vec<Edit> {
    put_bytes(scene, edits, &scene.files[from.nth].bytes[from.range.clone()], to.nth, to.range.start)
}

fn put_bytes(scene: &Scene, mut edits: Vec<Edit>, bytes: &[u8], nth: usize, at: usize) -> Vec<Edit> {
    let place = edits.iter().position(|(edited, _)| *edited == nth).unwrap_or_else(|| {
        edits.push((nth, scene.files[nth].bytes.to_vec()));
        edits.len() - 1
    });
    let file = &mut edits[place].1;
    let count = bytes.len().min(file.len().saturating_sub(at));
    file[at..at + count].copy_from_slice(&bytes[..count]);
    edits
}
