//! Many clients, large ones and slow ones: they get clear answers and keep nobody else out.

use std::net::TcpStream;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_services::error::Refusal;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::{Code, Status};

use super::super::failure::{Failure, Told};
use super::super::wire;
use super::raw::{self, Call};
use super::toy::Toy;
use super::visit::{Visit, execute, soon, told};
use super::{DEADLINE, Node, PeerConfig, runtime};

#[test]
fn silent_connections_keep_neither_members_nor_clients_out() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    // More than may wait; those beyond are closed, the rest stay open all the time.
    let silent: Vec<_> = (0..400).map(|_| TcpStream::connect(n1.address()).unwrap()).collect();
    runtime.block_on(async {
        let _member = Call::accepted(n1.address(), &raw::hello("n2", "n1")).await;
        Visit::to(n1.address()).await.execute("x").await.unwrap();
    });
    drop(silent);
}

#[test]
fn idle_clients_make_room_for_others() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig { clients_max: 4, ..PeerConfig::default() });
    runtime.block_on(async {
        let mut idle = Vec::new();
        for _ in 0..40 {
            let mut visit = Visit::to(n1.address()).await;
            visit.execute("x").await.unwrap();
            idle.push(visit);
        }
        let _member = Call::accepted(n1.address(), &raw::hello("n2", "n1")).await;
        // The oldest was told to go, the newest was not.
        assert!(idle.last_mut().unwrap().execute("x").await.is_ok());
        let deadline = Instant::now() + DEADLINE;
        while idle[0].execute("x").await.is_ok() {
            assert!(Instant::now() < deadline, "the first client was not told to go");
        }
    });
}

#[test]
fn busy_clients_keep_no_operator_and_no_member_out() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig { clients_max: 2, ..PeerConfig::default() });
    runtime.block_on(async {
        let mut busy = Vec::new();
        for _ in 0..2 {
            let mut visit = Visit::to(n1.address()).await;
            let watched = soon(visit.client.watch(wire::WatchRequest::default())).await.unwrap();
            busy.push((visit, watched));
        }
        let mut third = Visit::to(n1.address()).await;
        let refused = third.execute("x").await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let said = told(&refused);
        assert!(said.retry_after.is_some());
        assert!(matches!(said.failure, Failure::Refused(Refusal::Busy(words)) if words.contains("clients_max")));
        let mut operator = Visit::to(n1.address()).await;
        soon(operator.admin.status(wire::StatusRequest {})).await.unwrap();
        let _member = Call::accepted(n1.address(), &raw::hello("n2", "n1")).await;
        busy.clear();
        let deadline = Instant::now() + DEADLINE;
        while third.execute("x").await.is_err() {
            assert!(Instant::now() < deadline, "no place became free");
        }
    });
}

#[test]
fn a_command_over_the_limit_is_refused_in_words_and_the_connection_goes_on() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(
        &runtime,
        &toy,
        PeerConfig { request_bytes_max: 4096, message_bytes_max: 8192, ..PeerConfig::default() },
    );
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        for bytes in [5000, 500_000, 20_000_000] {
            let refused = visit.execute(&"x".repeat(bytes)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            let Failure::Refused(Refusal::TooLarge { bytes: found, limit: 4096 }) = told(&refused).failure else {
                panic!("{refused:?}")
            };
            assert!(found > bytes as u64, "{found}");
        }
        visit.execute(&"x".repeat(4000)).await.unwrap();
        let calls = vec![wire::NumberedCall {
            number: 1,
            timeout: 0,
            call: Some(wire::numbered_call::Call::Execute(execute(&"x".repeat(10_000)))),
        }];
        let stream = tokio_stream::once(wire::CallBatch { calls });
        let mut answers = soon(visit.client.calls(stream)).await.unwrap();
        let status = loop {
            match answers.message().await {
                Ok(batch) => assert!(batch.is_some(), "it ended without a word"),
                Err(status) => break status,
            }
        };
        assert!(matches!(told(&status).failure, Failure::Refused(Refusal::TooLarge { .. })), "{status:?}");
        visit.execute("still there").await.unwrap();
    });
}

type Frames = mpsc::Sender<Result<Frame<Bytes>, Status>>;

/// A call whose request comes as it is told to, and how it ends.
fn raw_call(
    visit: &mut Visit,
    path: &str,
    timeout: Option<&str>,
) -> (Frames, impl Future<Output = Result<Status, hyper::Error>> + use<>) {
    let (sender, frames) = mpsc::channel(16);
    let mut request =
        http::Request::post(format!("http://graft.invalid{path}")).header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let body = Body::new(Streamed(ReceiverStream::new(frames)));
    let answer = visit.http2.call(request.body(body).unwrap());
    (sender, async move { Ok(Status::from_header_map(answer.await?.headers()).expect("an error")) })
}

struct Streamed(ReceiverStream<Result<Frame<Bytes>, Status>>);

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        use tokio_stream::Stream as _;
        std::pin::Pin::new(&mut self.0).poll_next(context)
    }
}

#[test]
fn requests_that_are_half_here_have_one_limit() {
    let (runtime, toy) = (runtime(), Toy::new());
    let config = PeerConfig {
        request_bytes_max: 4096,
        requests_bytes_max: 8192,
        message_bytes_max: 4096,
        ..PeerConfig::default()
    };
    let n1 = Node::open(&runtime, &toy, config);
    runtime.block_on(async {
        let half = [&[0, 0, 0, 16, 0][..], &[0; 3000]].concat();
        let (mut held, mut ends) = (Vec::new(), tokio::task::JoinSet::new());
        for _ in 0..3 {
            let mut visit = Visit::to(n1.address()).await;
            let (sender, status) = raw_call(&mut visit, "/graft.v1.Client/Execute", None);
            sender.send(Ok(Frame::data(half.clone().into()))).await.unwrap();
            ends.spawn(status);
            held.push((visit, sender));
        }
        let refused = tokio::time::timeout(DEADLINE, ends.join_next()).await.expect("an answer in time");
        let refused = refused.unwrap().unwrap().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        drop(held);
        let deadline = Instant::now() + DEADLINE;
        let mut visit = Visit::to(n1.address()).await;
        while visit.execute("x").await.is_err() {
            assert!(Instant::now() < deadline, "no room became free");
        }
    });
}

#[test]
fn methods_and_bytes_of_nobody_are_refused_in_words() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        for path in ["/graft.v1.Client/Rename", "/graft.v2.Client/Execute", "/graft.v1.Peer2/Link", "/"] {
            let (sender, status) = raw_call(&mut visit, path, None);
            drop(sender);
            let status = tokio::time::timeout(DEADLINE, status).await.expect("an answer").unwrap();
            assert_eq!(status.code(), Code::Unimplemented, "{path}");
            assert!(status.message().contains(path) && status.message().contains("newer"), "{status:?}");
        }
        for (bytes, code) in [
            (&b"\x00\x00\x00\x00\x04\xff\xff\xff\xff"[..], Code::Internal),
            (b"\x01\x00\x00\x00\x01\x00", Code::Internal),
            (b"\xff\x00\x00\x00\x01\x00", Code::Internal),
        ] {
            let (sender, status) = raw_call(&mut visit, "/graft.v1.Client/Execute", None);
            sender.send(Ok(Frame::data(Bytes::from_static(bytes)))).await.unwrap();
            drop(sender);
            let status = tokio::time::timeout(DEADLINE, status).await.expect("an answer").unwrap();
            assert_eq!((status.code(), Told::from_status(&status)), (code, None), "{status:?}");
        }
        visit.execute("still there").await.unwrap();
        assert_eq!(toy.state().log.len(), 1);
    });
}

#[test]
fn a_request_that_does_not_come_is_not_waited_for() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        let (_sender, status) = raw_call(&mut visit, "/graft.v1.Client/Execute", Some("1m"));
        let waited = Instant::now();
        let status = tokio::time::timeout(DEADLINE, status).await.expect("an end").unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(waited.elapsed() < Duration::from_secs(15));
    });
}

#[test]
fn halves_that_do_not_come_on_keep_nobody_out() {
    let (runtime, toy) = (runtime(), Toy::new());
    let config = PeerConfig {
        request_bytes_max: 8192,
        requests_bytes_max: 32 << 10,
        message_bytes_max: 8192,
        ..PeerConfig::default()
    };
    let n1 = Node::open(&runtime, &toy, config);
    runtime.block_on(async {
        // All but one byte of the largest request, on each of as many connections as it takes.
        let half = [&[0, 0, 0, 32, 0][..], &[0; 8191]].concat();
        let (mut held, mut ends) = (Vec::new(), tokio::task::JoinSet::new());
        for _ in 0..4 {
            let mut visit = Visit::to(n1.address()).await;
            let (sender, status) = raw_call(&mut visit, "/graft.v1.Client/Execute", Some("1H"));
            sender.send(Ok(Frame::data(half.clone().into()))).await.unwrap();
            ends.spawn(status);
            held.push((visit, sender));
        }
        let mut visit = Visit::to(n1.address()).await;
        let deadline = Instant::now() + DEADLINE;
        while visit.execute("a command").await.is_ok() {
            assert!(Instant::now() < deadline, "the limit was not reached");
        }
        let change =
            wire::Change { guard: None, change: Some(wire::change::Change::Promote("a-new-member".to_owned())) };
        soon(visit.admin.change_membership(change)).await.expect("operators are counted apart");
        while visit.execute("a command").await.is_err() {
            assert!(Instant::now() < deadline, "no room became free");
        }
        let ended = tokio::time::timeout(DEADLINE, ends.join_next()).await.expect("one of them to be told");
        let Failure::Refused(Refusal::Busy(why)) = told(&ended.unwrap().unwrap().unwrap()).failure else {
            panic!("another reason")
        };
        assert!(why.contains("closed"), "{why}");
        let mut context = Context::from_waker(Waker::noop());
        while held.iter_mut().all(|(visit, _)| !matches!(visit.http2.poll_ready(&mut context), Poll::Ready(Err(_)))) {
            assert!(Instant::now() < deadline, "none of them was closed");
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn requests_are_no_larger_than_their_method_needs() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        for (path, bytes_max) in [
            ("/graft.v1.Client/Execute", PeerConfig::default().request_bytes_max),
            ("/graft.v1.Client/Watch", 1_027_064),
            ("/graft.v1.Client/OpenSession", 4096),
            ("/graft.v1.Admin/ChangeMembership", 256_000),
            ("/graft.v1.Admin/WhatIf", 256_000),
            ("/graft.v1.Admin/Status", 4096),
            ("/grpc.health.v1.Health/Check", 4096),
        ] {
            let bytes = u32::try_from(bytes_max + 1).unwrap();
            let (sender, status) = raw_call(&mut visit, path, None);
            sender.send(Ok(Frame::data([&[0][..], &bytes.to_be_bytes()].concat().into()))).await.unwrap();
            let status = tokio::time::timeout(DEADLINE, status).await.expect("an answer").unwrap();
            let refusal = Refusal::TooLarge { bytes: u64::from(bytes), limit: bytes_max as u64 };
            assert_eq!(told(&status).failure, Failure::Refused(refusal), "{path}");
        }
    });
}
