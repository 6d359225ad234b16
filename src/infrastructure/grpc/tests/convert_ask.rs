use super::super::tests::id;
use super::*;

fn ask(change: WireChange) -> wire::Ask {
    let change = wire::Change { guard: None, change: Some(change) };
    wire::Ask { ask: Some(WireAsk::Change(change)), ..wire::Ask::default() }
}

fn bad(change: WireChange) -> BadFrame {
    decode(ask(change)).expect_err("an error")
}

fn member(id: impl Into<String>, address: impl Into<String>) -> wire::Member {
    wire::Member { id: id.into(), address: address.into() }
}

fn apply(members: Vec<wire::Member>) -> WireChange {
    WireChange::Apply(change::Apply { members })
}

#[test]
fn what_is_no_change_is_an_error() {
    let empty = wire::Ask { ask: Some(WireAsk::Change(wire::Change::default())), ..wire::Ask::default() };
    assert_eq!(decode(empty), Err(BadFrame::Empty("change")));
    let transfer = wire::ask::Transfer { to: "no id!".to_owned() };
    let transfer = wire::Ask { ask: Some(WireAsk::Transfer(transfer)), ..wire::Ask::default() };
    assert!(matches!(decode(transfer), Err(BadFrame::NodeId(_))));
    for change in [WireChange::Remove, WireChange::Promote, WireChange::Demote] {
        assert!(matches!(bad(change(String::new())), BadFrame::NodeId(_)));
    }
    let replace = |old: &str, new: &str| {
        bad(WireChange::Replace(change::Replace { old: old.to_owned(), new: new.to_owned(), address: String::new() }))
    };
    assert!(matches!(replace("", "n4"), BadFrame::NodeId(_)));
    assert!(matches!(replace("n1", ""), BadFrame::NodeId(_)));
    assert!(matches!(bad(WireChange::Add(change::Add::default())), BadFrame::NodeId(_)));
    assert_eq!(bad(apply(vec![member("n1", "a:1"), member("n1", "b:1")])), BadFrame::Twice("n1".to_owned()));
}

#[test]
fn addresses_have_a_limit() {
    let text = |bytes| "x".repeat(bytes);
    let add = |bytes| WireChange::Add(change::Add { id: "n4".to_owned(), address: text(bytes), ..Default::default() });
    let replace = |bytes| {
        WireChange::Replace(change::Replace { old: "n1".to_owned(), new: "n4".to_owned(), address: text(bytes) })
    };
    let listed = |bytes| apply(vec![member("n4", text(bytes))]);
    let changes: [&dyn Fn(usize) -> WireChange; 3] = [&add, &replace, &listed];
    for change in changes {
        let (_, taken) = decode(ask(change(ADDRESS_BYTES_MAX))).expect("a change");
        assert!(is_sendable(&taken));
        let bytes = ADDRESS_BYTES_MAX + 1;
        assert_eq!(bad(change(bytes)), BadFrame::TooLong { what: "an address", bytes, max: ADDRESS_BYTES_MAX });
    }
    let change = Change::Add {
        id: id("n4"),
        address: text(ADDRESS_BYTES_MAX + 1),
        voter: true,
        incarnation: Incarnation::UNKNOWN,
    };
    assert!(!is_sendable(&Ask::Change { change, guard: None }));
}

#[test]
fn members_have_a_limit() {
    let members = |count: usize| (0..count).map(|at| member(format!("n{at}"), "a:1")).collect::<Vec<_>>();
    let (_, most) = decode(ask(apply(members(MEMBERS_MAX)))).expect("a change");
    assert!(is_sendable(&most));
    let count = MEMBERS_MAX + 1;
    assert_eq!(bad(apply(members(count))), BadFrame::TooMany { what: "members", count, max: MEMBERS_MAX });
    let all = (0..count).map(|at| (id(&format!("n{at}")), String::new())).collect();
    assert!(!is_sendable(&Ask::Change { change: Change::Apply { members: all }, guard: None }));
}
