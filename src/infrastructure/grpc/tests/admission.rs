use super::*;

fn admission() -> Arc<Admission> {
    Admission::new(Limits { newcomers_max: 3, members_max: 2, clients_max: 2, operators_max: 1 })
}

/// A newcomer from a machine of its own.
fn enter(admission: &Arc<Admission>) -> Seated {
    let entered = u32::try_from(admission.state().entered).unwrap();
    admission.enter(IpAddr::from(entered.to_be_bytes()))
}

fn open(seats: &[&Seated]) -> Vec<bool> {
    seats.iter().map(|seat| !seat.0.leave.is_cancelled() && !seat.0.end.is_cancelled()).collect()
}

#[test]
fn the_newcomer_that_is_silent_for_the_longest_goes_first() {
    let admission = admission();
    let (first, second, third) = (enter(&admission), enter(&admission), enter(&admission));
    first.0.speak();
    let fourth = enter(&admission);
    assert_eq!(open(&[&first, &second, &third, &fourth]), [true, false, true, true]);
    let (fifth, sixth) = (enter(&admission), enter(&admission));
    assert_eq!(open(&[&first, &third, &fourth, &fifth, &sixth]), [true, false, false, true, true]);
    fifth.0.speak();
    sixth.0.speak();
    drop(enter(&admission));
    assert_eq!(open(&[&first, &fifth, &sixth]), [false, true, true], "all have spoken: the oldest goes");
}

#[test]
fn members_are_not_counted_with_newcomers_and_never_closed() {
    let admission = admission();
    let (m, n, surplus) = (enter(&admission), enter(&admission), enter(&admission));
    assert_eq!((m.0.become_member(), n.0.become_member(), m.0.become_member()), (Ok(()), Ok(()), Ok(())));
    assert_eq!(surplus.0.become_member(), Err(Full { max: 2, is_share: false }));
    let newcomers: Vec<_> = (0..100).map(|_| enter(&admission)).collect();
    assert_eq!(open(&[&m, &n, &surplus]), [true, true, false]);
    for newcomer in &newcomers {
        drop(newcomer.0.begin_call(false));
    }
    assert!(m.0.is_member() && open(&[&m])[0]);
    drop(m);
    let next = enter(&admission);
    assert_eq!(next.0.become_member(), Ok(()), "the place of one that left is free");
}

#[test]
fn an_idle_client_goes_for_another_and_a_busy_one_stays() {
    let admission = admission();
    let (a, b) = (enter(&admission), enter(&admission));
    let (of_a, of_b) = (a.0.begin_call(false).unwrap(), b.0.begin_call(false).unwrap());
    let c = enter(&admission);
    assert_eq!(c.0.begin_call(false).err(), Some(Full { max: 2, is_share: false }), "both are busy");
    assert_eq!(open(&[&a, &b, &c]), [true, true, true]);
    let second_of_b = b.0.begin_call(false).unwrap();
    drop((of_b, of_a));
    let of_c = c.0.begin_call(false).unwrap();
    assert_eq!(open(&[&a, &b, &c]), [false, true, true], "one of b's calls is open");
    drop(second_of_b);
    // A call takes it off the list of the idle.
    let again = b.0.begin_call(false).unwrap();
    let d = enter(&admission);
    assert_eq!(d.0.begin_call(false).err(), Some(Full { max: 2, is_share: false }));
    drop((again, of_c));
}

#[test]
fn an_operator_gets_in_when_all_clients_are_busy() {
    let admission = admission();
    let clients = [enter(&admission), enter(&admission)];
    let _calls = clients.each_ref().map(|client| client.0.begin_call(false).unwrap());
    let (operator, other) = (enter(&admission), enter(&admission));
    let call = operator.0.begin_call(true).unwrap();
    assert!(other.0.begin_call(true).is_err());
    drop(call);
    assert!(other.0.begin_call(true).is_ok(), "the first one is idle now");
    assert_eq!(open(&[&operator, &other]), [false, true]);
}

#[test]
fn who_is_gone_or_told_to_go_holds_no_place() {
    let admission = admission();
    let gone = enter(&admission);
    let place = gone.0.clone();
    drop(gone);
    assert!(place.become_member().is_err() && !place.is_silent());
    let idle = enter(&admission);
    drop(idle.0.begin_call(false));
    admission.make_room();
    assert_eq!(open(&[&idle]), [false]);
    assert!(idle.0.begin_call(false).is_ok(), "it may not have heard it yet");
    drop(idle);
    let state = admission.state();
    assert_eq!((state.clients, state.members, state.seats.len(), state.idle.len()), (0, 0, 0, 0));
    assert!(state.leaving.is_empty());
}

#[test]
fn one_machine_takes_half_of_the_newcomers_places_and_pays_for_more_itself() {
    let admission = Admission::new(Limits { newcomers_max: 8, members_max: 2, clients_max: 2, operators_max: 1 });
    let (greedy, modest) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let others = [admission.enter(modest), admission.enter(modest)];
    let flood: Vec<_> = (0..100).map(|_| admission.enter(greedy)).collect();
    assert_eq!(open(&others.each_ref()), [true, true]);
    let left = flood.iter().filter(|seat| !seat.0.end.is_cancelled()).count();
    assert_eq!(left, 4);
    drop(flood);
    assert_eq!(admission.state().newcomers.len(), 1, "who is gone is forgotten");
    // Who has said what he wants counts no longer.
    let clients: Vec<_> = (0..4).map(|_| admission.enter(greedy)).collect();
    let _call = clients[0].0.begin_call(false).unwrap();
    let another = admission.enter(greedy);
    assert_eq!(open(&[&clients[1], &another]), [true, true]);
}

fn idle(admission: &Arc<Admission>) -> Seated {
    let client = enter(admission);
    drop(client.0.begin_call(false).unwrap());
    client
}

fn ended(seats: &[Seated]) -> usize {
    seats.iter().filter(|seat| seat.0.end.is_cancelled()).count()
}

#[test]
fn who_is_told_to_go_and_does_not_is_not_waited_for_when_there_are_many() {
    let admission = admission();
    // None of them goes, and each comes with one call only.
    let clients: Vec<_> = (0..LEAVING_MAX + 2).map(|_| idle(&admission)).collect();
    assert_eq!((ended(&clients), admission.state().leaving.len()), (0, LEAVING_MAX));
    let _busy = clients[0].0.begin_call(false).unwrap();
    let more: Vec<_> = (0..3).map(|_| idle(&admission)).collect();
    assert_eq!((ended(&clients), admission.state().leaving.len()), (3, LEAVING_MAX));
    assert_eq!(open_to_the_end(&clients[..5]), [true, false, false, false, true], "who has a call open is spared");
    drop((clients, more));
    assert!(admission.state().leaving.is_empty());
}

fn open_to_the_end(seats: &[Seated]) -> Vec<bool> {
    seats.iter().map(|seat| !seat.0.end.is_cancelled()).collect()
}

#[test]
fn when_files_run_out_those_without_a_call_go_at_once() {
    let admission = admission();
    let clients: Vec<_> = (0..5).map(|_| idle(&admission)).collect();
    let call = clients[1].0.begin_call(false).unwrap();
    admission.make_room();
    assert_eq!(
        open_to_the_end(&clients),
        [false, true, false, true, true],
        "three were told to go, one of them is busy"
    );
    drop(call);
    let newcomer = enter(&admission);
    admission.make_room();
    assert_eq!(open_to_the_end(&clients), [false, false, false, true, true]);
    admission.make_room();
    assert!(newcomer.0.end.is_cancelled());
    admission.make_room();
    assert_eq!(open_to_the_end(&clients), [false, false, false, false, true]);
}

#[test]
fn one_certificate_has_half_of_the_clients_places() {
    let admission = Admission::new(Limits { newcomers_max: 8, members_max: 2, clients_max: 4, operators_max: 1 });
    let web = Identity::parse("spiffe://bank/client/web?role=operator").unwrap();
    let jobs = Identity::parse("spiffe://bank/client/jobs?role=reader").unwrap();
    let enter = |identity: &Identity| {
        let seat = enter(&admission);
        seat.0.identify(identity);
        seat
    };
    let (first, second, third) = (enter(&web), enter(&web), enter(&web));
    let of_first = first.0.begin_call(false).unwrap();
    let of_second = second.0.begin_call(false).unwrap();
    assert_eq!(third.0.begin_call(false).err(), Some(Full { max: 2, is_share: true }));
    let as_operator = third.0.begin_call(true).unwrap();
    let other = enter(&jobs);
    let _of_other = other.0.begin_call(false).unwrap();
    drop((as_operator, third));
    drop(of_second);
    let fourth = enter(&web);
    let _of_fourth = fourth.0.begin_call(false).unwrap();
    assert_eq!(open(&[&first, &second, &other, &fourth]), [true, false, true, true], "its own idle one goes");
    drop((first, of_first, second, other, fourth));
    assert!(admission.state().holders.is_empty());
}
