//! The log: appends, and coming back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Entry, EntryId, Incarnation, Index, Payload, Term, Write};
use graft_services::ports::{LogStore, Opened};
use graft_store::{Files, Founding, StoreConfig, Wal, open_in};

use crate::core::{membership, node};
use crate::{BODY_BYTES, Memory, SNAPSHOT_EVERY, Work, shared_bodies};

pub(crate) fn open<F: Files>(files: F, directory: &Path) -> (Wal<F>, Opened) {
    let founding =
        Founding { id: node(1), membership: membership(3), mint: Incarnation(1), promise: Duration::from_millis(300) };
    let (wal, _snapshots, opened) = open_in(files, directory, &founding, StoreConfig::default()).expect("it opens");
    (wal, opened)
}

fn entries(first: u64, bodies: Vec<Bytes>) -> Vec<Entry> {
    let entry = |(index, body)| Entry { index: Index(index), term: Term(1), payload: Payload::Command(body) };
    (first..).zip(bodies).map(entry).collect()
}

/// A write as a leader makes them: entries, and a commit index that has moved.
fn write(first: u64, count: usize) -> Write {
    Write {
        seq: first,
        term: Term(1),
        vote: None,
        entries: entries(first, shared_bodies(count)),
        commit: Index(first - 1),
    }
}

/// Makes a batch durable.
#[derive(Debug)]
pub struct Append<F: Files> {
    wal: Wal<F>,
    batch: usize,
    next: u64,
    snapshot: u64,
}

impl<F: Files> Append<F> {
    pub fn new(files: F, directory: &Path, batch: usize) -> Self {
        Self { wal: open(files, directory).0, batch, next: 1, snapshot: 0 }
    }
}

impl<F: Files> Work for Append<F> {
    type Input = Write;

    fn prepare(&mut self) -> Write {
        let write = write(self.next, self.batch);
        self.next += self.batch as u64;
        write
    }

    fn turn(&mut self, write: Write) {
        let last = write.seq + write.entries.len() as u64 - 1;
        self.wal.persist(&[write]).expect("the disk is good");
        if last >= self.snapshot + SNAPSHOT_EVERY {
            self.snapshot = last;
            self.wal.compact(EntryId { term: Term(1), index: Index(last) }).expect("the disk is good");
        }
    }
}

/// Opens a log of so many batches, from memory.
#[derive(Debug)]
pub struct Recovery {
    files: Memory,
    entries: usize,
}

impl Recovery {
    pub fn new(batches: usize, batch: usize) -> Self {
        let files = Memory::default();
        let mut wal = open(files.clone(), &directory()).0;
        for nth in 0..batches {
            wal.persist(&[write((nth * batch) as u64 + 1, batch)]).expect("the disk is good");
        }
        assert!(wal.bytes() > (batches * batch * BODY_BYTES) as u64);
        Self { files, entries: batches * batch }
    }
}

fn directory() -> PathBuf {
    PathBuf::from("data")
}

impl Work for Recovery {
    type Input = ();

    fn prepare(&mut self) {}

    fn turn(&mut self, (): ()) {
        let (_wal, opened) = open(self.files.clone(), &directory());
        assert_eq!(opened.recovered.entries.len(), self.entries, "all of it is there");
    }
}
