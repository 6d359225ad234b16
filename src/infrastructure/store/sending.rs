//! The open files of snapshots that others fetch. A file that a newer snapshot has replaced can be read to its end by
//! who is in the midst of it, as long as it is held open here; its space on the disk is not free before.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use graft_domain::EntryId;

/// Files held open: the newest, and one that a transfer began with before.
const OPEN_MAX: usize = 2;

#[derive(Debug)]
struct Sent<S> {
    last: EntryId,
    file: Arc<S>,
    /// Somebody read from it since the newest snapshot was put in its place.
    used: bool,
}

/// Open files, the one that was asked for last at the back.
#[derive(Debug)]
pub(super) struct Sending<S>(Mutex<VecDeque<Sent<S>>>);

impl<S> Default for Sending<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S> Sending<S> {
    /// The file of this snapshot, opened if it is not yet.
    pub(super) fn file<E>(&self, last: EntryId, open: impl FnOnce() -> Result<S, E>) -> Result<Arc<S>, E> {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = match sent.iter().position(|s| s.last == last).and_then(|at| sent.remove(at)) {
            Some(found) => found,
            None => Sent { last, file: Arc::new(open()?), used: true },
        };
        found.used = true;
        if sent.len() == OPEN_MAX {
            sent.pop_front();
        }
        let file = Arc::clone(&found.file);
        sent.push_back(found);
        Ok(file)
    }

    /// A newer file is in its place, or one of the same name. What nobody read since the last time is let go, so that a
    /// transfer that was given up does not hold space for ever.
    pub(super) fn replaced_by(&self, last: EntryId) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|s| s.used && s.last != last);
        sent.iter_mut().for_each(|s| s.used = false);
    }
}
