//! Streams of what happens: read from the node at the pace at which the client takes them.

use std::collections::VecDeque;
use std::sync::Arc;

use graft_services::api::{Reader, Wake};
use graft_services::error::Refusal;
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::desk::{Desk, LAST_WORD_TIMEOUT};
use super::owing::Owed;

/// Items that are read from the node in one go.
const ITEMS_MAX: usize = 256;
/// Bytes after which a message is cut: clients take 4 MiB if they are not told otherwise. A single larger item goes alone.
pub(super) const MESSAGE_BYTES: usize = 1 << 20;

/// How a stream's items become its messages.
pub(super) struct Form<T, M> {
    /// About how many bytes an item takes.
    pub(super) bytes: fn(&T) -> usize,
    pub(super) message: fn(Vec<T>) -> M,
}

/// The stream of a reader, which `open` makes. Nothing is read before there is room for it: beside what is on its way a
/// stream holds one message and what one read gave.
pub(super) fn feed<T: Send + 'static, M: Message + 'static>(
    desk: &Desk,
    owed: Arc<Owed>,
    form: Form<T, M>,
    open: impl FnOnce(Wake) -> Box<dyn Reader<T>>,
) -> ReceiverStream<Result<M, Status>> {
    let some = Arc::new(Notify::new());
    let woken = Arc::clone(&some);
    let reader = open(Arc::new(move || woken.notify_one()));
    let (out, messages) = mpsc::channel(1);
    let (desk, taken) = (desk.clone(), VecDeque::new());
    let tasks = desk.tasks.clone();
    tasks.spawn(Feeding { desk, owed, form, reader, some, out, taken, ended: None, told_all: false }.run());
    ReceiverStream::new(messages)
}

struct Feeding<T, M> {
    desk: Desk,
    owed: Arc<Owed>,
    form: Form<T, M>,
    reader: Box<dyn Reader<T>>,
    /// There may be more to read.
    some: Arc<Notify>,
    out: mpsc::Sender<Result<M, Status>>,
    taken: VecDeque<T>,
    ended: Option<Refusal>,
    /// The client knows that it had all there was.
    told_all: bool,
}

impl<T, M: Message> Feeding<T, M> {
    async fn run(mut self) {
        let stop = self.desk.stop.clone();
        let out = self.out.clone();
        loop {
            let room = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                room = out.reserve() => room,
            };
            // The client is gone.
            let Ok(room) = room else { return };
            // What is not read can be forgotten, and the client is told that it fell behind.
            if self.taken.is_empty() && self.ended.is_none() && self.owed.is_full() {
                drop(room);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = out.closed() => return,
                    () = self.owed.room() => continue,
                }
            }
            let Some(message) = self.next() else {
                drop(room);
                if self.ended.is_some() {
                    break;
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = out.closed() => return,
                    () = self.some.notified() => continue,
                }
            };
            room.send(Ok(message));
        }
        let why = self.desk.refuse(self.ended.take().unwrap_or(Refusal::Stopped));
        // What is on its way goes first, if there is anybody to take it.
        let _ = out.send_timeout(Err(why), LAST_WORD_TIMEOUT).await;
    }

    /// The next message, if there is anything to tell: once, that this is all, by one that holds nothing.
    fn next(&mut self) -> Option<M> {
        if self.taken.is_empty() && self.ended.is_none() {
            let taken = self.reader.take(ITEMS_MAX);
            self.owed.add(taken.items.iter().map(self.form.bytes).sum());
            self.taken.extend(taken.items);
            self.ended = taken.ended;
        }
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(item) = self.taken.front() {
            let more = (self.form.bytes)(item);
            if !items.is_empty() && bytes + more > MESSAGE_BYTES {
                break;
            }
            bytes += more;
            items.extend(self.taken.pop_front());
        }
        if items.is_empty() && (self.told_all || self.ended.is_some()) {
            return None;
        }
        self.told_all |= items.is_empty();
        let message = (self.form.message)(items);
        self.owed.send(bytes, &message);
        Some(message)
    }
}
