use std::collections::VecDeque;
use std::task::Waker;

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

/// One that comes in these frames.
struct Framed(VecDeque<Bytes>);

impl Body for Framed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

/// What whoever decodes it gets, frame by frame.
fn handed_on(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Bytes> {
    let frames = Framed(frames.into_iter().map(Bytes::from).collect());
    let mut body = Metered::new(frames, None, 8 << 20);
    let mut context = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut context) {
        all.push(frame.unwrap().into_data().unwrap());
    }
    all
}

#[test]
fn a_large_message_is_handed_on_when_enough_of_it_is_here() {
    let large = message(4 << 20, 4 << 20);
    let small = message(3, 3);
    let sixteenth = 5 + (4 << 20) / 16;
    let whole = [&small[..], &large, &small].concat();
    let starts = small.len();
    let cuts = [0, starts + 5, starts + 1000, starts + sixteenth - 1, starts + sixteenth, whole.len()];
    let parts = cuts.windows(2).map(|cut| whole[cut[0]..cut[1]].to_vec());
    let lengths: Vec<_> = handed_on(parts).iter().map(Bytes::len).collect();
    assert_eq!(lengths, [starts, sixteenth, whole.len() - starts - sixteenth]);
}

#[test]
fn what_is_handed_on_is_what_came_however_it_is_cut() {
    let all = [message(3, 3), message(1 << 20, 1 << 20), message(2 << 20, 2 << 20), message(1 << 20, 1000)].concat();
    for cut in [1000, 4096, 65_537, 1 << 20, 3 << 20, 8 << 20] {
        let handed = handed_on(all.chunks(cut).map(<[u8]>::to_vec));
        assert!(handed.concat() == all, "cut at {cut}");
    }
    // The length itself is cut.
    for cut in 1..=5 {
        let large = message(1 << 20, 1 << 20);
        let handed = handed_on([large[..cut].to_vec(), large[cut..10].to_vec(), large[10..].to_vec()]);
        assert!(handed.concat() == large && handed[0].len() != 10, "cut at {cut}");
    }
}
