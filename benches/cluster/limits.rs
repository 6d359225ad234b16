//! What nothing can be faster than: a file that is written and synced in a loop, and an answer over a stream of gRPC.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedSender;

use super::Subject;
use super::bare::connect;
use super::disk::{self, Disk};
use super::load::{Counts, Kind, Load, Sample};
use super::processes::Process;
use super::times::Times;

/// Writes and syncs as many commands at a time as may be in flight.
pub(crate) struct Wal(Disk);

impl Wal {
    pub(crate) fn new(directory: &Path) -> Self {
        Self(Disk::new(directory))
    }
}

impl Subject for Wal {
    fn name(&self) -> String {
        "write and sync".to_owned()
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Command]
    }

    fn is_limit(&self) -> bool {
        true
    }

    fn run(&mut self, load: Load) -> Sample {
        let pieces = vec![Bytes::from(vec![7; load.bytes]); load.depth];
        let (start, mut times) = (Instant::now(), Times::new());
        while times.count() == 0 || start.elapsed() < load.time {
            let begun = Instant::now();
            self.0.append(&pieces);
            let took = begun.elapsed();
            for _ in &pieces {
                times.add(took);
            }
        }
        Sample::of(&times, start.elapsed())
    }

    fn processes(&self) -> Vec<u32> {
        vec![std::process::id()]
    }

    fn counts(&mut self) -> Option<Counts> {
        Some(disk::counts())
    }
}

/// Sends so many messages over one stream to another process, and each again when it comes back.
pub(crate) struct Echo {
    sender: UnboundedSender<Bytes>,
    told: Receiver<Bytes>,
    server: Process,
    _runtime: Runtime,
}

impl Echo {
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let mut server = Process::start(&["bare-follower".to_owned()]);
        let address = server.first_line();
        let (tell, told) = channel();
        let sender = connect(&runtime, &address, move |piece| drop(tell.send(piece)));
        Self { sender, told, server, _runtime: runtime }
    }
}

impl Subject for Echo {
    fn name(&self) -> String {
        "gRPC echo".to_owned()
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Command]
    }

    fn is_limit(&self) -> bool {
        true
    }

    fn run(&mut self, load: Load) -> Sample {
        let piece = Bytes::from(vec![7; load.bytes]);
        let (start, mut times, mut begun) = (Instant::now(), Times::new(), VecDeque::new());
        let mut next = load.depth;
        loop {
            let now = Instant::now();
            for _ in 0..next {
                begun.push_back(now);
                self.sender.send(piece.clone()).unwrap();
            }
            if begun.is_empty() {
                return Sample::of(&times, start.elapsed());
            }
            let first = self.told.recv().unwrap();
            let come = std::iter::once(first).chain(self.told.try_iter()).count();
            let now = Instant::now();
            begun.drain(..come).for_each(|begun| times.add(now - begun));
            next = if start.elapsed() < load.time { come } else { 0 };
        }
    }

    fn processes(&self) -> Vec<u32> {
        vec![std::process::id(), self.server.id()]
    }
}
