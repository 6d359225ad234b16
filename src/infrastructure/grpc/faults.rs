//! What is done to this node's links on purpose, by whoever tries how a cluster bears it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use graft_services::ports::PeerMessage;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::outbox::Outbox;
use super::tasks::Tasks;

/// Batches that may be on their way late to one peer; what would go beyond is lost.
const LATE_MAX: usize = 16_384;

/// What is wrong with the way from this node to a peer. The way back is the peer's.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct LinkFault {
    /// Nothing arrives, and nobody is told: the peer is not dialled, a link that stands carries nothing.
    pub cut: bool,
    /// Everything arrives so much later.
    pub delay: Duration,
    /// The probability with which a message is lost, from 0 to 1.
    pub drop: f64,
}

/// The faults of one node's links, by the address of the peer. A link without one costs a look at a flag.
#[derive(Debug, Default)]
pub struct LinkFaults {
    used: AtomicBool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    by_address: BTreeMap<String, LinkFault>,
    /// Of the generator that decides what is lost.
    seed: u64,
}

/// Batches on their way to a peer, in the order in which they were sent, each with the link that it was sent over.
#[derive(Debug, Default)]
pub(super) struct Late(Mutex<VecDeque<(u64, Vec<PeerMessage>)>>);

impl LinkFaults {
    /// These from now on, and no others. `seed` decides which messages are lost.
    pub fn set(&self, by_address: BTreeMap<String, LinkFault>, seed: u64) {
        let used = by_address.values().any(|fault| *fault != LinkFault::default());
        *self.lock() = State { by_address, seed };
        self.used.store(used, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// The fault on the way to this address, if there is one.
    pub(super) fn at(&self, address: &str) -> Option<LinkFault> {
        if !self.is_used() {
            return None;
        }
        self.lock().by_address.get(address).copied()
    }

    /// Ready once something gets through to this address: after its delay, or when it is not cut off any more.
    pub(super) async fn passage(&self, address: &str) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that no change after it is missed.
            changed.as_mut().enable();
            match self.at(address) {
                None => return,
                Some(LinkFault { cut: false, delay, .. }) => return sleep(delay).await,
                Some(_) => changed.await,
            }
        }
    }

    /// Sends what is not lost, now or late, and answers how many messages that was. Nothing overtakes what is late.
    pub(super) fn send(
        &self,
        fault: LinkFault,
        messages: impl Iterator<Item = PeerMessage>,
        (tasks, late, outbox): (&Tasks, &Arc<Late>, &Arc<Outbox>),
    ) -> usize {
        if fault.cut {
            return 0;
        }
        let kept: Vec<PeerMessage> = messages.filter(|_| fault.drop <= 0.0 || self.luck() >= fault.drop).collect();
        let is_late = !kept.is_empty() && (!fault.delay.is_zero() || late.is_any());
        let Some(link) = outbox.standing().filter(|_| is_late) else { return outbox.push(kept) };
        let sent = kept.len();
        if !late.begin(link, kept) {
            return 0;
        }
        let (late, outbox, due) = (Arc::clone(late), Arc::clone(outbox), Instant::now() + fault.delay);
        tasks.spawn(async move {
            sleep_until(due).await;
            // The oldest, whichever of the waiting tasks this is: so the order is kept.
            late.end(&outbox);
        });
        sent
    }

    /// From 0 up to 1: xorshift64*.
    fn luck(&self) -> f64 {
        let mut state = self.lock();
        let mut seed = state.seed.max(1);
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        state.seed = seed;
        let high = u32::try_from(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap_or(u32::MAX);
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Late {
    fn begin(&self, link: u64, batch: Vec<PeerMessage>) -> bool {
        let mut waiting = self.lock();
        let fits = waiting.len() < LATE_MAX;
        if fits {
            waiting.push_back((link, batch));
        }
        fits
    }

    /// The oldest arrives, and nobody finds that it is not late any more before it has.
    fn end(&self, outbox: &Outbox) {
        let mut waiting = self.lock();
        if let Some((link, batch)) = waiting.pop_front() {
            outbox.push_over(link, batch);
        }
    }

    pub(super) fn is_any(&self) -> bool {
        !self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Vec<PeerMessage>)>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(fault: LinkFault) -> LinkFaults {
        let faults = LinkFaults::default();
        faults.set(BTreeMap::from([("a:1".to_owned(), fault)]), 7);
        faults
    }

    #[test]
    fn a_fault_is_of_one_address_until_others_are_set() {
        let cut = LinkFault { cut: true, ..LinkFault::default() };
        let faults = one(cut);
        assert_eq!(faults.at("a:1"), Some(cut));
        assert_eq!(faults.at("b:1"), None);
        faults.set(BTreeMap::new(), 0);
        assert!(!faults.is_used());
        assert_eq!(faults.at("a:1"), None);
    }

    #[test]
    fn about_as_many_are_lost_as_was_said() {
        let faults = one(LinkFault::default());
        let lost = (0..10_000).filter(|_| faults.luck() < 0.25).count();
        assert!((2_300..2_700).contains(&lost), "{lost} of 10 000");
    }

    #[tokio::test]
    async fn what_is_cut_off_waits_until_it_is_not() {
        let faults = Arc::new(one(LinkFault { cut: true, ..LinkFault::default() }));
        let waiting = Arc::clone(&faults);
        let mut passage = Box::pin(async move { waiting.passage("a:1").await });
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut passage).await.is_err());
        let delay = Duration::from_millis(30);
        let since = Instant::now();
        faults.set(BTreeMap::from([("a:1".to_owned(), LinkFault { delay, ..LinkFault::default() })]), 7);
        passage.await;
        assert!(since.elapsed() >= delay);
    }
}
