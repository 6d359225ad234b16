use std::collections::VecDeque;
use std::sync::mpsc::channel;

use graft_domain::{ClusterId, Index, NodeId, Term};

use super::*;

fn status() -> Status {
    Status {
        id: NodeId::new("n1").unwrap(),
        role: "follower",
        term: Term(1),
        leader: None,
        last: Index(1),
        commit: Index(1),
        applied: Index(1),
        snapshot: Index::ZERO,
        cluster: ClusterId(9),
        members: Vec::new(),
        has_quorum: false,
        error: None,
        error_code: None,
        membership_index: Index(1),
        former: Vec::new(),
        change: None,
        log_bytes: 0,
        snapshot_bytes: None,
        snapshot_phase: None,
        trouble: None,
        snapshot_error: None,
        certificate: None,
    }
}

fn front(inbox: Arc<Inbox>) -> Front {
    let metrics = Arc::<Metrics>::default();
    let files: Weak<crate::infrastructure::store::Snapshots> = Weak::new();
    Front {
        inbox,
        inflight: Arc::default(),
        inbox_max: 1,
        request_bytes: Arc::default(),
        request_bytes_max: 1,
        clock: Monotonic::start(),
        session_ttl: Duration::from_secs(1),
        standing: Arc::new(Standing::new(status(), None)),
        events: Arc::new(Events::new(Arc::clone(&metrics))),
        metrics,
        hub: Arc::default(),
        files,
        ending: Weak::new(),
    }
}

#[test]
fn looks_that_wait_for_the_engine_have_a_limit() {
    let inbox = Inbox::new(Monotonic::start());
    let front = front(Arc::clone(&inbox));
    let (told, heard) = channel();
    let view = || {
        let told = told.clone();
        front.view(Box::new(move |view| told.send(view.map(|view| view.why)).unwrap_or_default()));
    };
    (0..LOOKS_MAX).for_each(|_| view());
    assert!(heard.try_recv().is_err(), "the engine has not got to any");
    view();
    assert!(matches!(heard.try_recv(), Ok(Err(Refusal::Busy(why))) if why.contains("ask again")));
    let (what_if, outlook) = channel();
    front.what_if(Change::Cancel, Box::new(move |outlook| what_if.send(outlook.is_err()).unwrap_or_default()));
    assert_eq!(outlook.try_recv(), Ok(true), "they are counted together");
    // One is taken: there is room for another.
    let mut taken = VecDeque::new();
    assert!(inbox.take(&mut taken));
    drop(taken.pop_front());
    assert!(matches!(heard.try_recv(), Ok(Ok(_))));
    view();
    assert!(heard.try_recv().is_err());
    assert_eq!(front.standing.looks.load(Ordering::Relaxed), LOOKS_MAX);
    let members = (0..1000).map(|n| (NodeId::new(&format!("n{n}")).unwrap(), "10.0.0.1:7000".to_owned())).collect();
    drop(taken.pop_front());
    front.what_if(Change::Apply { members }, Box::new(|_| {}));
    assert_eq!(front.standing.looks.load(Ordering::Relaxed), LOOKS_MAX + 62, "it brings more with it");
    drop(taken);
    inbox.close();
    assert_eq!(heard.try_iter().flatten().count(), LOOKS_MAX);
    assert_eq!(front.standing.looks.load(Ordering::Relaxed), 0);
}
