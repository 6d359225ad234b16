//! The driving port: what anybody may ask of a cluster, through a node in this process or over the network.
//!
//! Nothing here blocks. Answers go to callers, readers are told when there is more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{EntryId, Index};

use crate::change::{Ask, Change};
use crate::commands::Slot;
use crate::error::{Outcome, Refusal};
use crate::notice::Notice;
use crate::ports::Emitted;
use crate::replica::Read;
use crate::status::Status;
use crate::why::WhatIf;

/// Takes answers. It is called from the engine's threads and from those of whoever makes calls, whosever answer it is and before
/// the call has come back: it must not block, nor need a lock that is held where calls are made.
pub trait Sink: Send + Sync {
    /// The first answer to a token counts; another one may follow and must be ignored.
    fn complete(&self, token: u64, outcome: Outcome);

    /// As `complete`, but another answer follows at once: whoever waits need not be woken for this one.
    fn complete_amid(&self, token: u64, outcome: Outcome) {
        self.complete(token, outcome);
    }
}

/// Whom to answer, and which of its calls this is.
#[derive(Clone)]
pub struct Caller {
    pub sink: Arc<dyn Sink>,
    pub token: u64,
}

/// One command.
#[derive(Clone, Debug)]
pub struct Call {
    pub body: Bytes,
    /// Its place in a session of the caller's own; without, it is made in the session of whoever implements this.
    pub slot: Option<Slot>,
    pub caller: Caller,
}

/// Called, once or more often, when there may be more for a reader, or when it has ended. It must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Told once, from any thread, also within the call; as a [`Sink`] it must not block.
pub type Then<T> = Box<dyn FnOnce(Result<T, Refusal>) + Send>;

/// What a node says of itself, and what stands in the way of work there, in sentences.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    pub status: Status,
    pub why: Vec<String>,
}

/// Things that come one after the other, read at the reader's own pace. Dropping it is enough to stop.
pub trait Reader<T>: Send {
    /// What there is, at most `max`. Never blocks.
    fn take(&mut self, max: usize) -> Taken<T>;

    /// Whether all that is kept has been told: what `take` does not give is not there. One that reads from afar does not know
    /// before the other side has said so.
    fn is_current(&self) -> bool {
        true
    }
}

/// What a reader gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken<T> {
    pub items: Vec<T>,
    /// Nothing will follow, and why.
    pub ended: Option<Refusal>,
}

/// A place in what commands emit: behind the `number`-th thing that the command at `index` emitted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cursor {
    pub index: Index,
    /// `u32::MAX` for all of them.
    pub number: u32,
}

/// What a watcher gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    Emitted(Emitted),
    /// What was emitted up to and with this index is not kept any more, and some of it was not seen by this watcher.
    Behind {
        upto: Index,
    },
    /// Nothing was emitted up to and with this index but what was told before: where to go on after a pause.
    Upto(Index),
}

/// What to watch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watch {
    /// None for all of them.
    pub topics: Vec<String>,
    /// From behind this place on; from now on if none is given.
    pub since: Option<Cursor>,
}

/// One event of a node. Numbers begin at 1 and have no gaps but those that a reader fell behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    pub sequence: u64,
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    /// None: the node has stopped, and nothing follows.
    pub notice: Option<Notice>,
}

/// Bytes of the file of a node's newest snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotPart {
    /// The last entry that the snapshot covers; that before the first if there is none.
    pub last: EntryId,
    /// The bytes of the whole file; none if it is not the newest any more.
    pub total: Option<u64>,
    /// Where these bytes begin.
    pub offset: u64,
    /// None at its end.
    pub data: Bytes,
}

/// What anybody may ask.
pub trait Api: Send + Sync {
    /// Replicates commands; all that are given at once are proposed together, in this order.
    fn execute(&self, calls: Vec<Call>, timeout: Duration);

    /// Asks the machine.
    fn query(&self, queries: Vec<(Bytes, Caller)>, read: Read, timeout: Duration);

    /// Opens a session. The outcome's `index` is the session's id, and no place in the log. `ttl` is that of the cluster if none is given.
    fn open_session(&self, ttl: Option<Duration>, caller: Caller, timeout: Duration);

    /// Something that only the leader can do; answered with the index of the log from which on it is done.
    fn ask(&self, ask: Ask, caller: Caller, timeout: Duration);

    /// Takes a snapshot on this node; answered with the index that it covers. If it is to be `current`, that is every command
    /// that had returned to anybody before, which a majority has to confirm.
    fn snapshot(&self, current: bool, caller: Caller, timeout: Duration);

    /// Some bytes of the file of the snapshot that ends with this entry, from this offset on; of the newest one, from its
    /// beginning, if that is not here or none is named. It may read the disk: whoever calls it may have to wait.
    fn read_snapshot(&self, from: Option<(EntryId, u64)>, then: Then<SnapshotPart>);

    /// Compares the replicas' digests; answered with [`Outcome::Compared`].
    fn verify(&self, caller: Caller, timeout: Duration);

    /// What the node says of itself.
    fn view(&self, then: Then<View>);

    /// What the cluster would be after a change.
    fn what_if(&self, change: Change, then: Then<WhatIf>);

    /// What commands emit, in log order.
    fn watch(&self, watch: Watch, wake: Wake) -> Box<dyn Reader<News>>;

    /// What happens to the node, from the event after number `since` on; from now on if none is given.
    fn events(&self, since: Option<u64>, wake: Wake) -> Box<dyn Reader<Happening>>;

    /// Ends the node: hands leadership over, answers everyone, and takes it down.
    fn shutdown(&self, timeout: Duration);
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller({})", self.token)
    }
}
