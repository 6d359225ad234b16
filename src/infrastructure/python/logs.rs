//! The engine's events on their way to `logging`: through a bounded queue that never waits for the interpreter.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Level as in `logging`, target, message, seconds since the epoch.
pub(super) type Line = (u8, String, String, f64);

const LINES_MAX: usize = 2048;
const INFO: u8 = 20;

/// Lines that wait, and whether whoever waits for them is to come back without.
static LINES: Mutex<(VecDeque<Line>, bool)> = Mutex::new((VecDeque::new(), false));
static SOME: Condvar = Condvar::new();
static LEVEL: AtomicU8 = AtomicU8::new(INFO);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Takes the place of the process's subscriber if nobody else has it.
pub(super) fn install() {
    // Another one is as good: whoever embeds the engine may have set it.
    let _ = tracing::subscriber::set_global_default(Forwarder);
}

pub(super) fn set_level(level: u8) {
    // Every place in the code that notes something is asked anew whether it is to: not each time that nothing has changed.
    if LEVEL.swap(level, Ordering::Relaxed) != level {
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Waits for lines, and takes all there are.
pub(super) fn take(timeout: Duration) -> Vec<Line> {
    let waiting = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = SOME.wait_timeout_while(waiting, timeout, |(lines, woken)| lines.is_empty() && !*woken);
    let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
    let mut taken: Vec<Line> = waiting.0.drain(..).collect();
    waiting.1 = false;
    drop(waiting);
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        let words = format!("{dropped} lines of the engine's log were dropped: they came faster than they were taken");
        taken.push((number(Level::WARN), "graft".to_owned(), words, now()));
    }
    taken
}

/// Whoever waits for lines, or will next, comes back at once.
pub(super) fn wake() {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    SOME.notify_all();
}

fn push(line: Line) {
    let mut waiting = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if waiting.0.len() >= LINES_MAX {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    waiting.0.push_back(line);
    drop(waiting);
    SOME.notify_one();
}

/// The level's number in `logging`; what is finer than debug is 5.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => INFO,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

struct Forwarder;

impl Subscriber for Forwarder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(*metadata.level()) >= LEVEL.load(Ordering::Relaxed) && metadata.target().starts_with("graft")
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words::default();
        event.record(&mut words);
        let target = event.metadata().target().replace("::", ".");
        push((number(*event.metadata().level()), target, words.message + &words.fields, now()));
    }

    // Spans are not forwarded: a line stands for itself.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
