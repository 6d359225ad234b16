//! What a run really met. What no run meets is not tried.

use std::collections::BTreeMap;

/// How often each thing happened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Coverage(BTreeMap<String, u64>);

/// What must have happened in many runs. Faults are counted under `fault: `, states of the code under their own words.
const STATES: &[&str] = &[
    "a leader is elected",
    "a campaign",
    "entries are overwritten",
    "a joint membership",
    "a membership is committed",
    "a snapshot is written",
    "a snapshot is installed",
    "a snapshot is installed while the membership is joint",
    "a snapshot fetch fails",
    "a machine is restored at a start",
    "a machine keeps what is behind its snapshot",
    "a machine goes on with what it kept",
    "a machine loses what it had not synced",
    "leadership is handed over",
    "a write crashed half way",
    "a snapshot crashed half way",
    "recovery cut a torn tail",
    "recovery found a write that was never reported",
    "a damaged disk is refused",
    "a store failed",
    "a turn crashed half way",
    "a recovery is opened again",
    "a current snapshot",
    "a membership is let go",
    "a machine halted",
    "a command that the code does not know halted a replica",
    "a leader does not know a command",
    "a replica halted again where it had halted",
    "a halted replica went on with newer code",
    "a snapshot of newer code was refused",
    "sessions of a newer engine were refused",
    "a start was refused with older code",
    "a replica was rolled back",
    "a member is removed",
    "a disk is wiped before it is recorded",
    "a wiped member is refilled",
    "a wiped member is turned away",
    "a newcomer votes",
    "a command is done",
    "a command is refused",
    "a command is unknown",
    "a command raises",
    "a command is made again",
    "a session expires",
    "a linearizable read",
    "a lease read",
    "a stale read",
    "replicas are compared",
    "a node stops in order",
    "a message is lost",
    "a message comes twice",
    "a message is late",
];

impl Coverage {
    pub fn saw(&mut self, what: &str) {
        self.saw_times(what, 1);
    }

    pub fn saw_times(&mut self, what: &str, times: u64) {
        match self.0.get_mut(what) {
            Some(count) => *count += times,
            None => drop(self.0.insert(what.to_owned(), times)),
        }
    }

    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.saw_times(what, *times);
        }
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(what, count)| (what.as_str(), *count))
    }

    /// What should have happened by now and has not.
    pub fn missing(&self) -> Vec<String> {
        let faults = crate::mix::Fault::ALL.iter().map(|fault| format!("fault: {fault:?}"));
        let all = STATES.iter().map(|what| (*what).to_owned()).chain(faults);
        all.filter(|what| self.count(what) == 0).collect()
    }
}
