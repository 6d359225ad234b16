//! Who leads, as far as this node knows: kept for the hints that clients get, and asked for only when it may have changed.

use std::sync::Arc;
use std::time::Duration;

use graft_services::Notice;
use graft_services::api::{Api, Happening, Reader, Wake};
use graft_services::error::{Outcome, Refusal};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::convert_status::leader_of;
use super::desk::learn;
use super::failure::LeaderHint;
use super::tasks::Tasks;

/// What is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Known {
    pub(super) leader: Option<LeaderHint>,
    /// It is this node.
    pub(super) here: bool,
}

/// Reads it, any number of times.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    known: watch::Receiver<Known>,
    doubt: Arc<Doubt>,
}

/// What makes it be asked for.
#[derive(Debug, Default)]
struct Doubt {
    some: Notify,
    /// A call found that this node does not lead.
    of_callers: std::sync::atomic::AtomicBool,
}

/// How often it is asked for at the most.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the node may take to say.
const PATIENCE: Duration = Duration::from_secs(1);
/// Events that are looked at in one go.
const EVENTS_MAX: usize = 256;

impl Leading {
    /// Follows the node's events until it stops.
    pub(super) fn follow(api: &Arc<dyn Api>, tasks: &Tasks, stop: &CancellationToken) -> Self {
        let (tell, known) = watch::channel(Known::default());
        let doubt = Arc::new(Doubt::default());
        let woken = Arc::clone(&doubt);
        let wake: Wake = Arc::new(move || woken.some.notify_one());
        let follower =
            Follower { events: api.events(None, wake), api: Arc::clone(api), tell, doubt: Arc::clone(&doubt) };
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = follower.run() => {}
            }
        });
        Self { known, doubt }
    }

    /// The leader, unless it is this node.
    pub(super) fn elsewhere(&self) -> Option<LeaderHint> {
        let known = self.known.borrow();
        if known.here { None } else { known.leader.clone() }
    }

    /// As it is, and as it changes.
    pub(super) fn watch(&self) -> watch::Receiver<Known> {
        self.known.clone()
    }

    /// An outcome may show that what is known is old.
    pub(super) fn note(&self, outcome: &Outcome) {
        let Outcome::Refused(Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::NoQuorum { .. }) = outcome else {
            return;
        };
        self.doubt.of_callers.store(true, std::sync::atomic::Ordering::Relaxed);
        self.doubt.some.notify_one();
    }
}

struct Follower {
    api: Arc<dyn Api>,
    events: Box<dyn Reader<Happening>>,
    tell: watch::Sender<Known>,
    doubt: Arc<Doubt>,
}

impl Follower {
    async fn run(mut self) {
        let mut changed = true;
        loop {
            if changed {
                self.learn().await;
                sleep(PAUSE).await;
            } else {
                self.doubt.some.notified().await;
            }
            changed = self.doubt.of_callers.swap(false, std::sync::atomic::Ordering::Relaxed);
            match self.read() {
                Some(news) => changed |= news,
                None => break,
            }
        }
        self.told(Known::default());
    }

    async fn learn(&mut self) {
        // Who does not say, does not say that anybody else leads.
        if let Ok(view) = learn(&*self.api, PATIENCE, |api, then| api.view(then)).await {
            let leader = leader_of(&view.status);
            let here = leader.as_ref().is_some_and(|leader| leader.id == view.status.id);
            self.told(Known { leader, here });
        }
    }

    fn told(&self, known: Known) {
        self.tell.send_if_modified(|before| {
            let changed = *before != known;
            *before = known;
            changed
        });
    }

    /// Whether something happened that the leader, or where it is, may be another one for. None if nothing more will.
    fn read(&mut self) -> Option<bool> {
        let mut changed = false;
        loop {
            let taken = self.events.take(EVENTS_MAX);
            if taken.items.is_empty() {
                return if taken.ended.is_some() { None } else { Some(changed) };
            }
            for happening in taken.items {
                match happening.notice? {
                    Notice::Leader { .. } | Notice::Role { .. } | Notice::Membership { .. } => changed = true,
                    Notice::CatchUp { .. }
                    | Notice::Snapshot { .. }
                    | Notice::Link { .. }
                    | Notice::Certificate { .. } => {}
                }
            }
        }
    }
}
