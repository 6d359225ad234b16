//! Every byte of a small log is damaged in every way, and each time there is one right answer: the log as it was, the
//! log without its last batch, which might have been torn by a crash, or a refusal that names file and offset.

use super::super::batch;
use super::super::segment::HEADER_BYTES;
use super::*;

const SEALED: &str = "log-0000000001";
/// The last snapshot that the log was cut behind.
const NEWEST: EntryId = EntryId::new(2, 4);
const LAST: &str = "log-0000000002";

/// One batch of the scene.
struct Batch {
    file: &'static str,
    start: usize,
    /// Where its records end; padding follows.
    body_end: usize,
    end: usize,
    /// The log before it.
    before: Model,
}

struct Scene {
    disk: Disk,
    batches: Vec<Batch>,
    whole: Model,
}

/// A log of two segments, with every kind of record and a conflict in each, its batches' places noted down.
fn scene() -> Scene {
    let member = |index| Entry { index: Index(index), term: Term(2), payload: Payload::Membership(membership()) };
    let noop = |term, index| Entry { index: Index(index), term: Term(term), payload: Payload::Noop };
    let steps = [
        Step::Persist(vec![write(1, Some("n1"), vec![], 0)]),
        Step::Persist(vec![write(1, Some("n1"), [vec![noop(1, 1)], commands(1, 2, 3)].concat(), 0)]),
        Step::Persist(vec![write(2, None, vec![noop(2, 3), command(2, 4, 13)], 2)]),
        Step::Compact(EntryId::new(1, 2)),
        Step::Persist(vec![write(2, Some("node-2"), vec![command(2, 5, 150)], 2)]),
        Step::Persist(vec![write(2, Some("node-2"), vec![member(6), command(2, 7, 33)], 4)]),
        Step::Persist(vec![write(3, Some("n3"), vec![noop(3, 7), command(3, 8, 21)], 6)]),
        Step::Compact(NEWEST),
        Step::Persist(vec![write(3, Some("n3"), vec![command(3, 9, 50)], 8)]),
    ];
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    Step::Cluster(5).run(&mut wal).expect("it is written");
    let mut model = Model { cluster: ClusterId(5), ..Model::default() };
    let mut batches = Vec::new();
    for step in steps {
        step.run(&mut wal).unwrap_or_else(|error| panic!("{step:?}: {error}"));
        let end = position(&wal.wal);
        let file = if wal.segments.active.number == 1 { SEALED } else { LAST };
        let start = batches.last().filter(|b: &&Batch| b.file == file).map_or(HEADER_BYTES, |b| b.end);
        let length: [u8; 4] = disk.read(file)[start + 16..start + 20].try_into().expect("four bytes");
        let body_end = start + batch::HEADER_BYTES + u32::from_le_bytes(length) as usize;
        let after = model.after(&step);
        batches.push(Batch { file, start, body_end, end, before: model });
        model = after;
    }
    assert_eq!(batches.iter().filter(|batch| batch.file == SEALED).count(), 5);
    assert_eq!(batches.iter().filter(|batch| batch.file == LAST).count(), 4);
    Scene { disk, batches, whole: model }
}

/// What recovery must answer.
#[derive(Debug)]
enum Answer<'a> {
    Log(&'a Model),
    Corrupt { offset: Option<usize> },
}

impl Scene {
    /// Damages a copy of `file` and checks the answer.
    fn check(&self, file: &str, edit: impl FnOnce(&mut Vec<u8>), expected: &Answer<'_>, context: &str) {
        let disk = self.disk.copy();
        disk.edit(file, edit);
        let damaged = disk.read(file);
        match (open(&disk), expected) {
            (Ok((wal, opened)), Answer::Log(model)) => {
                // A log that loses the batch with its base still begins after the snapshot.
                let model = model.after(&Step::Compact(NEWEST));
                assert_eq!(Model::of(&opened), model.shown(), "{context}");
                assert_eq!(wal.identity().incarnation, Incarnation(11));
            }
            (Err(StoreError::Corrupt { file: named, offset, .. }), Answer::Corrupt { offset: expected }) => {
                assert!(named.ends_with(file), "{context}: it blames {named}");
                assert!(expected.is_none_or(|at| at as u64 == offset), "{context}: it says byte {offset}");
                assert!(disk.read(file) == damaged, "{context}: a refused log was changed");
            }
            (result, expected) => {
                let found = result.map(|(_, opened)| Model::of(&opened));
                panic!("{context}: expected {expected:?}, found {found:?}")
            }
        }
    }

    fn batches_of<'a>(&'a self, file: &'a str) -> impl Iterator<Item = &'a Batch> {
        self.batches.iter().filter(move |batch| batch.file == file)
    }

    /// The answer when bits of this one byte are wrong.
    fn answer_to_flip(&self, file: &str, byte: usize) -> Answer<'_> {
        if byte < HEADER_BYTES {
            return Answer::Corrupt { offset: None };
        }
        let last = self.batches.len() - 1;
        match self.batches.iter().position(|b| b.file == file && (b.start..b.body_end).contains(&byte)) {
            Some(nth) if nth == last => Answer::Log(&self.batches[nth].before),
            Some(nth) => Answer::Corrupt { offset: Some(self.batches[nth].start) },
            None => Answer::Log(&self.whole),
        }
    }

    fn flip_every_bit(&self, file: &str) {
        for byte in 0..self.disk.read(file).len() {
            let expected = self.answer_to_flip(file, byte);
            for bit in 0..8 {
                self.check(
                    file,
                    |bytes| bytes[byte] ^= 1 << bit,
                    &expected,
                    &format!("{file}, byte {byte}, bit {bit}"),
                );
            }
        }
    }

    /// Destroys everything from each byte on, and checks for the batches wholly before it.
    fn destroy_every_tail(&self, destroy: impl Fn(&mut Vec<u8>, usize)) {
        for file in [SEALED, LAST] {
            let whole = self.disk.read(file);
            for from in 0..whole.len() {
                let mut damaged = whole.clone();
                destroy(&mut damaged, from);
                let same = |range: std::ops::Range<usize>| damaged.get(range.clone()) == whole.get(range);
                // Padding is no part of a batch's checksum, but it is part of its place.
                let whole_batch = |batch: &&Batch| same(batch.start..batch.body_end) && damaged.len() >= batch.end;
                let first = self.batches_of(file).find(|batch| !whole_batch(batch));
                let expected = match first {
                    _ if !same(0..HEADER_BYTES) => Answer::Corrupt { offset: None },
                    Some(batch) if file == SEALED => Answer::Corrupt { offset: Some(batch.start) },
                    Some(batch) => Answer::Log(&batch.before),
                    None => Answer::Log(&self.whole),
                };
                self.check(file, |bytes| destroy(bytes, from), &expected, &format!("{file}, from byte {from}"));
            }
        }
    }
}

#[test]
fn every_bit_of_the_last_segment() {
    scene().flip_every_bit(LAST);
}

#[test]
fn every_bit_of_a_full_segment() {
    scene().flip_every_bit(SEALED);
}

#[test]
fn every_bit_of_the_identity() {
    let scene = scene();
    for bit in 0..scene.disk.read("identity").len() * 8 {
        let flip = |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
        scene.check("identity", flip, &Answer::Corrupt { offset: None }, &format!("bit {bit}"));
    }
}

#[test]
fn every_length_of_the_identity() {
    let scene = scene();
    let length = scene.disk.read("identity").len();
    for cut in (0..length).chain([length + 1]) {
        let resize = |bytes: &mut Vec<u8>| bytes.resize(cut, 0);
        scene.check("identity", resize, &Answer::Corrupt { offset: None }, &format!("{cut} bytes"));
    }
}

#[test]
fn cut_at_every_byte() {
    scene().destroy_every_tail(Vec::truncate);
}

#[test]
fn zeros_from_every_byte_on() {
    scene().destroy_every_tail(|bytes, from| bytes[from..].fill(0));
}

#[test]
fn garbage_from_every_byte_on() {
    scene().destroy_every_tail(|bytes, from| {
        let mut luck = disk::Luck(from as u64);
        bytes[from..].fill_with(|| luck.draw().to_le_bytes()[0]);
    });
}

/// A lost sector in the middle reads as zeros and looks like the log's end, but for what follows.
#[test]
fn a_hole_of_zeros() {
    let scene = scene();
    for (nth, batch) in scene.batches.iter().enumerate() {
        let last = nth + 1 == scene.batches.len();
        let expected = if last { Answer::Log(&batch.before) } else { Answer::Corrupt { offset: Some(batch.start) } };
        let fill = |bytes: &mut Vec<u8>| bytes[batch.start..batch.end].fill(0);
        scene.check(batch.file, fill, &expected, &format!("{} without batch {}", batch.file, nth + 1));
    }
}

#[test]
fn a_cut_tail_is_told_of_and_the_log_goes_on() {
    let scene = scene();
    let torn = scene.batches.last().expect("there are batches");
    scene.disk.edit(LAST, |bytes| bytes[torn.start + 30] ^= 4);
    let (mut wal, opened) = open_well(&scene.disk);
    let [note] = &opened.notes[..] else { panic!("one note, not {:?}", opened.notes) };
    assert!(note.contains(LAST) && note.contains(&format!("at byte {}", torn.start)), "{note}");
    let step = Step::Persist(vec![write(3, Some("n3"), vec![command(3, 9, 8)], 8)]);
    step.run(&mut wal).expect("it is written");
    drop(wal);
    scene.disk.crash(disk::Crash::Drop);
    let (_, opened) = open_well(&scene.disk);
    assert_eq!(Model::of(&opened), torn.before.after(&step).shown());
    assert_eq!(opened.notes, [""; 0]);
}
