//! Those who are to be told when there is more for them to read.

use std::collections::BTreeMap;

use graft_services::api::Wake;

/// Readers by number. One that was woken is not woken again before it has looked.
#[derive(Default)]
pub(crate) struct Wakes {
    readers: BTreeMap<u64, (Wake, bool)>,
    last: u64,
}

impl Wakes {
    /// A new reader: what comes from now on wakes it.
    pub(crate) fn add(&mut self, wake: Wake) -> u64 {
        self.last += 1;
        self.readers.insert(self.last, (wake, true));
        self.last
    }

    pub(crate) fn remove(&mut self, reader: u64) {
        self.readers.remove(&reader);
    }

    pub(crate) fn len(&self) -> usize {
        self.readers.len()
    }

    /// The reader has looked, and waits.
    pub(crate) fn waits(&mut self, reader: u64) {
        if let Some((_, waits)) = self.readers.get_mut(&reader) {
            *waits = true;
        }
    }

    /// What wakes this reader, if it waits; to be called when no lock is held.
    pub(crate) fn rouse(&mut self, reader: u64) -> Option<Wake> {
        let (wake, waits) = self.readers.get_mut(&reader)?;
        std::mem::take(waits).then(|| Wake::clone(wake))
    }

    /// What wakes everyone who waits.
    pub(crate) fn rouse_all(&mut self) -> Vec<Wake> {
        let waiting = self.readers.values_mut().filter_map(|(wake, waits)| std::mem::take(waits).then_some(wake));
        waiting.map(|wake| Wake::clone(wake)).collect()
    }
}

/// To be called when no lock is held: who is woken may look at once.
pub(crate) fn wake(wakes: Vec<Wake>) {
    for wake in wakes {
        wake();
    }
}

impl std::fmt::Debug for Wakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wakes").field("readers", &self.readers.len()).finish_non_exhaustive()
    }
}
