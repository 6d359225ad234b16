//! Members that break the rules: whatever they say, the connection ends in words or the answer is told for what it is.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::Index;
use graft_services::api::{Cursor, News, Watch};
use graft_services::client::{Answer, Demand, Hint, LinkId};
use graft_services::error::{Outcome, Refusal};
use graft_services::ports::Reply;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::super::wire::{self, client_server};
use super::*;

const DEADLINE: Duration = Duration::from_secs(10);
const LINK: LinkId = LinkId(1);

type Said = Result<wire::AnswerBatch, Status>;
type Shown = Result<wire::WatchResponse, Status>;

/// Says the same on every stream, and then hangs or ends.
#[derive(Clone, Debug, Default)]
struct Member {
    says: Vec<Said>,
    /// What watchers are shown, by the place that they begin behind.
    shows: Vec<(u64, Vec<Shown>)>,
    ends: bool,
    /// Where what it is asked goes.
    asked: Option<UnboundedSender<wire::CallBatch>>,
}

type Stream<T> = UnboundedReceiverStream<Result<T, Status>>;

fn stream<T: Send + 'static>(items: Vec<Result<T, Status>>, ends: bool) -> Response<Stream<T>> {
    let (say, said) = unbounded_channel();
    for item in items {
        say.send(item).unwrap();
    }
    if !ends {
        tokio::spawn(async move { say.closed().await });
    }
    Response::new(UnboundedReceiverStream::new(said))
}

#[tonic::async_trait]
impl client_server::Client for Member {
    type CallsStream = Stream<wire::AnswerBatch>;
    type WatchStream = Stream<wire::WatchResponse>;

    async fn calls(&self, calls: Request<Streaming<wire::CallBatch>>) -> Result<Response<Self::CallsStream>, Status> {
        if let Some(asked) = self.asked.clone() {
            tokio::spawn(async move {
                let mut calls = calls.into_inner();
                while let Ok(Some(batch)) = calls.message().await {
                    drop(asked.send(batch));
                }
            });
        }
        Ok(stream(self.says.clone(), self.ends))
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let since = request.into_inner().since.unwrap_or_default().index;
        let shown = self.shows.iter().find(|(from, _)| *from == since).map(|(_, shown)| shown.clone());
        Ok(stream(shown.ok_or_else(|| Status::not_found(format!("nothing behind {since}")))?, true))
    }

    async fn execute(&self, _: Request<wire::ExecuteRequest>) -> Result<Response<wire::ExecuteResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn query(&self, _: Request<wire::QueryRequest>) -> Result<Response<wire::QueryResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn open_session(
        &self,
        _: Request<wire::OpenSessionRequest>,
    ) -> Result<Response<wire::OpenSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A member, a connection to it, and what that tells.
struct Stage {
    runtime: Runtime,
    lines: Lines,
    told: Receiver<Happened>,
}

impl Stage {
    fn of(member: Member) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(client_server::ClientServer::new(member));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let (tell, told) = channel();
        let sink: ClerkSink = Arc::new(move |happened| drop(tell.send(happened)));
        let config = crate::infrastructure::grpc::PeerConfig { message_bytes_max: 1 << 20, ..Default::default() };
        let mut lines = Lines::new(runtime.handle().clone(), config, sink);
        lines.dial(LINK, &address);
        lines.use_(Some(LINK));
        Self { runtime, lines, told }
    }

    /// What happens, up to and with the end of the connection.
    fn until_lost(&self) -> Vec<Event> {
        let mut all = Vec::new();
        while !matches!(all.last(), Some(Event::Lost { .. })) {
            all.extend(self.told.recv_timeout(DEADLINE).expect("the connection to end").events);
        }
        all
    }
}

/// Why a connection to a member that says this is given up.
fn trouble(says: Vec<Said>, ends: bool) -> String {
    let stage = Stage::of(Member { says, ends, ..Member::default() });
    match stage.until_lost().pop() {
        Some(Event::Lost { why, .. }) => why.why,
        other => panic!("{other:?}"),
    }
}

fn batch(answers: Vec<wire::NumberedAnswer>) -> wire::AnswerBatch {
    wire::AnswerBatch { answers, leader: None }
}

fn answer(number: u64, answer: wire::numbered_answer::Answer) -> wire::NumberedAnswer {
    wire::NumberedAnswer { number, answer: Some(answer) }
}

#[test]
fn what_makes_no_sense_ends_the_connection_in_words() {
    use wire::numbered_answer::Answer as Wire;
    let empty = wire::NumberedAnswer { number: 1, answer: None };
    let speechless = answer(1, Wire::Execute(wire::ExecuteResponse::default()));
    let nobody = wire::AnswerBatch {
        leader: Some(wire::Leader { id: "no such id".into(), ..Default::default() }),
        ..batch(vec![])
    };
    for bad in [batch(vec![empty]), batch(vec![speechless]), nobody] {
        let first = trouble(vec![Ok(bad.clone())], false);
        assert!(first.contains("makes no sense"), "{first}");
        let later = trouble(vec![Ok(batch(vec![])), Ok(bad)], false);
        assert!(later.contains("makes no sense"), "{later}");
    }
}

#[test]
fn every_way_to_end_is_told() {
    assert!(trouble(vec![], true).contains("without a word"));
    assert!(trouble(vec![Ok(batch(vec![]))], true).contains("ended the stream"));
    let unknown = trouble(vec![Err(Status::unimplemented("no such method"))], true);
    assert!(unknown.contains("serves no Graft") && unknown.contains("no such method"), "{unknown}");
    let large = wire::ExecuteResponse {
        reply: Some(wire::execute_response::Reply::Value(Bytes::from(vec![0; 2 << 20]))),
        ..Default::default()
    };
    let large = trouble(vec![Ok(batch(vec![answer(1, wire::numbered_answer::Answer::Execute(large))]))], false);
    assert!(large.contains("too large"), "{large}");
}

#[test]
fn an_error_that_is_not_a_members_says_nothing_of_what_was_done() {
    let status =
        tonic_types::pb::Status { code: Code::Unavailable.into(), message: "try later".into(), details: vec![] };
    let leader = wire::Leader { id: "n2".into(), address: "n2:1".into() };
    let says = wire::AnswerBatch {
        answers: vec![answer(5, wire::numbered_answer::Answer::Error(status))],
        leader: Some(leader),
    };
    let stage = Stage::of(Member { says: vec![Ok(batch(vec![])), Ok(says)], ends: true, ..Member::default() });
    let heard = stage.until_lost();
    let answers = vec![(5, Answer::Unclear("try later".to_owned()))];
    let id = graft_domain::NodeId::new("n2").unwrap();
    let hint = Some(Hint::Leads { id, address: "n2:1".to_owned() });
    assert!(heard.contains(&Event::Heard { link: LINK, answers, hint }), "{heard:?}");
}

#[test]
fn a_member_that_talks_too_fast_is_not_listened_to() {
    let says = (0..200).map(|_| Ok(batch(vec![]))).collect();
    let stage = Stage::of(Member { says, ..Member::default() });
    let mut kept = vec![];
    while let Ok(happened) = stage.told.recv_timeout(Duration::from_millis(500)) {
        kept.push(happened);
    }
    assert!(kept.len() < 20, "{} batches were taken in without anybody listening", kept.len());
    let before = kept.len();
    kept.clear();
    assert!(stage.told.recv_timeout(DEADLINE).is_ok(), "it goes on after {before}");
}

#[test]
fn a_single_call_that_fails_is_told_for_what_it_is() {
    let mut stage = Stage::of(Member { says: vec![Ok(batch(vec![]))], ..Member::default() });
    stage.told.recv_timeout(DEADLINE).unwrap();
    // The member serves no `Admin` at all.
    stage.lines.send(LINK, 9, Demand::View, DEADLINE);
    let heard = stage.told.recv_timeout(DEADLINE).unwrap().events;
    assert!(
        matches!(&heard[..], [Event::Heard { answers, .. }] if matches!(answers[..], [(9, Answer::Unclear(_))])),
        "{heard:?}"
    );
}

fn emitted(index: u64, number: u32) -> wire::watch_response::Item {
    let emitted = wire::Emitted { index, number, topic: "t".into(), value: Bytes::new() };
    wire::watch_response::Item { item: Some(wire::watch_response::item::Item::Emitted(emitted)) }
}

#[test]
fn a_stream_goes_on_where_it_ended_and_tells_nothing_twice() {
    let told = |items: Vec<wire::watch_response::Item>| Ok(wire::WatchResponse { items });
    let behind = wire::watch_response::Item { item: Some(wire::watch_response::item::Item::Behind(20)) };
    let garbage = wire::watch_response::Item { item: None };
    let shows = vec![
        (5, vec![told(vec![emitted(6, 0), emitted(6, 1)]), Err(Status::unavailable("gone"))]),
        // It begins too early, and then says what makes no sense.
        (6, vec![told(vec![emitted(6, 0), emitted(6, 1), emitted(7, 0)]), told(vec![garbage])]),
        (7, vec![told(vec![behind, emitted(19, 0), emitted(21, 0)])]),
    ];
    let stage = Stage::of(Member { says: vec![Ok(batch(vec![]))], shows, ..Member::default() });
    let since = Some(Cursor { index: Index(5), number: u32::MAX });
    let (tell, wakes) = channel();
    let watch = Watch { topics: vec![], since };
    let mut reader = stage.lines.watchers().watch(
        watch,
        Arc::new(move || {
            let _ = tell.send(());
        }),
    );
    let mut places = Vec::new();
    while places.len() < 5 {
        wakes.recv_timeout(DEADLINE).expect("more to come");
        places.extend(reader.take(10).items.into_iter().map(|news| match news {
            News::Emitted(emitted) => (emitted.index.0, emitted.number),
            News::Behind { upto } => (upto.0, u32::MAX),
            News::Upto(_) => panic!("nobody said so"),
        }));
    }
    assert_eq!(places, [(6, 0), (6, 1), (7, 0), (20, u32::MAX), (21, 0)]);
    assert!(stage.lines.shutdown(DEADLINE));
    assert_eq!(reader.take(1).ended, Some(Refusal::Stopped));
    drop(stage.runtime);
}

#[test]
fn a_reply_is_a_slice_of_what_came() {
    let reply = wire::ExecuteResponse {
        index: 3,
        term: 2,
        reply: Some(wire::execute_response::Reply::Value(Bytes::from_static(b"yes"))),
        leader: None,
    };
    let says = vec![Ok(batch(vec![answer(1, wire::numbered_answer::Answer::Execute(reply))]))];
    let heard = Stage::of(Member { says, ends: true, ..Member::default() }).until_lost();
    let Some(Event::Heard { answers, .. }) = heard.get(1) else { panic!("{heard:?}") };
    let Answer::Outcome(Outcome::Done { index: Index(3), reply: Reply::Value(value), .. }) = &answers[0].1 else {
        panic!("{answers:?}")
    };
    assert_eq!(&value[..], b"yes");
}

#[test]
fn what_is_said_in_one_turn_has_one_time() {
    let (asked, mut heard) = unbounded_channel();
    let mut stage = Stage::of(Member { says: vec![Ok(batch(vec![]))], asked: Some(asked), ..Member::default() });
    for number in 1..=100 {
        let demand = Demand::Execute { slot: None, body: Bytes::new() };
        stage.lines.send(LINK, number, demand, Duration::from_secs(9));
    }
    stage.lines.flush();
    let heard = stage.runtime.block_on(async { tokio::time::timeout(DEADLINE, heard.recv()).await });
    let calls = heard.expect("to be asked").unwrap().calls;
    assert!(calls.len() == 100 && calls.iter().all(|call| call.timeout == calls[0].timeout), "{calls:?}");
}
