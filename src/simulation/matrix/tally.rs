//! What was tried, and what the store answered.

use std::collections::BTreeMap;

/// The answer to one case, all of which are right ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// Exactly what was acknowledged.
    Whole,
    /// That, and the step that was under way and had not been acknowledged.
    Later,
    /// A prefix that lacks what was acknowledged, with a note that says so: the end of the last segment is gone, which
    /// nothing tells from a crash. Only after damage.
    CutAndTold,
    /// The same without a note, for zeros follow, or what the file held in an earlier life.
    CutSilently,
    /// An explicit refusal. After a crash alone only of a restore or a recovery that was not finished.
    Refused,
}

pub const VERDICTS: [(Verdict, &str); 5] = [
    (Verdict::Whole, "whole"),
    (Verdict::Later, "and later"),
    (Verdict::CutAndTold, "cut, told"),
    (Verdict::CutSilently, "cut"),
    (Verdict::Refused, "refused"),
];

/// Cases by kind and verdict.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    counts: BTreeMap<(&'static str, &'static str), BTreeMap<Verdict, u64>>,
    /// In how many cases of a kind something does not hold, and what in one of them.
    broken: BTreeMap<(&'static str, &'static str), (u64, String)>,
}

impl Tally {
    /// `part` of the matrix, `kind` of case.
    pub(super) fn count(&mut self, part: &'static str, kind: &'static str, result: Result<Verdict, String>) {
        match result {
            Ok(verdict) => *self.counts.entry((part, kind)).or_default().entry(verdict).or_default() += 1,
            Err(what) => self.broken.entry((part, kind)).or_insert((0, what)).0 += 1,
        }
    }

    pub fn add(&mut self, other: Self) {
        for (kind, verdicts) in other.counts {
            let mine = self.counts.entry(kind).or_default();
            for (verdict, count) in verdicts {
                *mine.entry(verdict).or_default() += count;
            }
        }
        for (kind, (count, what)) in other.broken {
            self.broken.entry(kind).or_insert((0, what)).0 += count;
        }
    }

    pub fn cases(&self) -> u64 {
        self.counts.values().flat_map(BTreeMap::values).sum::<u64>() + self.broken()
    }

    /// Cases in which something does not hold.
    pub fn broken(&self) -> u64 {
        self.broken.values().map(|(count, _)| count).sum()
    }

    /// Each kind of them, how many, and one.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.broken.iter().map(|((part, kind), (count, what))| format!("{part}, {kind}, in {count} cases: {what}"))
    }

    pub fn of(&self, verdict: Verdict) -> u64 {
        self.counts.values().filter_map(|verdicts| verdicts.get(&verdict)).sum()
    }

    /// Part, kind, and the count of each verdict in the order of [`VERDICTS`].
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, [u64; 5])> {
        self.counts.iter().map(|((part, kind), verdicts)| {
            (*part, *kind, VERDICTS.map(|(verdict, _)| verdicts.get(&verdict).copied().unwrap_or_default()))
        })
    }
}

/// Which of the cases are tried: every so many, beginning with one.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub first: u64,
    pub every: u64,
}

/// Counts cases, and says whose turn it is.
#[derive(Debug)]
pub(super) struct Turns {
    share: Share,
    next: u64,
}

impl Turns {
    pub(super) fn new(share: Share) -> Self {
        Self { share, next: 0 }
    }

    /// The number of the next case, if it is to be tried.
    pub(super) fn take(&mut self) -> Option<u64> {
        let number = self.next;
        self.next += 1;
        (number % self.share.every == self.share.first).then_some(number)
    }
}
