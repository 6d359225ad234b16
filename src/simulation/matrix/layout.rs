//! Where things lie in a good segment: a reader of its own, made from `docs/wal-format.md` alone, which trusts what it reads.

use std::ops::Range;

pub(super) const HEADER_BYTES: usize = 4096;
pub(super) const BATCH_HEADER_BYTES: usize = 24;
const RECORD_HEAD_BYTES: usize = 24;
const RECYCLED: u8 = 1;
const ENTRY: u8 = 2;

/// One segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The file held another segment before.
    pub(super) recycled: bool,
    /// The number of its first batch, whether it has one or not.
    pub(super) first_batch: u64,
    /// The index of the last entry before it.
    pub(super) prev: u64,
    pub(super) batches: Vec<Batch>,
}

#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) start: usize,
    /// Where its records end; padding follows.
    pub(super) body_end: usize,
    pub(super) end: usize,
    pub(super) records: Vec<Range<usize>>,
    /// The least index of its entries.
    pub(super) least: Option<u64>,
}

fn number_at<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    let there = bytes.get(at..at + N).unwrap_or_default();
    number[..there.len()].copy_from_slice(there);
    u64::from_le_bytes(number)
}

fn size_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(number_at::<4>(bytes, at)).unwrap_or(usize::MAX)
}

impl Segment {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let first_batch = number_at::<8>(bytes, 32);
        let mut batches: Vec<Batch> = Vec::new();
        let mut start = HEADER_BYTES;
        while bytes.get(start..start + 4) == Some(b"GBAT") {
            let number = number_at::<8>(bytes, start + 8);
            if number != first_batch + batches.len() as u64 {
                break;
            }
            let body = start + BATCH_HEADER_BYTES;
            let body_end = body + size_at(bytes, start + 16);
            let (mut records, mut least) = (Vec::new(), None);
            let mut at = body;
            while at < body_end {
                let end = at + RECORD_HEAD_BYTES + size_at(bytes, at + 4);
                if bytes.get(at) == Some(&ENTRY) {
                    let index = number_at::<8>(bytes, at + 16);
                    least = Some(least.map_or(index, |least: u64| least.min(index)));
                }
                records.push(at..end);
                at = end;
            }
            let end = body_end.next_multiple_of(8);
            batches.push(Batch { number, start, body_end, end, records, least });
            start = end;
        }
        let recycled = bytes.get(92).is_some_and(|flags| flags & RECYCLED != 0);
        Self { recycled, first_batch, prev: number_at::<8>(bytes, 48), batches }
    }

    /// The number of its last batch, or of that before its first.
    pub(super) fn last_batch(&self) -> u64 {
        self.first_batch + self.batches.len() as u64 - 1
    }
}
