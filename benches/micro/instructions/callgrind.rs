//! Runs one case under callgrind and reads what it counted.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::RUN;

/// Functions of the C library that give memory.
const ALLOCATORS: &[&str] = &["malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign"];

/// Bytes that a processor copies by one instruction would count one by one, on processors that have it.
const PLAIN_COPIES: &str = "glibc.cpu.x86_rep_movsb_threshold=0x40000000:glibc.cpu.x86_rep_stosb_threshold=0x40000000";

/// What happened in the turns that count.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
}

pub(crate) fn is_there() -> bool {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// What callgrind wrote stays beside the program, for `callgrind_annotate`.
fn output(program: &Path, case: &str) -> PathBuf {
    program.with_file_name(format!("callgrind.{}.out", case.replace(['/', ' '], "-")))
}

pub(crate) fn count(case: &str) -> Result<Counts, Box<dyn Error>> {
    let program = env::current_exe()?;
    let output = output(&program, case);
    let run = Command::new("valgrind")
        .env("GLIBC_TUNABLES", PLAIN_COPIES)
        .args([
            "--quiet",
            "--tool=callgrind",
            "--toggle-collect=*the_counted_turns*",
            "--zero-before=*the_counted_turns*",
        ])
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(&program)
        .args([RUN, case])
        .output()?;
    if !run.status.success() {
        return Err(format!("{case}: {}", String::from_utf8_lossy(&run.stderr)).into());
    }
    read(&fs::read_to_string(&output)?).ok_or_else(|| format!("{case}: {} has no counts", output.display()).into())
}

/// The format has names of functions as `fn=(number) name`, and as `fn=(number)` when they come again; a call is
/// `cfn=(number)` and then `calls=count …`.
fn read(text: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut called = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            if line.starts_with('c') {
                called = names.get(number).copied().unwrap_or_default();
            }
        } else if let Some(calls) = line.strip_prefix("calls=") {
            if ALLOCATORS.contains(&called) {
                counts.allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
            }
        } else if let Some(total) = line.strip_prefix("totals: ") {
            counts.instructions = total.trim().parse().ok()?;
        }
    }
    (counts.instructions > 0).then_some(counts)
}

#[test]
fn what_callgrind_writes_is_read() {
    let text = "events: Ir\n\nob=(1) /bin/x\nfn=(1) one\n3 7\ncfn=(2) malloc\ncalls=5 0\n4 100\ncfn=(3) free\n\
        calls=5 0\n4 50\n\nfn=(4) two\ncfn=(2)\ncalls=2 0\n3 40\n\nfn=(2)\n0 140\ncfn=(5) _int_malloc\ncalls=7 0\n1 9\n\n\
        totals: 197\n";
    assert_eq!(read(text), Some(Counts { instructions: 197, allocations: 7 }));
    assert_eq!(read("events: Ir\ntotals: 0\n"), None);
}
