//! All connections of a client, as its loop holds them, and the streams of those who watch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use graft_domain::Index;
use graft_services::api::{Happening, News, Reader, Taken, Wake, Watch};
use graft_services::client::{Answer, Demand, Event, LinkId};
use graft_services::error::Refusal;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::super::config::PeerConfig;
use super::super::convert_call::Asked;
use super::super::tasks::Tasks;
use super::connection::{Channel, Connection};
use super::feed::{Feed, FeedReader};
use super::following::{Ends, Events, Newsreel, Source, follow};
use super::outgoing::Said;
use super::{ClerkSink, single};

/// Streams that are read at once. A member lets a connection have some hundreds, and calls need a few.
const WATCHERS_MAX: usize = 64;

/// The connections of one client. Nothing here waits.
pub struct Lines {
    tasks: Tasks,
    config: PeerConfig,
    sink: ClerkSink,
    connections: BTreeMap<LinkId, Connection>,
    /// What is to be said on each, until [`Lines::flush`].
    staged: BTreeMap<LinkId, Vec<Said>>,
    /// When the first of that was said.
    turned: Option<Instant>,
    current: watch::Sender<Option<Channel>>,
    seen: Arc<AtomicU64>,
}

/// For those who watch; from any thread.
#[derive(Clone)]
pub struct Watchers {
    tasks: Tasks,
    current: watch::Receiver<Option<Channel>>,
    seen: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
}

impl Lines {
    /// Tasks run on the runtime of `handle`.
    pub fn new(handle: Handle, config: PeerConfig, sink: ClerkSink) -> Self {
        Self {
            tasks: Tasks::new(handle),
            config: config.workable(),
            sink,
            connections: BTreeMap::new(),
            staged: BTreeMap::new(),
            turned: None,
            current: watch::Sender::new(None),
            seen: Arc::default(),
        }
    }

    pub fn watchers(&self) -> Watchers {
        Watchers {
            tasks: self.tasks.clone(),
            current: self.current.subscribe(),
            seen: Arc::clone(&self.seen),
            permits: Arc::new(Semaphore::new(WATCHERS_MAX)),
        }
    }

    /// Begins to connect. The sink hears of [`Event::Connected`], or of [`Event::Lost`].
    pub fn dial(&mut self, link: LinkId, address: &str) {
        let connection = Connection::dial(link, address, &self.config, &self.tasks, &self.sink);
        self.connections.insert(link, connection);
    }

    pub fn close(&mut self, link: LinkId) {
        self.staged.remove(&link);
        self.connections.remove(&link);
    }

    /// Says it, with others of the same turn at [`Lines::flush`].
    pub fn send(&mut self, link: LinkId, number: u64, demand: Demand, within: Duration) {
        let Some(connection) = self.connections.get(&link) else { return };
        let asked = match demand {
            Demand::Execute { slot, body } => Asked::Execute { body, slot },
            Demand::Query { body, read } => Asked::Query { body, read },
            Demand::OpenSession { ttl } => Asked::OpenSession { ttl },
            single => {
                let (channel, sink) = (connection.channel.clone(), Arc::clone(&self.sink));
                let tasks = channel.tasks.clone();
                tasks.spawn(async move {
                    let answer: Answer = single::make(channel, single, within).await;
                    sink(Event::Heard { link, answers: vec![(number, answer)], hint: None }.into());
                });
                return;
            }
        };
        // One look at the clock for all: a member takes calls together that have the same time.
        let until = *self.turned.get_or_insert_with(Instant::now) + within;
        self.staged.entry(link).or_default().push(Said { number, asked, until });
    }

    /// Lets go what was said since.
    pub fn flush(&mut self) {
        self.turned = None;
        while let Some((link, said)) = self.staged.pop_first() {
            if let Some(connection) = self.connections.get(&link) {
                connection.outgoing.push(said);
            }
        }
    }

    /// Streams are read on this connection from now on; those that are read on another one stay there until it ends.
    pub fn use_(&self, link: Option<LinkId>) {
        let channel = link.and_then(|link| self.connections.get(&link)).map(|connection| connection.channel.clone());
        self.current.send_replace(channel);
    }

    /// An answer has shown this entry: who begins to watch does so behind it.
    pub fn seen(&self, index: Index) {
        self.seen.store(index.0, Ordering::Relaxed);
    }

    /// Ends everything. False if something did not end in time.
    pub fn shutdown(mut self, limit: Duration) -> bool {
        self.connections.clear();
        self.tasks.kill();
        let tasks = self.tasks.clone();
        self.tasks.handle().block_on(async move { timeout(limit, tasks.done()).await.is_ok() })
    }
}

impl Watchers {
    pub fn watch(&self, watch: Watch, wake: Wake) -> Box<dyn Reader<News>> {
        let Watch { topics, since } = watch;
        self.follow(Newsreel { topics, cursor: since, seen: Arc::clone(&self.seen) }, wake)
    }

    pub fn events(&self, since: Option<u64>, wake: Wake) -> Box<dyn Reader<Happening>> {
        self.follow(Events { since, of: None }, wake)
    }

    fn follow<S: Source + 'static>(&self, source: S, wake: Wake) -> Box<dyn Reader<S::Item>>
    where
        S::Item: 'static,
    {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            let why = format!("{WATCHERS_MAX} streams are read by this client, which is as many as may");
            return Box::new(Over(Refusal::Busy(why)));
        };
        let feed = Feed::new(wake);
        let (current, reading, ends) = (self.current.clone(), Arc::clone(&feed), Ends(Arc::clone(&feed)));
        self.tasks.spawn(async move {
            let _until_here = (ends, permit);
            follow(source, reading, current).await;
        });
        Box::new(FeedReader(feed))
    }
}

/// What nothing comes of.
struct Over(Refusal);

impl<T> Reader<T> for Over {
    fn take(&mut self, _max: usize) -> Taken<T> {
        Taken { items: Vec::new(), ended: Some(self.0.clone()) }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watchers")
    }
}
