//! `graft bench`: how many calls of one kind a cluster answers, and how fast. It makes the calls for real.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use graft_services::api::{Api, Call, Caller, Sink};
use graft_services::error::Outcome;
use graft_services::ports::Reply;
use graft_services::{Consistency, Read};
use serde_json::json;

use super::args;
use super::calls::body;
use super::failure::{Failure, of_outcome};
use super::output::Out;
use super::talk::Talk;
use crate::infrastructure::runtime::Client;

/// A call that is made again and again.
#[derive(Args, Debug)]
pub(super) struct Bench {
    #[command(flatten)]
    call: args::Call,
    /// It is a query
    #[arg(long)]
    query: bool,
    /// What the answer must have seen
    #[arg(long, value_enum, default_value_t = args::Consistency::Linearizable)]
    consistency: args::Consistency,
    /// Calls that are in flight at any time
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    inflight: u32,
    /// How long to go on
    #[arg(long, value_name = "SECONDS", value_parser = args::seconds, default_value_t = 5.0)]
    seconds: f64,
}

/// Makes calls, a new one for each that is answered.
struct Run {
    client: Arc<Client>,
    body: Bytes,
    /// None for a command.
    read: Option<Read>,
    timeout: Duration,
    end: Instant,
    found: Mutex<Found>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Found {
    /// When the call under each token was made.
    begun: Vec<Instant>,
    inflight: usize,
    times: Vec<Duration>,
    failures: BTreeMap<&'static str, (u64, String)>,
    /// Those that failed: they are made again after a moment. One that is refused at once is answered while it is made.
    resting: Vec<usize>,
}

const REST: Duration = Duration::from_millis(10);

impl Run {
    fn found(&self) -> MutexGuard<'_, Found> {
        // Nothing panics while it holds the lock.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(self: &Arc<Self>, token: usize) {
        self.found().begun[token] = Instant::now();
        let caller = Caller { sink: Arc::<Sent>::new(Sent(Arc::clone(self))), token: token as u64 };
        match self.read {
            None => self.client.execute(vec![Call { body: self.body.clone(), slot: None, caller }], self.timeout),
            Some(read) => self.client.query(vec![(self.body.clone(), caller)], read, self.timeout),
        }
    }

    fn answered(self: &Arc<Self>, token: u64, outcome: Outcome) {
        let token = usize::try_from(token).unwrap_or_default();
        let now = Instant::now();
        let mut found = self.found();
        let time = now - found.begun[token];
        match outcome {
            Outcome::Done { reply: Reply::Value(_), .. } if now < self.end => {
                found.times.push(time);
                drop(found);
                return self.make(token);
            }
            Outcome::Done { reply: Reply::Value(_), .. } => found.times.push(time),
            Outcome::Done { reply: Reply::Raised(raised), .. } => {
                let words = || format!("{}: {}", raised.type_name, raised.message);
                found.failures.entry("APPLY").or_insert_with(|| (0, words())).0 += 1;
            }
            other => {
                let Failure { code, what, .. } = of_outcome(other);
                found.failures.entry(code).or_insert((0, what)).0 += 1;
            }
        }
        found.inflight -= 1;
        found.resting.push(token);
        self.ended.notify_all();
    }

    /// Until the time is over and every call is answered, or longer than it may take.
    fn wait(self: &Arc<Self>, patience: Duration) {
        let late = self.end + patience;
        loop {
            let found = self.found();
            let waited = self.ended.wait_timeout_while(found, REST, |found| found.inflight > 0);
            let (mut found, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if now >= late || now >= self.end && found.inflight == 0 {
                return;
            }
            let resting = if now < self.end { std::mem::take(&mut found.resting) } else { Vec::new() };
            found.inflight += resting.len();
            drop(found);
            for token in resting {
                self.make(token);
            }
        }
    }
}

struct Sent(Arc<Run>);

impl Sink for Sent {
    fn complete(&self, token: u64, outcome: Outcome) {
        self.0.answered(token, outcome);
    }
}

pub(super) fn bench(talk: &Talk, out: &Out, bench: Bench) -> Result<(), Failure> {
    let Bench { call, query, consistency, inflight, seconds } = bench;
    let body = body(&call)?;
    let read = query.then(|| {
        Read::of(match consistency {
            args::Consistency::Linearizable => Consistency::Linearizable,
            args::Consistency::Lease => Consistency::Lease,
            args::Consistency::Stale => Consistency::Stale { max_age: None },
        })
    });
    // One call first: what is wrong with it is told at once.
    let first = if let Some(read) = read { talk.query(body.clone(), read)? } else { talk.execute(body.clone())? };
    super::calls::check(&first)?;
    let lanes = inflight as usize;
    out.note(&format!("{inflight} in flight for {seconds} s"));
    let begun = Instant::now();
    let found = Found { begun: vec![begun; lanes], inflight: lanes, ..Found::default() };
    let run = Arc::new(Run {
        client: talk.client(),
        body,
        read,
        timeout: talk.call_timeout(),
        end: begun + Duration::from_secs_f64(seconds),
        found: Mutex::new(found),
        ended: Condvar::new(),
    });
    (0..lanes).for_each(|token| run.make(token));
    run.wait(run.timeout * 2);
    let took = begun.elapsed();
    let mut found = run.found();
    found.times.sort_unstable();
    tell(&found, took, out)
}

fn tell(found: &Found, took: Duration, out: &Out) -> Result<(), Failure> {
    #[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
    let rate = found.times.len() as f64 / took.as_secs_f64();
    let share = |per_mille: usize| {
        let at = (found.times.len() * per_mille / 1000).min(found.times.len().saturating_sub(1));
        found.times.get(at).copied().unwrap_or_default().as_secs_f64()
    };
    let shown = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
    let mut rows = vec![
        vec!["answered".to_owned(), format!("{}, {rate:.0} a second", found.times.len())],
        vec!["half within".to_owned(), shown(share(500))],
        vec!["99 of 100 within".to_owned(), shown(share(990))],
        vec!["999 of 1000 within".to_owned(), shown(share(999))],
        vec!["slowest".to_owned(), shown(share(1000))],
    ];
    rows.extend(
        found.failures.iter().map(|(code, (count, words))| vec![(*code).to_owned(), format!("{count}: {words}")]),
    );
    let failures: BTreeMap<_, _> = found.failures.iter().map(|(code, (count, _))| (*code, *count)).collect();
    let document = json!({
        "answered": found.times.len(), "seconds": took.as_secs_f64(), "per_second": rate,
        "p50_seconds": share(500), "p99_seconds": share(990), "p999_seconds": share(999), "max_seconds": share(1000),
        "failures": failures,
    });
    out.table(&["", ""], &rows, "bench", document, "failures")
}
