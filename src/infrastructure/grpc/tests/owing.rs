use bytes::Bytes;
use graft_domain::{Index, Term};

use super::*;

#[test]
fn what_is_owed_is_counted_for_the_request_the_connection_and_the_port() {
    let ledger = Ledger::new(1000);
    let (one, two) = (ledger.open(), ledger.open());
    let owed = one.owed();
    owed.add(249);
    assert!(one.check().is_ok());
    owed.add(1);
    assert!(
        matches!(one.check(), Err(Refusal::Busy(why)) if why.contains("1000")),
        "a quarter is a connection's share"
    );
    assert!(two.check().is_ok(), "others have theirs");
    let other = two.owed();
    other.add(800);
    assert!(ledger.open().check().is_err(), "all is owed that may be");
    drop(other);
    owed.take(100);
    assert!(one.check().is_ok() && two.check().is_ok());
    owed.take(10_000);
    assert_eq!(ledger.bytes.load(Ordering::Relaxed), 0, "never less than nothing");
    drop((one, two, owed));
    assert_eq!(ledger.accounts.lock().unwrap().open.len(), 0);
}

#[test]
fn of_those_who_take_nothing_the_one_who_is_owed_most_goes() {
    let ledger = Ledger::new(100);
    let accounts = [ledger.open(), ledger.open(), ledger.open()];
    let owed = [accounts[0].owed(), accounts[1].owed(), accounts[2].owed()];
    let long_ago = ledger.begun.elapsed() + STALL + LOOK_PAUSE;
    for (owed, bytes) in owed.iter().zip([10, 30, 50]) {
        owed.add(bytes);
    }
    let late = u64::try_from((long_ago + STALL).as_millis()).unwrap();
    // The one who is owed most takes something all the time.
    accounts[2].taken.store(late, Ordering::Relaxed);
    assert!(!accounts[1].is_stalled(Duration::ZERO));
    ledger.relieve_at(long_ago);
    assert_eq!(accounts.each_ref().map(|account| account.end.is_cancelled()), [false, true, false]);
    ledger.relieve_at(long_ago);
    assert!(!accounts[0].end.is_cancelled(), "not all at once");
    ledger.relieve_at(long_ago + LOOK_PAUSE);
    assert_eq!(accounts.each_ref().map(|account| account.end.is_cancelled()), [true, true, false]);
}

#[test]
fn at_the_limit_queries_are_busy_and_commands_unknown_only_far_beyond() {
    let owed = Ledger::new(1000).open().owed();
    let value =
        |bytes| Outcome::Done { index: Index(7), term: Term(1), reply: Reply::Value(Bytes::from(vec![1; bytes])) };
    let (query, command) = (true, false);
    assert_eq!(owed.owe(value(600), query), (value(600), 600 + ANSWER_OVERHEAD));
    assert!(matches!(owed.owe(value(600), query), (Outcome::Refused(Refusal::Busy(_)), _)));
    assert_eq!(owed.owe(value(600), command).0, value(600), "the state has changed");
    let (Outcome::Unknown { why, .. }, bytes) = owed.owe(value(600), command) else { panic!("all is kept") };
    assert!(why.contains("applied at index 7") && bytes < 300, "{why}");
}
