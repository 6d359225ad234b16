//! `graft check`: whether this machine can carry a node, and what its timeouts should be.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use serde_json::{Value as Json, json};

use super::args::Global;
use super::failure::Failure;
use super::output::Out;
use super::talk::Talk;
use crate::infrastructure::runtime::certificates::{Endpoint, date};

/// What a node would be given.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// Where it would keep its log; a file is written there and removed
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    data_dir: PathBuf,
    /// Where it would listen
    #[arg(long, value_name = "ADDR")]
    bind: Option<String>,
}

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    found: String,
    /// What is to be done, if anything; the worse of the two fails the check.
    advice: Option<(Grade, String)>,
    document: Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Grade {
    Slow,
    Bad,
}

/// How long things take, sorted.
struct Times(Vec<Duration>);

const SYNCS: usize = 100;
const SYNC_BYTES: usize = 4096;
const NAPS: usize = 200;
const NAP: Duration = Duration::from_millis(1);
const LOOKS: usize = 20;
/// A default election timeout: ten heartbeats.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(300);
/// Of those a timeout should hold so many, lest a slow one costs an election.
const WORST_PER_TIMEOUT: u32 = 10;
const OPEN_FILES_MIN: u64 = 1024;
const FREE_BYTES_MIN: u64 = 2 << 30;
const FREE_BYTES_BAD: u64 = 256 << 20;

pub(super) fn check(check: &Check, global: &Global, out: &Out) -> Result<(), Failure> {
    let mut findings = vec![open_files(), space(&check.data_dir)];
    let (sync, synced) = syncs(&check.data_dir);
    findings.push(sync);
    let (nap, late) = naps();
    findings.push(nap);
    findings.extend(check.bind.as_deref().map(port));
    let (round, rounds) = if global.cluster.is_empty() { (None, Duration::ZERO) } else { looks(global)? };
    findings.extend(round);
    if let Some(source) = global.secrets.source() {
        let endpoint = Endpoint::open(&source)?;
        findings.push(certificate(&endpoint));
    }
    findings.push(timeout(synced + late + rounds));
    tell(&findings, out)
}

fn tell(findings: &[Finding], out: &Out) -> Result<(), Failure> {
    let row = |finding: &Finding| {
        let (grade, advice) = match &finding.advice {
            None => ("good", String::new()),
            Some((Grade::Slow, advice)) => ("poor", advice.clone()),
            Some((Grade::Bad, advice)) => ("bad", advice.clone()),
        };
        vec![finding.what.to_owned(), finding.found.clone(), grade.to_owned(), advice]
    };
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    let item = |(finding, row): (&Finding, &Vec<String>)| json!({ "check": finding.what, "found": finding.found, "grade": row[2], "advice": row[3], "values": finding.document });
    let items: Vec<Json> = findings.iter().zip(&rows).map(item).collect();
    out.table(&["check", "found", "", ""], &rows, "check", json!({ "checks": items }), "checks")?;
    let bad = findings.iter().filter(|finding| matches!(finding.advice, Some((Grade::Bad, _)))).count();
    if bad > 0 {
        Err(Failure::new("UNHEALTHY", format!("{bad} thing(s) would keep a node from working")))
    } else {
        Ok(())
    }
}

fn open_files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let found = limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    let advice = limit.filter(|limit| *limit < OPEN_FILES_MIN).map(|_| {
        (
            Grade::Slow,
            format!("every client takes one: raise it to {OPEN_FILES_MIN} at least (ulimit -n, LimitNOFILE=)"),
        )
    });
    Finding { what: "open files", found, advice, document: json!({ "limit": limit }) }
}

fn space(directory: &Path) -> Finding {
    match rustix::fs::statvfs(directory) {
        Err(error) => Finding {
            what: "disk space",
            found: error.to_string(),
            advice: Some((Grade::Bad, format!("{} has to be there and readable", directory.display()))),
            document: json!({}),
        },
        Ok(there) => {
            let free = there.f_bavail.saturating_mul(there.f_frsize);
            let advice = match free {
                _ if free < FREE_BYTES_BAD => Some((Grade::Bad, "a log of 256 MiB does not fit: make room".to_owned())),
                _ if free < FREE_BYTES_MIN => {
                    Some((Grade::Slow, "log, snapshot and its successor want 2 GiB and twice the state".to_owned()))
                }
                _ => None,
            };
            Finding {
                what: "disk space",
                found: format!("{} MiB free", free >> 20),
                advice,
                document: json!({ "free_bytes": free }),
            }
        }
    }
}

/// How long a small durable write takes, as the log makes them: into space that was written before.
fn syncs(directory: &Path) -> (Finding, Duration) {
    let path = directory.join(format!(".graft-check-{}", std::process::id()));
    let measured = measure_syncs(&path);
    // What cannot be removed is empty but for zeros, and says whose it is.
    let _ = std::fs::remove_file(&path);
    match measured {
        Err(error) => {
            let advice = format!("{} has to take files", directory.display());
            let finding = Finding {
                what: "durable write",
                found: error.to_string(),
                advice: Some((Grade::Bad, advice)),
                document: json!({}),
            };
            (finding, Duration::ZERO)
        }
        Ok(times) => {
            let worst = times.share(99);
            let advice = (worst > Duration::from_millis(30)).then(|| {
                (Grade::Slow, "every command waits for one: use a local SSD, and no network file system".to_owned())
            });
            (times.finding("durable write", advice), worst)
        }
    }
}

fn measure_syncs(path: &Path) -> io::Result<Times> {
    use std::os::unix::fs::FileExt as _;
    let mut file: File = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    file.write_all(&vec![0; SYNCS * SYNC_BYTES])?;
    file.sync_all()?;
    let block = [1; SYNC_BYTES];
    let mut times = Vec::with_capacity(SYNCS);
    for n in 0..SYNCS {
        let begun = Instant::now();
        file.write_all_at(&block, (n * SYNC_BYTES) as u64)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(Times::of(times))
}

/// How much later than asked for this machine wakes a thread up, and whether its clocks agree.
fn naps() -> (Finding, Duration) {
    let (begun, wall) = (Instant::now(), SystemTime::now());
    let mut times = Vec::with_capacity(NAPS);
    for _ in 0..NAPS {
        let begun = Instant::now();
        std::thread::sleep(NAP);
        times.push(begun.elapsed().saturating_sub(NAP));
    }
    let passed = begun.elapsed();
    let drift = wall.elapsed().map_or(passed, |elapsed| elapsed.abs_diff(passed));
    let times = Times::of(times);
    let worst = times.share(99);
    let advice = if drift > passed / 20 {
        Some((
            Grade::Slow,
            format!("the clocks differ by {} over {}: something sets the time", shown(drift), shown(passed)),
        ))
    } else {
        (worst > Duration::from_millis(30))
            .then(|| (Grade::Slow, "the machine is too busy, or is throttled".to_owned()))
    };
    (times.finding("late wake-up", advice), worst)
}

fn port(address: &str) -> Finding {
    let bound = address
        .to_socket_addrs()
        .and_then(|mut all| all.next().map_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()), TcpListener::bind));
    let (found, advice) = match bound {
        Ok(_) => ("free".to_owned(), None),
        Err(error) => {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
                io::ErrorKind::PermissionDenied => "choose a port from 1024 on, or let this user have that one",
                io::ErrorKind::InvalidInput => "write it as HOST:PORT",
                _ => "choose an address that this machine has",
            };
            (error.to_string(), Some((Grade::Bad, advice.to_owned())))
        }
    };
    Finding { what: "port", found, advice, document: json!({ "address": address }) }
}

/// How long a member takes to answer.
fn looks(global: &Global) -> Result<(Option<Finding>, Duration), Failure> {
    let talk = Talk::open(global)?;
    let mut times = Vec::with_capacity(LOOKS);
    let looked = (0..=LOOKS).try_for_each(|n| {
        let begun = Instant::now();
        talk.view()?;
        // The first one makes the connection.
        if n > 0 {
            times.push(begun.elapsed());
        }
        Ok::<(), Failure>(())
    });
    talk.close();
    Ok(match looked {
        Ok(()) => {
            let times = Times::of(times);
            let worst = times.share(99);
            (Some(times.finding("member's answer", None)), worst)
        }
        Err(failure) => {
            let advice = Some((Grade::Bad, "see `graft explain`".to_owned()));
            let finding = Finding { what: "member's answer", found: failure.what, advice, document: json!({}) };
            (Some(finding), Duration::ZERO)
        }
    })
}

fn certificate(endpoint: &Endpoint) -> Finding {
    let now = SystemTime::now();
    let expires = endpoint.expires();
    let advice = endpoint.is_expiring(now).then(|| (Grade::Slow, "renew it: graft tls renew".to_owned()));
    let found = format!("{}, until {}", endpoint.identity(), date(expires));
    Finding { what: "certificate", found, advice, document: json!({ "expires": expires }) }
}

/// What is left between the slowest of all that has to happen within an election timeout and the timeout.
fn timeout(worst: Duration) -> Finding {
    let needed = worst * WORST_PER_TIMEOUT;
    let advice = (needed > ELECTION_TIMEOUT).then(|| {
        let millis = needed.as_millis().div_ceil(100) * 100;
        (Grade::Slow, format!("set election_timeout={millis}ms and heartbeat={}ms on every member", millis / 10))
    });
    let document = json!({ "needed_seconds": needed.as_secs_f64(), "default_seconds": ELECTION_TIMEOUT.as_secs_f64() });
    Finding { what: "election timeout", found: format!("{} would do", shown(needed)), advice, document }
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// What so many in a hundred do not exceed.
    fn share(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }

    fn finding(&self, what: &'static str, advice: Option<(Grade, String)>) -> Finding {
        let (half, worst) = (self.share(50), self.share(99));
        let found = format!("{}, in the worst of a hundred {}", shown(half), shown(worst));
        let document = json!({ "p50_seconds": half.as_secs_f64(), "p99_seconds": worst.as_secs_f64() });
        Finding { what, found, advice, document }
    }
}

fn shown(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
