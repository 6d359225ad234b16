//! A closed loop of so many calls in flight, and what it took.

use std::fmt::Write as _;
use std::io::{BufRead, Write as _};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft::services::api::{Api, Call, Caller, Sink};
use graft::services::error::Outcome;
use graft::services::{Consistency, Read};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Command,
    Linearizable,
    Lease,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Linearizable => "linearizable",
            Self::Lease => "lease",
        }
    }

    fn of(name: &str) -> Self {
        let all = [Self::Command, Self::Linearizable, Self::Lease];
        all.into_iter().find(|kind| kind.name() == name).unwrap()
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
    pub(crate) fn of(mut times: Vec<Duration>, elapsed: Duration) -> Self {
        assert!(!times.is_empty(), "no call came back");
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Self { calls: times.len(), elapsed, p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// Takes loads from the parent's pipe, a line each, until that ends.
pub(crate) fn serve(mut run: impl FnMut(Load) -> Sample) {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap();
        let kind = Kind::of(next());
        let mut number = || next().parse::<u64>().unwrap();
        let (depth, time, bytes) = (number() as usize, Duration::from_micros(number()), number() as usize);
        let Sample { calls, elapsed, p50, p99, p999 } = run(Load { kind, depth, time, bytes });
        let mut answer = calls.to_string();
        for time in [elapsed, p50, p99, p999] {
            write!(answer, " {}", time.as_nanos()).unwrap();
        }
        println!("{answer}");
        std::io::stdout().flush().unwrap();
    }
}

/// The other end of [`serve`].
pub(crate) fn ask(load: Load, to: &mut impl std::io::Write, from: &mut impl BufRead) -> Sample {
    let Load { kind, depth, time, bytes } = load;
    writeln!(to, "{} {depth} {} {bytes}", kind.name(), time.as_micros()).unwrap();
    to.flush().unwrap();
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().unwrap());
    let calls = numbers.next().expect("the process that takes the load is gone") as usize;
    let mut time = || Duration::from_nanos(numbers.next().unwrap());
    Sample { calls, elapsed: time(), p50: time(), p99: time(), p999: time() }
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
    let (mut times, mut flying) = (Vec::new(), load.depth);
    let mut tokens: Vec<u64> = (0..load.depth as u64).collect();
    loop {
        let now = Instant::now();
        for token in &tokens {
            begun[*token as usize] = now;
        }
        let caller = |token: u64| Caller { sink: Arc::<Back>::clone(&back), token };
        hand_over(api, load.kind, &body, tokens.drain(..).map(caller));
        // Answers are taken until there is something to send again, or nothing is left to wait for.
        while flying > 0 && tokens.is_empty() {
            let waiting = back.tokens.lock().unwrap();
            let mut come = back.news.wait_while(waiting, |tokens| tokens.is_empty()).unwrap();
            std::mem::swap(&mut *come, &mut tokens);
            drop(come);
            let now = Instant::now();
            times.extend(tokens.iter().map(|token| now - begun[*token as usize]));
            if start.elapsed() >= load.time {
                flying -= tokens.len();
                tokens.clear();
            }
        }
        if flying == 0 {
            return Sample::of(times, start.elapsed());
        }
    }
}

fn hand_over(api: &dyn Api, kind: Kind, body: &Bytes, callers: impl Iterator<Item = Caller>) {
    let timeout = Duration::from_secs(30);
    let query = |consistency| Read::of(consistency);
    match kind {
        Kind::Command => {
            let calls = callers.map(|caller| Call { body: body.clone(), slot: None, caller }).collect();
            api.execute(calls, timeout);
        }
        Kind::Linearizable => {
            api.query(
                callers.map(|caller| (body.clone(), caller)).collect(),
                query(Consistency::Linearizable),
                timeout,
            );
        }
        Kind::Lease => {
            api.query(callers.map(|caller| (body.clone(), caller)).collect(), query(Consistency::Lease), timeout);
        }
    }
}
