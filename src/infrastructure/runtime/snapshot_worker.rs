//! The thread that writes snapshots while commands go on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use graft_services::Event;
use graft_services::ports::{SnapshotFiles, WriteSnapshot};
use graft_services::snapshot_meta::SnapshotMeta;

use super::engine::Message;
use super::inbox::Inbox;
use super::machine_worker::panic_words;
use crate::infrastructure::store;

/// What a snapshot says of itself, and the function that puts down the machine's part of it.
pub(crate) struct WriteJob {
    pub(crate) meta: SnapshotMeta,
    pub(crate) write: WriteSnapshot,
}

/// What the thread has.
pub(crate) struct SnapshotWork {
    pub(crate) jobs: Receiver<WriteJob>,
    pub(crate) engine: Arc<Inbox>,
    /// The engine is gone: a snapshot that is being written is given up.
    pub(crate) dead: Arc<AtomicBool>,
    pub(crate) snapshots: Arc<dyn SnapshotFiles>,
    /// Held until nothing of this thread writes into the directory.
    pub(crate) lock: Arc<store::OsLock>,
}

/// Writes one snapshot after the other, until nobody can ask for another.
pub(crate) fn run_snapshots(work: &SnapshotWork) {
    let SnapshotWork { jobs, engine, dead, snapshots, lock: _lock } = work;
    while let Ok(WriteJob { meta, write }) = jobs.recv() {
        let last = meta.last;
        let dead = Arc::clone(dead);
        let guarded: WriteSnapshot = Box::new(move |file| write(&mut UntilDead { file, dead }));
        let written = catch_unwind(AssertUnwindSafe(|| snapshots.write(&meta, guarded)));
        let event = match written {
            Ok(Ok(bytes)) => Event::SnapshotWritten { last, bytes },
            Ok(Err(error)) => Event::SnapshotFailed { last, why: error.to_string() },
            Err(panic) => Event::SnapshotFailed { last, why: panic_words(&*panic) },
        };
        if engine.send(Message::Event(event)).is_err() {
            return;
        }
    }
}

/// A file that takes nothing more once the node has ended.
struct UntilDead<'a> {
    file: &'a mut dyn io::Write,
    dead: Arc<AtomicBool>,
}

impl io::Write for UntilDead<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(io::Error::other("the node has ended"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
