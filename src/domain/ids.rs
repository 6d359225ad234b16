//! The names and numbers everything else is said in.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Add;
use core::time::Duration;

/// A member's name, chosen by the user and never re-used: 1 to 63 bytes of visible ASCII.
///
/// It is kept in place, so that it copies like a number and orders like text.
#[derive(Clone, Copy)]
pub struct NodeId([u8; NodeId::BYTES_MAX + 1]);

/// Why a text is not a [`NodeId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadNodeId {
    Empty,
    TooLong,
    /// Holds a byte that is not a letter, a digit or one of `-_.:`.
    BadByte(u8),
}

impl NodeId {
    /// As long as a DNS label may be.
    pub const BYTES_MAX: usize = 63;
    /// Bytes that are compared at once.
    const HEAD: usize = 8;

    pub fn new(text: &str) -> Result<Self, BadNodeId> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(BadNodeId::Empty);
        }
        if bytes.len() > Self::BYTES_MAX {
            return Err(BadNodeId::TooLong);
        }
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
        if let Some(bad) = bytes.iter().find(|b| !allowed(b)) {
            return Err(BadNodeId::BadByte(*bad));
        }
        let mut id = [0; Self::BYTES_MAX + 1];
        id[..bytes.len()].copy_from_slice(bytes);
        Ok(Self(id))
    }

    fn head(&self) -> u64 {
        let mut head = [0; Self::HEAD];
        head.copy_from_slice(&self.0[..Self::HEAD]);
        u64::from_be_bytes(head)
    }

    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(Self::BYTES_MAX);
        // Only ASCII gets past `new`, so the fallback is never taken.
        core::str::from_utf8(&self.0[..end]).unwrap_or("")
    }
}

/// As the bytes compare. Ids are looked up with every message, and mostly they are short: what comes first decides nearly
/// always, and what begins equally and ends within that is equal, since zeros are all that follows.
impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (self.head(), other.head());
        if one != two {
            return one.cmp(&two);
        }
        let is_all = self.0[NodeId::HEAD - 1] == 0;
        if is_all { Ordering::Equal } else { self.0[NodeId::HEAD..].cmp(&other.0[NodeId::HEAD..]) }
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for NodeId {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for NodeId {}

impl Hash for NodeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for BadNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an id must not be empty"),
            Self::TooLong => write!(f, "an id has at most {} characters", NodeId::BYTES_MAX),
            Self::BadByte(b) => {
                write!(f, "an id holds letters, digits and -_.: only, not {:?}", char::from(*b))
            }
        }
    }
}

impl core::error::Error for BadNodeId {}

/// A term of office (thesis §3.3): at most one leader each, never going back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

impl Term {
    pub const ZERO: Self = Self(0);
    /// No term comes after it. Only a message that lies can lead there.
    pub const LAST: Self = Self(u64::MAX);

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A place in the log. The first entry is at 1; 0 is the place before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Index(pub u64);

impl Index {
    pub const ZERO: Self = Self(0);
    /// No log that is honestly written comes so far. Who is made to believe it has, does not lead.
    pub const LAST: Self = Self(u64::MAX / 2);

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The place before; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Which entry: a place and the term that wrote it. Orders as logs do in an election (thesis §3.6.1): by term, then by index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    pub term: Term,
    pub index: Index,
}

impl EntryId {
    pub const ZERO: Self = Self { term: Term::ZERO, index: Index::ZERO };

    pub const fn new(term: u64, index: u64) -> Self {
        Self { term: Term(term), index: Index(index) }
    }
}

/// Which cluster: minted by its first leader, 0 until then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// The cluster that has not had a leader yet.
    pub const UNKNOWN: Self = Self(0);
}

/// Which life of a data directory: minted when the directory is made, so that a wiped disk is not taken for the old one. 0 is unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

impl Incarnation {
    pub const UNKNOWN: Self = Self(0);
}

/// Names a read on the node that asked for it. Never used twice, not even after a restart: an answer to the first may still
/// be on its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReadId(pub u64);

/// Monotonic time in nanoseconds since an origin of the caller's choice. The core is told the time, it never asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Later than everything: no deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// The same instant on a clock that shows `to` when this one shows `now`. What is before its origin is at it.
    pub(crate) const fn moved(self, now: Self, to: Self) -> Self {
        if self.0 == Self::NEVER.0 { self } else { Self(self.0.saturating_add(to.0).saturating_sub(now.0)) }
    }

    /// How long ago `earlier` was; zero if it is ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

macro_rules! shown_as_number {
    ($($name:ident $format:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    )*};
}
shown_as_number!(Term "{}", Index "{}", ClusterId "{:032x}", Incarnation "{:016x}", ReadId "{}", Instant "{}ns");

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.term, self.index)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.term, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_compare_as_their_texts_do() {
        let texts = ["a", "n1", "n10", "n2", "abcdefg", "abcdefgh", "abcdefghi", "abcdefgha", "abcdefgi", "abcdefg1"];
        for (one, other) in texts.iter().flat_map(|one| texts.iter().map(move |other| (*one, *other))) {
            let ids = [one, other].map(|text| NodeId::new(text).expect("a good id"));
            assert_eq!(ids[0].cmp(&ids[1]), one.cmp(other), "{one} and {other}");
            assert_eq!(ids[0] == ids[1], one == other, "{one} and {other}");
        }
    }
}
