//! The main stories, told by the clerk itself: what happened (`<`) and what it wants done (`>`).

use bytes::Bytes;

use super::cluster::{Cluster, address, id};
use super::story::{Story, done, leads, ms};
use crate::client::{Answer, Demand, Event, Hint, LinkId};
use crate::commands::Slot;
use crate::error::{Outcome, Refusal};
use crate::waiting::RequestId;

#[test]
fn the_leader_changes() {
    let mut story = Story::begins(|_| {});
    story.connects(1, leads(1));
    story.hears_view(1, 1, 0, Some(1));
    story.introduces(2, 1);
    story.asks(1, 8_000);
    story.hears(2, 3, done(7));
    story.loses(2);
    story.connects(3, Some(Hint::Nobody));
    story.hears_view(3, 5, 0, None);
    story.hears_hint(3, Hint::Leads { id: id(2), address: address(2) });
    story.introduces(4, 2);
    story.hears(3, 6, done(8));
    story.is("
            0 > dial 1 m0:1
            0 < 1 connected, m1 leads
            0 > say 1 #1 view within 5s
            0 < 1 answers #1 that it is m0 of three
            0 > dial 2 m1:1
            0 > use 1
            0 < 2 connected, m1 leads
            0 > say 2 #2 view within 5s
            0 < 2 answers #2 that it is m1 of three
            0 > close 1
            0 > use 2
            0 < call 1
            0 > say 2 #3 session within 3s
            0 < 2 answers #3 done 7
            0 > say 2 #4 execute 7/1 from 1 within 7.75s
            0 < 2 lost
            0 > dial 3 m0:1
            0 > use none
            0 < 3 connected, nobody leads
            0 > say 3 #5 view within 5s
            0 < 3 answers #5 that it is m0 of three
            0 > say 3 #6 execute 7/1 from 1 within 7.75s
            0 > use 3
            0 < 3 says m2 leads
            0 > say 3 #7 view within 5s
            0 > dial 4 m2:1
            0 < 4 connected, m2 leads
            0 > say 4 #8 view within 5s
            0 < 4 answers #8 that it is m2 of three
            0 > use 4
            0 < 3 answers #6 done 8
            0 > answer 1 done 8
    ");
}

#[test]
fn nobody_is_there() {
    let mut story = Story::begins(|config| config.endpoints = vec![address(0), address(1)]);
    story.asks(1, 100);
    story.loses(1);
    story.loses(2);
    story.waits(100);
    story.is("
            0 > dial 1 m0:1
            0 < call 1
            0 < 1 lost
            0 > dial 2 m1:1
            0 < 2 lost
            4 > dial 3 m0:1
          100 > answer 1 refused: no member can be reached: m0:1: connection refused; m1:1: connection refused
    ");
}

#[test]
fn whom_nobody_believes_is_told_so_at_once() {
    let mut story = Story::begins(|config| config.endpoints = vec![address(0), address(1)]);
    story.asks(1, 100);
    story.distrusts(1);
    story.distrusts(2);
    story.is("
            0 > dial 1 m0:1
            0 < call 1
            0 < 1 distrusts
            0 > dial 2 m1:1
            0 < 2 distrusts
            0 > answer 1 refused: no member can be reached: m0:1: of another authority; m1:1: of another authority
    ");
    // If it is not everybody, the others may be back in time.
    story.waits(50);
    story.told.clear();
    story.asks(2, 100);
    story.loses(3);
    story.waits(100);
    let told = &story.told;
    assert!(told.contains("answer 2 refused: no member can be reached") && !told.contains("unknown"), "{told}");
}

#[test]
fn a_cluster_that_takes_its_time_opens_a_session_in_the_end() {
    let mut story = Story::begins(|config| config.quiet = ms(100_000));
    story.connects(1, leads(0));
    story.hears_view(1, 1, 0, Some(0));
    story.asks(1, 60_000);
    // The member says so shortly before; then the client loses patience first.
    story.waits(2_990);
    let why = || "it was handed to the leader".to_owned();
    story.hears(1, 2, Outcome::Unknown { why: why(), slot: None });
    story.waits(6_500);
    story.told.clear();
    story.introduces(2, 0);
    story.waits(11_000);
    assert!(story.told.contains(" session within 12s"), "{}", story.told);
    let number = story.told.split_once(" session within 12s").and_then(|(told, _)| told.rsplit_once('#'));
    let number: u64 = number.and_then(|(_, number)| number.parse().ok()).expect("it was said under a number");
    story.told.clear();
    story.hears(2, number, done(7));
    assert!(story.told.contains("execute 7/1 from 1"), "{}", story.told);
}

#[test]
fn how_the_cluster_is_is_not_asked_of_one_that_was_removed() {
    let mut story = Story::begins(|_| {});
    story.connects(1, leads(1));
    let (request, deadline) = (RequestId(1), story.now + ms(8_000));
    story.happens("look", Event::Call { request, demand: Demand::View, deadline });
    story.told.clear();
    let mut view = Cluster::new(3).view(0);
    (view.status.role, view.status.error_code) = ("removed", Some("REMOVED"));
    for number in [1, 2] {
        let answers = vec![(number, Answer::View(Box::new(view.clone())))];
        story.happens("it was removed", Event::Heard { link: LinkId(1), answers, hint: None });
    }
    story.waits(1_000);
    assert!(!story.told.contains("answer 1") && story.told.contains("dial 2 m"), "{}", story.told);
}

#[test]
fn whoever_may_not_have_a_session_hears_so_at_once() {
    let mut story = Story::begins(|_| {});
    story.connects(1, leads(0));
    story.hears_view(1, 1, 0, Some(0));
    story.asks(1, 8_000);
    story.asks(2, 8_000);
    story.told.clear();
    story.hears(1, 2, Outcome::Refused(Refusal::Denied("that takes the role writer".to_owned())));
    story.is("
            0 < 1 answers #2 refused: that takes the role writer
            0 > answer 1 refused: that takes the role writer
            0 > answer 2 refused: that takes the role writer
    ");
}

#[test]
fn a_session_expires() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 8_000);
    story.asks(3, 8_000);
    story.hears(1, 4, Outcome::Refused(Refusal::SessionExpired));
    story.hears(1, 5, Outcome::Refused(Refusal::SessionExpired));
    story.hears(1, 6, done(9));
    story.hears(1, 7, done(10));
    story.hears(1, 8, done(11));
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/2 from 2 within 7.75s
            0 < call 3
            0 > say 1 #5 execute 7/3 from 2 within 7.75s
            0 < 1 answers #4 refused: the session has expired: it was not used for its time to live
            0 > say 1 #6 session within 3s
            0 < 1 answers #5 refused: the session has expired: it was not used for its time to live
            0 < 1 answers #6 done 9
            0 > say 1 #7 execute 9/1 from 1 within 7.75s
            0 > say 1 #8 execute 9/2 from 1 within 7.75s
            0 < 1 answers #7 done 10
            0 > answer 2 done 10
            0 < 1 answers #8 done 11
            0 > answer 3 done 11
    ");
}

#[test]
fn a_session_expires_while_the_fate_of_a_command_is_unclear() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 8_000);
    story.loses(1);
    story.introduces(2, 1);
    story.hears(2, 6, Outcome::Refused(Refusal::SessionExpired));
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/2 from 2 within 7.75s
            0 < 1 lost
            0 > dial 2 m1:1
            0 > use none
            0 < 2 connected, m1 leads
            0 > say 2 #5 view within 5s
            0 < 2 answers #5 that it is m1 of three
            0 > say 2 #6 execute 7/2 from 2 within 7.75s
            0 > use 2
            0 < 2 answers #6 refused: the session has expired: it was not used for its time to live
            0 > answer 2 unknown Some((7, 2)): an attempt was not answered, and the next one was refused: the session has expired: it was not used for its time to live
    ");
}

#[test]
fn members_lie_about_the_leader() {
    let mut story = Story::begins(|_| {});
    for link in 1..=4 {
        let (member, leader) = (usize::from(link % 2 == 0), usize::from(link % 2 == 1));
        story.connects(link, leads(leader));
        story.hears_view(link, link, member, Some(leader));
    }
    story.asks(1, 8_000);
    story.waits(100);
    story.is("
            0 > dial 1 m0:1
            0 < 1 connected, m1 leads
            0 > say 1 #1 view within 5s
            0 < 1 answers #1 that it is m0 of three
            0 > dial 2 m1:1
            0 > use 1
            0 < 2 connected, m0 leads
            0 > say 2 #2 view within 5s
            0 < 2 answers #2 that it is m1 of three
            0 > close 1
            0 > dial 3 m0:1
            0 > use 2
            0 < 3 connected, m1 leads
            0 > say 3 #3 view within 5s
            0 < 3 answers #3 that it is m0 of three
            0 > close 2
            0 > dial 4 m1:1
            0 > use 3
            0 < 4 connected, m0 leads
            0 > say 4 #4 view within 5s
            0 < 4 answers #4 that it is m1 of three
            0 > close 3
            0 > use 4
            0 < call 1
            0 > say 4 #5 session within 3s
    ");
}

#[test]
fn a_member_hangs() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 8_000);
    story.waits(2_000);
    story.introduces(2, 1);
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/2 from 2 within 7.75s
         1000 > say 1 #5 view within 5s
         2000 > close 1
         2000 > dial 2 m1:1
         2000 > use none
         2000 < 2 connected, m1 leads
         2000 > say 2 #6 view within 5s
         2000 < 2 answers #6 that it is m1 of three
         2000 > say 2 #7 execute 7/2 from 2 within 5.75s
         2000 > use 2
    ");
}

#[test]
fn a_member_is_cut_off_from_the_others() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 8_000);
    story.hears_hint(1, Hint::Nobody);
    story.hears_view(1, 5, 0, None);
    story.waits(500);
    story.introduces(2, 1);
    story.hears(1, 4, Outcome::Refused(Refusal::NoLeader));
    story.hears(2, 6, done(9));
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/2 from 2 within 7.75s
            0 < 1 says nobody leads
            0 > say 1 #5 view within 5s
            0 < 1 answers #5 that it is m0 of three
          500 > dial 2 m1:1
          500 < 2 connected, m1 leads
          500 > say 2 #6 view within 5s
          500 < 2 answers #6 that it is m1 of three
          500 > close 1
          500 > say 2 #7 execute 7/2 from 2 within 7.25s
          500 > use 2
          500 < 1 answers #4 refused: the cluster has no leader
          500 < 2 answers #6 done 9
    ");
}

#[test]
fn a_refusal_is_told_while_it_is_known() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 1_000);
    story.now = story.now + ms(875);
    story.hears(1, 4, Outcome::Refused(Refusal::NoQuorum { reachable: 1, needed: 2 }));
    story.waits(125);
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/2 from 2 within 875ms
          875 < 1 answers #4 refused: 1 voting member is reachable from here, 2 are needed
          875 > dial 2 m1:1
         1000 > answer 2 refused: 1 voting member is reachable from here, 2 are needed
    ");
}

#[test]
fn an_answer_is_not_kept_any_more() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 8_000);
    for number in 4..=6 {
        story.hears(1, number, Outcome::Unknown { why: "who knows".to_owned(), slot: None });
        story.waits(100);
    }
    story.asks(3, 8_000);
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/2 from 2 within 7.75s
            0 < 1 answers #4 unknown None: who knows
            1 > say 1 #5 execute 7/2 from 2 within 7.749s
          100 < 1 answers #5 unknown None: who knows
          160 > say 1 #6 execute 7/2 from 2 within 7.589134469s
          200 < 1 answers #6 unknown None: who knows
          200 > answer 2 unknown None: who knows
          300 < call 3
          300 > say 1 #7 execute 7/3 from 3 within 7.75s
    ");
}

#[test]
fn a_member_answers_for_another() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 8_000);
    story.hears_hint(1, Hint::Leads { id: id(1), address: address(1) });
    story.introduces(2, 1);
    story.asks(3, 8_000);
    // Each is asked about one of the calls, and says something of the other.
    story.hears(2, 4, done(8));
    story.hears(1, 7, done(9));
    story.hears(1, 4, done(10));
    story.hears(2, 7, done(11));
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/2 from 2 within 7.75s
            0 < 1 says m1 leads
            0 > say 1 #5 view within 5s
            0 > dial 2 m1:1
            0 < 2 connected, m1 leads
            0 > say 2 #6 view within 5s
            0 < 2 answers #6 that it is m1 of three
            0 > use 2
            0 < call 3
            0 > say 2 #7 execute 7/3 from 2 within 7.75s
            0 < 2 answers #4 done 8
            0 < 1 answers #7 done 9
            0 < 1 answers #4 done 10
            0 > answer 2 done 10
            0 < 2 answers #7 done 11
            0 > answer 3 done 11
    ");
}

#[test]
fn what_became_of_a_call_can_be_asked_again_and_again() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 400);
    story.waits(400);
    let slot = Some(Slot { session: 7, sequence: 2, unanswered: 2 });
    let demand = Demand::Execute { slot, body: Bytes::from_static(b"x") };
    let deadline = story.now + ms(8_000);
    story.happens("call 3 about 7/2", Event::Call { request: RequestId(3), demand, deadline });
    story.hears(1, 5, Outcome::Refused(Refusal::Invalid("no such name".to_owned())));
    story.asks(4, 8_000);
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/2 from 2 within 350ms
          400 > answer 2 unknown Some((7, 2)): m0:1 did not answer in time
          400 < call 3 about 7/2
          400 > say 1 #5 execute 7/2 from 2 within 7.75s
          400 < 1 answers #5 refused: no such name
          400 > answer 3 refused: no such name
          400 < call 4
          400 > say 1 #6 execute 7/3 from 2 within 7.75s
    ");
}

#[test]
fn too_many_calls_are_refused_at_once() {
    let mut story = Story::begins(|config| (config.inflight_max, config.inflight_bytes_max) = (2, 1));
    story.asks(1, 8_000);
    story.asks(2, 8_000);
    story.is("
            0 > dial 1 m0:1
            0 < call 1
            0 < call 2
            0 > answer 2 refused: busy: 1 bytes of calls of this client wait for an answer; 1 may
    ");
    let mut story = Story::begins(|config| config.inflight_max = 1);
    story.asks(1, 8_000);
    story.asks(2, 8_000);
    assert!(story.told.contains("> answer 2 refused: busy: 1 calls of this client"), "{}", story.told);
}
