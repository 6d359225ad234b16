//! A closed loop of so many calls in flight, and what it took.

use std::fmt::Write as _;
use std::io::{BufRead, Write as _};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft::services::api::{Api, Call, Caller, Sink};
use graft::services::error::Outcome;
use graft::services::{Consistency, Read};

use super::times::Times;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Command,
    Linearizable,
    Lease,
    Stale,
    /// Nine linearizable reads to a command.
    Mixed,
}

/// Every so many of mixed calls is a command.
pub(crate) const MIXED: u64 = 10;

impl Kind {
    pub(crate) const ALL: &[Self] = &[Self::Command, Self::Linearizable, Self::Lease, Self::Stale, Self::Mixed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Linearizable => "linearizable",
            Self::Lease => "lease",
            Self::Stale => "stale",
            Self::Mixed => "mixed",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) depth: usize,
    pub(crate) time: Duration,
    pub(crate) bytes: usize,
}

/// What a run of a load gave.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) calls: usize,
    pub(crate) elapsed: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
}

impl Sample {
    pub(crate) fn of(times: &Times, elapsed: Duration) -> Self {
        assert!(times.count() > 0, "no call came back");
        Self { calls: times.count(), elapsed, p50: times.at(0.5), p99: times.at(0.99), p999: times.at(0.999) }
    }
}

/// What a member counts of its own work, since it began.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) syncs: u64,
    /// That it wrote, as far as it knows.
    pub(crate) bytes: u64,
}

const COUNTS: &str = "counts";

/// Takes loads from the parent's pipe, a line each, until that ends; or tells its counts.
pub(crate) fn serve(mut run: impl FnMut(Load) -> Sample, counts: impl Fn() -> Counts) {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap();
        let first = next();
        if first == COUNTS {
            let Counts { syncs, bytes } = counts();
            println!("{syncs} {bytes}");
        } else {
            let kind = Kind::of(first).unwrap();
            let mut number = || next().parse::<u64>().unwrap();
            let (depth, time, bytes) = (number() as usize, Duration::from_micros(number()), number() as usize);
            let Sample { calls, elapsed, p50, p99, p999 } = run(Load { kind, depth, time, bytes });
            let mut answer = calls.to_string();
            for time in [elapsed, p50, p99, p999] {
                write!(answer, " {}", time.as_nanos()).unwrap();
            }
            println!("{answer}");
        }
        std::io::stdout().flush().unwrap();
    }
}

/// The other end of [`serve`]: what a line is answered with.
fn asked(line: &str, to: &mut impl std::io::Write, from: &mut impl BufRead) -> Vec<u64> {
    writeln!(to, "{line}").unwrap();
    to.flush().unwrap();
    let mut answer = String::new();
    from.read_line(&mut answer).unwrap();
    assert!(!answer.is_empty(), "the process that was asked is gone");
    answer.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// Has the load run there.
pub(crate) fn ask(load: Load, to: &mut impl std::io::Write, from: &mut impl BufRead) -> Sample {
    let Load { kind, depth, time, bytes } = load;
    let answer = asked(&format!("{} {depth} {} {bytes}", kind.name(), time.as_micros()), to, from);
    let time = |place: usize| Duration::from_nanos(answer[place]);
    Sample { calls: answer[0] as usize, elapsed: time(1), p50: time(2), p99: time(3), p999: time(4) }
}

/// Asks for what was counted there.
pub(crate) fn ask_counts(to: &mut impl std::io::Write, from: &mut impl BufRead) -> Counts {
    let answer = asked(COUNTS, to, from);
    Counts { syncs: answer[0], bytes: answer[1] }
}

/// Which calls came back.
#[derive(Default)]
struct Back {
    tokens: Mutex<Vec<u64>>,
    news: Condvar,
}

impl Sink for Back {
    fn complete(&self, token: u64, outcome: Outcome) {
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        let mut tokens = self.tokens.lock().unwrap();
        let first = tokens.is_empty();
        tokens.push(token);
        drop(tokens);
        if first {
            self.news.notify_one();
        }
    }
}

/// Keeps `depth` calls going for a while: every answer sends the next.
pub(crate) fn run(api: &dyn Api, load: Load) -> Sample {
    let back = Arc::new(Back::default());
    let body = Bytes::from(vec![7; load.bytes]);
    let mut begun = vec![Instant::now(); load.depth];
    let start = Instant::now();
    let (mut times, mut flying) = (Times::new(), load.depth);
    let mut sent = 0;
    let mut tokens: Vec<u64> = (0..load.depth as u64).collect();
    loop {
        let now = Instant::now();
        for token in &tokens {
            begun[*token as usize] = now;
        }
        let callers = tokens.drain(..).map(|token| Caller { sink: Arc::<Back>::clone(&back), token });
        match load.kind {
            Kind::Command => execute(api, &body, callers),
            Kind::Linearizable => query(api, &body, Consistency::Linearizable, callers),
            Kind::Lease => query(api, &body, Consistency::Lease, callers),
            Kind::Stale => query(api, &body, Consistency::Stale { max_age: None }, callers),
            Kind::Mixed => {
                let is_command = |_: &Caller| {
                    sent += 1;
                    sent % MIXED == 0
                };
                let (commands, queries): (Vec<_>, Vec<_>) = callers.partition(is_command);
                execute(api, &body, commands.into_iter());
                query(api, &body, Consistency::Linearizable, queries.into_iter());
            }
        }
        // Answers are taken until there is something to send again, or nothing is left to wait for.
        while flying > 0 && tokens.is_empty() {
            let waiting = back.tokens.lock().unwrap();
            let mut come = back.news.wait_while(waiting, |tokens| tokens.is_empty()).unwrap();
            std::mem::swap(&mut *come, &mut tokens);
            drop(come);
            let now = Instant::now();
            for token in &tokens {
                times.add(now - begun[*token as usize]);
            }
            if start.elapsed() >= load.time {
                flying -= tokens.len();
                tokens.clear();
            }
        }
        if flying == 0 {
            return Sample::of(&times, start.elapsed());
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);

fn execute(api: &dyn Api, body: &Bytes, callers: impl ExactSizeIterator<Item = Caller>) {
    if callers.len() > 0 {
        api.execute(callers.map(|caller| Call { body: body.clone(), slot: None, caller }).collect(), TIMEOUT);
    }
}

fn query(api: &dyn Api, body: &Bytes, consistency: Consistency, callers: impl ExactSizeIterator<Item = Caller>) {
    if callers.len() > 0 {
        let queries = callers.map(|caller| (body.clone(), caller)).collect();
        api.query(queries, Read::of(consistency), TIMEOUT);
    }
}
