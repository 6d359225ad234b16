//! What commands emit reaches those who watch real nodes: in log order, once, from where they were.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use graft::domain::Index;
use graft::infrastructure::runtime::{Node, Waiting};
use graft::services::api::{Api, Caller, Cursor, News, Reader, Watch};
use graft::services::error::{Outcome, Refusal};

use crate::cluster::{Cluster, PATIENCE, execute, value, wait};

/// One who watches, and has kept where to go on.
struct Watcher {
    reader: Box<dyn Reader<News>>,
    woken: Receiver<()>,
    at: Option<Cursor>,
}

impl Watcher {
    fn new(node: &Node, topics: &[&str], since: Option<Cursor>) -> Self {
        let (wake, woken) = channel();
        let watch = Watch { topics: topics.iter().map(ToString::to_string).collect(), since };
        let wake = move || {
            // Nobody may be there any more.
            let _ = wake.send(());
        };
        let reader = node.watch(watch, Arc::new(wake));
        Self { reader, woken, at: since }
    }

    /// The next thing, when it is there: the words of what was emitted, or what else there is to say.
    fn next(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.reader.take(1);
            if let Some(news) = taken.items.into_iter().next() {
                return self.see(news);
            }
            assert_eq!(taken.ended, None);
            self.woken.recv_timeout(deadline - Instant::now()).expect("it is woken when there is more");
        }
    }

    fn see(&mut self, news: News) -> String {
        let (at, words) = match news {
            News::Emitted(thing) => {
                let words = format!("{}: {}", thing.topic, String::from_utf8_lossy(&thing.value));
                (Cursor { index: thing.index, number: thing.number }, words)
            }
            News::Behind { upto } => (Cursor { index: upto, number: u32::MAX }, "behind".to_owned()),
            News::Upto(upto) => (Cursor { index: upto, number: u32::MAX }, "upto".to_owned()),
        };
        assert!(self.at < Some(at), "in log order: {at:?} after {:?}", self.at);
        self.at = Some(at);
        words
    }
}

const BEGINNING: Option<Cursor> = Some(Cursor { index: Index(0), number: 0 });

#[test]
fn every_member_tells_the_same_in_the_same_order() {
    let cluster = Cluster::new(3);
    let mut all: Vec<Watcher> = (0..3).map(|n| Watcher::new(cluster.node(n), &[], BEGINNING)).collect();
    let mut some = Watcher::new(cluster.node(1), &["b"], BEGINNING);
    for (n, body) in ["emit a b", "silent", "emit b", "emit c a"].iter().enumerate() {
        value(execute(cluster.node(n % 3), body));
    }
    for watcher in &mut all {
        let told: Vec<String> = (0..5).map(|_| watcher.next()).collect();
        assert_eq!(told, ["a: emit a b", "b: emit a b", "b: emit b", "c: emit c a", "a: emit c a"]);
    }
    assert_eq!(all[0].at, all[2].at);
    assert_eq!([some.next(), some.next()], ["b: emit a b", "b: emit b"]);
}

#[test]
fn who_was_answered_finds_there_what_the_command_emitted() {
    let cluster = Cluster::new(1);
    let mut watcher = Watcher::new(cluster.node(0), &[], BEGINNING);
    for n in 0..200 {
        value(execute(cluster.node(0), &format!("emit {n}")));
        let taken = watcher.reader.take(9);
        assert_eq!(taken.items.len(), 1, "{taken:?}");
    }
}

#[test]
fn a_watcher_goes_on_at_another_member_and_after_a_restart() {
    let mut cluster = Cluster::new(3);
    let mut watcher = Watcher::new(cluster.node(0), &["a"], None);
    assert_eq!(watcher.next(), "upto", "it knows where it began");
    let begun = watcher.at;
    value(execute(cluster.node(0), "emit a a 1"));
    assert_eq!(watcher.next(), "a: emit a a 1");
    cluster.crash(0);
    value(execute(cluster.node(1), "emit a 2"));
    let mut elsewhere = Watcher::new(cluster.node(2), &["a"], watcher.at);
    assert_eq!([elsewhere.next(), elsewhere.next()], ["a: emit a a 1", "a: emit a 2"]);
    cluster.start(0);
    value(execute(cluster.node(1), "emit a 3"));
    // The log brings back what was emitted before; a place beyond what is applied is waited for.
    let mut again = Watcher::new(cluster.node(0), &["a"], begun);
    let told: Vec<String> = (0..4).map(|_| again.next()).collect();
    assert_eq!(told, ["a: emit a a 1", "a: emit a a 1", "a: emit a 2", "a: emit a 3"]);
    let mut ahead = Watcher::new(cluster.node(0), &["a"], elsewhere.at);
    assert_eq!(ahead.next(), "a: emit a 3");
}

#[test]
fn what_was_emitted_before_a_snapshot_is_not_there_after_a_restart() {
    let mut cluster = Cluster::new(1);
    let mut watcher = Watcher::new(cluster.node(0), &["a"], BEGINNING);
    value(execute(cluster.node(0), "emit a 1"));
    value(execute(cluster.node(0), "emit a 2"));
    assert_eq!(watcher.next(), "a: emit a 1");
    let waiting = Waiting::new(1);
    cluster.node(0).snapshot(false, Caller { sink: Arc::<Waiting>::clone(&waiting), token: 0 }, PATIENCE);
    assert!(waiting.wait(PATIENCE));
    let Some(Outcome::Done { index: covered, .. }) = waiting.take().pop() else { panic!("there is a snapshot") };
    cluster.crash(0);
    cluster.start(0);
    value(execute(cluster.node(0), "emit a 3"));
    let mut again = Watcher::new(cluster.node(0), &["a"], watcher.at);
    assert_eq!([again.next(), again.next()], ["behind", "a: emit a 3"]);
    let covered = Cursor { index: covered, number: u32::MAX };
    assert_eq!(Watcher::new(cluster.node(0), &["a"], Some(covered)).next(), "a: emit a 3", "it had seen all of it");
}

#[test]
fn a_slow_watcher_holds_nobody_up_and_is_told_what_it_lost() {
    // A command emits 1000 things.
    let many = format!("emit {}", vec!["a"; 1000].join(" "));
    let cluster = Cluster::new(1);
    let mut slow = Watcher::new(cluster.node(0), &[], BEGINNING);
    let mut fast = Watcher::new(cluster.node(0), &[], BEGINNING);
    for _ in 0..100 {
        value(execute(cluster.node(0), &many));
        let taken = fast.reader.take(usize::MAX);
        assert!(taken.items.len() == 1000 && taken.items.iter().all(|news| matches!(news, News::Emitted(_))));
    }
    assert_eq!(slow.next(), "behind");
    let rest = slow.reader.take(usize::MAX).items;
    // 2005 bytes each, and what it costs besides.
    assert_eq!(rest.len(), 31_000, "whole commands, within the limit of 64 MiB");
    let last = fast.at;
    assert!(rest.into_iter().map(|news| slow.see(news)).all(|words| words.starts_with("a: ")) && slow.at > last);
}

#[test]
fn the_end_of_the_node_ends_the_watch() {
    let cluster = Cluster::new(1);
    wait("a leader", || cluster.node(0).status().leader);
    let mut watcher = Watcher::new(cluster.node(0), &[], BEGINNING);
    value(execute(cluster.node(0), "emit a"));
    assert!(cluster.node(0).stop(PATIENCE));
    assert_eq!(watcher.next(), "a: emit a", "what is left is told first");
    assert_eq!(watcher.reader.take(1).ended, Some(Refusal::Stopped));
    assert_eq!(Watcher::new(cluster.node(0), &[], None).reader.take(9).ended, Some(Refusal::Stopped));
}
