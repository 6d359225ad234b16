//! How a machine comes to the state that its node starts with.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;

use graft_domain::{Index, NodeId, Payload, Recovered};
use graft_services::Committed;
use graft_services::applier::Applier;
use graft_services::commands::{self, Logged};
use graft_services::ports::{Halt, Machine, Opened, SnapshotFiles};

use super::StartError;
use super::machine_worker::{MachineWork, panic_words, restore, run_machine};
use super::threads::{Thread, USER_STACK_BYTES, thread_with_stack};

/// What the machine begins with.
pub(crate) struct Beginning {
    /// For the machine's own files.
    pub(crate) directory: String,
    pub(crate) opened: Arc<Opened>,
}

/// Starts the machine's thread and waits for the machine to open what it keeps itself, or to be restored.
pub(crate) fn start_machine(
    id: NodeId,
    machine: Box<dyn Machine>,
    beginning: Beginning,
    work: MachineWork,
) -> Result<(Thread, Index), Halt> {
    let (opened, answer) = channel();
    let halt = |error: StartError| Halt { index: Index::ZERO, why: error.to_string() };
    let stay = machine.stay();
    let mut once = Some((Applier::new(machine), beginning, work, opened));
    let body = move || {
        stay(&mut || {
            let Some((mut applier, beginning, work, opened)) = once.take() else { return };
            let index = begin(&mut applier, &beginning, &*work.snapshots);
            drop(beginning);
            // The starter waits for the answer. A directory that could not be used is free when it has it.
            match index {
                Ok(upto) => {
                    work.hub.begin(upto);
                    let _ = opened.send(Ok(upto));
                    run_machine(&mut applier, &work, upto);
                    drop((applier, work));
                }
                Err(halt) => {
                    drop((applier, work));
                    let _ = opened.send(Err(halt));
                }
            }
        });
    };
    let thread = thread_with_stack(id, "machine", USER_STACK_BYTES, body).map_err(halt)?;
    let gone = Halt { index: Index::ZERO, why: "the machine's thread ended before it was open".to_owned() };
    let index = answer.recv().unwrap_or(Err(gone))?;
    Ok((thread, index))
}

/// Opens the machine's own state, and restores the snapshot unless that is newer; of a newer one's sessions, which are beside
/// its state, what the snapshot and the log say. Answers the last index it has applied.
fn begin(applier: &mut Applier, beginning: &Beginning, snapshots: &dyn SnapshotFiles) -> Result<Index, Halt> {
    let Beginning { directory, opened } = beginning;
    let upto = guarded(|| applier.machine().open(directory))?;
    let last = last_of(&opened.recovered);
    // A machine on its own disk may lag behind its log, never lead it.
    if upto > last {
        let why = format!(
            "the machine says that it has applied entry {upto}, but the log ends at {last}: \
             its files do not belong to this data directory"
        );
        return Err(Halt { index: upto, why });
    }
    let mut covered = Index::ZERO;
    if let Some(meta) = &opened.snapshot {
        covered = meta.last.index;
        restore(applier, snapshots, meta.last, upto).map_err(|why| Halt { index: covered, why })?;
    }
    let behind = commands_between(&opened.recovered, covered, upto)?;
    guarded(|| {
        applier.replay(&behind);
        Ok(())
    })?;
    Ok(upto.max(covered))
}

fn guarded<T>(body: impl FnOnce() -> Result<T, Halt>) -> Result<T, Halt> {
    let panicked = |panic: Box<dyn std::any::Any + Send>| Halt { index: Index::ZERO, why: panic_words(&*panic) };
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(panic)))
}

/// The commands behind `covered` up to and with `applied`.
fn commands_between(recovered: &Recovered, covered: Index, applied: Index) -> Result<Vec<Committed>, Halt> {
    let behind = |index| recovered.entries.partition_point(|entry| entry.index <= index);
    let (begin, end) = (behind(covered), behind(covered.max(applied)));
    let mut found = Vec::new();
    for entry in &recovered.entries[begin..end] {
        let Payload::Command(command) = &entry.payload else { continue };
        let Logged { time, act, .. } = commands::decode(command)
            .map_err(|why| Halt { index: entry.index, why: format!("entry {} is not a command: {why}", entry.id()) })?;
        found.push(Committed { index: entry.index, term: entry.term, time, act });
    }
    Ok(found)
}

/// Where the log, or the snapshot in its stead, ends.
fn last_of(recovered: &Recovered) -> Index {
    recovered.entries.last().map_or(recovered.snapshot.index, |entry| entry.index)
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use graft_domain::{Entry, Term};
    use graft_services::commands::Act;
    use graft_services::ports::Ticket;

    use super::*;

    #[test]
    fn sessions_are_replayed_from_the_snapshot_to_what_the_machine_has() {
        let act = |n: u64| Act::Command { slot: None, body: Bytes::from(n.to_string()) };
        let command = |n| Payload::Command(commands::encode(&mut BytesMut::new(), n, Ticket::default(), &act(n)));
        let entry = |n, payload| Entry { index: Index(n), term: Term(1), payload };
        let mut entries: Vec<Entry> = (4..=9).map(|n| entry(n, command(n))).collect();
        entries[2].payload = Payload::Noop;
        entries[5].payload = Payload::Command(Bytes::from_static(b"?"));
        let recovered = Recovered { entries, ..Recovered::default() };
        let replayed = |covered, applied| {
            let found = commands_between(&recovered, Index(covered), Index(applied));
            found.map(|found| found.into_iter().map(|command| command.index.0).collect::<Vec<_>>())
        };
        assert_eq!(replayed(3, 8), Ok(vec![4, 5, 7, 8]));
        assert_eq!(replayed(4, 4), Ok(vec![]));
        assert_eq!(replayed(8, 0), Ok(vec![]));
        assert_eq!(replayed(3, 9).map_err(|halt| halt.index), Err(Index(9)), "an entry that nobody can read");
    }
}
