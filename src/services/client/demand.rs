//! What a client asks of a member, and what it hears.

use std::time::Duration;

use bytes::Bytes;
use graft_domain::EntryId;

use crate::api::{SnapshotPart, View};
use crate::change::{Ask, Change};
use crate::commands::Slot;
use crate::error::{Outcome, Refusal};
use crate::replica::{Consistency, Read};
use crate::why::WhatIf;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Demand {
    /// With a slot of the caller's own, or to be given one of the client's session.
    Execute {
        slot: Option<Slot>,
        body: Bytes,
    },
    Query {
        body: Bytes,
        read: Read,
    },
    OpenSession {
        ttl: Option<Duration>,
    },
    Ask(Ask),
    Snapshot {
        current: bool,
    },
    /// Bytes of a member's newest snapshot, and which.
    SnapshotPart(Option<(EntryId, u64)>),
    Verify,
    View,
    WhatIf(Change),
    /// Ends the member that hears it.
    Shutdown,
}

/// What is heard. Nothing but an outcome answers a demand that has one.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Outcome(Outcome),
    View(Box<View>),
    WhatIf(WhatIf),
    SnapshotPart(SnapshotPart),
    /// It may have been done: the member failed over it, or somebody in between.
    Unclear(String),
}

/// What it may cost to make a demand again while the fate of the first attempt is unclear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// Nothing: it changes nothing, or nothing that anybody sees.
    Free,
    /// Nothing, under the same slot.
    InSlot,
    /// It may be done twice.
    Never,
}

impl Demand {
    /// Bytes that it keeps in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Execute { body, .. } | Self::Query { body, .. } => body.len(),
            _ => 0,
        }
    }

    pub(super) fn repeat(&self) -> Repeat {
        match self {
            Self::Execute { .. } => Repeat::InSlot,
            // A session that nobody uses ends by itself, a snapshot and a comparison change nothing.
            Self::OpenSession { .. }
            | Self::Query { .. }
            | Self::View
            | Self::WhatIf(_)
            | Self::Snapshot { .. }
            | Self::SnapshotPart(_)
            | Self::Verify => Repeat::Free,
            Self::Ask(_) | Self::Shutdown => Repeat::Never,
        }
    }

    /// Whether its answer proves that the cluster works, and not merely the member.
    pub(super) fn is_of_the_cluster(&self) -> bool {
        match self {
            Self::Execute { .. } | Self::OpenSession { .. } | Self::Ask(_) | Self::Verify => true,
            Self::Query { read, .. } => !matches!(read.consistency, Consistency::Stale { .. }),
            Self::Snapshot { current } => *current,
            Self::SnapshotPart(_) | Self::View | Self::WhatIf(_) | Self::Shutdown => false,
        }
    }

    /// Whether it is about the member that hears it, and neither tells it anything of worth nor believes it anything.
    pub(super) fn is_of_the_member(&self) -> bool {
        matches!(self, Self::View | Self::WhatIf(_) | Self::Shutdown)
    }

    /// Whether this can be the answer to it.
    pub(super) fn fits(&self, answer: &Answer) -> bool {
        match answer {
            Answer::View(_) => *self == Self::View,
            Answer::WhatIf(_) => matches!(self, Self::WhatIf(_)),
            Answer::SnapshotPart(_) => matches!(self, Self::SnapshotPart(_)),
            Answer::Outcome(Outcome::Compared { .. }) => *self == Self::Verify,
            Answer::Outcome(Outcome::Done { .. }) => {
                !matches!(self, Self::View | Self::WhatIf(_) | Self::SnapshotPart(_) | Self::Verify)
            }
            Answer::Outcome(Outcome::Refused(_) | Outcome::Unknown { .. }) | Answer::Unclear(_) => true,
        }
    }
}

/// What a refusal says about making the call again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// Elsewhere, or here in a while: this member cannot do it now.
    Elsewhere,
    /// After a pause.
    Later,
    /// Not: it would be refused again.
    Never,
}

impl Again {
    pub(super) fn after(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NotLeader { .. }
            | Refusal::NoLeader
            | Refusal::Unreachable(_)
            | Refusal::Strange(_)
            | Refusal::NoQuorum { .. }
            | Refusal::Removed
            | Refusal::Stopped
            | Refusal::Halted(_) => Self::Elsewhere,
            Refusal::Busy(_) | Refusal::Timeout => Self::Later,
            Refusal::TooLarge { .. }
            | Refusal::Membership(_)
            | Refusal::Snapshot(_)
            | Refusal::SessionExpired
            | Refusal::Denied(_)
            | Refusal::Invalid(_) => Self::Never,
        }
    }
}
