//! What the use-cases need of the world, as traits and plain values. Adapters implement them; nothing here does IO.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{ClusterId, EntryId, Envelope, Incarnation, Index, NodeId, Recovered, Term, Write};

use crate::change::Ask;
use crate::commands::Act;
use crate::error::Refusal;
use crate::snapshot_meta::SnapshotMeta;

/// The durable log: one ordered stream of writes.
///
/// Whoever opens a store gets a [`Recovered`] with it. All methods block.
pub trait LogStore: Send {
    /// Makes the writes durable, in order, with one sync for all of them. After an error other than
    /// [`StoreError::Full`] the store is poisoned: every later call fails until it is opened anew.
    /// After `Full` nothing was written, and the same writes may be tried again.
    fn persist(&mut self, writes: &[Write]) -> Result<(), StoreError>;

    /// Forgets entries that a durable snapshot covers, as far as whole segments allow.
    fn compact(&mut self, covered: EntryId) -> Result<(), StoreError>;

    /// Bytes of log on disk.
    fn bytes(&self) -> u64;
}

/// Why a store could not do as told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// No space is left. Nothing was written; it can be tried again.
    Full { path: String },
    /// Another process, of this pid if it could be read, has the directory open.
    Locked { path: String, pid: Option<u32> },
    /// Bytes that were durable have changed. Nothing was cut.
    Corrupt { file: String, offset: u64, what: String },
    /// The directory belongs to another node.
    WrongNode { path: String, found: NodeId, expected: NodeId },
    /// Written by a newer version of this program.
    NewerFormat { file: String, found: u32, known: u32 },
    /// The operating system said no; after this nothing more is written until the store is opened again.
    Io { path: String, what: String },
    /// An earlier failure poisoned the store.
    Poisoned,
}

/// What a data directory says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub id: NodeId,
    pub incarnation: Incarnation,
    /// Unknown until a first leader's first entry is committed.
    pub cluster: ClusterId,
    /// For how long its runs promise a leader to vote for nobody else: the longest that may bind it still.
    pub promise: Duration,
}

/// What opening a store gives besides the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    pub identity: Identity,
    /// Entries that the newest snapshot covers are not among it.
    pub recovered: Recovered,
    /// The newest snapshot, if there is any.
    pub snapshot: Option<SnapshotMeta>,
    /// What recovery did that an operator should know, in words: a torn tail that was cut, say.
    pub notes: Vec<String>,
}

/// The snapshots of one data directory, as files. Any thread may call it; all methods block.
///
/// A snapshot is a file whose bytes are the same on every member that has it: it travels as it is. It is either there,
/// whole and durable, or not there.
pub trait SnapshotFiles: fmt::Debug + Send + Sync {
    /// The newest snapshot and how many bytes its file has.
    fn newest(&self) -> Option<(EntryId, u64)>;

    /// Writes a snapshot: `write` puts down the machine's bytes. When this returns `Ok` the file is durable, was read back
    /// and found good, and older ones are gone. Answers the bytes of the file. After an error nothing of it is left.
    fn write(&self, meta: &SnapshotMeta, write: WriteSnapshot) -> Result<u64, SnapshotError>;

    /// Gives the machine's bytes of a snapshot; reading verifies them, and bytes that are not the ones that were written are
    /// an error of the kind [`io::ErrorKind::InvalidData`], never data.
    fn read(&self, last: EntryId) -> Result<(SnapshotMeta, Box<dyn io::Read + Send>), StoreError>;

    /// The file's bytes from `offset` on, to send them: as many as fit into `into`, 0 only at its end. A file that is no
    /// longer the newest may be gone.
    fn send(&self, last: EntryId, offset: u64, into: &mut [u8]) -> Result<usize, StoreError>;

    /// Begins to take in a file of `length` bytes, or goes on with one that was begun in this run: answers from where.
    /// There is one at a time; whatever was taken in of another is dropped.
    fn begin(&self, last: EntryId, length: u64) -> Result<u64, StoreError>;

    /// Takes in the next bytes of the file that was begun. Bytes of another file, or not at the place where it ends, are an error.
    fn take(&self, last: EntryId, offset: u64, bytes: &[u8]) -> Result<(), StoreError>;

    /// All of it is here: verifies it and puts it in its place, durably. Of a damaged one nothing is left.
    fn accept(&self, last: EntryId) -> Result<SnapshotMeta, StoreError>;
}

/// Puts down the machine's bytes, from any thread, once, while commands go on. The text says why it could not.
pub type WriteSnapshot = Box<dyn FnOnce(&mut dyn io::Write) -> Result<(), String> + Send>;

/// Why there is no new snapshot. The ones before are untouched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotError {
    /// The machine's code raised.
    Machine(String),
    Store(StoreError),
}

/// The user's state machine, as its thread drives it.
pub trait Machine: Send {
    /// Wraps the whole life of the machine's thread, so that what is costly to enter is entered once: an interpreter, say.
    fn stay(&self) -> fn(&mut (dyn FnMut() + Send)) {
        |body| body()
    }

    /// Called once before anything else. Answers the last index that the machine has on its own disk, 0 without one.
    fn open(&mut self, directory: &str) -> Result<Index, Halt>;

    /// Applies commands in log order and pushes one reply for each, and what they emit. On `Err` the replies pushed so far
    /// count, and the machine is never called again.
    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt>;

    /// The state as it is now, to be written by another thread while commands go on. The text says why there is none; the
    /// machine goes on all the same.
    fn snapshot(&mut self) -> Result<WriteSnapshot, String>;

    /// Makes the state what a snapshot says. After an error the machine is never called again.
    fn restore(&mut self, file: Box<dyn io::Read + Send>) -> Result<(), String>;

    /// Answers questions about the state as it is; one reply for each.
    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>);

    /// A few bytes that are equal on two replicas exactly if their states are. The text says why there are none.
    fn digest(&mut self) -> Result<Bytes, String>;

    /// What checks calls that come from outside before they are replicated; none if the machine takes any bytes.
    fn door(&self) -> Option<Arc<dyn Door>> {
        None
    }
}

/// Checks calls that come over the network, from programs of any age and in any language: what the log holds and a machine
/// cannot read would halt every replica.
pub trait Door: fmt::Debug + Send + Sync {
    /// Wraps the whole life of the door's thread, as [`Machine::stay`] does that of the machine's.
    fn stay(&self) -> fn(&mut (dyn FnMut() + Send)) {
        |body| body()
    }

    /// For each of the calls why it would not do, if so. May block on the interpreter, say, but on nothing else.
    fn check(&self, kind: Called, bodies: &[Bytes]) -> Vec<Option<String>>;
}

/// What kind of call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Called {
    Command,
    Query,
}

/// What came of applying commands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Made {
    /// One for each command, in order.
    pub replies: Vec<Reply>,
    /// In order.
    pub emitted: Vec<Emitted>,
}

/// Something that a command told the world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emitted {
    /// Of the command that emitted it.
    pub index: Index,
    /// Which of the things that this command emitted, from 0.
    pub number: u32,
    pub topic: String,
    pub value: Bytes,
}

/// One command as the machine sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    pub index: Index,
    pub term: Term,
    /// Nanoseconds since the Unix epoch, stamped by the leader; never goes back along the log.
    pub time: u64,
    /// It shares memory with what stands beside it in the log: copy what is to be kept for long.
    pub body: Bytes,
}

/// What a command or a query answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Value(Bytes),
    /// The user's code raised; for a command that is its answer, the same on every replica.
    Raised(Box<Raised>),
}

/// An exception of the user's code, in words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Raised {
    pub type_name: String,
    pub message: String,
    pub traceback: String,
}

/// This replica's machine cannot go on. The entry is not skipped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Halt {
    pub index: Index,
    pub why: String,
}

/// What members say to one another: the core's messages, and commands on their way to the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMessage {
    Raft(Envelope),
    /// "You lead in this term: please propose this in it." Applied, it is recognised by its ticket on the member it came from.
    Forward {
        from: NodeId,
        term: Term,
        ticket: Ticket,
        act: Act,
    },
    /// "I did not propose it, and never will."
    Refused {
        to: NodeId,
        ticket: Ticket,
        refusal: Refusal,
    },
    /// "You lead: please change the cluster so." It may be said again; a leader that did it already says so.
    Ask {
        from: NodeId,
        ticket: Ticket,
        ask: Ask,
    },
    /// What the leader says to an [`PeerMessage::Ask`]: from which index of the log on the change is under way (or done),
    /// or why not.
    Answered {
        to: NodeId,
        ticket: Ticket,
        answer: Result<Index, Refusal>,
    },
    /// "These are the members that I am connected to, and this is why I do not work", if so.
    Links {
        from: NodeId,
        connected: Vec<NodeId>,
        failure: Option<String>,
    },
    /// "This is the digest of my state as of that entry, which you asked for in the log", or why there is none.
    Digest {
        from: NodeId,
        to: NodeId,
        index: Index,
        digest: Result<Bytes, String>,
    },
}

/// Names one handing-over of a call for ever: which session, and the how-manieth of it. A call that a leader did not take
/// goes to the next one under another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ticket {
    pub session: u64,
    pub sequence: u64,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { path } => write!(f, "no space left for {path}"),
            Self::Locked { path, pid: Some(pid) } => write!(f, "{path} is in use by process {pid}"),
            Self::Locked { path, pid: None } => write!(f, "{path} is in use by another process"),
            Self::Corrupt { file, offset, what } => write!(f, "{file} is damaged at byte {offset}: {what}"),
            Self::WrongNode { path, found, expected } => {
                write!(f, "{path} belongs to node {found:?}, not to {expected:?}")
            }
            Self::NewerFormat { file, found, known } => {
                write!(f, "{file} has format version {found}; this program knows up to {known}")
            }
            Self::Io { path, what } => write!(f, "{path}: {what}"),
            Self::Poisoned => f.write_str("the log store failed earlier and accepts nothing until it is reopened"),
        }
    }
}

impl std::error::Error for StoreError {}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(why) => f.write_str(why),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SnapshotError {}
