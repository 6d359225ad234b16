//! How fast the log takes entries of 128 bytes, and how fast it comes back; beside each the bare system calls for the
//! same bytes: one write and one `fdatasync` a batch, to a file that grows and to one that is written already. Run with
//! `cargo bench -p graft-micro --bench wal`; it needs 2 GiB under the temporary directory, or under `GRAFT_BENCH_DIR`.
//!
//! CPU is that of the one thread, system calls included, where the system tells (Linux).

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_domain::{Entry, Incarnation, Index, Membership, NodeId, Payload, Term, Write};
use graft_services::ports::{LogStore, Opened};
use graft_store::{Founding, StoreConfig, Wal, open};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ENTRY_BYTES: usize = 128;
const ROUND: Duration = Duration::from_millis(700);
const ROUNDS: usize = 5;
/// Header of a batch, its hard state, and the head of each entry: what the log writes beside payloads.
const BATCH_OVERHEAD_BYTES: usize = 48;
const ENTRY_OVERHEAD_BYTES: usize = 24;

/// A directory that is gone when the run ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a loop achieved.
#[derive(Clone, Copy)]
struct Rate {
    batches_per_second: f64,
    cpu_per_batch: Duration,
}

fn main() -> Outcome<()> {
    let root = env::var_os("GRAFT_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let scratch = Scratch(root.join(format!("graft-bench-wal-{}", process::id())));
    fs::create_dir_all(&scratch.0)?;
    let mut out = stdout();
    writeln!(out, "appends of {ENTRY_BYTES} B entries, medians of {ROUNDS} rounds")?;
    writeln!(
        out,
        "{:>7} {:>9} {:>15} {:>15} {:>12} {:>12}",
        "entries", "log", "bare, grows", "bare, written", "CPU", "bare CPU"
    )?;
    writeln!(
        out,
        "{:>7} {:>9} {:>15} {:>15} {:>12} {:>12}",
        "a batch", "batch/s", "batch/s (log)", "batch/s (log)", "us/entry", "us/entry"
    )?;
    for entries in [1, 16, 256] {
        let (log, grows, written) = compare(&scratch.0, entries)?;
        let bare = |rate: Rate| {
            format!("{:.0} ({:.2}x)", rate.batches_per_second, log.batches_per_second / rate.batches_per_second)
        };
        let cpu = |rate: Rate| rate.cpu_per_batch.as_secs_f64() * 1e6 / f64::from(entries);
        let (log_rate, log_cpu, bare_cpu) = (log.batches_per_second, cpu(log), cpu(written));
        writeln!(
            out,
            "{entries:>7} {log_rate:>9.0} {:>15} {:>15} {log_cpu:>12.3} {bare_cpu:>12.3}",
            bare(grows),
            bare(written)
        )?;
    }
    recovery(&scratch.0, &mut out)
}

/// The log and the two bare loops, in turns, so that all meet the same disk.
fn compare(directory: &Path, entries: u32) -> Outcome<(Rate, Rate, Rate)> {
    let batch_bytes = BATCH_OVERHEAD_BYTES + entries as usize * (ENTRY_OVERHEAD_BYTES + ENTRY_BYTES);
    let (data, bare) = (directory.join(format!("log-{entries}")), directory.join("bare"));
    let (mut wal, _) = open_log(&data)?;
    let mut next = 1;
    let mut rounds = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        rounds[0].push(timed(|| {
            let writes = [batch(next, entries)];
            next += u64::from(entries);
            Ok(wal.persist(&writes)?)
        })?);
        for (nth, written) in [(1, false), (2, true)] {
            rounds[nth].push(bare_loop(&bare, batch_bytes, written)?);
        }
    }
    drop(wal);
    fs::remove_dir_all(&data)?;
    let [log, grows, written] = rounds.map(|mut rates| {
        rates.sort_by(|a, b| a.batches_per_second.total_cmp(&b.batches_per_second));
        rates[ROUNDS / 2]
    });
    Ok((log, grows, written))
}

/// One write and one sync a batch; to a file that is written already, from its start again at its end.
fn bare_loop(path: &Path, batch_bytes: usize, written: bool) -> Outcome<Rate> {
    const WRITTEN_BYTES: u64 = 64 << 20;
    let mut file = File::create(path)?;
    if written {
        file.write_all(&vec![0; usize::try_from(WRITTEN_BYTES)?])?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
    }
    let (bytes, mut position) = (vec![7; batch_bytes], 0);
    timed(|| {
        position += batch_bytes as u64;
        if written && position > WRITTEN_BYTES {
            position = batch_bytes as u64;
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&bytes)?;
        Ok(file.sync_data()?)
    })
}

fn timed(mut one: impl FnMut() -> Outcome<()>) -> Outcome<Rate> {
    let (start, cpu, mut batches) = (Instant::now(), thread_cpu(), 0_u32);
    while start.elapsed() < ROUND {
        one()?;
        batches += 1;
    }
    let (elapsed, cpu) = (start.elapsed(), thread_cpu().saturating_sub(cpu));
    Ok(Rate { batches_per_second: f64::from(batches) / elapsed.as_secs_f64(), cpu_per_batch: cpu / batches })
}

/// CPU time of this thread; zero where the system does not tell.
fn thread_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// Opens logs, and reads the same files bare, both from the page cache. Small batches cost a sync each to write, so there
/// are fewer of them.
fn recovery(directory: &Path, out: &mut impl std::io::Write) -> Outcome<()> {
    writeln!(out, "\nrecovery, from the page cache, medians of {ROUNDS} rounds")?;
    for (log_bytes, bytes, entries) in [(32 << 20, 128, 4), (1 << 30, 128, 256), (1 << 30, 64 << 10, 4)] {
        let data = directory.join("recovery");
        let (mut wal, _) = open_log(&data)?;
        let mut next = 1;
        while wal.bytes() < log_bytes {
            wal.persist(&[sized(next, entries, bytes)])?;
            next += u64::from(entries);
        }
        drop(wal);
        let (mut opening, mut reading) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let start = Instant::now();
            reading.push((read_all(&data)?, start.elapsed()).1);
            let start = Instant::now();
            let (_wal, opened) = open_log(&data)?;
            opening.push(start.elapsed());
            assert_eq!(opened.recovered.entries.len() as u64, next - 1, "all of it is there");
        }
        opening.sort();
        reading.sort();
        let (open, read) = (opening[ROUNDS / 2].as_secs_f64(), reading[ROUNDS / 2].as_secs_f64());
        writeln!(
            out,
            "{:>4} MiB, entries of {bytes:>5} B, {entries:>3} a batch: {:.0} ms, bare reading {:.0} ms ({:.2}x)",
            log_bytes >> 20,
            open * 1e3,
            read * 1e3,
            open / read
        )?;
        fs::remove_dir_all(&data)?;
    }
    Ok(())
}

/// Reads as the log does: a fresh mebibyte at a time, all of which stays in memory.
fn read_all(directory: &Path) -> Outcome<Vec<Vec<u8>>> {
    let mut chunks = Vec::new();
    for item in fs::read_dir(directory)? {
        let item = item?;
        if !item.file_type()?.is_file() {
            continue;
        }
        let mut file = File::open(item.path())?;
        loop {
            let mut chunk = vec![0; 1 << 20];
            match file.read(&mut chunk)? {
                0 => break,
                count => chunk.truncate(count),
            }
            chunks.push(chunk);
        }
    }
    Ok(chunks)
}

fn open_log(directory: &Path) -> Outcome<(Wal, Opened)> {
    let id = NodeId::new("bench")?;
    let membership = Arc::new(Membership::founding([(id, "127.0.0.1:1")]));
    let (wal, _snapshots, opened) = open(
        directory,
        &Founding { id, membership, mint: Incarnation(1), promise: Duration::ZERO },
        StoreConfig::default(),
    )?;
    Ok((wal, opened))
}

/// A write as a leader makes them: entries, and a commit index that has moved.
fn batch(first: u64, entries: u32) -> Write {
    sized(first, entries, ENTRY_BYTES)
}

fn sized(first: u64, entries: u32, bytes: usize) -> Write {
    let body = Bytes::from(vec![b'x'; bytes]);
    let entry = |index| Entry { index: Index(index), term: Term(1), payload: Payload::Command(body.clone()) };
    let entries = (first..first + u64::from(entries)).map(entry).collect();
    Write { seq: first, term: Term(1), vote: None, entries, commit: Index(first - 1) }
}
