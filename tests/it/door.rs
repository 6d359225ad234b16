//! Calls from the network are checked by the machine's door, in batches, and what waits there is bounded.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use graft::domain::{Incarnation, Index};
use graft::infrastructure::config::NodeConfig;
use graft::infrastructure::runtime::{Node, Waiting};
use graft::services::Consistency;
use graft::services::api::{Call, Caller, Watch};
use graft::services::change::{Ask, Change};
use graft::services::commands::Slot;
use graft::services::error::{Outcome, Refusal};
use graft::services::ports::{Called, Command, Door, Halt, Machine, Made, Reply, WriteSnapshot};

use crate::cluster::{Kind, Lines, PATIENCE, call, hand_over, id, value, wait};

/// Lets nothing in that begins with `bad`. At `panic` it panics, and at `wait` it waits until it is let go.
#[derive(Debug, Default)]
struct Gate {
    shut: AtomicBool,
    waits: AtomicBool,
    /// How many calls it was asked about each time, and of which kind.
    asked: Mutex<Vec<(Called, usize)>>,
}

impl Door for Gate {
    fn check(&self, kind: Called, bodies: &[Bytes]) -> Vec<Option<String>> {
        self.asked.lock().unwrap().push((kind, bodies.len()));
        while bodies.contains(&Bytes::from("wait")) && self.shut.load(Ordering::Relaxed) {
            self.waits.store(true, Ordering::Relaxed);
            std::thread::yield_now();
        }
        assert!(!bodies.contains(&Bytes::from("panic")), "told to panic");
        if bodies.contains(&Bytes::from("mute")) {
            return Vec::new();
        }
        let why = |body: &Bytes| format!("{kind:?} {body:?} is not known");
        bodies.iter().map(|body| body.starts_with(b"bad").then(|| why(body))).collect()
    }
}

/// Keeps commands, behind a door.
#[derive(Clone, Default)]
struct Guarded {
    lines: Lines,
    gate: Arc<Gate>,
}

impl Machine for Guarded {
    fn open(&mut self, directory: &str) -> Result<Index, Halt> {
        self.lines.open(directory)
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        self.lines.apply(commands, made)
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        self.lines.snapshot()
    }

    fn restore(&mut self, file: Box<dyn Read + Send>) -> Result<(), String> {
        self.lines.restore(file)
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        self.lines.query(queries, replies);
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        self.lines.digest()
    }

    fn door(&self) -> Option<Arc<dyn Door>> {
        Some(Arc::<Gate>::clone(&self.gate))
    }
}

struct Fixture {
    node: Node,
    machine: Guarded,
    _directory: tempfile::TempDir,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let machine = Guarded::default();
        let mut config = NodeConfig::new(id(0), "127.0.0.1:0", directory.path());
        change(&mut config);
        let node = Node::start(&config, Box::new(machine.clone())).unwrap();
        wait("a leader", || node.status().leader);
        Self { node, machine, _directory: directory }
    }

    fn asked(&self) -> Vec<(Called, usize)> {
        std::mem::take(&mut self.machine.gate.asked.lock().unwrap())
    }

    /// A call that the door looks at until it is let go.
    fn hold(&self) -> Arc<Waiting> {
        self.machine.gate.shut.store(true, Ordering::Relaxed);
        let held = hand_over(&*self.node.doorkeeper(), Kind::Execute, [Bytes::from("wait")], PATIENCE);
        wait("the door to look", || self.machine.gate.waits.load(Ordering::Relaxed).then_some(()));
        held
    }

    fn let_go(&self) {
        self.machine.gate.shut.store(false, Ordering::Relaxed);
    }

    fn execute(&self, bodies: &[&'static str]) -> Arc<Waiting> {
        hand_over(&*self.node.doorkeeper(), Kind::Execute, bodies.iter().copied().map(Bytes::from), PATIENCE)
    }
}

fn answers(waiting: &Waiting) -> Vec<Outcome> {
    assert!(waiting.wait(PATIENCE));
    waiting.take()
}

fn invalid(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused(Refusal::Invalid(why)) => why,
        other => panic!("it should be refused as invalid: {other:?}"),
    }
}

fn busy(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused(Refusal::Busy(why)) => why,
        other => panic!("it should be refused as busy: {other:?}"),
    }
}

#[test]
fn what_the_door_refuses_is_refused_in_its_words_and_the_rest_goes_on_in_order() {
    let fixture = Fixture::new(|_| {});
    let outcomes = answers(&fixture.execute(&["a", "bad", "b", "bad too", "c"]));
    assert_eq!(invalid(&outcomes[1]), "Command b\"bad\" is not known");
    assert_eq!(invalid(&outcomes[3]), "Command b\"bad too\" is not known");
    let done: Vec<String> = [0, 2, 4].map(|n| value(outcomes[n].clone())).into();
    assert_eq!(
        (done, fixture.machine.lines.seen()),
        (["1", "2", "3"].map(str::to_owned).into(), vec!["a".into(), "b".into(), "c".into()])
    );
    let query = Kind::Query(Consistency::Linearizable);
    let outcomes = call(&*fixture.node.doorkeeper(), query, &["bad", "count"], PATIENCE);
    assert_eq!((invalid(&outcomes[0]), value(outcomes[1].clone()).as_str()), ("Query b\"bad\" is not known", "3"));
    assert_eq!(fixture.asked(), [(Called::Command, 5), (Called::Query, 2)]);
    // Who is in the same process is trusted.
    assert_eq!(value(call(&fixture.node, Kind::Execute, &["bad"], PATIENCE).remove(0)), "4");
    assert_eq!(fixture.asked(), []);
}

#[test]
fn all_that_waits_is_checked_in_one_go_and_keeps_its_order() {
    let fixture = Fixture::new(|_| {});
    let held = fixture.hold();
    let waiting: Vec<_> = ["1", "2", "bad", "3", "4"].map(|body| fixture.execute(&[body])).into();
    let query = Kind::Query(Consistency::Linearizable);
    let query = hand_over(&*fixture.node.doorkeeper(), query, [Bytes::from("count")], PATIENCE);
    fixture.let_go();
    assert_eq!(value(answers(&held).remove(0)), "1");
    let outcomes: Vec<Outcome> = waiting.iter().map(|waiting| answers(waiting).remove(0)).collect();
    assert_eq!(invalid(&outcomes[2]), "Command b\"bad\" is not known");
    assert_eq!(fixture.machine.lines.seen(), ["wait", "1", "2", "3", "4"]);
    assert!(matches!(answers(&query)[..], [Outcome::Done { .. }]));
    assert_eq!(fixture.asked(), [(Called::Command, 1), (Called::Command, 5), (Called::Query, 1)]);
}

#[test]
fn a_door_that_breaks_lets_nothing_in_and_works_on() {
    let fixture = Fixture::new(|_| {});
    for body in ["panic", "mute"] {
        let outcomes = answers(&fixture.execute(&["a", body]));
        assert!(
            outcomes.iter().all(|outcome| invalid(outcome).starts_with("it could not be checked: ")),
            "{outcomes:?}"
        );
    }
    assert_eq!(value(answers(&fixture.execute(&["b"])).remove(0)), "1");
}

#[test]
fn what_waits_at_the_door_is_bounded_and_stops_nobody_inside() {
    let fixture = Fixture::new(|config| (config.inflight_max, config.inflight_bytes_max) = (3, 100));
    let held = fixture.hold();
    let waiting = fixture.execute(&["1", "2"]);
    assert_eq!(busy(&answers(&fixture.execute(&["3"]))[0]), "3 calls from the network wait to be checked by this node");
    assert_eq!(value(call(&fixture.node, Kind::Execute, &["inside"], PATIENCE).remove(0)), "1");
    fixture.let_go();
    assert_eq!((value(answers(&held).remove(0)), answers(&waiting).len()), ("2".to_owned(), 2));
    let held = fixture.hold();
    let large = Bytes::from(vec![b'x'; 96]);
    let large = hand_over(&*fixture.node.doorkeeper(), Kind::Execute, [large], PATIENCE);
    assert_eq!(
        busy(&answers(&fixture.execute(&["3"]))[0]),
        "100 bytes of calls from the network wait to be checked by this node"
    );
    fixture.let_go();
    assert_eq!((answers(&held).len(), value(answers(&large).remove(0))), (1, "6".to_owned()));
}

#[test]
fn a_node_that_ends_refuses_who_waits_at_its_door_and_ends_its_thread() {
    let fixture = Fixture::new(|_| {});
    let held = fixture.hold();
    let waiting = fixture.execute(&["x"]);
    assert!(!fixture.node.stop(Duration::from_millis(200)), "the door's thread is left behind");
    assert_eq!(answers(&waiting), [Outcome::Refused(Refusal::Stopped)]);
    fixture.let_go();
    assert_eq!(answers(&held), [Outcome::Refused(Refusal::Stopped)]);
    let other = Fixture::new(|_| {});
    assert!(other.node.stop(PATIENCE));
    assert_eq!(answers(&other.execute(&["x"])), [Outcome::Refused(Refusal::Stopped)]);
}

#[test]
fn what_cannot_be_right_does_not_reach_the_door() {
    let fixture = Fixture::new(|config| config.command_bytes_max = 10);
    let doorkeeper = fixture.node.doorkeeper();
    let outcomes = answers(&fixture.execute(&["a", "more than ten", "b"]));
    assert_eq!(outcomes[1], Outcome::Refused(Refusal::TooLarge { bytes: 13, limit: 10 }));
    assert_eq!((value(outcomes[0].clone()), value(outcomes[2].clone())), ("1".to_owned(), "2".to_owned()));
    assert_eq!(fixture.asked(), [(Called::Command, 2)]);
    let told = |ask: &dyn Fn(Caller)| {
        let waiting = Waiting::new(1);
        ask(Caller { sink: Arc::<Waiting>::clone(&waiting), token: 0 });
        invalid(&answers(&waiting)[0]).to_owned()
    };
    for (session, sequence, unanswered) in [(0, 1, 1), (1, 0, 0), (1, 1, 0), (1, 1, 2)] {
        let slot = Some(Slot { session, sequence, unanswered });
        let why = told(&|caller| doorkeeper.execute(vec![Call { body: Bytes::new(), slot, caller }], PATIENCE));
        assert!(why.contains("counted from 1"), "{why}");
    }
    let why = told(&|caller| doorkeeper.open_session(Some(Duration::from_millis(999)), caller, PATIENCE));
    assert!(why.contains("1s"), "{why}");
    let change = || Change::Add { id: id(1), address: "x".repeat(1025), voter: true, incarnation: Incarnation(0) };
    let why = told(&|caller| doorkeeper.ask(Ask::Change { change: change(), guard: None }, caller, PATIENCE));
    assert!(why.contains("1025 bytes"), "{why}");
    let (told, outlook) = std::sync::mpsc::channel();
    doorkeeper.what_if(change(), Box::new(move |outlook| told.send(outlook).unwrap()));
    assert!(matches!(outlook.recv_timeout(PATIENCE), Ok(Err(Refusal::Invalid(_)))));
    let topics = |count: usize, bytes: usize| Watch { topics: vec!["x".repeat(bytes); count], since: None };
    for (watch, refused) in [(topics(65, 1), true), (topics(2, 2_049), true), (topics(64, 64), false)] {
        let ended = doorkeeper.watch(watch, Arc::new(|| {})).take(1).ended;
        assert_eq!(matches!(ended, Some(Refusal::Invalid(_))), refused, "{ended:?}");
    }
    assert_eq!(fixture.asked(), []);
}
