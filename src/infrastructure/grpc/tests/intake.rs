use std::task::Waker;

use super::*;

impl Intake {
    /// Bytes that are counted, and messages that are looked at.
    pub(in super::super) fn held(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Relaxed), self.halves.lock().unwrap().here.len())
    }
}

fn half(share: &Arc<Share>, bytes: usize) -> Half {
    let mut half = Half::new(share);
    half.take(bytes).unwrap();
    half.keep();
    half
}

#[test]
fn a_connection_has_a_quarter_or_one_message() {
    let intake = Intake::new(400, 10);
    let (greedy, modest) = (intake.open(), intake.open());
    let held = half(&greedy, 100);
    let refused = Half::new(&greedy).take(1).unwrap_err();
    assert!(matches!(refused, Refusal::Busy(words) if words.contains("100 bytes") && words.contains("connection")));
    assert_eq!(intake.held(), (100, 1), "what is refused is not counted");
    drop((half(&modest, 100), held));
    assert_eq!((intake.held(), greedy.bytes.load(Ordering::Relaxed)), ((0, 0), 0));
    drop(half(&Intake::new(400, 300).open(), 300));
}

#[test]
fn of_those_whose_messages_do_not_come_on_the_one_who_holds_most_goes() {
    let intake = Intake::new(100 << 20, 0);
    let shares = [intake.open(), intake.open(), intake.open()];
    let mut halves = [(0, 10 << 20), (0, 10 << 20), (1, 15 << 20), (2, 25 << 20)].map(|(at, n)| half(&shares[at], n));
    let ended = || shares.each_ref().map(|share| share.end.is_cancelled());
    let now = intake.begun.elapsed();
    intake.relieve_at(now + STALL + LOOK_PAUSE);
    assert_eq!(ended(), [false; 3], "all came fast enough until now");
    // The one who holds most goes on sending.
    halves[3].whole();
    halves[3] = half(&shares[2], 24 << 20);
    let later = now + 2 * (STALL + LOOK_PAUSE);
    halves[3].take(1 << 20).unwrap();
    intake.relieve_at(later);
    assert_eq!(ended(), [true, false, false], "it counts what all its messages hold");
    intake.relieve_at(later);
    assert_eq!(ended(), [true, false, false], "not all at once");
    intake.relieve_at(later + LOOK_PAUSE);
    assert_eq!(ended(), [true, true, false]);
}

#[test]
fn a_byte_now_and_then_is_not_enough_at_the_limit() {
    let intake = Intake::new(100 << 20, 0);
    let share = intake.open();
    let mut half = half(&share, 20 << 20);
    let now = intake.begun.elapsed();
    intake.relieve_at(now + STALL + LOOK_PAUSE);
    half.take(1).unwrap();
    half.keep();
    assert!(!share.end.is_cancelled());
    intake.relieve_at(now + 2 * (STALL + LOOK_PAUSE));
    assert!(share.end.is_cancelled());
}

/// Waits until no more of it is waited for.
fn given_up(half: &mut Half) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let given_up = std::future::poll_fn(|context| half.poll_given_up(context));
    let refusal = runtime.block_on(async { timeout(Duration::from_secs(20), given_up).await });
    let Ok(Refusal::Busy(why)) = refusal else { panic!("{refusal:?}") };
    why
}

#[test]
fn who_says_no_more_is_not_waited_for() {
    let mut intake = Arc::into_inner(Intake::new(400, 10)).unwrap();
    intake.silence = Duration::from_millis(30);
    let mut half = half(&Arc::new(intake).open(), 5);
    let why = given_up(&mut half);
    assert!(why.contains("30ms") && why.contains("send it again"), "{why}");
    half.whole();
    let mut context = Context::from_waker(Waker::noop());
    assert!(half.poll_given_up(&mut context).is_pending() && half.patience.is_none(), "nothing is half here");
    half.take(1).unwrap();
    half.share.end.cancel();
    let why = given_up(&mut half);
    assert!(why.contains("closed") && why.contains("400 bytes"), "{why}");
}
