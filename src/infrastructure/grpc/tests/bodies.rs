use super::super::intake::Intake;
use super::*;

/// A body that is not read here: only what comes of its bytes is looked at.
struct Unread;

fn metered(intake: &Arc<Intake>) -> Metered<Unread> {
    Metered::new(Unread, Some(&intake.open()), 10)
}

fn message(length: u32, bytes: usize) -> Vec<u8> {
    let mut all = vec![0];
    all.extend(length.to_be_bytes());
    all.extend(std::iter::repeat_n(7, bytes));
    all
}

#[test]
fn messages_are_told_apart_however_they_are_cut() {
    let whole = [message(3, 3), message(0, 0), message(10, 10), message(5, 4)].concat();
    for cut in 1..whole.len() {
        let intake = Intake::new(10, 10);
        let mut body = metered(&intake);
        for part in whole.chunks(cut) {
            body.scan(part).unwrap_or_else(|refusal| panic!("cut at {cut}: {refusal}"));
        }
        assert_eq!((intake.held(), body.scan.left), ((4, 1), 1), "cut at {cut}");
        drop(body);
        assert_eq!(intake.held(), (0, 0));
    }
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_length_alone() {
    let intake = Intake::new(100, 10);
    let refused = metered(&intake).scan(&message(11, 0));
    assert_eq!(refused, Err(Refusal::TooLarge { bytes: 11, limit: 10 }));
    let most = metered(&intake).scan(&message(u32::MAX, 0));
    assert_eq!(most, Err(Refusal::TooLarge { bytes: u64::from(u32::MAX), limit: 10 }));
    let uncounted = Metered::new(Unread, None, 10).scan(&message(11, 0));
    assert_eq!(uncounted, Err(Refusal::TooLarge { bytes: 11, limit: 10 }));
}

#[test]
fn all_that_is_half_here_has_one_limit() {
    let intake = Intake::new(12, 10);
    let mut first = metered(&intake);
    let mut second = metered(&intake);
    first.scan(&message(9, 8)).unwrap();
    let refused = second.scan(&message(9, 5)).unwrap_err();
    assert!(matches!(refused, Refusal::Busy(words) if words.contains("12 bytes") && words.contains("member")));
    assert_eq!(intake.held(), (8, 1));
    first.scan(&[7]).unwrap();
    assert_eq!(intake.held(), (0, 0), "whole messages are counted by those who take them");
    let mut third = metered(&intake);
    third.scan(&message(9, 5)).unwrap();
}
