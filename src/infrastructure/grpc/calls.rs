//! The stream of numbered calls: batches in, batches out, answers in the order in which they come.
//!
//! Calls that are in flight on one stream have a limit, in number and in bytes. At it the stream is not read any further, so
//! that the client's own sending stops: refusing them as busy would have a client that pipelines send the same again and
//! again, and commands of a session out of their order. Answers that the client does not take are in flight, too.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use graft_services::api::{Call, Caller, Sink};
use graft_services::error::{Outcome, Refusal};
use graft_services::identity::{Identity, Role};
use graft_services::numbered;
use prost::Message as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::yield_now;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::convert_call::{Asked, Kind, Numbered};
use super::deadline::{TIMEOUT_DEFAULT, TIMEOUT_MAX};
use super::desk::{Desk, LAST_WORD_TIMEOUT};
use super::failure::LeaderHint;
use super::feeding::MESSAGE_BYTES;
use super::leading::Known;
use super::owing::{ANSWER_OVERHEAD, Owed, reply_bytes};
use super::wire;
use super::{call_batch, convert_answer};

/// Calls in flight on one stream from which on it is not read; a last batch may go beyond.
pub(super) const OPEN_MAX: usize = call_batch::CALLS_MAX;
/// Bytes of calls in flight and of answers that are not taken, on one stream, from which on it is not read.
const OPEN_BYTES_MAX: usize = 64 << 20;
/// Calls of a batch after which others get their turn on the network's threads, which carry what members say, too.
const TURN_MAX: usize = 1000;
/// Times of calls are alike that differ by this part of the least one, and no more than this much: to hand over each by itself
/// costs more than to make some of them wait a little less long than they would.
const ALIKE_SHARE: u32 = 32;
const ALIKE_MAX: Duration = Duration::from_millis(20);

type Answers = ReceiverStream<Result<wire::AnswerBatch, Status>>;

/// Takes answers from the engine's threads: however many come at once, the stream's task wakes once.
struct Inbox {
    come: Mutex<Vec<Come>>,
    some: Notify,
    owed: Arc<Owed>,
    answer_bytes_max: usize,
}

/// An answer, and how many bytes it is counted as.
struct Come {
    token: u64,
    outcome: Outcome,
    bytes: usize,
}

/// Where the answers to calls of one kind come in.
struct Slit {
    inbox: Arc<Inbox>,
    kind: Kind,
}

impl Inbox {
    fn owe(&self, outcome: Outcome, kind: Kind) -> (Outcome, usize) {
        self.owed.owe(sendable(outcome, kind, self.answer_bytes_max), kind == Kind::Query)
    }

    fn take(&self) -> Vec<Come> {
        // Nothing panics while it holds the lock.
        std::mem::take(&mut *self.come.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Slit {
    fn complete(&self, token: u64, outcome: Outcome) {
        let (outcome, bytes) = self.inbox.owe(outcome, self.kind);
        let mut come = self.inbox.come.lock().unwrap_or_else(PoisonError::into_inner);
        let first = come.is_empty();
        come.push(Come { token, outcome, bytes });
        drop(come);
        if first {
            self.inbox.some.notify_one();
        }
    }
}

/// A call that is in flight.
struct Open {
    number: u64,
    kind: Kind,
    bytes: usize,
}

struct Answer {
    number: u64,
    kind: Kind,
    outcome: Outcome,
    bytes: usize,
}

struct Stream {
    desk: Desk,
    /// Who calls, if that is known.
    identity: Option<Identity>,
    calls: Streaming<wire::CallBatch>,
    out: mpsc::Sender<Result<wire::AnswerBatch, Status>>,
    leading: watch::Receiver<Known>,
    inbox: Arc<Inbox>,
    queries: Arc<dyn Sink>,
    commands: Arc<dyn Sink>,
    /// By token: one that is never used twice, as the client's own numbers may be.
    open: numbered::Numbered<Open>,
    numbers: HashSet<u64>,
    tokens: u64,
    bytes: usize,
    answers: VecDeque<Answer>,
    /// Who leads is to be told.
    tell_leader: bool,
    /// Nothing more will be known of who leads.
    leads_nowhere: bool,
    /// Nothing more will be asked.
    all_asked: bool,
}

/// Why a stream ends.
enum End {
    /// All is asked and answered.
    Done,
    /// There is nobody to answer.
    Gone,
    Because(Status),
}

/// Serves a stream until it ends.
pub(super) fn begin(
    desk: &Desk,
    identity: Option<Identity>,
    owed: Arc<Owed>,
    calls: Streaming<wire::CallBatch>,
) -> Answers {
    let (out, answers) = mpsc::channel(1);
    let (come, some) = (Mutex::default(), Notify::new());
    let inbox = Arc::new(Inbox { come, some, owed, answer_bytes_max: desk.answer_bytes_max });
    let slit = |kind| Arc::new(Slit { inbox: Arc::clone(&inbox), kind });
    let stream = Stream {
        desk: desk.clone(),
        identity,
        calls,
        out,
        leading: desk.leading.watch(),
        queries: slit(Kind::Query),
        commands: slit(Kind::Execute),
        inbox: Arc::clone(&inbox),
        open: numbered::Numbered::default(),
        numbers: HashSet::new(),
        tokens: 0,
        bytes: 0,
        answers: VecDeque::new(),
        tell_leader: true,
        leads_nowhere: false,
        all_asked: false,
    };
    desk.tasks.spawn(stream.run());
    ReceiverStream::new(answers)
}

impl Stream {
    async fn run(mut self) {
        let why = match self.serve().await {
            End::Done | End::Gone => return,
            End::Because(why) => why,
        };
        // What was answered before is worth more than the reason.
        self.collect();
        while self.has_answers() {
            let batch = self.batch();
            if self.out.send_timeout(Ok(batch), LAST_WORD_TIMEOUT).await.is_err() {
                return;
            }
        }
        let _ = self.out.send_timeout(Err(why), LAST_WORD_TIMEOUT).await;
    }

    async fn serve(&mut self) -> End {
        let (stop, out, inbox) = (self.desk.stop.clone(), self.out.clone(), Arc::clone(&self.inbox));
        loop {
            if self.all_asked && self.open.is_empty() && !self.has_answers() {
                return End::Done;
            }
            let to_tell = self.tell_leader || self.has_answers();
            let is_full = inbox.owed.is_full();
            let room = self.open.len() + self.answers.len() < OPEN_MAX && self.bytes < OPEN_BYTES_MAX && !is_full;
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Because(self.desk.refuse(Refusal::Stopped)),
                place = out.reserve(), if to_tell => match place {
                    Ok(place) => {
                        self.collect();
                        place.send(Ok(self.batch()));
                    }
                    Err(_) => return End::Gone,
                },
                () = inbox.some.notified() => self.collect(),
                changed = self.leading.changed(), if !self.tell_leader && !self.leads_nowhere => {
                    // A node that ends says so, and goes on to answer what it has.
                    (self.tell_leader, self.leads_nowhere) = (true, changed.is_err());
                }
                batch = self.calls.message(), if room && !self.all_asked => match batch {
                    Ok(Some(batch)) => {
                        if let Err(refusal) = self.take(batch).await {
                            return End::Because(self.desk.refuse(refusal));
                        }
                    }
                    Ok(None) => self.all_asked = true,
                    Err(status) => return End::Because(status),
                },
                () = inbox.owed.room(), if is_full && !self.all_asked => {}
                () = out.closed(), if !to_tell => return End::Gone,
            }
        }
    }

    fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Takes what has been answered since.
    fn collect(&mut self) {
        for Come { token, outcome, bytes } in self.inbox.take() {
            // A second answer has no call.
            let Some(Open { number, kind, bytes: asked }) = self.open.remove(token) else {
                self.inbox.owed.remove(bytes);
                continue;
            };
            self.bytes -= asked;
            self.desk.leading.note(&outcome);
            self.queue(Answer { number, kind, outcome, bytes });
        }
    }

    /// Answers a call that is not made.
    fn refuse(&mut self, number: u64, kind: Kind, refusal: Refusal) {
        let (outcome, bytes) = self.inbox.owe(Outcome::Refused(refusal), kind);
        self.queue(Answer { number, kind, outcome, bytes });
    }

    /// An answer counts until it is on its way.
    fn queue(&mut self, answer: Answer) {
        self.bytes += answer.bytes;
        self.answers.push_back(answer);
    }

    /// What there is to tell, as far as one message goes.
    fn batch(&mut self) -> wire::AnswerBatch {
        let hint = self.desk.leading.elsewhere();
        let leader = std::mem::take(&mut self.tell_leader).then(|| {
            let known = self.leading.borrow_and_update();
            known.leader.as_ref().map(convert_answer::encode_leader).unwrap_or_default()
        });
        let (mut answers, mut bytes, mut counted) = (Vec::new(), 0, 0);
        // What comes next is as large as its reply, about; how large an error is shows when it is encoded.
        while let Some(answer) = self.answers.pop_front_if(|answer| bytes == 0 || bytes + answer.bytes <= MESSAGE_BYTES)
        {
            counted += answer.bytes;
            let answer = self.encode(answer, hint.as_ref());
            bytes += ANSWER_OVERHEAD + answer.encoded_len();
            answers.push(answer);
        }
        let batch = wire::AnswerBatch { answers, leader };
        self.inbox.owed.send(counted, &batch);
        batch
    }

    fn encode(&mut self, answer: Answer, hint: Option<&LeaderHint>) -> wire::NumberedAnswer {
        let Answer { number, kind, outcome, bytes } = answer;
        self.bytes -= bytes;
        // From now on the client may use the number again.
        self.numbers.remove(&number);
        convert_answer::encode(number, kind, outcome, hint)
    }

    /// Hands a batch to the node, in order; calls of one kind, one after the other and with times that are alike, go together.
    async fn take(&mut self, batch: wire::CallBatch) -> Result<(), Refusal> {
        if batch.is_too_long() {
            return Err(Refusal::Invalid(format!(
                "a batch has more than {OPEN_MAX} calls, and none of them was made: send fewer at once"
            )));
        }
        let mut run = Run::default();
        for (place, call) in batch.calls.into_iter().enumerate() {
            if place > 0 && place.is_multiple_of(TURN_MAX) {
                yield_now().await;
            }
            let number = call.number;
            if !self.numbers.insert(number) {
                return Err(Refusal::Invalid(format!(
                    "call number {number} came again before it was answered: a number may be used again only then"
                )));
            }
            let (kind, asked) = match Numbered::decode(call) {
                Ok(call) => (call.asked.kind(), Ok(call)),
                Err(refusal) => (Kind::Execute, Err(refusal)),
            };
            let allowed = asked.and_then(|call| self.authorised(call)).and_then(|call| self.within_limits(call));
            match allowed {
                Ok(call) => {
                    let caller = self.open_call(&call);
                    run.add(&self.desk, call, caller);
                }
                Err(refusal) => self.refuse(number, kind, refusal),
            }
        }
        run.flush(&self.desk);
        Ok(())
    }

    /// Whoever may only read, only reads.
    fn authorised(&self, call: Numbered) -> Result<Numbered, Refusal> {
        match &self.identity {
            Some(identity) if identity.role() < Role::Writer && call.asked.kind() != Kind::Query => {
                Err(Refusal::Denied(identity.may_not("execute commands", Role::Writer)))
            }
            _ => Ok(call),
        }
    }

    /// One batch may have more calls than a stream may have in flight.
    fn within_limits(&self, call: Numbered) -> Result<Numbered, Refusal> {
        if self.open.len() < 2 * OPEN_MAX {
            return Ok(call);
        }
        Err(Refusal::Busy(format!("more than {} calls are in flight on this stream", 2 * OPEN_MAX)))
    }

    fn open_call(&mut self, call: &Numbered) -> Caller {
        self.tokens += 1;
        let bytes = call.asked.bytes();
        self.bytes += bytes;
        self.open.insert(self.tokens, Open { number: call.number, kind: call.asked.kind(), bytes });
        let sink = if call.asked.kind() == Kind::Query { &self.queries } else { &self.commands };
        Caller { sink: Arc::clone(sink), token: self.tokens }
    }
}

/// The outcome, or in its place that the reply is more than one message can carry: it would end the stream, and all that is on
/// it.
fn sendable(outcome: Outcome, kind: Kind, bytes_max: usize) -> Outcome {
    let bytes = reply_bytes(&outcome);
    match outcome {
        Outcome::Done { index, .. } if bytes > bytes_max => match kind {
            Kind::Query => Outcome::Refused(Refusal::TooLarge { bytes: bytes as u64, limit: bytes_max as u64 }),
            Kind::Execute | Kind::OpenSession => Outcome::unknown(format!(
                "the command was applied at index {index}, but its answer has {bytes} bytes, which is more than one message \
                 can carry, {bytes_max}: have commands return less, and queries read the rest"
            )),
        },
        outcome => outcome,
    }
}

/// Calls that are handed over together. All of them have the least of their times.
#[derive(Default)]
struct Run {
    least: Duration,
    most: Duration,
    gathered: Gathered,
}

#[derive(Default)]
enum Gathered {
    #[default]
    Nothing,
    Commands(Vec<Call>),
    Queries(Vec<(bytes::Bytes, Caller)>, graft_services::Read),
}

impl Run {
    fn add(&mut self, desk: &Desk, call: Numbered, caller: Caller) {
        let timeout = call.timeout.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX);
        let (least, most) = (self.least.min(timeout), self.most.max(timeout));
        if self.goes_on_with(&call.asked) && most.saturating_sub(least) <= (least / ALIKE_SHARE).min(ALIKE_MAX) {
            (self.least, self.most) = (least, most);
        } else {
            self.flush(desk);
            (self.least, self.most) = (timeout, timeout);
        }
        match (call.asked, &mut self.gathered) {
            (Asked::Execute { body, slot }, Gathered::Commands(calls)) => calls.push(Call { body, slot, caller }),
            (Asked::Execute { body, slot }, gathered) => {
                *gathered = Gathered::Commands(vec![Call { body, slot, caller }]);
            }
            (Asked::Query { body, .. }, Gathered::Queries(queries, _)) => queries.push((body, caller)),
            (Asked::Query { body, read }, gathered) => *gathered = Gathered::Queries(vec![(body, caller)], read),
            (Asked::OpenSession { ttl }, _) => desk.api.open_session(ttl, caller, timeout),
        }
    }

    fn goes_on_with(&self, asked: &Asked) -> bool {
        match (&self.gathered, asked) {
            (Gathered::Commands(_), Asked::Execute { .. }) => true,
            (Gathered::Queries(_, same), Asked::Query { read, .. }) => read == same,
            _ => false,
        }
    }

    fn flush(&mut self, desk: &Desk) {
        match std::mem::take(&mut self.gathered) {
            Gathered::Nothing => {}
            Gathered::Commands(calls) => desk.api.execute(calls, self.least),
            Gathered::Queries(queries, read) => desk.api.query(queries, read, self.least),
        }
    }
}
