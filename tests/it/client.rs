//! Clients of real clusters: whatever happens to members, every call is done once or is told for what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft::domain::Index;
use graft::infrastructure::runtime::{Client, ClientConfig, Waiting};
use graft::services::api::{Api, Call, Caller, News, Reader, View, Watch};
use graft::services::change::{Ask, Change};
use graft::services::commands::Slot;
use graft::services::error::{Outcome, Refusal};
use graft::services::{Consistency, Read};

use crate::cluster::{Cluster, Kind, Lines, PATIENCE, call, free_address, hand_over, id, value, wait};
use crate::proxy::Proxy;

fn client_of(cluster: &Cluster, n: usize) -> Client {
    Client::start(ClientConfig::new([cluster.configs[n].address.clone()])).unwrap()
}

/// The answer to one question.
fn one(ask: impl FnOnce(Caller)) -> Outcome {
    let waiting = Waiting::new(1);
    ask(Caller { sink: Arc::<Waiting>::clone(&waiting), token: 0 });
    assert!(waiting.wait(PATIENCE * 2), "it is answered");
    waiting.take().remove(0)
}

fn execute(client: &Client, body: &str) -> Outcome {
    call(client, Kind::Execute, &[body], PATIENCE).remove(0)
}

fn execute_in(client: &Client, slot: Option<Slot>, body: &str, timeout: Duration) -> Outcome {
    let body = Bytes::from(body.to_owned());
    one(|caller| client.execute(vec![Call { body, slot, caller }], timeout))
}

fn view(client: &Client) -> View {
    let (tell, told) = channel();
    client.view(Box::new(move |view| tell.send(view).unwrap()));
    told.recv_timeout(PATIENCE).unwrap().unwrap()
}

fn index(outcome: &Outcome) -> u64 {
    let Outcome::Done { index, .. } = outcome else { panic!("not done: {outcome:?}") };
    index.0
}

fn next(reader: &mut dyn Reader<News>) -> News {
    wait("news", || {
        let taken = reader.take(1);
        assert_eq!(taken.ended, None);
        taken.items.into_iter().next()
    })
}

#[test]
fn everything_that_a_node_can_be_asked_a_client_can() {
    let cluster = Cluster::new(3);
    let client = client_of(&cluster, (cluster.leader() + 1) % 3);
    assert_eq!(value(execute(&client, "a")), "1");
    assert_eq!(call(&client, Kind::Execute, &["b", "c", "d"], PATIENCE).len(), 3);
    for consistency in [Consistency::Linearizable, Consistency::Lease, Consistency::Stale { max_age: None }] {
        let counted = call(&client, Kind::Query(consistency), &["count"], PATIENCE).remove(0);
        assert_eq!(value(counted), "4", "a client reads what it wrote: {consistency:?}");
    }
    let seen = view(&client);
    assert_eq!(seen.status.members.len(), 3);
    assert_eq!(seen.status.leader, Some(seen.status.id), "it follows the leader");
    let raised = execute(&client, "raise");
    assert!(matches!(&raised, Outcome::Done { reply, .. } if format!("{reply:?}").contains("as told")), "{raised:?}");
    assert!(index(&one(|caller| client.snapshot(false, caller, PATIENCE))) > 0);
    let compared = one(|caller| client.verify(caller, PATIENCE));
    let Outcome::Compared { digests, .. } = &compared else { panic!("{compared:?}") };
    assert_eq!(digests.len(), 3, "{digests:?}");
    let (tell, told) = channel();
    client.what_if(Change::Remove { id: id(0) }, Box::new(move |outlook| tell.send(outlook).unwrap()));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().unwrap().voters.len(), 2);
    let other = (cluster.leader() + 1) % 3;
    let moved = one(|caller| client.ask(Ask::Transfer { to: Some(id(other)) }, caller, PATIENCE));
    assert!(matches!(moved, Outcome::Done { .. }), "{moved:?}");
    assert_eq!(cluster.leader(), other);
    assert_eq!(value(execute(&client, "e")), "5");
    wait("the client to follow", || (view(&client).status.id == id(other)).then_some(()));
    let nobody = Ask::Change { change: Change::Remove { id: id(9) }, guard: None };
    let refused = one(|caller| client.ask(nobody, caller, PATIENCE));
    assert!(matches!(refused, Outcome::Refused(Refusal::Membership(_))), "{refused:?}");
    assert!(client.close(PATIENCE));
}

#[test]
fn a_session_of_ones_own_keeps_the_first_answer() {
    let cluster = Cluster::new(3);
    let client = client_of(&cluster, 0);
    let session = index(&one(|caller| client.open_session(None, caller, PATIENCE)));
    let slot = Slot { session, sequence: 1, unanswered: 1 };
    let first = execute_in(&client, Some(slot), "once", PATIENCE);
    assert_eq!(value(first.clone()), "1");
    assert_eq!(execute_in(&client_of(&cluster, 1), Some(slot), "once", PATIENCE), first);
    let nowhere = Slot { session: session + 1000, ..slot };
    let expired = execute_in(&client, Some(nowhere), "never", PATIENCE);
    assert_eq!(expired, Outcome::Refused(Refusal::SessionExpired));
    assert_eq!(cluster.converged().len(), 1);
}

#[test]
fn thousands_of_calls_of_many_threads_are_in_flight_at_once() {
    const THREADS: usize = 8;
    const LINES: usize = 1000;
    let cluster = Cluster::new(1);
    let client = client_of(&cluster, 0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = &client;
            scope.spawn(move || {
                let waiting = hand_over(client, Kind::Execute, lines(thread, LINES), PATIENCE);
                assert!(waiting.wait(PATIENCE * 2), "every call is answered by its deadline");
                let outcomes = waiting.take();
                let undone = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Done { .. }));
                assert_eq!(undone, None, "what is busy is tried again");
            });
        }
    });
    let kept = cluster.converged();
    assert_eq!(kept.len(), THREADS * LINES);
    assert_eq!(kept.iter().collect::<BTreeSet<_>>().len(), THREADS * LINES);
}

/// Lines that nobody else says.
fn lines(writer: usize, count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("{writer}-{n}"))).collect()
}

#[test]
fn leaders_are_killed_while_many_calls_are_in_flight() {
    const WRITERS: usize = 4;
    const LINES: usize = 300;
    let mut cluster = Cluster::new(3);
    cluster.leader();
    let client = client_of(&cluster, 0);
    let answered = AtomicUsize::new(0);
    let outcomes: Mutex<BTreeMap<Bytes, Outcome>> = Mutex::default();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (client, answered, outcomes) = (&client, &answered, &outcomes);
            scope.spawn(move || {
                for batch in lines(writer, LINES).chunks(20) {
                    let waiting = hand_over(client, Kind::Execute, batch.to_vec(), PATIENCE);
                    assert!(waiting.wait(PATIENCE * 2), "every call is answered by its deadline");
                    answered.fetch_add(batch.len(), Ordering::Relaxed);
                    outcomes.lock().unwrap().extend(batch.iter().cloned().zip(waiting.take()));
                }
            });
        }
        for kill in 1..=4 {
            wait("calls to be answered", || {
                (answered.load(Ordering::Relaxed) >= kill * WRITERS * LINES / 6).then_some(())
            });
            let leader = cluster.leader();
            cluster.crash(leader);
            cluster.start(leader);
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let undone: Vec<_> = outcomes.iter().filter(|(_, outcome)| !matches!(outcome, Outcome::Done { .. })).collect();
    assert!(undone.is_empty(), "there was time for all of them: {undone:?}");
    let kept = cluster.converged();
    assert_eq!(kept.len(), WRITERS * LINES, "nothing is lost, and nothing is there twice");
    assert_eq!(kept.iter().collect::<BTreeSet<_>>(), outcomes.keys().collect());
}

#[test]
fn a_member_that_stands_still_is_left_for_another() {
    let proxies: Mutex<BTreeMap<usize, Proxy>> = Mutex::default();
    let cluster = Cluster::tuned(
        3,
        |_| Lines::default(),
        |n, config| {
            let real = free_address();
            config.bind = Some(real.clone());
            proxies.lock().unwrap().insert(n, Proxy::start(&config.address, real));
        },
    );
    let leader = cluster.leader();
    let client = client_of(&cluster, leader);
    assert_eq!(value(execute(&client, "before")), "1");
    proxies.lock().unwrap()[&leader].stand_still(true);
    let begun = Instant::now();
    let outcomes = call(&client, Kind::Execute, &["a", "b", "c"], PATIENCE);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done { .. })), "{outcomes:?}");
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    proxies.lock().unwrap()[&leader].stand_still(false);
    assert_eq!(cluster.converged().len(), 4, "what the one that stood still had taken in is not done again");
}

#[test]
fn when_all_are_gone_that_is_told_and_when_they_are_back_it_goes_on() {
    let mut cluster = Cluster::new(3);
    cluster.leader();
    let client = client_of(&cluster, 0);
    assert_eq!(value(execute(&client, "a")), "1");
    wait("all members to be known", || (view(&client).status.members.len() == 3).then_some(()));
    (0..3).for_each(|n| cluster.crash(n));
    wait("the client to notice", || {
        let outcome = execute_in(&client, None, "b", Duration::from_millis(300));
        let Outcome::Refused(Refusal::Unreachable(why)) = outcome else { return None };
        cluster.configs.iter().all(|config| why.contains(&config.address)).then_some(())
    });
    (0..3).for_each(|n| cluster.start(n));
    assert!(matches!(execute(&client, "c"), Outcome::Done { .. }));
    assert!(!cluster.converged().contains(&Bytes::from_static(b"b")), "refused is not done");
}

#[test]
fn what_became_of_a_call_can_be_asked_later() {
    let cluster = Cluster::new(3);
    let leader = cluster.leader();
    let client = client_of(&cluster, leader);
    assert_eq!(value(execute(&client, "a")), "1");
    (0..3).for_each(|n| cluster.machines[n].blocked.store(true, Ordering::Relaxed));
    let begun = Instant::now();
    let unknown = execute_in(&client, None, "block", Duration::from_millis(500));
    assert!(begun.elapsed() < Duration::from_secs(3), "told at its deadline: {:?}", begun.elapsed());
    let Outcome::Unknown { slot: Some(slot), .. } = unknown else { panic!("{unknown:?}") };
    (0..3).for_each(|n| cluster.machines[n].blocked.store(false, Ordering::Relaxed));
    assert_eq!(value(execute_in(&client, Some(slot), "block", PATIENCE)), "2");
    assert_eq!(value(execute(&client, "b")), "3");
    assert_eq!(cluster.converged().len(), 3, "it is done once");
}

#[test]
fn who_watches_misses_nothing_when_the_member_dies() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let client = client_of(&cluster, leader);
    assert!(matches!(execute(&client, "emit early"), Outcome::Done { .. }));
    let mut reader = client.watch(Watch { topics: vec!["t".to_owned()], since: None }, Arc::new(|| {}));
    // It has begun when the first thing that came after it is there.
    let mut seen = Vec::new();
    let say = |client: &Client| index(&execute(client, "emit t"));
    let place = |news: News| if let News::Emitted(thing) = news { Some(thing.index.0) } else { None };
    let mut told = BTreeSet::new();
    wait("the watcher to begin", || {
        told.insert(say(&client));
        seen.extend(reader.take(100).items.into_iter().filter_map(place));
        (!seen.is_empty()).then_some(())
    });
    cluster.crash(leader);
    for _ in 0..20 {
        told.insert(say(&client));
    }
    let first = seen[0];
    let last = *told.last().unwrap();
    while *seen.last().unwrap() < last {
        seen.extend(place(next(&mut *reader)));
    }
    let expected: Vec<u64> = told.into_iter().filter(|index| *index >= first).collect();
    assert_eq!(seen, expected, "each once, in log order");
}

#[test]
fn a_member_is_told_to_end_and_the_others_go_on() {
    let cluster = Cluster::new(3);
    let client = client_of(&cluster, cluster.leader());
    assert_eq!(value(execute(&client, "a")), "1");
    let ended = view(&client).status.id;
    client.shutdown(PATIENCE / 4);
    let n = (0..3).find(|n| id(*n) == ended).unwrap();
    wait("it to end", || (cluster.node(n).status().role == "stopped").then_some(()));
    assert_eq!(value(execute(&client, "b")), "2");
    assert_ne!(view(&client).status.id, ended);
    let read = Read { consistency: Consistency::Linearizable, at_least: Index::ZERO };
    let asked = one(|caller| client.query(vec![(Bytes::from_static(b"count"), caller)], read, PATIENCE));
    assert_eq!(value(asked), "2");
}
