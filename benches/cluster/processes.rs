//! Child processes: started, spoken to, and asked what they used.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::load::{Counts, Load, Sample, ask, ask_counts};

/// A process of this program in another role, which ends with it.
pub(crate) struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(arguments: &[String]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it says first.
    pub(crate) fn first_line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the process has ended before it said a word");
        line.trim_end().to_owned()
    }

    pub(crate) fn run(&mut self, load: Load) -> Sample {
        ask(load, &mut self.to, &mut self.from)
    }

    /// What all of them counted, together.
    pub(crate) fn counts<'a>(all: impl IntoIterator<Item = &'a mut Self>) -> Counts {
        let each = all.into_iter().map(|process| ask_counts(&mut process.to, &mut process.from));
        each.fold(Counts::default(), |all, one| Counts { syncs: all.syncs + one.syncs, bytes: all.bytes + one.bytes })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses on loopback that nobody listens at.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

/// What processes used until now, all together; zero where the system does not tell.
#[derive(Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes: u64,
}

impl Usage {
    pub(crate) fn of_all(processes: &[u32]) -> Self {
        let mut all = Self::default();
        for id in processes {
            all.cpu += cpu(*id).unwrap_or_default();
            all.resident_bytes += resident_bytes(*id).unwrap_or_default();
        }
        all
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), resident_bytes: self.resident_bytes }
    }
}

fn cpu(id: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // After the program's name, which may hold anything, user and system time are the 12th and 13th, in 1/100 s.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
    Some(Duration::from_millis(ticks * 10))
}

fn resident_bytes(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kib.parse::<u64>().ok()? << 10)
}

/// What was written until now to the device that a directory lies on, by whomever; none where that is no device of its own.
/// What a process is said to have written are whole folios of the page cache, which may be a hundred times as much.
pub(crate) fn device_bytes(directory: &Path) -> Option<u64> {
    let device = std::fs::metadata(directory).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    // The 7th are sectors written, of 512 bytes however large those of the device are.
    Some(stat.split_whitespace().nth(6)?.parse::<u64>().ok()? * 512)
}
