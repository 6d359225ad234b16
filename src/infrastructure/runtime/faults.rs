//! What is done to a node on purpose, by whoever tries how its cluster bears it: beneath the real code, and in no way that
//! the network can reach.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use graft_services::ports::StoreError;

pub use crate::infrastructure::grpc::LinkFault;
use crate::infrastructure::grpc::LinkFaults;

/// The faults of one node: none until somebody asks for them. See [`super::Node::faults`].
#[derive(Debug, Default)]
pub struct Faults {
    links: Arc<LinkFaults>,
    disk: AtomicBool,
    is_paused: AtomicBool,
    paused: Mutex<bool>,
    resumed: Condvar,
}

impl Faults {
    pub(crate) fn new(links: Arc<LinkFaults>) -> Self {
        Self { links, ..Self::default() }
    }

    /// These faults are on the ways from this node to the peers at these addresses, and no others. `seed` decides which
    /// messages are lost.
    pub fn set_links(&self, by_address: BTreeMap<String, LinkFault>, seed: u64) {
        self.links.set(by_address, seed);
    }

    /// From now on every write fails, until the node is started again.
    pub fn fail_disk(&self) {
        self.disk.store(true, Ordering::Relaxed);
    }

    /// The node stands still, as a process that is stopped: what is sent to it waits.
    pub fn pause(&self) {
        *self.lock() = true;
        self.is_paused.store(true, Ordering::Relaxed);
    }

    /// The node goes on.
    pub fn resume(&self) {
        *self.lock() = false;
        self.is_paused.store(false, Ordering::Relaxed);
        self.resumed.notify_all();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// Waits for as long as the node is paused.
    pub(crate) fn gate(&self) {
        if self.is_paused() {
            let waited = self.resumed.wait_while(self.lock(), |paused| *paused);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What a write comes to before it reaches the disk.
    pub(crate) fn disk(&self) -> Result<(), StoreError> {
        if self.disk.load(Ordering::Relaxed) {
            let what = "the disk fails, for somebody asked for that fault".to_owned();
            return Err(StoreError::Io { path: "log".to_owned(), what });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        // Nothing panics while it holds the lock.
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
