//! Versions of the program side by side, as a rolling upgrade meets them. Newer code knows commands that older code does
//! not, which says in their bytes, and writes what older code cannot read: snapshots, the disk of a machine that has one, and
//! from [`ENGINE`] on the table of sessions too. An operator upgrades one node after the other, clients do not wait for him,
//! and now and then a node goes back.

use std::io::{Cursor, Read, Write};
use std::time::Duration;

use graft_domain::{EntryId, Index, Instant, NodeId};
use graft_services::Event;
use graft_services::ports::{Command, Halt, Opened, SnapshotFiles, WriteSnapshot};
use graft_services::sessions::Sessions;
use graft_store::Snapshots;

use crate::disk::{Disk, Stop};
use crate::history::Verdict;
use crate::world::{Happening, World};

/// The newest version that there ever is; the first is 0.
const NEWEST: u8 = 2;
/// From this version on it is not the machine alone that is newer: the table of sessions has another format.
const ENGINE: u8 = 2;
/// Where the table of sessions has its version, behind its length.
const TABLE_VERSION_AT: usize = 8;

/// What there is of the program.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    pub(crate) newest: u8,
    /// From when on clients ask for what this version knows.
    asked: Vec<(Instant, u8)>,
}

/// The version whose code knows a command.
pub(crate) fn needs(body: &[u8]) -> u8 {
    if let [b'v', version, ..] = body { version.saturating_sub(b'0') } else { 0 }
}

impl World {
    /// A command that the newest version knows, when clients have begun with those, or one that all know.
    pub(crate) fn drawn_version(&mut self) -> u8 {
        let now = self.now;
        let known = self.releases.asked.iter().filter(|(from, _)| *from <= now).map(|(_, version)| *version).max();
        known.filter(|_| self.dice.chance(200)).unwrap_or(0)
    }

    /// There is a newer version, or one who has it goes back. Whether it could be.
    pub(crate) fn release(&mut self, id: NodeId, lasts: Duration) -> bool {
        let newest = self.releases.newest;
        if newest < NEWEST && (newest == 0 || self.dice.chance(300)) {
            self.publish();
            return true;
        }
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let Some(older) = node.code.checked_sub(1).filter(|_| node.running.is_some()) else { return false };
        node.code = older;
        self.note(|| format!("{id} goes back to version {older}"));
        self.later(lasts, Happening::Release(id, newest));
        self.restart(id);
        true
    }

    /// The first of them.
    pub(crate) fn publishes(&mut self) {
        if self.releases.newest == 0 && !self.healed {
            self.publish();
            self.coverage.saw("fault: Release");
        }
    }

    /// An operator begins to upgrade one node after the other; clients begin with what is new when they like.
    fn publish(&mut self) {
        self.releases.newest = (self.releases.newest + 1).min(NEWEST);
        let newest = self.releases.newest;
        let begun = self.now + self.dice.micros(0, 6_000_000);
        self.releases.asked.push((begun, newest));
        self.note(|| {
            format!("there is version {newest}, and from {} ms on its commands are asked for", begun.0 / 1_000_000)
        });
        let (gap, mut ids) = (self.dice.micros(50_000, 1_500_000), self.ids());
        let first = self.dice.size(ids.len());
        ids.rotate_left(first);
        let mut after = gap;
        for id in ids {
            self.later(after, Happening::Release(id, newest));
            after += gap;
        }
    }

    /// A node gets this version, and is started with it.
    pub(crate) fn released(&mut self, id: NodeId, version: u8) {
        if self.healed {
            return;
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.code = node.code.max(version);
        let code = node.code;
        match node.running.as_ref().map(|running| running.ledger.code) {
            Some(running) if running < code => {
                self.note(|| format!("{id} is upgraded from version {running} to {code}"));
                self.restart(id);
            }
            Some(_) => {}
            None => self.later(Duration::from_millis(1), Happening::Start(id)),
        }
    }

    fn restart(&mut self, id: NodeId) {
        if self.dice.chance(500) {
            self.goes_down(id, Stop::Kill);
            return;
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let deadline = node.pace.shows(self.now) + Duration::from_secs(2);
        node.stopping = node.running.is_some();
        self.tell(id, Event::Stop { deadline });
    }

    /// Somebody sees that a node cannot go on with the code that it has: it gets newer code, or is started as it is before.
    fn is_held_back(&mut self, id: NodeId) {
        let (after, again) = (self.dice.micros(200_000, 3_000_000), self.dice.chance(300));
        self.later(after, Happening::Release(id, self.releases.newest));
        if again {
            self.later(after / 2, Happening::DiskMends(id));
            self.later(after / 2, Happening::Start(id));
        }
    }

    /// A machine was given commands: such as its code knows, and after a halt none before the one at which it was.
    pub(crate) fn is_given(&mut self, id: NodeId, code: u8, news: &[(Command, u64)]) -> Verdict {
        for (command, digest) in news {
            let Command { index, body, .. } = command;
            if needs(body) > code {
                return Err(format!("{id} applies {body:?} at {index}, which its code does not know"));
            }
            self.history.applies(id, command, *digest)?;
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let Some(stopped) = node.stopped_at.filter(|stopped| index >= stopped) else { continue };
            if *index > stopped {
                return Err(format!("{id} halted at {stopped} and goes on at {index}"));
            }
            node.stopped_at = None;
            self.coverage.saw("a halted replica went on with newer code");
        }
        Ok(())
    }

    /// A machine halted at a command that its code does not know: the first one that there is in the log, wherever it is met.
    pub(crate) fn halts_at(&mut self, id: NodeId, halt: &Halt, unknown: Index) -> Verdict {
        self.coverage.saw("a command that the code does not know halted a replica");
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(running) = &node.running else { return Ok(()) };
        let code = running.ledger.code;
        if node.stopped_at == Some(unknown) {
            self.coverage.saw("a replica halted again where it had halted");
        }
        node.stopped_at = Some(unknown);
        if running.replica.core().is_leader() {
            self.coverage.saw("a leader does not know a command");
        }
        self.note(|| format!("{id} halts at {unknown}: {}", halt.why));
        self.is_held_back(id);
        self.history.stops(id, code, halt.index)
    }

    /// What a snapshot says cannot be taken in. Whether that is as it should be: newer code has written it.
    pub(crate) fn refuses(&mut self, id: NodeId, last: EntryId, why: &str) -> Verdict {
        let Some(running) = self.nodes.get(&id).and_then(|node| node.running.as_ref()) else { return Ok(()) };
        let (writer, code) = (written_by(&running.snapshots, last), running.ledger.code);
        if writer.is_none_or(|writer| writer <= code) {
            return Err(format!("{id} cannot restore {last}: {why}"));
        }
        self.coverage.saw("a snapshot of newer code was refused");
        self.says_sessions(why);
        self.note(|| format!("{id} halts, as it cannot restore {last}: {why}"));
        self.is_held_back(id);
        Ok(())
    }

    /// A machine is restored from what covers all up to there.
    pub(crate) fn passes(&mut self, id: NodeId, upto: Index) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let went_on = node.stopped_at.is_some_and(|stopped| stopped <= upto);
        if went_on {
            node.stopped_at = None;
            self.coverage.saw("a halted replica went on with a snapshot");
        }
    }

    fn says_sessions(&mut self, why: &str) {
        self.coverage.saw_times("sessions of a newer engine were refused", u64::from(why.contains("the sessions")));
    }

    /// A start that comes to nothing because what is on the disk is of newer code. Whether it is so.
    pub(crate) fn is_too_old(&mut self, id: NodeId, snapshots: &Snapshots<Disk>, opened: &Opened, why: &str) -> bool {
        let Some(node) = self.nodes.get(&id) else { return false };
        let writer = opened.snapshot.as_ref().and_then(|meta| written_by(snapshots, meta.last));
        let kept = node.kept.as_ref().map(|kept| kept.newest().code);
        let newer = writer.max(kept).is_some_and(|written| written > node.code);
        if newer && !self.healed {
            self.coverage.saw("a start was refused with older code");
            self.says_sessions(why);
            self.note(|| format!("{id} is not started: {why}"));
            self.is_held_back(id);
        }
        newer && !self.healed
    }

    /// A leader whose machine halted leads no longer than it takes to hand over. `now` is by its clock, none if it was paused.
    pub(crate) fn gives_up(&mut self, id: NodeId, now: Option<Instant>) -> Verdict {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(running) = &mut node.running else { return Ok(()) };
        if !running.heard_halt || !running.replica.core().is_leader() {
            running.unfit_since = None;
            return Ok(());
        }
        let Some(now) = now else { return Ok(()) };
        let since = *running.unfit_since.get_or_insert(now);
        let is_late = now > since + 3 * node.core.election_timeout;
        if is_late { Err(format!("{id} still leads though its machine halted")) } else { Ok(()) }
    }
}

/// The version that wrote a snapshot: its last byte.
fn written_by(snapshots: &Snapshots<Disk>, last: EntryId) -> Option<u8> {
    let mut bytes = Vec::new();
    snapshots.read(last).ok()?.1.read_to_end(&mut bytes).ok()?;
    bytes.last().copied()
}

/// What a newer engine writes is what this one does, but for the version of its table of sessions.
pub(crate) fn writes(code: u8, write: WriteSnapshot) -> WriteSnapshot {
    if code < ENGINE {
        return write;
    }
    Box::new(move |file| write(&mut Newer { file, at: 0 }))
}

struct Newer<'a> {
    file: &'a mut dyn Write,
    at: usize,
}

impl Write for Newer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut bytes = bytes.to_vec();
        if let Some(version) = TABLE_VERSION_AT.checked_sub(self.at).and_then(|place| bytes.get_mut(place)) {
            *version += 1;
        }
        self.file.write_all(&bytes)?;
        self.at += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// The reverse: a newer engine reads its own table, and that of older ones. An older one gets what is there.
pub(crate) fn reads(code: u8, mut file: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, String> {
    if code < ENGINE {
        return Ok(file);
    }
    let (mut head, ours) = (Vec::new(), Sessions::default().encode());
    (&mut file).take(TABLE_VERSION_AT as u64 + 1).read_to_end(&mut head).map_err(|error| error.to_string())?;
    if let (Some(version), Some(ours)) = (head.get_mut(TABLE_VERSION_AT), ours.first())
        && *version == ours + 1
    {
        *version = *ours;
    }
    Ok(Box::new(Cursor::new(head).chain(file)))
}
