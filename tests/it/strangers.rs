//! Clients whose endpoints are not what they should be: nobody there, programs that speak something else or nothing at all.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use graft::infrastructure::runtime::{Client, ClientConfig, StartError};
use graft::services::api::{Api, Watch};
use graft::services::error::{Outcome, Refusal};

use crate::cluster::{Kind, PATIENCE, call, free_address, wait};

const SHORT: Duration = Duration::from_millis(1500);

/// A port behind which every connection is treated so. It ends with the test's process.
fn stranger(treat: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let treat = Arc::new(treat);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let treat = Arc::clone(&treat);
            std::thread::spawn(move || treat(stream));
        }
    });
    address
}

/// Says this as often as it hears something.
fn parrot(words: &'static [u8]) -> String {
    stranger(move |mut stream| {
        let mut heard = [0; 4096];
        while stream.read(&mut heard).is_ok_and(|count| count > 0) && stream.write_all(words).is_ok() {}
    })
}

fn black_hole() -> String {
    stranger(|mut stream| {
        let mut heard = [0; 4096];
        while stream.read(&mut heard).is_ok_and(|count| count > 0) {}
    })
}

fn client(endpoints: &[String]) -> Client {
    Client::start(ClientConfig::new(endpoints)).unwrap()
}

fn refusal(client: &Client, timeout: Duration) -> String {
    let begun = Instant::now();
    let outcome = call(client, Kind::Execute, &["x"], timeout).remove(0);
    let took = begun.elapsed();
    assert!(took < timeout + Duration::from_secs(1), "told at the deadline, not {took:?} later");
    match outcome {
        Outcome::Refused(Refusal::Unreachable(why)) => why,
        other => panic!("nobody can have done it: {other:?}"),
    }
}

#[test]
fn strangers_are_named_with_what_is_wrong_with_each() {
    // What an HTTP/1 server says, what a TLS server says to plain text, HTTP/2 that makes no sense, and nothing.
    let web = parrot(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    let tls = parrot(&[0x15, 3, 3, 0, 2, 2, 70]);
    let garbage = parrot(&[0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5]);
    let (hole, closed) = (black_hole(), free_address());
    let endpoints = [web, tls, garbage, hole.clone(), closed.clone()];
    let client = client(&endpoints);
    let mut why = String::new();
    wait("every endpoint to be tried", || {
        why = refusal(&client, SHORT);
        (!why.contains("no answer yet")).then_some(())
    });
    for endpoint in &endpoints {
        assert!(why.contains(endpoint.as_str()), "{why}");
    }
    assert!(why.contains("efused") && why.contains("did not introduce itself"), "{why}");
    let queried = call(&client, Kind::Query(graft::services::Consistency::Linearizable), &["x"], SHORT);
    assert!(matches!(&queried[0], Outcome::Refused(Refusal::Unreachable(_))), "{queried:?}");
    assert!(client.close(PATIENCE));
}

#[test]
fn a_stranger_among_members_keeps_nobody_from_them() {
    let cluster = crate::cluster::Cluster::new(1);
    cluster.leader();
    let client = client(&[black_hole(), free_address(), cluster.node(0).address().to_owned()]);
    let outcomes = call(&client, Kind::Execute, &["a", "b"], PATIENCE);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done { .. })), "{outcomes:?}");
}

#[test]
fn closing_answers_everybody_and_ends_the_readers() {
    let client = client(&[black_hole()]);
    let mut reader = client.watch(Watch::default(), Arc::new(|| {}));
    let (tell, told) = channel();
    client.view(Box::new(move |view| tell.send(view).unwrap()));
    let begun = Instant::now();
    assert!(client.close(PATIENCE));
    assert!(begun.elapsed() < PATIENCE / 4, "there is nothing to wait for");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().unwrap_err(), Refusal::Stopped);
    assert_eq!(reader.take(1).ended, Some(Refusal::Stopped));
    let mut late = client.watch(Watch::default(), Arc::new(|| {}));
    assert_eq!(wait("a late reader to end", || late.take(1).ended), Refusal::Stopped);
    assert_eq!(call(&client, Kind::Execute, &["x"], SHORT), [Outcome::Refused(Refusal::Stopped)]);
    assert!(client.close(PATIENCE), "again does nothing");
}

#[test]
fn limits_are_told_at_once() {
    let config = ClientConfig { inflight_max: 3, inflight_bytes_max: 10, ..ClientConfig::new([free_address()]) };
    let client = Client::start(config).unwrap();
    let outcomes = call(&client, Kind::Execute, &["a", "b", "c", "d"], SHORT);
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Refused(Refusal::Busy(_)))).count();
    assert_eq!(busy, 1, "{outcomes:?}");
    let outcomes = call(&client, Kind::Execute, &["123456", "7890123"], SHORT);
    assert!(matches!(&outcomes[1], Outcome::Refused(Refusal::Busy(_))), "{outcomes:?}");
}

#[test]
fn clients_share_a_thread_and_leave_one_by_one() {
    let clients: Vec<Client> = (0..20).map(|_| client(&[free_address()])).collect();
    for client in &clients[..10] {
        assert!(client.close(PATIENCE));
    }
    drop(clients);
    assert!(refusal(&client(&[free_address()]), SHORT).contains("no member can be reached"));
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let refused = |endpoints: &[&str]| match Client::start(ClientConfig::new(endpoints.iter().copied())) {
        Err(StartError::Config(why)) => why.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(&[]).contains("address of a member"));
    for bad in ["", "host", "host:0", "http://host:7001", "host:70000", "a b:1"] {
        assert!(refused(&["127.0.0.1:7001", bad]).contains("host:port"), "{bad}");
    }
    assert!(refused(&vec!["127.0.0.1:7001"; 65]).contains("at most 64"));
}
