//! What is counted.

use std::path::Path;

use graft_micro::{Append, Applying, Codec, Follower, Leader, Leading, Memory, Quorum, Recovery, Way, Work};

/// Turns before those that are counted, so that what grows has grown.
const COMMANDS_BEFORE: usize = 2048;
const COMMANDS: usize = 2048;
/// Of the largest batches.
const TURNS_MIN: usize = 4;
/// Of a log that is opened: enough that opening it costs little beside them.
const COMMANDS_IN_LOG: usize = 16_384;

type Case = (&'static str, usize, fn(usize));

fn turns(commands: usize, batch: usize) -> usize {
    (commands / batch).max(TURNS_MIN)
}

/// Begins the names of what opens a log.
const RECOVERY: &str = "wal/recovery";

/// Names as they stand in the table, and commands of a turn.
const CASES: &[Case] = &[
    ("core/leader of 3/1", 1, |batch| count(Leader::new(3, batch), batch)),
    ("core/leader of 3/64", 64, |batch| count(Leader::new(3, batch), batch)),
    ("core/leader of 3/1024", 1024, |batch| count(Leader::new(3, batch), batch)),
    ("core/leader of 5/64", 64, |batch| count(Leader::new(5, batch), batch)),
    ("core/follower/1", 1, |batch| count(Follower::new(batch), batch)),
    ("core/follower/64", 64, |batch| count(Follower::new(batch), batch)),
    ("core/follower/1024", 1024, |batch| count(Follower::new(batch), batch)),
    ("core/quorum of 5", 1, |batch| count(Quorum::new(5), batch)),
    ("services/codec/64", 64, |batch| count(Codec::new(batch), batch)),
    ("services/leader of 3/1", 1, |batch| count(Leading::new(batch), batch)),
    ("services/leader of 3/64", 64, |batch| count(Leading::new(batch), batch)),
    ("services/leader of 3/1024", 1024, |batch| count(Leading::new(batch), batch)),
    ("services/applier/1", 1, |batch| count(Applying::new(batch), batch)),
    ("services/applier/64", 64, |batch| count(Applying::new(batch), batch)),
    ("services/applier/1024", 1024, |batch| count(Applying::new(batch), batch)),
    ("wal/append/1", 1, |batch| count(append(batch), batch)),
    ("wal/append/64", 64, |batch| count(append(batch), batch)),
    ("wal/append/1024", 1024, |batch| count(append(batch), batch)),
    ("wal/recovery/1", 1, recover),
    ("wal/recovery/64", 64, recover),
    ("way/1", 1, |batch| count(Way::new(batch), batch)),
    ("way/64", 64, |batch| count(Way::new(batch), batch)),
    ("way/1024", 1024, |batch| count(Way::new(batch), batch)),
];

fn append(batch: usize) -> Append<Memory> {
    Append::new(Memory::default(), Path::new("data"), batch)
}

/// Every case, and how many commands are counted in it.
pub(crate) fn all() -> Vec<(&'static str, usize)> {
    let commands = |name: &str, batch| {
        if name.starts_with(RECOVERY) { COMMANDS_IN_LOG } else { turns(COMMANDS, batch) * batch }
    };
    CASES.iter().map(|(name, batch, _)| (*name, commands(name, *batch))).collect()
}

/// Runs a case, if there is one of this name.
pub(crate) fn run(name: &str) -> Option<()> {
    let (_, batch, run) = CASES.iter().find(|(known, ..)| *known == name)?;
    run(*batch);
    Some(())
}

fn count<W: Work>(mut work: W, batch: usize) {
    for _ in 0..turns(COMMANDS_BEFORE, batch) {
        let input = work.prepare();
        work.turn(input);
    }
    let inputs: Vec<W::Input> = (0..turns(COMMANDS, batch)).map(|_| work.prepare()).collect();
    the_counted_turns(&mut work, inputs);
}

/// All of the log at once.
fn recover(batch: usize) {
    the_counted_turns(&mut Recovery::new(COMMANDS_IN_LOG / batch, batch), vec![()]);
}

/// Callgrind counts what happens in here, and knows it by its name.
#[inline(never)]
fn the_counted_turns<W: Work>(work: &mut W, inputs: Vec<W::Input>) {
    for input in inputs {
        work.turn(input);
    }
}
