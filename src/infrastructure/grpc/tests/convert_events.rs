use bytes::Bytes;

use super::super::tests::id;
use super::*;

fn notices() -> Vec<Notice> {
    let why = || Some("no route".to_owned());
    let (index, term, member) = (Index(u64::MAX), Term(7), id("n2"));
    let snapshot = |phase, peer, why| Notice::Snapshot { phase, index, bytes: 1, total: 0, peer, why };
    let mut all = vec![
        Notice::Leader { term, leader: Some(member) },
        Notice::Leader { term, leader: None },
        Notice::CatchUp { member, matched: Index(1), last: index },
        Notice::Link { member, connected: true, why: None },
        Notice::Link { member, connected: false, why: why() },
        snapshot("writing", None, None),
        snapshot("failed", Some(member), why()),
    ];
    all.extend(words::ROLES.iter().map(|role| Notice::Role { role, term }));
    all.extend(words::STEPS.iter().map(|step| Notice::Membership { index, step, member: None, committed: true }));
    all.push(Notice::Membership { index, step: "voter", member: Some(member), committed: false });
    all.extend(words::RENEWALS.iter().map(|phase| Notice::Certificate { phase, expires: 7, why: why() }));
    all.extend(words::PHASES.iter().map(|phase| snapshot(phase, None, None)));
    all
}

#[test]
fn every_event_survives_the_wire() {
    for notice in notices().into_iter().map(Some).chain([None]) {
        let happening = Happening { sequence: 3, at: u64::MAX, notice };
        assert_eq!(decode(encode(happening.clone())), Ok(Some(happening)));
    }
}

#[test]
fn an_event_of_a_newer_version_is_left_out_and_a_broken_one_an_error() {
    let event = |kind: &str| wire::MemberEvent { kind: kind.to_owned(), ..wire::MemberEvent::default() };
    assert_eq!(decode(event("earthquake")), Ok(None));
    for kind in ["leader", "role", "membership", "catch-up", "snapshot", "link"] {
        assert!(matches!(decode(event(kind)), Err(BadFrame::Empty(_))), "{kind}");
    }
    let mut bad = encode(Happening { sequence: 1, at: 1, notice: notices().into_iter().next() });
    bad.details.insert("leader".to_owned(), Value { value: Some(Kind::Text("no id!".to_owned())) });
    assert!(matches!(decode(bad.clone()), Err(BadFrame::NodeId(_))));
    bad.details.insert("term".to_owned(), Value { value: Some(Kind::Flag(true)) });
    assert_eq!(decode(bad), Err(BadFrame::Empty("term")));
}

#[test]
fn what_is_watched_survives_the_wire() {
    let whole = Cursor { index: Index(4), number: u32::MAX };
    for since in [None, Some(whole), Some(Cursor { number: 0, ..whole })] {
        for topics in [vec![], vec!["a".to_owned(), String::new()]] {
            let watch = Watch { topics, since };
            assert_eq!(decode_watch(encode_watch(watch.clone())), Ok(watch));
        }
    }
    let many = wire::WatchRequest { topics: vec![String::new(); 1001], since: None };
    assert!(matches!(decode_watch(many), Err(BadFrame::TooMany { .. })));
    let long = wire::WatchRequest { topics: vec!["x".repeat(TOPIC_BYTES_MAX + 1)], since: None };
    assert!(matches!(decode_watch(long), Err(BadFrame::TooLong { .. })));
}

#[test]
fn news_survive_the_wire() {
    let value = Bytes::from_static(b"\x01");
    let emitted = Emitted { index: Index(3), number: u32::MAX, topic: "paid".to_owned(), value };
    for news in [News::Emitted(emitted), News::Behind { upto: Index(u64::MAX) }, News::Upto(Index::ZERO)] {
        assert_eq!(decode_news(encode_news(news.clone())), Ok(news));
    }
    assert_eq!(decode_news(Item::default()), Err(BadFrame::Empty("news")));
}
