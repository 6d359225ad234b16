//! A store at rest, and the one right answer to any damage of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use graft_domain::{ClusterId, Index};
use graft_services::ports::{Opened, StoreError};

use super::crash::more;
use super::disk::Disk;
use super::image::Image;
use super::layout::{BATCH_HEADER_BYTES, Batch, HEADER_BYTES, Segment};
use super::lives::{Life, Lived};
use super::model::{Model, Store, Unfit};
use super::tally::Verdict;

/// Versions of a file that are kept beside what it holds now.
const OLDER_MAX: usize = 6;
/// After so many damages that are not refused, one store is written to.
const WRITTEN_ON: u64 = 8;

#[derive(Debug)]
pub(super) struct Scene {
    pub(super) life: Life,
    pub(super) image: Image,
    pub(super) files: Vec<File>,
    whole: Model,
    /// What the log amounts to after each batch.
    after_batch: BTreeMap<u64, Model>,
}

#[derive(Debug)]
pub(super) struct File {
    pub(super) name: Arc<str>,
    /// In the image.
    pub(super) number: usize,
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) kind: Kind,
    /// What it held before, in this life or an earlier one.
    pub(super) older: Vec<Arc<Vec<u8>>>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Identity,
    /// The newest; a store at rest has no other.
    Snapshot,
    Segment {
        segment: Segment,
        last: bool,
    },
    /// What it holds means nothing.
    Nothing,
}

/// Other bytes in a file of this number.
pub(super) type Edit = (usize, Vec<u8>);

/// The one right answer.
#[derive(Debug)]
enum Answer {
    Whole,
    /// The log up to this batch. Whether a note has to say so; it may where it need not.
    Cut {
        batch: u64,
        told: bool,
    },
    Refused,
}

impl Scene {
    /// The store as it is after so many steps of a life.
    pub(super) fn of(life: &Life, lived: &[Lived], steps: usize) -> Option<Self> {
        let now = lived.get(steps)?;
        let image = now.images.last()?.clone();
        let mut after_batch = BTreeMap::from([(0, Model::founded())]);
        for step in &lived[..=steps] {
            let end = step.images.last()?;
            let segment = end.files().filter(|(name, ..)| name.contains("/log-")).last()?.2;
            after_batch.insert(Segment::read(segment).last_batch(), (*step.after).clone());
        }
        let newest = image.files().map(|(name, ..)| name).filter(|name| name.contains("/log-")).last()?;
        let file = |(name, number, bytes): (&Arc<str>, usize, &Arc<Vec<u8>>)| {
            let kind = match &**name {
                "data/identity" => Kind::Identity,
                name if name.contains("/snapshot-") => Kind::Snapshot,
                name if name.contains("/log-") => {
                    Kind::Segment { segment: Segment::read(bytes), last: name == &**newest }
                }
                _ => Kind::Nothing,
            };
            let older = older(&lived[..=steps], number, bytes);
            File { name: Arc::clone(name), number, bytes: Arc::clone(bytes), kind, older }
        };
        let files = image.files().map(file).collect();
        Some(Self { life: life.clone(), files, whole: (*now.after).clone(), after_batch, image })
    }

    /// The segments, in order.
    pub(super) fn segments(&self) -> impl Iterator<Item = (usize, &File, &Segment)> {
        self.files.iter().enumerate().filter_map(|(nth, file)| match &file.kind {
            Kind::Segment { segment, .. } => Some((nth, file, segment)),
            _ => None,
        })
    }

    /// Changes one file, and checks the answer.
    pub(super) fn try_one(&self, nth: usize, number: u64, edit: impl FnOnce(&mut Vec<u8>)) -> Result<Verdict, String> {
        let mut bytes = self.files[nth].bytes.to_vec();
        edit(&mut bytes);
        self.try_edits(&[(nth, bytes)], number)
    }

    pub(super) fn try_edits(&self, edits: &[Edit], number: u64) -> Result<Verdict, String> {
        let mut image = self.image.clone();
        for (nth, bytes) in edits {
            image = image.with(self.files[*nth].number, bytes.clone());
        }
        let answer = self.answer(edits);
        self.check(image, &answer, number).map_err(|what| {
            let names: Vec<&str> = edits.iter().map(|(nth, _)| &*self.files[*nth].name).collect();
            format!("{}, case {number}, changed {names:?}: {what}", self.life.name)
        })
    }

    /// Tries an image in which names lead elsewhere: what is there must be whole, or refused.
    pub(super) fn try_names(&self, image: Image, number: u64) -> Result<Verdict, String> {
        match self.open(&Disk::on(image)) {
            Ok((_, opened)) if self.whole.shown().is(&opened) => Ok(Verdict::Whole),
            Ok((_, opened)) => Err(format!("{}, case {number}: found {:?}", self.life.name, opened.recovered)),
            Err(Unfit::Refused(_)) => Ok(Verdict::Refused),
            Err(Unfit::Wrong(what)) => Err(format!("{}, case {number}: {what}", self.life.name)),
        }
    }

    fn open(&self, disk: &Disk) -> Result<(Store, Opened), Unfit> {
        let (store, opened) = Store::open(disk, self.life.config).map_err(Unfit::Refused)?;
        store.check_snapshot(&opened)?;
        Ok((store, opened))
    }

    fn check(&self, image: Image, answer: &Answer, number: u64) -> Result<Verdict, String> {
        let disk = Disk::on(image);
        let (store, opened) = match (self.open(&disk), answer) {
            (Ok(found), Answer::Whole | Answer::Cut { .. }) => found,
            (Err(Unfit::Refused(StoreError::Corrupt { .. } | StoreError::NewerFormat { .. })), Answer::Refused) => {
                return Ok(Verdict::Refused);
            }
            (Ok((_, opened)), Answer::Refused) => return Err(format!("accepted: {:?}", opened.recovered)),
            (Err(unfit), _) => return Err(format!("{answer:?} is right, not {unfit:?}")),
        };
        let (model, verdict) = match answer {
            Answer::Cut { batch, told } => {
                let silent = opened.notes.is_empty();
                if *told && silent {
                    return Err(format!("cut after batch {batch}, and nothing says so"));
                }
                (self.cut_after(*batch), if silent { Verdict::CutSilently } else { Verdict::CutAndTold })
            }
            Answer::Whole | Answer::Refused => (self.whole.clone(), Verdict::Whole),
        };
        if !model.shown().is(&opened) {
            return Err(format!("found {:?}, not {model:?}", opened.recovered));
        }
        if number.is_multiple_of(WRITTEN_ON) {
            self.write_on(&disk, store, &model.shown(), number)?;
        }
        Ok(verdict)
    }

    /// What was not refused can be gone on with.
    fn write_on(&self, disk: &Disk, mut store: Store, found: &Model, number: u64) -> Result<(), String> {
        let mut model = found.reopened();
        for step in more(found, number / WRITTEN_ON) {
            store.run(&step).map_err(|error| format!("{step:?} fails: {error}"))?;
            model = model.after(&step);
        }
        let disk = Disk::on(disk.image().dropped());
        let (_, opened) = self.open(&disk).map_err(|unfit| format!("refused after it was written to: {unfit:?}"))?;
        let same = model.shown().is(&opened);
        if same { Ok(()) } else { Err(format!("written to, it holds {:?}, not {model:?}", opened.recovered)) }
    }

    /// What the log up to a batch amounts to beside everything that is not in the log.
    fn cut_after(&self, batch: u64) -> Model {
        let then = self.after_batch.range(..=batch).next_back().map(|(_, model)| model.clone()).unwrap_or_default();
        let Model { cluster, snapshot, promise, .. } = self.whole;
        Model { cluster, snapshot, promise, ..then }
    }

    /// Segment by segment as `docs/wal-format.md` has it; everything else is whole or refused.
    fn answer(&self, edits: &[Edit]) -> Answer {
        let mut answer = Answer::Whole;
        for (nth, bytes) in edits {
            let file = &self.files[*nth];
            let one = match &file.kind {
                Kind::Nothing => Answer::Whole,
                _ if *bytes == *file.bytes => Answer::Whole,
                Kind::Identity | Kind::Snapshot => Answer::Refused,
                Kind::Segment { segment, last } => self.answer_of_segment(file, segment, *last, bytes),
            };
            match one {
                Answer::Refused => return one,
                Answer::Cut { .. } => answer = one,
                Answer::Whole => {}
            }
        }
        answer
    }

    fn answer_of_segment(&self, file: &File, segment: &Segment, last: bool, bytes: &[u8]) -> Answer {
        let same = |range: Range<usize>| bytes.get(range.clone()).is_some_and(|there| *there == file.bytes[range]);
        if !same(0..HEADER_BYTES) {
            return Answer::Refused;
        }
        let is_good = |batch: &Batch| same(batch.start..batch.body_end) && bytes.len() >= batch.end;
        let Some(first) = segment.batches.iter().position(|batch| !is_good(batch)) else { return Answer::Whole };
        let torn = &segment.batches[first];
        let head = |start: usize| same(start..start + BATCH_HEADER_BYTES);
        if !last || segment.batches[first + 1..].iter().any(|batch| head(batch.start)) {
            return Answer::Refused;
        }
        let zeros = bytes.get(torn.start..).unwrap_or_default().iter().all(|byte| *byte == 0);
        let told = !zeros && (!segment.recycled || head(torn.start));
        let batch = torn.number - 1;
        let left = self.cut_after(batch);
        // A node that has belonged to a cluster has held something.
        let emptied = left.shown().snapshot.index == Index::ZERO && left.last().index == Index::ZERO;
        let known = left.cluster != ClusterId::UNKNOWN;
        if known && (batch == 0 || emptied) || self.start_of(batch) > left.base.index.0 {
            return Answer::Refused;
        }
        Answer::Cut { batch, told }
    }

    /// From where on the log is known if it ends with this batch: segments before that are gone since a base in a later batch.
    fn start_of(&self, batch: u64) -> u64 {
        let segments = || self.segments().map(|(.., segment)| segment);
        let batches = segments().flat_map(|segment| &segment.batches).filter(|b| b.number <= batch);
        let begun = segments().next().map_or(0, |first| first.prev);
        batches.filter_map(|b| b.least).fold(begun, |start, least| start.min(least - 1))
    }
}

/// What the file has held, a few versions from first to last.
fn older(lived: &[Lived], number: usize, now: &Arc<Vec<u8>>) -> Vec<Arc<Vec<u8>>> {
    let mut all: Vec<Arc<Vec<u8>>> = Vec::new();
    let images = lived.iter().flat_map(|step| &step.images).filter(|image| image.has(number));
    for bytes in images.map(|image| image.durable(number)) {
        if bytes != now && all.last() != Some(bytes) && !bytes.is_empty() {
            all.push(Arc::clone(bytes));
        }
    }
    let count = all.len();
    (0..count.min(OLDER_MAX)).map(|nth| Arc::clone(&all[nth * count / count.min(OLDER_MAX)])).collect()
}
