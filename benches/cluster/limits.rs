//! What nothing can be faster than: a file that is written and synced in a loop, an answer over a stream of gRPC, and one to a
//! call of its own.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::Subject;
use super::bare::{call, connect, dial};
use super::disk::{self, Disk};
use super::load::{Counts, Kind, Load, Sample};
use super::processes::Process;
use super::times::Times;

/// Writes and syncs as many commands at a time as may be in flight.
pub(crate) struct Wal {
    disk: Disk,
    /// Of other members, which do the same all the while: here all share one device.
    others: Vec<Disk>,
}

impl Wal {
    pub(crate) fn new(directory: &Path, members: usize) -> Self {
        Self { disk: Disk::new(directory), others: (1..members).map(|_| Disk::new(directory)).collect() }
    }
}

impl Subject for Wal {
    fn name(&self) -> String {
        let others = if self.others.is_empty() { "" } else { ", all members at once" };
        format!("write and sync{others}")
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Command]
    }

    fn is_limit(&self) -> bool {
        true
    }

    fn run(&mut self, load: Load) -> Sample {
        let pieces = vec![Bytes::from(vec![7; load.bytes]); load.depth];
        let (start, mut times, over) = (Instant::now(), Times::new(), AtomicBool::new(false));
        std::thread::scope(|threads| {
            for other in &mut self.others {
                threads.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        other.append(&pieces);
                    }
                });
            }
            while times.count() == 0 || start.elapsed() < load.time {
                let begun = Instant::now();
                self.disk.append(&pieces);
                let took = begun.elapsed();
                for _ in &pieces {
                    times.add(took);
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        Sample::of(&times, start.elapsed())
    }

    fn processes(&self) -> Vec<u32> {
        vec![std::process::id()]
    }

    fn counts(&mut self) -> Option<Counts> {
        self.others.is_empty().then(disk::counts)
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

/// Calls another process, so many calls at a time, each again when it is answered.
pub(crate) struct Unary {
    channel: Channel,
    server: Process,
    runtime: Runtime,
}

impl Unary {
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let mut server = Process::start(&["bare-follower".to_owned()]);
        let channel = dial(&runtime, &server.first_line());
        Self { channel, server, runtime }
    }
}

impl Subject for Unary {
    fn name(&self) -> String {
        "gRPC call".to_owned()
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Command]
    }

    fn is_limit(&self) -> bool {
        true
    }

    fn run(&mut self, load: Load) -> Sample {
        let piece = Bytes::from(vec![7; load.bytes]);
        let (start, mut times, mut callers) = (Instant::now(), Times::new(), JoinSet::new());
        for _ in 0..load.depth {
            let (channel, piece) = (self.channel.clone(), piece.clone());
            let body = async move {
                let mut took = Vec::new();
                while took.is_empty() || start.elapsed() < load.time {
                    let begun = Instant::now();
                    call(&channel, piece.clone()).await;
                    took.push(begun.elapsed());
                }
                took
            };
            callers.spawn_on(body, self.runtime.handle());
        }
        self.runtime.block_on(callers.join_all()).into_iter().flatten().for_each(|took| times.add(took));
        Sample::of(&times, start.elapsed())
    }

    fn processes(&self) -> Vec<u32> {
        vec![std::process::id(), self.server.id()]
    }
}
