//! Streams: calls in batches, what commands emit, what happens to the node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_domain::Term;
use graft_services::Notice;
use graft_services::error::{Outcome, Refusal};
use graft_services::ports::Reply;
use prost::Message as _;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::super::convert_answer;
use super::super::failure::Failure;
use super::super::wire::numbered_call::Call;
use super::super::wire::watch_response::item::Item;
use super::super::{calls, wire};
use super::toy::Toy;
use super::visit::{Visit, execute, soon, told};
use super::{DEADLINE, Node, PeerConfig, id, runtime};

fn numbered(number: u64, command: &str) -> wire::NumberedCall {
    wire::NumberedCall { number, timeout: 0, call: Some(Call::Execute(execute(command))) }
}

/// One stream of calls.
struct Conversation {
    calls: Sender<wire::CallBatch>,
    answers: Streaming<wire::AnswerBatch>,
    leaders: Vec<String>,
    visit: Visit,
}

impl Conversation {
    async fn with(node: &Node) -> Self {
        Self::to(node, &PeerConfig::default()).await
    }

    async fn to(node: &Node, config: &PeerConfig) -> Self {
        let mut visit = Visit::with(node.address(), config).await;
        let (calls, batches) = channel(1);
        let answers = soon(visit.client.calls(ReceiverStream::new(batches))).await.unwrap();
        Self { calls, answers, leaders: Vec::new(), visit }
    }

    async fn ask(&self, calls: Vec<wire::NumberedCall>) {
        timeout(DEADLINE, self.calls.send(wire::CallBatch { calls })).await.expect("to be read in time").unwrap();
    }

    async fn next(&mut self) -> Result<Option<wire::AnswerBatch>, Status> {
        let batch = timeout(DEADLINE, self.answers.message()).await.expect("a batch in time")?;
        self.leaders.extend(batch.iter().filter_map(|batch| batch.leader.as_ref().map(|leader| leader.id.clone())));
        Ok(batch)
    }

    /// Why the stream ends.
    async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(batch) => assert!(batch.expect("a status").answers.is_empty()),
                Err(status) => return status,
            }
        }
    }

    /// The next answers, so many.
    async fn hear(&mut self, count: usize) -> BTreeMap<u64, Outcome> {
        let mut heard = BTreeMap::new();
        while heard.len() < count {
            for answer in self.next().await.unwrap().expect("a standing stream").answers {
                let (number, outcome, _) = convert_answer::decode(answer).unwrap();
                assert!(heard.insert(number, outcome).is_none(), "{number} is answered twice");
            }
        }
        heard
    }
}

fn is_value(outcome: &Outcome, expected: &str) -> bool {
    matches!(outcome, Outcome::Done { reply: Reply::Value(value), .. } if value == expected)
}

#[test]
fn many_calls_are_in_flight_and_all_are_answered_once() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        conversation.ask(vec![numbered(7, "hold it")]).await;
        for batch in 0..10 {
            conversation.ask((0..100).map(|n| numbered(100 * batch + n + 10, &format!("{n}"))).collect()).await;
        }
        let heard = conversation.hear(1000).await;
        assert!(heard.iter().all(|(number, outcome)| is_value(outcome, &format!("{}", (number - 10) % 100))));
        toy.let_go();
        assert!(is_value(&conversation.hear(1).await[&7], "hold it"));
        drop(conversation.calls);
        assert!(matches!(conversation.answers.message().await, Ok(None)), "all is answered");
        let batches = toy.state().batches.clone();
        assert_eq!(batches, [&[1][..], &[100; 10]].concat(), "what comes together is proposed together");
    });
}

#[test]
fn calls_whose_times_are_alike_are_handed_over_together_with_the_least() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        let times: [u64; 9] = [10_000, 10_001, 9_990, 10_010, 9_989, 100, 102, 104, 1];
        let call = |(number, milliseconds)| {
            let timeout = milliseconds * 1_000_000;
            wire::NumberedCall { timeout, ..numbered(number, "a") }
        };
        conversation.ask((1..).zip(times).map(call).collect()).await;
        conversation.hear(times.len()).await;
        let state = toy.state();
        let timeouts: Vec<u128> = state.timeouts.iter().map(Duration::as_millis).collect();
        assert_eq!((&*state.batches, &*timeouts), (&[4, 1, 2, 1, 1][..], &[9_990, 9_989, 100, 104, 1][..]));
    });
}

#[test]
fn every_kind_of_call_and_of_answer_travels() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        let call = |number, call| wire::NumberedCall { number, timeout: 1_000_000_000, call };
        let query = wire::QueryRequest { query: Bytes::from_static(b"log"), ..wire::QueryRequest::default() };
        let bad = wire::QueryRequest { consistency: 99, ..query.clone() };
        conversation
            .ask(vec![
                numbered(1, "a"),
                call(2, Some(Call::Query(query))),
                call(3, Some(Call::OpenSession(wire::OpenSessionRequest::default()))),
                numbered(4, "raise no"),
                call(5, None),
                call(6, Some(Call::Query(bad))),
            ])
            .await;
        let heard = conversation.hear(6).await;
        assert!(is_value(&heard[&1], "a") && is_value(&heard[&2], "a"), "in this order: {heard:?}");
        assert!(matches!(&heard[&3], Outcome::Done { .. }));
        assert!(matches!(&heard[&4], Outcome::Done { reply: Reply::Raised(_), .. }));
        for number in [5, 6] {
            let Outcome::Refused(Refusal::Invalid(words)) = &heard[&number] else { panic!("{heard:?}") };
            assert!(words.contains("newer version"), "{words}");
        }
    });
}

#[test]
fn a_number_that_is_in_use_ends_the_stream() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        conversation.ask(vec![numbered(1, "a")]).await;
        conversation.hear(1).await;
        conversation.ask(vec![numbered(1, "used again")]).await;
        conversation.hear(1).await;
        conversation.ask(vec![numbered(1, "hold")]).await;
        conversation.ask(vec![numbered(1, "too soon")]).await;
        let status = conversation.end().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("number 1"), "{status:?}");
    });
}

#[test]
fn a_late_second_answer_is_nobody_elses() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        conversation.ask(vec![numbered(1, "twice")]).await;
        assert!(is_value(&conversation.hear(1).await[&1], "twice"));
        // The number is free again, and its first call is yet to be answered once more.
        conversation.ask(vec![numbered(1, "hold")]).await;
        toy.wait("calls", |state| state.held.len() == 2);
        toy.let_go();
        assert!(is_value(&conversation.hear(1).await[&1], "hold"));
    });
}

#[test]
fn who_leads_is_told_first_and_when_it_changes() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        for (leader, word) in [(Some(id("n2")), "n2"), (None, ""), (Some(id("n1")), "n1")] {
            toy.lead(leader);
            while conversation.leaders.last().map(String::as_str) != Some(word) {
                conversation.next().await.unwrap();
            }
        }
    });
}

#[test]
fn a_stream_with_too_many_calls_in_flight_is_not_read() {
    let (runtime, toy) = (runtime(), Toy::new());
    // So that little is on its way that nobody reads.
    let config = PeerConfig { stream_window_bytes: 64 << 10, ..PeerConfig::default() };
    let n1 = Node::open(&runtime, &toy, config);
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        let batch = calls::OPEN_MAX / 4;
        let commands = |at: usize| (at * batch..(at + 1) * batch).map(|n| numbered(n as u64, "hold")).collect();
        let mut sent = 0;
        // Nothing is answered: at some point nothing more goes out of the client.
        let sending = async {
            loop {
                conversation.ask(commands(sent)).await;
                sent += 1;
                assert!(sent < 40, "the stream is read on and on");
            }
        };
        let stuck = timeout(Duration::from_secs(2), sending).await;
        assert!(stuck.is_err());
        assert_eq!(toy.state().held.len(), calls::OPEN_MAX, "as many as may be in flight");
        // Other clients are not held up by it.
        Visit::to(n1.address()).await.execute("elsewhere").await.unwrap();
        let mut heard = 0;
        while heard < sent * batch {
            toy.wait("calls", |state| !state.held.is_empty());
            heard += conversation.hear(toy.let_go()).await.len();
        }
    });
}

#[test]
fn a_batch_of_too_many_calls_ends_the_stream_and_none_is_made() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        conversation.ask((0..=calls::OPEN_MAX as u64).map(|number| numbered(number, "a")).collect()).await;
        let status = conversation.end().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("more than 16384 calls"), "{status:?}");
        assert!(toy.state().log.is_empty(), "nothing of it is done");
    });
}

#[test]
fn who_takes_no_answers_loses_the_connection_and_others_go_on() {
    let (runtime, toy) = (runtime(), Toy::new());
    let config = PeerConfig { answers_bytes_max: 8 << 20, ..PeerConfig::default() };
    let n1 = Node::open(&runtime, &toy, config);
    runtime.block_on(async {
        let narrow = PeerConfig { stream_window_bytes: 64 << 10, ..PeerConfig::default() };
        let mut slow = Conversation::to(&n1, &narrow).await;
        slow.ask((0..80).map(|number| numbered(number, "big 300000")).collect()).await;
        let mut other = Visit::to(n1.address()).await;
        toy.wait("answers", |state| state.log.len() >= 80);
        let deadline = Instant::now() + DEADLINE;
        let (mut busy, log) = (0, toy.state().log.len());
        while let Err(status) = other.execute("elsewhere").await {
            assert!(Instant::now() < deadline, "others wait for the slow one: {status:?}");
            let failure = told(&status).failure;
            assert!(matches!(&failure, Failure::Refused(Refusal::Busy(why)) if why.contains("8388608")), "{failure:?}");
            assert_eq!(toy.state().log.len(), log, "what is refused as busy is not done");
            busy += 1;
        }
        assert!(busy > 0, "nothing limits what is owed");
        // It is told nothing of what was not taken, and its calls are unknown to it, not refused.
        let mut heard = 0;
        while let Ok(Some(batch)) = slow.next().await {
            heard += batch.answers.len();
        }
        assert!(heard < 80, "it took what it had not read");
    });
}

#[test]
fn large_answers_come_in_messages_that_every_client_takes() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        // Together they are more than the 4 MiB that a message may have if nothing else is agreed upon.
        conversation.ask((0..30).map(|number| numbered(number, "big 300000")).collect()).await;
        assert_eq!(conversation.hear(30).await.len(), 30);
    });
}

#[test]
fn many_errors_come_in_messages_that_every_client_takes() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    toy.lead(Some(id("n2")));
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        conversation.ask((0..16_000).map(|number| numbered(number, "hold")).collect()).await;
        toy.wait("calls", |state| state.held.len() == 16_000);
        for (caller, _) in std::mem::take(&mut toy.state().held) {
            caller.sink.complete(caller.token, Outcome::Refused(Refusal::NotLeader { leader: None }));
        }
        let mut heard = 0;
        while heard < 16_000 {
            let batch = conversation.next().await.unwrap().expect("a standing stream");
            assert!(batch.encoded_len() < 3 << 19, "{} bytes", batch.encoded_len());
            heard += batch.answers.len();
        }
    });
}

#[test]
fn an_answer_that_is_too_large_to_be_sent_is_no_end_of_the_stream() {
    let (runtime, toy) = (runtime(), Toy::new());
    let config = PeerConfig { message_bytes_max: 64 << 10, ..PeerConfig::default() };
    let n1 = Node::open(&runtime, &toy, config);
    runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        let body = Bytes::from(vec![b'x'; 30 << 10]);
        let large = |number| {
            let execute = wire::ExecuteRequest { command: body.clone(), slot: None };
            wire::NumberedCall { number, timeout: 0, call: Some(Call::Execute(execute)) }
        };
        let query = wire::QueryRequest { query: Bytes::from_static(b"log"), ..wire::QueryRequest::default() };
        let query = wire::NumberedCall { number: 4, timeout: 0, call: Some(Call::Query(query)) };
        conversation.ask(vec![numbered(1, "big 61440"), numbered(2, "big 61441")]).await;
        let mut heard = conversation.hear(2).await;
        for number in [10, 11, 12] {
            conversation.ask(vec![large(number)]).await;
            heard.extend(conversation.hear(1).await);
        }
        conversation.ask(vec![query, numbered(5, "goes on")]).await;
        heard.extend(conversation.hear(2).await);
        assert!(matches!(&heard[&1], Outcome::Done { .. }), "{:?}", heard[&2]);
        let Outcome::Unknown { why, slot: None } = &heard[&2] else { panic!("{:?}", heard[&2]) };
        assert!(why.contains("applied at index 2") && why.contains("61441 bytes"), "{why}");
        let too_large = Refusal::TooLarge { bytes: 2 * 9 + 3 * (30 << 10), limit: 60 << 10 };
        assert!(matches!(&heard[&4], Outcome::Refused(refusal) if *refusal == too_large), "{:?}", heard[&4]);
        assert!(is_value(&heard[&5], "goes on"));
    });
}

#[test]
fn a_stream_that_is_broken_off_by_the_node_says_why() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    let (mut conversation, mut news) = runtime.block_on(async {
        let mut conversation = Conversation::with(&n1).await;
        conversation.next().await.unwrap();
        let news = soon(conversation.visit.client.watch(wire::WatchRequest::default())).await.unwrap();
        (conversation, news)
    });
    n1.transport.shutdown(DEADLINE);
    runtime.block_on(async {
        let stopped = Failure::Refused(Refusal::Stopped);
        let status = loop {
            if let Err(status) = conversation.next().await {
                break status;
            }
        };
        assert_eq!(told(&status).failure, stopped);
        let status = loop {
            match timeout(DEADLINE, news.message()).await.expect("an end in time") {
                Ok(word) => assert!(word.expect("a stream").items.is_empty(), "nothing was emitted"),
                Err(status) => break status,
            }
        };
        assert_eq!(told(&status).failure, stopped);
    });
}

async fn items(news: &mut Streaming<wire::WatchResponse>, count: usize) -> Vec<Item> {
    let mut items = Vec::new();
    while items.len() < count {
        let message = timeout(DEADLINE, news.message()).await.expect("news in time").unwrap().expect("a stream");
        items.extend(message.items.into_iter().filter_map(|item| item.item));
    }
    items
}

fn indexes(items: &[Item]) -> Vec<u64> {
    let index = |item: &Item| match item {
        Item::Emitted(emitted) => emitted.index,
        Item::Behind(upto) | Item::Upto(upto) => *upto,
    };
    items.iter().map(index).collect()
}

#[test]
fn what_commands_emit_is_told_in_order_and_from_where_one_wants() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        visit.execute("emit a").await.unwrap();
        let mut from_now = soon(visit.client.watch(wire::WatchRequest::default())).await.unwrap();
        let topics = vec!["b".to_owned()];
        let since = Some(wire::Cursor { index: 0, number: None });
        let mut of_b = soon(visit.client.watch(wire::WatchRequest { topics, since })).await.unwrap();
        let mut all = soon(visit.client.watch(wire::WatchRequest { topics: vec![], since })).await.unwrap();
        for command in ["emit b", "quiet", "emit a", "emit b"] {
            visit.execute(command).await.unwrap();
        }
        assert_eq!(indexes(&items(&mut all, 4).await), [1, 2, 4, 5]);
        assert_eq!(indexes(&items(&mut of_b, 2).await), [2, 5]);
        assert_eq!(indexes(&items(&mut from_now, 3).await), [2, 4, 5]);
    });
}

#[test]
fn that_all_there_is_was_told_is_said_once() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        visit.execute("emit a").await.unwrap();
        let since = Some(wire::Cursor { index: 0, number: None });
        let mut news = soon(visit.client.watch(wire::WatchRequest { topics: vec![], since })).await.unwrap();
        let mut events = soon(visit.admin.events(wire::EventsRequest { since: None })).await.unwrap();
        let mut lengths = Vec::new();
        while lengths.len() < 4 {
            let message = timeout(DEADLINE, news.message()).await.expect("news in time").unwrap().expect("a stream");
            lengths.push(message.items.len());
            if lengths.len() > 1 {
                visit.execute("emit b").await.unwrap();
            }
        }
        assert_eq!(lengths, [1, 0, 1, 1]);
        let nothing = timeout(DEADLINE, events.message()).await.expect("a word in time").unwrap().expect("a stream");
        assert!(nothing.events.is_empty(), "nothing has happened from now on");
    });
}

#[test]
fn a_slow_watcher_falls_behind_and_is_told() {
    let (runtime, toy) = (runtime(), Toy::new());
    // So that the connection takes little ahead of the one who reads.
    let config = PeerConfig { stream_window_bytes: 64 << 10, ..PeerConfig::default() };
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let mut slow = Visit::with(n1.address(), &config).await;
        let mut news = soon(slow.client.watch(wire::WatchRequest::default())).await.unwrap();
        let mut visit = Visit::to(n1.address()).await;
        let long = "x".repeat(2000);
        for _ in 0..3000 {
            visit.execute(&format!("emit {long}")).await.unwrap();
        }
        let mut behind = 0;
        let mut last = 0;
        while last < 3000 {
            for item in items(&mut news, 1).await {
                let index = indexes(std::slice::from_ref(&item))[0];
                match item {
                    Item::Emitted(_) => assert_eq!(index, last + 1, "nothing is left out without a word"),
                    Item::Behind(_) => behind += 1,
                    Item::Upto(_) => panic!("the toy says no such thing"),
                }
                last = index;
            }
        }
        assert_eq!(behind, 1);
    });
}

#[test]
fn events_are_told_from_where_one_wants() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        toy.happen(Some(Notice::Role { role: "leader", term: Term(1) }));
        let visit = Visit::to(n1.address()).await;
        let mut admin = visit.admin.clone();
        let mut events = soon(admin.events(wire::EventsRequest { since: Some(0) })).await.unwrap();
        toy.happen(None);
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(timeout(DEADLINE, events.message()).await.expect("events").unwrap().unwrap().events);
        }
        let kinds: Vec<_> = heard.iter().map(|event| (event.sequence, &*event.kind)).collect();
        assert_eq!(kinds, [(1, "role"), (2, "stopped")]);
    });
}
