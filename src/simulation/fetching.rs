//! How a follower gets its leader's snapshot: in pieces, through the store that ships, taken up again where it broke.

use std::time::Duration;

use graft_domain::{EntryId, NodeId};
use graft_services::Event;
use graft_services::ports::{SnapshotFiles, StoreError};

use crate::storage::content;
use crate::trace::Origin;
use crate::world::{Happening, World};

/// Attempts in a row without a byte.
const ATTEMPTS_MAX: u32 = 5;
const PIECE_BYTES: u64 = 400;

/// A snapshot on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    generation: u64,
    from: NodeId,
    last: EntryId,
    length: u64,
    offset: u64,
    begun: bool,
    failures: u32,
}

impl World {
    pub(crate) fn fetch(&mut self, to: NodeId, from: NodeId, last: EntryId) {
        let Some(node) = self.nodes.get_mut(&to) else { return };
        node.transfers += 1;
        let generation = node.transfers;
        node.transfer = Some(Transfer { generation, from, last, length: 0, offset: 0, begun: false, failures: 0 });
        self.fetch_later(to, generation);
    }

    fn fetch_later(&mut self, to: NodeId, generation: u64) {
        let after = self.dice.micros(300, 8_000);
        self.later(after, Happening::Fetch(to, generation));
    }

    pub(crate) fn fetch_on(&mut self, to: NodeId, generation: u64) {
        let transfer = self.nodes.get(&to).and_then(|node| node.transfer);
        let Some(mut transfer) = transfer.filter(|t| t.generation == generation && self.is_up(to)) else { return };
        match self.piece(to, &mut transfer) {
            Ok(true) => self.fetched(to, transfer),
            Ok(false) => {
                transfer.failures = 0;
                self.go_on(to, transfer, Duration::ZERO);
            }
            Err(why) => {
                transfer.failures += 1;
                transfer.begun = false;
                if transfer.failures < ATTEMPTS_MAX {
                    return self.go_on(to, transfer, Duration::from_millis(40));
                }
                self.fetch_failed(to, transfer.last, why);
            }
        }
    }

    fn go_on(&mut self, to: NodeId, transfer: Transfer, after: Duration) {
        if let Some(node) = self.nodes.get_mut(&to) {
            node.transfer = Some(transfer);
        }
        let takes = self.dice.micros(100, 4_000);
        self.later(after + takes, Happening::Fetch(to, transfer.generation));
    }

    fn fetch_failed(&mut self, to: NodeId, last: EntryId, why: String) {
        self.coverage.saw("a snapshot fetch fails");
        if let Some(node) = self.nodes.get_mut(&to) {
            node.transfer = None;
        }
        self.note(|| format!("{to} cannot fetch the snapshot of {last}: {why}"));
        self.tell(to, Event::SnapshotFetchFailed { last, why });
    }

    /// The next piece. True if it was the last one.
    fn piece(&mut self, to: NodeId, transfer: &mut Transfer) -> Result<bool, String> {
        let from = transfer.from;
        if self.is_cut(from, to) {
            return Err("the link broke".to_owned());
        }
        let snapshots = |id: NodeId| {
            let running = self.nodes.get(&id).and_then(|node| node.running.as_ref());
            running.map(|running| std::sync::Arc::clone(&running.snapshots)).ok_or("it is down")
        };
        let (source, target) = (snapshots(from)?, snapshots(to)?);
        let said = |error: StoreError| error.to_string();
        if !transfer.begun {
            let newest = source.newest().filter(|(newest, _)| newest.index >= transfer.last.index);
            let (last, length) = newest.ok_or("it has no such snapshot")?;
            (transfer.last, transfer.length) = (last, length);
            transfer.offset = target.begin(last, length).map_err(said)?;
            transfer.begun = true;
        }
        let mut bytes = vec![0; usize::try_from(PIECE_BYTES.min(transfer.length - transfer.offset)).unwrap_or(0)];
        let count = source.send(transfer.last, transfer.offset, &mut bytes).map_err(said)?;
        target.take(transfer.last, transfer.offset, &bytes[..count]).map_err(said)?;
        transfer.offset += count as u64;
        let (last, bytes, total) = (transfer.last, transfer.offset, transfer.length);
        self.tell(to, Event::SnapshotFetching { last, bytes, total });
        self.tell(from, Event::SnapshotSending { to, bytes, total });
        Ok(bytes == total)
    }

    fn fetched(&mut self, to: NodeId, transfer: Transfer) {
        let cut = !self.healed && self.dice.chance(60);
        let (changes, last) = (self.dice.below(5), transfer.last);
        let Some(node) = self.nodes.get_mut(&to) else { return };
        node.transfer = None;
        let Some(running) = &node.running else { return };
        if cut {
            node.disk.faults(|faults| faults.power_off_in = Some(changes));
            let _ = running.snapshots.accept(last);
            self.coverage.saw("taking a snapshot in crashed half way");
            self.crash(to, crate::disk::Stop::Torn);
            let after = self.dice.micros(50_000, 1_000_000);
            return self.later(after, Happening::Start(to));
        }
        match running.snapshots.accept(last) {
            Ok(meta) => {
                node.shadow.snapshot = last;
                if let Some(trace) = &mut self.trace {
                    trace.has_snapshot(to, last, Origin::Fetched);
                }
                let found = content(&running.snapshots, last, self.mix.keeps > 0);
                let verdict = self
                    .checks
                    .covers(last, &meta.membership)
                    .and_then(|()| found.and_then(|found| self.history.snapshotted(to, last, found)));
                self.must(verdict);
                self.note(|| format!("{to} has fetched the snapshot of {last} from {}", transfer.from));
                self.tell(to, Event::SnapshotFetched { meta, bytes: transfer.length });
            }
            Err(error) => self.fetch_failed(to, last, error.to_string()),
        }
    }
}
