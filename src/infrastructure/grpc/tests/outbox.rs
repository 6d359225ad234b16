use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use tokio::runtime::Handle;

use super::super::event::RefusedCode;
use super::super::faults::{LinkFault, LinkFaults};
use super::super::tasks::Tasks;
use super::super::tests::{append, command, id, numbered};
use super::*;

/// Counts how often the link's task would be woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Link {
    outbox: Arc<Outbox>,
    batches: Batches,
    wakes: Arc<Wakes>,
}

impl Link {
    fn open(config: &PeerConfig) -> Self {
        let outbox = Arc::new(Outbox::new(config));
        let batches = outbox.call();
        outbox.open();
        Self { outbox, batches, wakes: Arc::default() }
    }

    fn poll(&mut self) -> Poll<Option<wire::Frames>> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        Pin::new(&mut self.batches).poll_next(&mut Context::from_waker(&waker))
    }

    fn batch(&mut self) -> wire::Frames {
        let Poll::Ready(Some(batch)) = self.poll() else { panic!("no batch") };
        batch
    }

    fn is_waiting(&mut self) -> bool {
        self.poll().is_pending()
    }

    fn is_over(&mut self) -> bool {
        matches!(self.poll(), Poll::Ready(None))
    }

    fn woken(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }
}

fn small(number: u64) -> PeerMessage {
    numbered(id("n1"), id("n2"), number)
}

fn bulk(bytes: usize) -> PeerMessage {
    append(id("n1"), id("n2"), vec![command(1, vec![7; bytes])])
}

fn frames(messages: impl IntoIterator<Item = PeerMessage>) -> Vec<wire::Frame> {
    messages.into_iter().map(convert::encode).collect()
}

#[test]
fn everything_queued_is_one_batch_and_one_wake() {
    let mut link = Link::open(&PeerConfig::default());
    assert!(link.is_waiting());
    assert_eq!(link.outbox.push([small(1), small(2)]), 2);
    assert_eq!(link.outbox.push([small(3)]), 1);
    assert_eq!(link.woken(), 1, "awake already");
    assert_eq!(link.batch().frames, frames([small(1), small(2), small(3)]));
    link.outbox.push([small(4)]);
    assert_eq!(link.woken(), 1, "it has not said that it waits again");
    assert_eq!(link.batch().frames, frames([small(4)]));
    assert!(link.is_waiting());
    link.outbox.push([small(5)]);
    assert_eq!(link.woken(), 2);
}

#[test]
fn batches_are_cut_by_bytes_and_one_larger_message_goes_alone() {
    let config = PeerConfig { batch_bytes_max: 1000, ..PeerConfig::default() };
    let mut link = Link::open(&config);
    link.outbox.push([bulk(300), bulk(300), bulk(300), bulk(5000), small(1), small(2)]);
    assert_eq!(link.batch().frames, frames([bulk(300), bulk(300)]));
    assert_eq!(link.batch().frames, frames([bulk(300)]));
    assert_eq!(link.batch().frames, frames([bulk(5000)]));
    assert_eq!(link.batch().frames, frames([small(1), small(2)]));
    assert!(link.is_waiting());
    assert_eq!(link.outbox.status().queued_bytes, 0);
}

#[test]
fn no_batch_is_larger_than_a_message_may_be() {
    use prost::Message as _;
    let config = PeerConfig { message_bytes_max: 2000, ..PeerConfig::default() };
    let mut link = Link::open(&config);
    link.outbox.push((0..50).map(|_| bulk(300)));
    link.outbox.announce(ClusterId(u128::MAX));
    let mut sent = 0;
    while sent < 50 {
        let batch = link.batch();
        assert!(batch.encoded_len() <= 2000, "{}", batch.encoded_len());
        sent += batch.frames.len();
    }
    assert_eq!(link.outbox.push([bulk(2000)]), 0, "larger than any may be");
}

#[test]
fn limits_drop_the_newest_and_count() {
    let config = PeerConfig { queue_messages_max: 3, ..PeerConfig::default() };
    let mut link = Link::open(&config);
    assert_eq!(link.outbox.push((0..5).map(small)), 3);
    assert_eq!(link.outbox.status().dropped, 2);
    assert_eq!(link.batch().frames, frames((0..3).map(small)));

    let config = PeerConfig { queue_bytes_max: 1000, ..PeerConfig::default() };
    let mut link = Link::open(&config);
    assert_eq!(link.outbox.push([bulk(300), bulk(300), bulk(500), small(1)]), 3);
    assert_eq!(link.outbox.status().dropped, 1);
    assert_eq!(link.batch().frames, frames([bulk(300), bulk(300), small(1)]));
}

#[test]
fn nothing_is_taken_before_the_peer_is_accepted() {
    let mut link = Link::open(&PeerConfig::default());
    link.batches = link.outbox.call();
    assert_eq!(link.outbox.push([small(1)]), 0);
    assert!(link.is_waiting());
    link.outbox.open();
    assert_eq!(link.outbox.push([small(2)]), 1);
    assert_eq!(link.batch().frames, frames([small(2)]));
}

#[test]
fn a_broken_link_loses_its_queue_and_its_stream_ends() {
    let mut link = Link::open(&PeerConfig::default());
    assert!(link.is_waiting());
    link.outbox.push([small(1), small(2)]);
    link.outbox.shut();
    let status = link.outbox.status();
    assert_eq!((status.connected, status.queued_messages, status.queued_bytes, status.dropped), (false, 0, 0, 2));
    assert!(link.is_over());
    assert_eq!(link.outbox.push([small(3)]), 0);
}

#[test]
fn a_newer_call_ends_the_older_stream() {
    let mut link = Link::open(&PeerConfig::default());
    assert!(link.is_waiting());
    let newer = link.outbox.call();
    assert_eq!(link.woken(), 1);
    link.outbox.open();
    link.outbox.push([small(1)]);
    assert!(link.is_over(), "the message is the newer stream's");
    link.batches = newer;
    assert_eq!(link.batch().frames, frames([small(1)]));
}

#[test]
fn an_ending_call_sends_what_is_queued() {
    let mut link = Link::open(&PeerConfig::default());
    link.outbox.push([small(1)]);
    link.outbox.end();
    assert_eq!(link.outbox.push([small(2)]), 0);
    assert_eq!(link.batch().frames, frames([small(1)]));
    assert!(link.is_over());
}

#[test]
fn a_refusal_is_the_last_word() {
    let mut link = Link::open(&PeerConfig::default());
    assert!(link.is_waiting());
    link.outbox.push([small(1)]);
    let refusal = Refusal::new(RefusedCode::NotMe, "why");
    link.outbox.refuse(refusal.clone());
    let batch = link.batch();
    assert_eq!((batch.frames.len(), batch.goodbye), (0, Some(refusal.to_wire())));
    assert!(link.is_over());
}

#[test]
fn a_cluster_is_announced_ahead_of_what_is_queued_later() {
    let mut link = Link::open(&PeerConfig::default());
    assert!(link.is_waiting());
    link.outbox.announce(ClusterId(7));
    assert_eq!(link.woken(), 1);
    link.outbox.push([small(1)]);
    let batch = link.batch();
    assert_eq!(handshake::decode_cluster(&batch.cluster), Some(ClusterId(7)));
    assert_eq!(batch.frames, frames([small(1)]));
    link.outbox.push([small(2)]);
    assert!(link.batch().cluster.is_empty(), "once is enough");
}

#[test]
fn a_cluster_that_becomes_known_during_the_call_is_not_lost() {
    let mut link = Link::open(&PeerConfig::default());
    link.batches = link.outbox.call();
    link.outbox.announce(ClusterId(7));
    link.outbox.open();
    assert_eq!(handshake::decode_cluster(&link.batch().cluster), Some(ClusterId(7)));
    link.outbox.announce(ClusterId(8));
    link.outbox.push([small(1)]);
    link.batches = link.outbox.call();
    assert!(link.is_waiting(), "the next introduction says it, and the queue was the older call's");
}

#[tokio::test]
async fn what_goes_late_is_not_overtaken_and_goes_over_no_other_link() {
    let (tasks, late, faults) = (Tasks::new(Handle::current()), Arc::default(), LinkFaults::default());
    let mut link = Link::open(&PeerConfig::default());
    let slow = LinkFault { delay: Duration::from_millis(30), ..LinkFault::default() };
    let send = |fault, number, link: &Link| {
        assert_eq!(faults.send(fault, [small(number)].into_iter(), (&tasks, &late, &link.outbox)), 1);
    };
    send(slow, 1, &link);
    send(LinkFault::default(), 2, &link);
    tasks.done().await;
    assert_eq!(link.batch().frames, frames([small(1), small(2)]));
    send(slow, 3, &link);
    link.batches = link.outbox.call();
    link.outbox.open();
    tasks.done().await;
    assert!(link.is_waiting(), "it was sent over a link that is not there any more");
    assert_eq!(link.outbox.status().dropped, 1);
}
