//! Reads the log back, changing nothing. What a crash may have left is told from what it may not.
//!
//! A batch is written only after the one before it is durable. So in the last segment a bad batch with no later one
//! behind it is the torn tail of a write that nobody was told of; it may be whole in part, or in any of its sectors,
//! and is dropped as a whole. A later batch behind a bad one, or a segment that does not go on where the one before
//! it ended, proves that durable bytes have changed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use graft_domain::{Entry, Incarnation, Index};
use graft_services::ports::StoreError;

use super::batch::{self, ALIGNMENT, BatchHeader, Place};
use super::errors::{corrupt, io_error};
use super::files::{Files, StoreFile};
use super::reader::{Reader, Windows};
use super::record::{self, Record};
use super::segment::{self, SegmentHeader};
use super::segments::Sealed;
use super::state::{LogState, Misfit};

/// What the segments amount to.
#[derive(Debug)]
pub(super) struct Replayed<F> {
    pub(super) state: LogState,
    /// Everything after the base.
    pub(super) entries: VecDeque<Entry>,
    /// The number of the last batch, and its checksum.
    pub(super) batch: u64,
    pub(super) link: u32,
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) last: LastSegment<F>,
}

/// The segment that the log goes on in.
#[derive(Debug)]
pub(super) struct LastSegment<F> {
    pub(super) header: SegmentHeader,
    pub(super) seed: u32,
    pub(super) file: F,
    pub(super) path: PathBuf,
    /// Where its last batch ends.
    pub(super) end: u64,
    pub(super) length: u64,
    pub(super) greatest: Index,
    /// Its last batch, and where that begins.
    pub(super) last_batch: Option<(u64, Bytes)>,
    pub(super) tail: Tail,
}

/// What follows the last batch of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tail {
    /// Nothing, or zeros written ahead.
    Clean,
    /// Bytes of a write that was not finished.
    Torn,
    /// Bytes that the file held in an earlier life, in which those of a torn write cannot be told apart.
    Stale,
}

/// A segment, opened and its header read.
#[derive(Debug)]
struct Opened<F> {
    header: SegmentHeader,
    seed: u32,
    file: F,
    path: PathBuf,
}

/// Replays these segments, which are consecutive and at least one.
pub(super) fn replay<F: Files>(
    files: &F,
    directory: &Path,
    numbers: &[u64],
    incarnation: Option<Incarnation>,
) -> Result<Replayed<F::File>, StoreError> {
    let mut opened = numbers.iter().map(|number| open_segment(files, directory, *number, incarnation));
    let mut current = match opened.next() {
        Some(first) => first?,
        None => return Err(corrupt(directory, 0, "it has an identity but no log")),
    };
    let first_path = current.path.clone();
    let mut replay = Replay::at(&current.header);
    let (mut sealed, windows) = (VecDeque::new(), Windows::of(files, numbers.len()));
    for next in opened {
        let next = next?;
        let (bytes, greatest) = replay.full_segment(&current, &next, &windows)?;
        let length = current.file.length().map_err(|e| io_error(&current.path, &e))?;
        sealed.push_back(Sealed { number: current.header.number, bytes, length, greatest });
        current = next;
    }
    let last = replay.last_segment(current, &windows)?;
    if replay.state.base.index < replay.state.start.index {
        let what = format!(
            "the log begins after entry {} but is needed from entry {}: a segment is missing",
            replay.state.start.index,
            replay.state.base.index.next()
        );
        return Err(corrupt(&first_path, 0, what));
    }
    let Replay { state, entries, batch, link } = replay;
    Ok(Replayed { state, entries, batch, link, sealed, last })
}

fn open_segment<F: Files>(
    files: &F,
    directory: &Path,
    number: u64,
    incarnation: Option<Incarnation>,
) -> Result<Opened<F::File>, StoreError> {
    let path = directory.join(segment::name(number));
    let file = files.open(&path).map_err(|e| io_error(&path, &e))?;
    let (header, seed) = SegmentHeader::read(&file, &path)?;
    if header.number != number {
        return Err(corrupt(&path, 0, format!("it is segment {} under another name", header.number)));
    }
    if incarnation.is_some_and(|expected| expected != header.incarnation) {
        return Err(corrupt(&path, 0, format!("it comes from another directory, incarnation {}", header.incarnation)));
    }
    Ok(Opened { header, seed, file, path })
}

/// The log so far.
#[derive(Debug)]
struct Replay {
    state: LogState,
    entries: VecDeque<Entry>,
    batch: u64,
    link: u32,
}

/// One step through a segment.
enum Step {
    Batch(BatchHeader, Bytes),
    /// No good batch is here.
    Nothing,
}

impl Replay {
    fn at(header: &SegmentHeader) -> Self {
        let state = LogState::at(header.hard, header.base, header.prev);
        Self { state, entries: VecDeque::new(), batch: header.first_batch - 1, link: header.link }
    }

    /// Replays a segment up to where the next one says that it goes on. Answers where that is, and the greatest index.
    fn full_segment<F: StoreFile>(
        &mut self,
        segment: &Opened<F>,
        next: &Opened<F>,
        windows: &Windows,
    ) -> Result<(u64, Index), StoreError> {
        let (path, last_batch) = (&segment.path, next.header.first_batch - 1);
        let mut reader =
            Reader::new(&segment.file, segment::HEADER_BYTES as u64, windows).map_err(|e| io_error(path, &e))?;
        let mut greatest = Index::ZERO;
        while self.batch < last_batch {
            let offset = reader.position();
            match self.step(&mut reader, segment.seed, path)? {
                Step::Batch(header, whole) => self.apply(&header, &whole, offset, path, &mut greatest)?,
                Step::Nothing => {
                    let what = format!(
                        "batch {} is damaged, and {} goes on after batch {last_batch}",
                        self.batch.saturating_add(1),
                        next.path.display()
                    );
                    return Err(corrupt(path, offset, what));
                }
            }
        }
        self.check_follows(next)?;
        Ok((reader.position(), greatest))
    }

    /// Replays the segment that the log ends in.
    fn last_segment<F: StoreFile>(
        &mut self,
        segment: Opened<F>,
        windows: &Windows,
    ) -> Result<LastSegment<F>, StoreError> {
        let Opened { header, seed, file, path } = segment;
        let mut reader = Reader::new(&file, segment::HEADER_BYTES as u64, windows).map_err(|e| io_error(&path, &e))?;
        let (mut greatest, mut last_batch) = (Index::ZERO, None);
        while let Step::Batch(header, whole) = self.step(&mut reader, seed, &path)? {
            let offset = reader.position() - whole.len() as u64;
            self.apply(&header, &whole, offset, &path, &mut greatest)?;
            last_batch = Some((offset, whole));
        }
        let end = reader.position();
        let tail = self.tail(&mut reader, seed, &path, header.recycled)?;
        let length = file.length().map_err(|e| io_error(&path, &e))?;
        Ok(LastSegment { header, seed, file, path, end, length, greatest, last_batch, tail })
    }

    /// Takes the next batch if it is whole. One of an unexpected number is damage whatever follows it.
    fn step<F: StoreFile>(&self, reader: &mut Reader<'_, F>, seed: u32, path: &Path) -> Result<Step, StoreError> {
        let place = Place { seed, offset: reader.position() };
        let ahead = reader.ahead(batch::HEADER_BYTES as u64).map_err(|e| io_error(path, &e))?;
        let Some(header) = BatchHeader::read(ahead, place) else { return Ok(Step::Nothing) };
        let expected = self.batch.saturating_add(1);
        if header.number == batch::CONTINUED {
            return Err(corrupt(path, place.offset, "the log goes on in the next segment, which is missing"));
        }
        if header.number != expected {
            let what = format!("batch {} is where batch {expected} should be", header.number);
            return Err(corrupt(path, place.offset, what));
        }
        if header.total_bytes() > reader.remaining() {
            return Ok(Step::Nothing);
        }
        let ahead = reader.ahead(header.total_bytes()).map_err(|e| io_error(path, &e))?;
        if !header.vouches_for(&ahead[header.body()], place) {
            return Ok(Step::Nothing);
        }
        let whole = header.body().end.next_multiple_of(ALIGNMENT);
        Ok(Step::Batch(header, reader.take(whole)))
    }

    fn apply(
        &mut self,
        header: &BatchHeader,
        whole: &Bytes,
        offset: u64,
        path: &Path,
        greatest: &mut Index,
    ) -> Result<(), StoreError> {
        let (body, mut at) = (whole.slice(header.body()), 0);
        let wrong = |what: &dyn std::fmt::Display| {
            corrupt(path, offset, format!("batch {} holds what was never written: {what}", header.number))
        };
        while let Some(record) = record::take(&body, &mut at).map_err(|bad| wrong(&bad))? {
            if let Record::Entry(entry) = &record {
                *greatest = (*greatest).max(entry.index);
            }
            self.apply_record(record).map_err(|misfit| wrong(&misfit))?;
        }
        (self.batch, self.link) = (header.number, header.crc);
        Ok(())
    }

    fn apply_record(&mut self, record: Record) -> Result<(), Misfit> {
        match record {
            Record::HardState(hard) => self.state.advance(hard),
            Record::Entry(entry) => {
                self.state.append(entry.id())?;
                while self.entries.back().is_some_and(|last| last.index >= entry.index) {
                    self.entries.pop_back();
                }
                self.entries.push_back(entry);
                Ok(())
            }
            Record::Base(base) => {
                self.state.rebase(base)?;
                while self.entries.front().is_some_and(|first| base.reset || first.index <= base.id.index) {
                    self.entries.pop_front();
                }
                Ok(())
            }
        }
    }

    /// Whether the next segment begins with what this one ended with.
    fn check_follows<F>(&self, next: &Opened<F>) -> Result<(), StoreError> {
        let header = &next.header;
        let same = header.first_batch - 1 == self.batch
            && header.link == self.link
            && header.prev == self.state.last
            && header.base == self.state.base
            && header.hard == self.state.hard;
        if same {
            return Ok(());
        }
        let what = format!("it does not go on where the segment before it ends, with batch {}", self.batch);
        Err(corrupt(&next.path, 0, what))
    }

    /// Judges what follows the last good batch, to the end of the file.
    fn tail<F: StoreFile>(
        &self,
        reader: &mut Reader<'_, F>,
        seed: u32,
        path: &Path,
        recycled: bool,
    ) -> Result<Tail, StoreError> {
        let (end, torn) = (reader.position(), self.batch.saturating_add(1));
        let first = reader.ahead(batch::HEADER_BYTES as u64).map_err(|e| io_error(path, &e))?;
        let begun = BatchHeader::read(first, Place { seed, offset: end }).is_some();
        let mut zeros = true;
        while reader.remaining() > 0 {
            let offset = reader.position();
            let window = reader.window().map_err(|e| io_error(path, &e))?;
            let zero = is_zero(&window);
            zeros = zeros && zero;
            let later = if zero { None } else { later_batch(&window, Place { seed, offset }, torn) };
            if let Some((at, later)) = later {
                let what = format!("batch {torn} is damaged, and had been durable before batch {later}, at byte {at}");
                return Err(corrupt(path, end, what));
            }
            // A header that begins in this window may end in the next one.
            let whole = window.len() as u64 == reader.remaining();
            let overlap = if whole { 0 } else { batch::HEADER_BYTES };
            reader.take((window.len() - overlap).next_multiple_of(ALIGNMENT).min(window.len()));
        }
        Ok(match (zeros, recycled && !begun) {
            (true, _) => Tail::Clean,
            (false, true) => Tail::Stale,
            (false, false) => Tail::Torn,
        })
    }
}

/// The first header in `window` of a batch after number `torn`, and its number.
fn later_batch(window: &[u8], start: Place, torn: u64) -> Option<(u64, u64)> {
    let last = window.len().checked_sub(batch::HEADER_BYTES)?;
    (0..=last).step_by(ALIGNMENT).find_map(|at| {
        let place = Place { seed: start.seed, offset: start.offset + at as u64 };
        let header = BatchHeader::read(&window[at..], place).filter(|h| h.number > torn)?;
        Some((place.offset, header.number))
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    // In blocks, which compile to wide comparisons.
    bytes.chunks(64).all(|block| block.iter().fold(0, |sum, byte| sum | byte) == 0)
}
