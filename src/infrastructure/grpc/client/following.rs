//! Streams that outlive the connection they are read on: when one ends, the next goes on behind what the last one brought.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use graft_domain::Index;
use graft_services::api::{Cursor, Happening, News, Watch};
use graft_services::client::LinkId;
use graft_services::error::{Outcome, Refusal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Status, Streaming};
use tracing::debug;

use super::super::backoff::Backoff;
use super::super::convert::BadFrame;
use super::super::failure::Told;
use super::super::http2::words;
use super::super::{convert_events, convert_status, wire};
use super::connection::Channel;
use super::feed::Feed;

/// How long a member may take to say where its log is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// What an item takes in memory beside its texts.
const ITEM_OVERHEAD: usize = 96;

/// A kind of stream, and how far it has been read.
pub(super) trait Source: Send {
    type Message: Send;
    type Item: Send;

    /// Begins behind what was read.
    fn open(&mut self, channel: &Channel) -> impl Future<Output = Result<Streaming<Self::Message>, Status>> + Send;

    /// Whether the member says by this message that it has no more for now.
    fn is_all(message: &Self::Message) -> bool;

    /// What is new in a message, with its bytes.
    fn read(&mut self, message: Self::Message) -> Result<Vec<(Self::Item, usize)>, BadFrame>;
}

/// Why a stream is not read any more.
enum End {
    /// The reader has enough for now.
    Full,
    Broken(String),
    /// It would be refused everywhere.
    Refused(Refusal),
}

/// Ends the feed whatever ends the task: a reader must not wait for ever.
pub(super) struct Ends<T>(pub(super) Arc<Feed<T>>);

impl<T> Drop for Ends<T> {
    fn drop(&mut self) {
        self.0.end(Refusal::Stopped);
    }
}

/// Reads until nobody wants it any more, or the client is closed.
pub(super) async fn follow<S: Source>(
    mut source: S,
    feed: Arc<Feed<S::Item>>,
    mut current: watch::Receiver<Option<Channel>>,
) {
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
    let following = async {
        while feed.room().await {
            let Ok(channel) = current.wait_for(Option::is_some).await.map(|channel| channel.clone()) else { return };
            let Some(channel) = channel else { continue };
            let since = Instant::now();
            match read(&mut source, &feed, &channel).await {
                End::Full => continue,
                End::Refused(refusal) => return feed.end(refusal),
                End::Broken(why) => debug!(address = &*channel.address, why, "a stream ended"),
            }
            backoff.stood(since.elapsed());
            sleep(backoff.next()).await;
        }
    };
    tokio::select! {
        biased;
        () = feed.dropped() => {}
        () = following => {}
    }
}

async fn read<S: Source>(source: &mut S, feed: &Feed<S::Item>, channel: &Channel) -> End {
    let opened = tokio::select! {
        biased;
        () = channel.gone.cancelled() => return End::Broken("the connection is gone".to_owned()),
        opened = source.open(channel) => opened,
    };
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(status) => return end_of(&status),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) if S::is_all(&message) => feed.tell_all(),
            Ok(Some(message)) => match source.read(message) {
                Ok(items) => {
                    if !feed.push(items) {
                        return End::Full;
                    }
                }
                Err(bad) => return End::Broken(bad.to_string()),
            },
            Ok(None) => return End::Broken("the member ended it".to_owned()),
            Err(status) => return end_of(&status),
        }
    }
}

/// Another member may do better, but if the request itself is wrong, or whoever makes it may not.
fn end_of(status: &Status) -> End {
    match Told::from_status(status).map(|told| Outcome::from(told.failure)) {
        Some(Outcome::Refused(refusal @ (Refusal::Denied(_) | Refusal::Invalid(_) | Refusal::TooLarge { .. }))) => {
            End::Refused(refusal)
        }
        _ => End::Broken(words(status)),
    }
}

fn not_connected() -> Status {
    Status::unavailable("the connection is not made yet")
}

/// What commands emit: the same at every member.
pub(super) struct Newsreel {
    pub(super) topics: Vec<String>,
    /// Behind the last thing that was told.
    pub(super) cursor: Option<Cursor>,
    /// The newest entry that an answer has shown to this client.
    pub(super) seen: Arc<AtomicU64>,
}

impl Newsreel {
    /// "From now on" is a place as well, or what is emitted while a connection is made anew would be lost: behind all that
    /// the member knows to be committed, and all that this client has seen.
    async fn now(&self, channel: &Channel) -> Result<Cursor, Status> {
        let mut admin = channel.admin().ok_or_else(not_connected)?;
        let status = timeout(STATUS_TIMEOUT, admin.status(wire::StatusRequest {})).await;
        let status = status.map_err(|_| Status::deadline_exceeded("it does not say where its log is"))??;
        let view = convert_status::decode(status.into_inner());
        let view = view.map_err(|bad| Status::data_loss(bad.to_string()))?;
        let index = view.status.commit.max(Index(self.seen.load(Ordering::Relaxed)));
        Ok(Cursor { index, number: u32::MAX })
    }
}

impl Source for Newsreel {
    type Message = wire::WatchResponse;
    type Item = News;

    async fn open(&mut self, channel: &Channel) -> Result<Streaming<Self::Message>, Status> {
        let since = match self.cursor {
            Some(cursor) => cursor,
            None => self.now(channel).await?,
        };
        self.cursor = Some(since);
        let watch = Watch { topics: self.topics.clone(), since: Some(since) };
        let mut client = channel.client().ok_or_else(not_connected)?;
        Ok(client.watch(Request::new(convert_events::encode_watch(watch))).await?.into_inner())
    }

    fn is_all(message: &Self::Message) -> bool {
        message.items.is_empty()
    }

    fn read(&mut self, message: Self::Message) -> Result<Vec<(News, usize)>, BadFrame> {
        let mut fresh = Vec::with_capacity(message.items.len());
        for item in message.items {
            let news = convert_events::decode_news(item)?;
            let (place, bytes) = match &news {
                News::Emitted(e) => (Cursor { index: e.index, number: e.number }, e.topic.len() + e.value.len()),
                News::Behind { upto } => (Cursor { index: *upto, number: u32::MAX }, 0),
                News::Upto(index) => (Cursor { index: *index, number: u32::MAX }, 0),
            };
            // Never twice, whatever the member thinks was told.
            if self.cursor.is_none_or(|cursor| place > cursor) {
                self.cursor = Some(place);
                fresh.push((news, bytes + ITEM_OVERHEAD));
            }
        }
        Ok(fresh)
    }
}

/// What happens to the member that the client is connected to. Numbers are that member's own: from another one it is told
/// from then on.
pub(super) struct Events {
    pub(super) since: Option<u64>,
    pub(super) of: Option<LinkId>,
}

impl Source for Events {
    type Message = wire::EventsResponse;
    type Item = Happening;

    async fn open(&mut self, channel: &Channel) -> Result<Streaming<Self::Message>, Status> {
        if self.of.replace(channel.link).is_some_and(|before| before != channel.link) {
            self.since = None;
        }
        let mut admin = channel.admin().ok_or_else(not_connected)?;
        Ok(admin.events(Request::new(wire::EventsRequest { since: self.since })).await?.into_inner())
    }

    fn is_all(message: &Self::Message) -> bool {
        message.events.is_empty()
    }

    fn read(&mut self, message: Self::Message) -> Result<Vec<(Happening, usize)>, BadFrame> {
        let mut fresh = Vec::with_capacity(message.events.len());
        for event in message.events {
            let sequence = event.sequence;
            // The end of one member is not the end of the cluster: another one has more to tell.
            if let Some(happening) = convert_events::decode(event)?
                && happening.notice.is_some()
                && self.since.is_none_or(|since| sequence > since)
            {
                fresh.push((happening, ITEM_OVERHEAD));
            }
            self.since = Some(sequence);
        }
        Ok(fresh)
    }
}
