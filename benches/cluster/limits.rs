//! What nothing can be faster than: one `fdatasync`, and one answer over a stream of gRPC on loopback.

use std::io::Write;
use std::time::{Duration, Instant};

/// Prints the median of one `fdatasync` after a small write into a file that is there already.
pub(crate) fn print(round: usize, bytes: usize) {
    let sync = sync_time(bytes);
    println!(r#"{{"limit":"fdatasync","round":{round},"bytes":{bytes},"p50_us":{:.1}}}"#, sync.as_secs_f64() * 1e6);
    let echo = super::bare::echo_time(bytes);
    println!(r#"{{"limit":"grpc echo","round":{round},"bytes":{bytes},"p50_us":{:.1}}}"#, echo.as_secs_f64() * 1e6);
}

fn sync_time(bytes: usize) -> Duration {
    let directory = tempfile::tempdir_in("target").unwrap();
    let path = directory.path().join("limit");
    std::fs::write(&path, vec![0; 4 << 20]).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.sync_all().unwrap();
    let block = vec![1; bytes];
    median(500, || {
        file.write_all(&block).unwrap();
        file.sync_data().unwrap();
    })
}

pub(crate) fn median(count: usize, mut body: impl FnMut()) -> Duration {
    let mut once = || {
        let begun = Instant::now();
        body();
        begun.elapsed()
    };
    let mut times: Vec<Duration> = (0..count).map(|_| once()).collect();
    times.sort_unstable();
    times[count / 2]
}
