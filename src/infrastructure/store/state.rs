//! What the log amounts to, record by record, and which record may follow. Writing and recovery ask the same value,
//! so nothing is written that recovery would refuse.

use std::fmt;

use graft_domain::{EntryId, Index, NodeId, Term};

use super::record::Base;

/// What a node must not forget beside its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct HardState {
    pub(super) term: Term,
    pub(super) vote: Option<NodeId>,
    /// A hint, never trusted beyond the log's end: there it says how far the log has to come before its node votes.
    pub(super) commit: Index,
}

impl HardState {
    /// The vote as text, empty without one, and its length.
    #[expect(clippy::cast_possible_truncation, reason = "a node's id has at most 63 bytes")]
    pub(super) fn vote_text(&self) -> (u8, &[u8]) {
        let text = self.vote.as_ref().map_or("", NodeId::as_str).as_bytes();
        (text.len() as u8, text)
    }
}

/// Term, vote, and the shape of the log: where it begins and ends and which term wrote which part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct LogState {
    pub(super) hard: HardState,
    /// The log begins after it; a snapshot covers it.
    pub(super) base: EntryId,
    /// Terms are known from here on. It is the base, except in the midst of a recovery whose first segment begins
    /// elsewhere; its term is zero if that is not known.
    pub(super) start: EntryId,
    pub(super) last: EntryId,
    /// Where each term's entries begin, in order; as many as there were leaders, not entries.
    runs: Vec<(Index, Term)>,
}

/// A record that cannot follow what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Misfit {
    TermBack { from: Term, to: Term },
    VoteChanged { term: Term },
    Gap { last: Index, index: Index },
    Covered { base: Index, index: Index },
    EntryTerm { entry: EntryId, least: Term, most: Term },
    Base { base: EntryId, last: EntryId },
}

impl LogState {
    /// The state at the start of a segment.
    pub(super) fn at(hard: HardState, base: EntryId, last: EntryId) -> Self {
        Self { hard, base, start: last, last, runs: Vec::new() }
    }

    /// Like `clone_from`, without a new allocation.
    pub(super) fn copy_from(&mut self, other: &Self) {
        (self.hard, self.base, self.start, self.last) = (other.hard, other.base, other.start, other.last);
        self.runs.clear();
        self.runs.extend_from_slice(&other.runs);
    }

    /// The term of the entry there, if it is known.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return (self.start.term > Term::ZERO || index == Index::ZERO).then_some(self.start.term);
        }
        if index < self.start.index || index > self.last.index {
            return None;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        self.runs.get(after.checked_sub(1)?).map(|(_, term)| *term)
    }

    /// Takes over a hard state. Terms do not go back, and within its term a vote is given once.
    pub(super) fn advance(&mut self, next: HardState) -> Result<(), Misfit> {
        if next.term < self.hard.term {
            return Err(Misfit::TermBack { from: self.hard.term, to: next.term });
        }
        if next.term == self.hard.term && self.hard.vote.is_some() && next.vote != self.hard.vote {
            return Err(Misfit::VoteChanged { term: next.term });
        }
        self.hard = next;
        Ok(())
    }

    /// Appends an entry. One that is not after the last replaces everything from its index on.
    pub(super) fn append(&mut self, entry: EntryId) -> Result<(), Misfit> {
        // Nearly all go on where the last one of their term is, and change nothing else.
        if entry.index == self.last.index.next()
            && entry.term == self.last.term
            && entry.term <= self.hard.term
            && entry.index > self.base.index
            && self.runs.last().is_some_and(|(_, term)| *term == entry.term)
        {
            self.last = entry;
            return Ok(());
        }
        if entry.index <= self.base.index {
            return Err(Misfit::Covered { base: self.base.index, index: entry.index });
        }
        if entry.index.prev() > self.last.index {
            return Err(Misfit::Gap { last: self.last.index, index: entry.index });
        }
        let least = self.term_at(entry.index.prev()).unwrap_or(Term::ZERO).max(Term(1));
        if entry.term < least || entry.term > self.hard.term {
            return Err(Misfit::EntryTerm { entry, least, most: self.hard.term });
        }
        if entry.index <= self.start.index {
            self.start = EntryId { term: Term::ZERO, index: entry.index.prev() };
        }
        if entry.index <= self.last.index {
            self.runs.truncate(self.runs.partition_point(|(first, _)| *first < entry.index));
        }
        if self.runs.last().is_none_or(|(_, term)| *term != entry.term) {
            self.runs.push((entry.index, entry.term));
        }
        self.last = entry;
        Ok(())
    }

    /// What compaction to `covered` amounts to: the entries after it stay if the log has that very entry.
    pub(super) fn base_for(&self, covered: EntryId) -> Base {
        Base { id: covered, reset: self.term_at(covered.index) != Some(covered.term) }
    }

    pub(super) fn rebase(&mut self, base: Base) -> Result<(), Misfit> {
        let misfit = Misfit::Base { base: base.id, last: self.last };
        if base.id.index <= self.base.index {
            return Err(misfit);
        }
        self.base = base.id;
        if base.reset {
            (self.start, self.last) = (base.id, base.id);
            self.runs.clear();
            return Ok(());
        }
        let agrees = self.term_at(base.id.index).is_none_or(|term| term == base.id.term);
        if base.id.index > self.last.index || !agrees {
            return Err(misfit);
        }
        if base.id.index >= self.start.index {
            self.start = base.id;
            let begun = self.runs.partition_point(|(first, _)| first.prev() <= base.id.index);
            self.runs.drain(..begun.saturating_sub(1));
        }
        Ok(())
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TermBack { from, to } => write!(f, "the term goes back from {from} to {to}"),
            Self::VoteChanged { term } => write!(f, "a second vote in term {term}"),
            Self::Gap { last, index } => write!(f, "entry {index} comes after entry {last}"),
            Self::Covered { base, index } => write!(f, "entry {index} comes again, though a snapshot covers {base}"),
            Self::EntryTerm { entry, least, most } => {
                write!(f, "entry {} has term {}, which is not in {least}..={most}", entry.index, entry.term)
            }
            Self::Base { base, last } => write!(f, "a snapshot covers {base} of a log that ends with {last}"),
        }
    }
}
