//! How long a command takes where it passes, beside a baseline: `make micro SAVE=before`, then `make micro BASELINE=before`.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use graft_micro::{Append, Applying, Codec, Follower, Leader, Leading, Memory, Quorum, Recovery, Way, Work};
use graft_store::OsFiles;

/// Turns whose inputs are made at once.
const TURNS_AT_ONCE: u64 = 64;

/// Inputs are made while the clock stands.
fn timed<W: Work>(work: &mut W, turns: u64) -> Duration {
    let (mut done, mut taken) = (0, Duration::ZERO);
    while done < turns {
        let count = TURNS_AT_ONCE.min(turns - done);
        let inputs: Vec<W::Input> = (0..count).map(|_| work.prepare()).collect();
        let start = Instant::now();
        for input in inputs {
            work.turn(input);
        }
        taken += start.elapsed();
        done += count;
    }
    taken
}

fn measure<W: Work>(criterion: &mut Criterion, group: &str, name: &str, batch: usize, mut work: impl FnMut() -> W) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(batch as u64));
    group.bench_function(name, |bencher| {
        let mut work = work();
        bencher.iter_custom(|turns| timed(&mut work, turns));
    });
    group.finish();
}

fn core(criterion: &mut Criterion) {
    for batch in [1, 16, 256] {
        for members in [3, 5] {
            let name = format!("of {members}/{batch}");
            measure(criterion, "core: leader", &name, batch, || Leader::new(members, batch));
        }
        measure(criterion, "core: follower", &batch.to_string(), batch, || Follower::new(batch));
    }
    for members in [3, 5, 7] {
        measure(criterion, "core: quorum", &format!("of {members}"), 1, || Quorum::new(members));
    }
}

fn services(criterion: &mut Criterion) {
    for batch in [1, 16, 256] {
        let name = batch.to_string();
        measure(criterion, "services: leader of 3", &name, batch, || Leading::new(batch));
        measure(criterion, "services: applier", &name, batch, || Applying::new(batch));
        measure(criterion, "services: encode and decode", &name, batch, || Codec::new(batch));
        measure(criterion, "core, services and log in memory", &name, batch, || Way::new(batch));
    }
}

fn log(criterion: &mut Criterion) {
    let root = env::var_os("GRAFT_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let scratch = root.join(format!("graft-micro-{}", std::process::id()));
    for batch in [1, 16, 256] {
        let name = batch.to_string();
        let memory = || Append::new(Memory::default(), Path::new("data"), batch);
        measure(criterion, "log: append in memory", &name, batch, memory);
        let mut nth = 0;
        let disk = || {
            nth += 1;
            Append::new(OsFiles, &scratch.join(format!("{batch}-{nth}")), batch)
        };
        measure(criterion, "log: append on disk", &name, batch, disk);
        measure(criterion, "log: recovery from memory", &name, 4096, || Recovery::new(4096 / batch, batch));
    }
    // Should it stay, it is in a directory for what is temporary.
    let _ = std::fs::remove_dir_all(&scratch);
}

criterion_group!(all, core, services, log);
criterion_main!(all);
