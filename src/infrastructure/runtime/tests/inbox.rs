use std::future::Future as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Wake, Waker};
use std::thread::{ThreadId, current, scope};
use std::time::{Duration, Instant as Watch};

use tokio_util::sync::CancellationToken;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const THREADS: usize = 6;

/// Tells of what it takes, and who turned it.
struct Toy {
    clock: Monotonic,
    taken: VecDeque<Said>,
    told: Sender<(ThreadId, Said)>,
    /// How many words of each thread were taken.
    words: Arc<[AtomicUsize; THREADS]>,
    due: Instant,
    stopped: bool,
    is_alone: Arc<AtomicBool>,
    /// Turns at a time.
    at_once: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Word { from: usize, number: usize },
    WakeIn(Duration),
    Woken,
    Stop,
}

impl Turn for Toy {
    type Message = Said;

    fn begin(&mut self) {}

    fn turn(&mut self, inbox: &Inbox<Self>) -> Next {
        assert_eq!(self.at_once.fetch_add(1, Ordering::SeqCst), 0);
        let due = self.due;
        // A few at a time: what is left makes more turns.
        for _ in 0..3 {
            if self.taken.is_empty() && !inbox.take(&mut self.taken) {
                break;
            }
            let Some(said) = self.taken.pop_front() else { break };
            match said {
                Said::WakeIn(after) => self.due = self.clock.now() + after,
                Said::Stop => self.stopped = true,
                Said::Word { from, number } => {
                    assert_eq!(self.words[from].fetch_add(1, Ordering::SeqCst), number, "in order, and once");
                }
                Said::Woken => {}
            }
            self.told.send((current().id(), said)).unwrap();
        }
        // A turn that says when to wake is not the one that wakes, however long it lasts.
        if self.due == due && due <= self.clock.now() {
            self.due = Instant::NEVER;
            self.told.send((current().id(), Said::Woken)).unwrap();
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match () {
            () if self.stopped => Next::Ended,
            () if !self.taken.is_empty() => Next::Now,
            () => Next::At(self.due),
        }
    }

    fn may_be_helped(&self) -> bool {
        !self.is_alone.load(Ordering::Relaxed)
    }

    fn gate(&self) {}
}

struct Stops<'a>(&'a Inbox<Toy>);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        let _ = self.0.send(Said::Stop);
    }
}

type Hear<'a> = dyn Fn() -> (ThreadId, Said) + 'a;

/// Runs the toy on a thread of its own beside `beside`, which is given the inbox, what the toy tells, and its thread.
fn with_toy(is_alone: bool, beside: impl FnOnce(&Arc<Inbox<Toy>>, &Hear<'_>, ThreadId)) {
    with_words(&Arc::default(), is_alone, beside);
}

fn with_words(
    words: &Arc<[AtomicUsize; THREADS]>,
    is_alone: bool,
    beside: impl FnOnce(&Arc<Inbox<Toy>>, &Hear<'_>, ThreadId),
) {
    let clock = Monotonic::start();
    let inbox = Inbox::new(clock);
    let (told, heard) = channel();
    let is_alone = Arc::new(AtomicBool::new(is_alone));
    let toy = Toy {
        clock,
        taken: VecDeque::new(),
        told,
        words: Arc::clone(words),
        due: Instant::NEVER,
        stopped: false,
        is_alone,
        at_once: AtomicUsize::new(0),
    };
    scope(|threads| {
        let own = threads.spawn(|| {
            assert!(inbox.run(toy).stopped);
            inbox.close();
        });
        // Whether what is tried holds or not, nobody waits for a thread that does not end.
        let stops = Stops(&inbox);
        beside(&inbox, &|| heard.recv_timeout(PATIENCE).expect("it is told in time"), own.thread().id());
        drop(stops);
        own.join().unwrap();
    });
    let Gone(back) = inbox.bring(Said::Woken).expect_err("it has stopped");
    assert_eq!(*back, Said::Woken);
}

/// So many threads say words, each when the last ones of all were taken, and in one of these ways. One that nobody came for
/// would lie there.
fn say(threads: usize, ways: &[fn(&Inbox<Toy>, Said)]) {
    const EACH: usize = 1_000;
    let words = Arc::<[AtomicUsize; THREADS]>::default();
    with_words(&words, false, |inbox, hear, own| {
        scope(|scope| {
            for from in 0..threads {
                let words = &words;
                scope.spawn(move || {
                    for number in 0..EACH {
                        ways[(from + number) % ways.len()](inbox, Said::Word { from, number });
                        let begun = Watch::now();
                        while words[..threads].iter().any(|taken| taken.load(Ordering::SeqCst) <= number) {
                            assert!(begun.elapsed() < PATIENCE, "word {number} of some lies there: {words:?}");
                            std::thread::yield_now();
                        }
                    }
                });
            }
        });
        let helped = (0..threads * EACH).filter(|_| hear().0 != own).count();
        assert!(helped > 0, "nobody helped");
    });
}

#[test]
fn everything_is_taken_once_and_in_order_whoever_turns() {
    let leave = |inbox: &Inbox<Toy>, said| {
        inbox.leave(said).unwrap();
        inbox.help();
    };
    say(THREADS, &[|inbox, said| inbox.bring(said).unwrap(), |inbox, said| inbox.send(said).unwrap(), leave]);
}

#[test]
fn whoever_finds_it_held_may_rely_on_who_holds_it() {
    say(2, &[|inbox, said| inbox.bring(said).unwrap()]);
}

#[test]
fn whoever_brings_something_turns_it_and_wakes_nobody() {
    with_toy(false, |inbox, hear, own| {
        // Its own thread may be at it still when it begins.
        let mine = (0..1000).filter(|number| {
            inbox.bring(Said::Word { from: 0, number: *number }).unwrap();
            hear().0 == current().id()
        });
        assert!(mine.count() > 900);
        inbox.send(Said::Word { from: 1, number: 0 }).unwrap();
        assert_eq!(hear().0, own, "what is sent is left for its own thread");
    });
}

#[test]
fn the_sleeping_thread_hears_of_a_nearer_deadline() {
    with_toy(false, |inbox, hear, own| {
        for _ in 0..100 {
            let begun = Watch::now();
            inbox.bring(Said::WakeIn(Duration::from_millis(3))).unwrap();
            assert!(matches!(hear(), (_, Said::WakeIn(_))));
            assert_eq!(hear(), (own, Said::Woken), "by its own thread, which slept until much later");
            assert!(begun.elapsed() >= Duration::from_millis(3));
        }
    });
}

/// Has the time kept by a thread of its own beside `beside`, which is given that thread.
fn with_timekeeper(inbox: &Arc<Inbox<Toy>>, beside: impl FnOnce(ThreadId)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let stop = CancellationToken::new();
    scope(|threads| {
        let (keeps, stops) = (Arc::clone(inbox).keep_time(), stop.clone());
        let keeper = threads.spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = keeps => {}
                    () = stops.cancelled() => {}
                }
            });
        });
        while inbox.lock().kept.is_none() {
            std::thread::yield_now();
        }
        // Whether what is tried holds or not.
        let _stops = stop.clone().drop_guard();
        beside(keeper.thread().id());
    });
}

/// The next time that it wakes it is on this thread, in time, and it says so once.
fn wakes(inbox: &Inbox<Toy>, hear: &Hear<'_>, on: ThreadId) {
    let (begun, after) = (Watch::now(), Duration::from_millis(3));
    inbox.bring(Said::WakeIn(after)).unwrap();
    assert!(matches!(hear(), (_, Said::WakeIn(_))));
    assert_eq!(hear(), (on, Said::Woken));
    assert!(begun.elapsed() >= after);
}

#[test]
fn a_timekeeper_turns_it_in_time_and_its_own_thread_when_there_is_none_any_more() {
    with_toy(false, |inbox, hear, own| {
        wakes(inbox, hear, own);
        with_timekeeper(inbox, |keeper| (0..100).for_each(|_| wakes(inbox, hear, keeper)));
        wakes(inbox, hear, own);
        // What is due already when somebody else comes to keep the time, or goes, is not forgotten.
        inbox.bring(Said::WakeIn(Duration::from_millis(30))).unwrap();
        assert!(matches!(hear(), (_, Said::WakeIn(_))));
        with_timekeeper(inbox, |_| assert_eq!(hear().1, Said::Woken));
        with_timekeeper(inbox, |_| {
            inbox.bring(Said::WakeIn(Duration::from_millis(30))).unwrap();
            assert!(matches!(hear(), (_, Said::WakeIn(_))));
        });
        assert_eq!(hear().1, Said::Woken);
    });
}

#[test]
fn a_timekeeper_leaves_one_that_may_not_be_helped_to_its_own_thread() {
    with_toy(true, |inbox, hear, own| {
        with_timekeeper(inbox, |_| (0..100).for_each(|_| wakes(inbox, hear, own)));
    });
}

#[test]
fn a_timekeeper_lets_what_came_meanwhile_be_read_first() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (soon, later) = (Duration::from_millis(100), PATIENCE * 2);
    with_toy(false, |inbox, hear, _| {
        runtime.block_on(async {
            let keeper = tokio::spawn(Arc::clone(inbox).keep_time());
            yield_now().await;
            inbox.bring(Said::WakeIn(soon)).unwrap();
            assert_eq!(hear().1, Said::WakeIn(soon));
            let reader = Arc::clone(inbox);
            let reads = tokio::spawn(async move {
                tokio::time::sleep(soon * 2).await;
                reader.bring(Said::WakeIn(later)).unwrap();
            });
            yield_now().await;
            // As a process that stood still: it is due, and there is something to read.
            std::thread::sleep(soon * 4);
            reads.await.unwrap();
            assert_eq!(hear().1, Said::WakeIn(later), "it was turned for nothing");
            keeper.abort();
        });
    });
}

/// Has whoever wakes the timekeeper wait until he has come, as one whom the system takes the processor from.
struct Overtaken {
    keeper: ThreadId,
    /// Polls him, and tells.
    poll: Sender<Sender<()>>,
}

impl Wake for Overtaken {
    fn wake(self: Arc<Self>) {
        if current().id() != self.keeper {
            let (done, is_done) = channel();
            self.poll.send(done).unwrap();
            // Nobody does once he is gone.
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

#[test]
fn a_timekeeper_who_comes_after_the_turn_of_who_holds_it_may_rely_on_him() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    with_toy(false, |inbox, hear, _| {
        let (poll, polls) = channel::<Sender<()>>();
        let stop = AtomicBool::new(false);
        scope(|threads| {
            let (overtaking, stop) = (poll.clone(), &stop);
            threads.spawn(move || {
                let waker = Waker::from(Arc::new(Overtaken { keeper: current().id(), poll: overtaking }));
                let _entered = runtime.enter();
                let mut keeps = pin!(Arc::clone(inbox).keep_time());
                while let Ok(done) = polls.recv_timeout(PATIENCE * 2) {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // Once to see that it is due, and once to turn it.
                    for _ in 0..2 {
                        assert!(keeps.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                    }
                    done.send(()).unwrap();
                }
            });
            let (done, is_done) = channel();
            poll.send(done.clone()).unwrap();
            is_done.recv_timeout(PATIENCE).unwrap();
            inbox.bring(Said::WakeIn(Duration::ZERO)).unwrap();
            assert!(matches!(hear(), (_, Said::WakeIn(_))));
            let heard = catch_unwind(AssertUnwindSafe(hear));
            stop.store(true, Ordering::SeqCst);
            poll.send(done).unwrap();
            assert_eq!(heard.unwrap().1, Said::Woken);
        });
    });
}

#[test]
fn a_timekeeper_who_goes_before_he_turns_it_leaves_that_to_its_own_thread() {
    with_toy(false, |inbox, hear, own| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut keeps = Box::pin(Arc::clone(inbox).keep_time());
        let mut poll = || {
            let _entered = runtime.enter();
            assert!(keeps.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        };
        poll();
        inbox.bring(Said::WakeIn(Duration::ZERO)).unwrap();
        assert!(matches!(hear(), (_, Said::WakeIn(_))));
        while inbox.lock().due.is_none_or(|due| due == Instant::NEVER) {
            std::thread::yield_now();
        }
        poll();
        assert_eq!(inbox.lock().kept, Some(AWAKE), "he is about to turn it");
        drop(keeps);
        assert_eq!(hear(), (own, Said::Woken));
    });
}

#[test]
fn a_timekeeper_goes_when_the_inbox_is_closed() {
    let inbox = Inbox::<Toy>::new(Monotonic::start());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let keeps = runtime.spawn(Arc::clone(&inbox).keep_time());
    runtime.block_on(yield_now());
    assert_eq!(inbox.lock().kept, Some(Instant::NEVER), "he waits to be told when it is due");
    inbox.close();
    runtime.block_on(async { timeout(PATIENCE, keeps).await }).unwrap().unwrap();
    assert_eq!(inbox.lock().kept, None);
}

#[test]
fn one_that_may_not_be_helped_is_turned_by_its_own_thread() {
    with_toy(true, |inbox, hear, own| {
        for number in 0..1000 {
            let word = Said::Word { from: 0, number };
            inbox.bring(word).unwrap();
            assert_eq!(hear(), (own, word));
        }
    });
}
