use std::sync::Arc;

use graft_domain::{Incarnation, Index, Membership, NodeId, Term};

use super::*;
use crate::infrastructure::runtime::clock::Monotonic;
use crate::infrastructure::store::{self, Founding, StoreConfig};

fn write(seq: u64) -> Write {
    Write { seq, term: Term(seq), vote: None, entries: Vec::new(), commit: Index::ZERO }
}

#[test]
fn nothing_is_written_behind_what_was_lost_though_the_directory_comes_back() {
    let above = tempfile::tempdir().unwrap();
    let (directory, elsewhere) = (above.path().join("n1"), above.path().join("elsewhere"));
    let id = NodeId::new("n1").unwrap();
    let founding = Founding {
        id,
        membership: Arc::new(Membership::founding([(id, "h:1")])),
        mint: Incarnation(1),
        promise: Duration::ZERO,
    };
    let (wal, _snapshots, _opened) = store::open(&directory, &founding, StoreConfig::default()).unwrap();
    let place = OsPlace::of(&directory).unwrap();
    let (inbox, killed) = (Inbox::new(Monotonic::start()), AtomicBool::new(false));
    let (faults, metrics) = (Faults::default(), Metrics::default());
    let mut work = Work {
        wal,
        place,
        looked: Instant::now(),
        is_lost: false,
        engine: &inbox,
        killed: &killed,
        faults: &faults,
        metrics: &metrics,
        old_promise: None,
    };
    work.persist(&[write(1)]).unwrap();
    work.looked -= LOOK_EVERY;
    std::fs::rename(&directory, &elsewhere).unwrap();
    let lost = work.persist(&[write(2)]).unwrap_err();
    std::fs::rename(&elsewhere, &directory).unwrap();
    assert_eq!(work.persist(&[write(3)]), Err(lost));
}
