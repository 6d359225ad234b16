//! What a machine keeps on a disk of its own, as one with a database does: after every call its state is there with the
//! last entry that it was given, at once as far as the process is concerned, and durable now and then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_domain::Index;

use crate::dice::Dice;
use crate::disk::Stop;

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Kept(Arc<Mutex<State>>);

/// The last command, and the digest after it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page {
    pub(crate) command: Index,
    pub(crate) digest: u64,
    /// The version of the code that wrote it: older code cannot read it.
    pub(crate) code: u8,
}

#[derive(Debug)]
struct State {
    durable: Page,
    /// In order; a power cut leaves the first of them.
    pending: Vec<Page>,
    /// It is synced when so much is pending.
    sync_every: usize,
}

impl Kept {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        let sync_every = dice.one_of(&[1, 3, 20]);
        Self(Arc::new(Mutex::new(State { durable: Page::default(), pending: Vec::new(), sync_every })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn newest(&self) -> Page {
        let state = self.state();
        state.pending.last().copied().unwrap_or(state.durable)
    }

    pub(crate) fn keep(&self, page: Page) {
        let mut state = self.state();
        state.pending.push(page);
        if state.pending.len() >= state.sync_every {
            state.durable = page;
            state.pending.clear();
        }
    }

    /// The machine goes down. Answers whether something was lost: in order, from the end.
    pub(crate) fn stop(&self, stop: Stop, dice: &mut Dice) -> bool {
        let mut state = self.state();
        let count = state.pending.len();
        let left = match stop {
            Stop::Kill => return false,
            Stop::Clean => 0,
            Stop::Torn => dice.size(count + 1),
        };
        if let Some(page) = left.checked_sub(1).and_then(|last| state.pending.get(last)).copied() {
            state.durable = page;
        }
        state.pending.clear();
        left < count
    }
}
