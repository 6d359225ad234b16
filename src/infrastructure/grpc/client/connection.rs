//! One connection to a member: made, introduced, and read until it ends.

use std::sync::{Arc, OnceLock};

use graft_services::client::{Answer, Event, Hint, LinkId, Loss};
use graft_services::error::{Outcome, Refusal};
use graft_services::identity::Distrust;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codegen::http;
use tonic::{Code, Request, Status, Streaming};

use super::super::address::Connector;
use super::super::config::PeerConfig;
use super::super::convert::BadFrame;
use super::super::convert_answer::{self, decode_leader};
use super::super::failure::{Failure, LeaderHint, Told};
use super::super::http2::{self, Http2, words};
use super::super::tasks::Tasks;
use super::super::wire;
use super::super::wire::admin_client::AdminClient;
use super::super::wire::client_client::ClientClient;
use super::outgoing::Outgoing;
use super::{ClerkSink, Happened};

/// A connection, as seen from outside of its task. Dropped, it closes.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) channel: Channel,
    pub(super) _closes: DropGuard,
}

/// Where calls can be made. Copies are of the same connection.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub(super) link: LinkId,
    pub(super) address: Arc<str>,
    /// There once the connection stands.
    http2: Arc<OnceLock<Http2>>,
    message_bytes_max: usize,
    pub(super) tasks: Tasks,
    /// The connection is gone.
    pub(super) gone: CancellationToken,
}

/// Batches of answers that a client may have before it.
const UNHEARD_MAX: usize = 16;

/// What a connection's task needs.
pub(super) struct Dialled {
    pub(super) channel: Channel,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) config: PeerConfig,
    pub(super) sink: ClerkSink,
}

/// By the numbers of what was said.
type Answers = Vec<(u64, Answer)>;

/// A member that has introduced itself.
struct Established {
    hint: Option<Hint>,
    first: Answers,
    answers: Streaming<wire::AnswerBatch>,
}

/// The path is what matters; the authority is a formality of HTTP.
fn origin() -> http::Uri {
    http::Uri::from_static("http://graft.invalid")
}

impl Connection {
    /// Begins to connect; the sink is told what comes of it.
    pub(super) fn dial(link: LinkId, address: &str, config: &PeerConfig, tasks: &Tasks, sink: &ClerkSink) -> Self {
        let (tasks, closes) = tasks.subgroup();
        let outgoing = Outgoing::new(config.batch_bytes_max);
        let channel = Channel {
            link,
            address: Arc::from(address),
            http2: Arc::default(),
            message_bytes_max: config.message_bytes_max,
            tasks: tasks.clone(),
            gone: CancellationToken::new(),
        };
        let dialled = Dialled {
            channel: channel.clone(),
            outgoing: Arc::clone(&outgoing),
            config: config.clone(),
            sink: Arc::clone(sink),
        };
        tasks.spawn(dialled.run());
        Self { outgoing, channel, _closes: closes }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outgoing.end();
        self.channel.gone.cancel();
    }
}

impl Channel {
    pub(super) fn client(&self) -> Option<ClientClient<Http2>> {
        let client = ClientClient::with_origin(self.http2.get()?.clone(), origin());
        let max = self.message_bytes_max;
        Some(client.max_encoding_message_size(max).max_decoding_message_size(max))
    }

    pub(super) fn admin(&self) -> Option<AdminClient<Http2>> {
        let client = AdminClient::with_origin(self.http2.get()?.clone(), origin());
        let max = self.message_bytes_max;
        Some(client.max_encoding_message_size(max).max_decoding_message_size(max))
    }
}

impl Dialled {
    async fn run(self) {
        let link = self.channel.link;
        let why = match self.establish().await {
            Ok(Established { hint, first, answers }) => {
                let heard = Event::Heard { link, answers: first, hint: None };
                (self.sink)(Happened { events: vec![Event::Connected { link, hint }, heard], _heard: None });
                self.read(answers).await
            }
            Err(why) => why,
        };
        self.outgoing.end();
        self.channel.gone.cancel();
        // What failed first is in the connection; layers above have words of it at most.
        let distrust = self.channel.http2.get().and_then(Http2::distrust).cloned();
        let why = distrust.map_or(why, Loss::from);
        (self.sink)(Event::Lost { link, why }.into());
    }

    /// Connects, and hears the member's first words: whoever says nothing, or something else, is none.
    async fn establish(&self) -> Result<Established, Loss> {
        // Every connection of a client is made here.
        let mut connector = Connector::new(self.channel.address.to_string());
        let stream =
            connector.connect(self.config.connect_timeout).await.map_err(|error| Loss::from(error.to_string()))?;
        let http2 = http2::http2(stream, &self.config, &self.channel.tasks).await;
        let http2 = http2?;
        let http2 = self.channel.http2.get_or_init(|| http2);
        let max = self.channel.message_bytes_max;
        let mut client = ClientClient::with_origin(http2.clone(), origin())
            .max_encoding_message_size(max)
            .max_decoding_message_size(max);
        let answers = client.calls(Request::new(self.outgoing.batches())).await;
        let mut answers = answers.map_err(|status| foreign(&status))?.into_inner();
        let first = answers.message().await.map_err(|status| foreign(&status))?;
        let first = first.ok_or_else(|| Loss::from("it closed the connection without a word".to_owned()))?;
        let (hint, first) = decode(first).map_err(|bad| garbage(&bad))?;
        Ok(Established { hint, first, answers })
    }

    /// Passes on what the member says until it says no more, and answers why.
    async fn read(&self, mut answers: Streaming<wire::AnswerBatch>) -> Loss {
        let link = self.channel.link;
        let credits = Arc::new(Semaphore::new(UNHEARD_MAX));
        loop {
            // It is never closed.
            let heard = Arc::clone(&credits).acquire_owned().await.ok();
            match answers.message().await {
                Ok(Some(batch)) => match decode(batch) {
                    Ok((hint, answers)) => {
                        let events = vec![Event::Heard { link, answers, hint }];
                        (self.sink)(Happened { events, _heard: heard });
                    }
                    Err(bad) => return garbage(&bad),
                },
                Ok(None) => return "it ended the stream of calls".to_owned().into(),
                Err(status) => return foreign(&status),
            }
        }
    }
}

fn garbage(bad: &BadFrame) -> Loss {
    let why = format!("what it says makes no sense ({bad}): is it a member of a Graft cluster, or a newer version?");
    why.into()
}

/// Why a call could not be made, in words.
fn foreign(status: &Status) -> Loss {
    match Told::from_status(status).map(|told| told.failure) {
        Some(Failure::Refused(Refusal::Denied(why))) => return Distrust(why).into(),
        Some(failure) => return Outcome::from(failure).trouble().into(),
        None => {}
    }
    let why = match status.code() {
        Code::Unimplemented | Code::NotFound => {
            let said = words(status);
            let said = if said.is_empty() { "it knows no such service" } else { &said };
            format!("it serves no Graft, or one that is too old for this client: {said}")
        }
        _ => words(status),
    };
    why.into()
}

/// An outcome that is none, in words.
trait Trouble {
    fn trouble(self) -> String;
}

impl Trouble for Outcome {
    fn trouble(self) -> String {
        match self {
            Outcome::Refused(refusal) => refusal.to_string(),
            Outcome::Unknown { why, .. } => why,
            Outcome::Done { .. } | Outcome::Compared { .. } => "it answered what nobody asked".to_owned(),
        }
    }
}

fn decode(batch: wire::AnswerBatch) -> Result<(Option<Hint>, Answers), BadFrame> {
    let mut hint = batch.leader.map(decode_leader).transpose()?.map(hint_of);
    let mut answers = Vec::with_capacity(batch.answers.len());
    for answer in batch.answers {
        let (number, outcome, told) = convert_answer::decode(answer)?;
        if let Some(leader) = told.as_ref().and_then(|told| told.leader.clone()) {
            hint = hint.or(Some(hint_of(Some(leader))));
        }
        let is_error = matches!(outcome, Outcome::Refused(_) | Outcome::Unknown { .. });
        answers.push((number, if is_error { failed(told, outcome) } else { Answer::Outcome(outcome) }));
    }
    Ok((hint, answers))
}

/// Of a call that failed, what is known. What does not come from a member says nothing of what a member did.
pub(super) fn failed(told: Option<Told>, outcome: Outcome) -> Answer {
    match told.map(|told| told.failure) {
        Some(Failure::Refused(_) | Failure::Unknown { .. }) => Answer::Outcome(outcome),
        Some(Failure::Internal(what)) => Answer::Unclear(what),
        None => Answer::Unclear(outcome.trouble()),
    }
}

fn hint_of(leader: Option<LeaderHint>) -> Hint {
    leader.map_or(Hint::Nobody, |LeaderHint { id, address }| Hint::Leads { id, address })
}

/// What a call that ended with a status means for it.
pub(super) fn answer_of(status: &Status) -> Answer {
    let told = Told::from_status(status);
    let outcome = match &told {
        Some(told) => Outcome::from(told.failure.clone()),
        None => Outcome::unknown(words(status)),
    };
    failed(told, outcome)
}
