//! The session of a node itself, where commits take longer than the node has patience with an opening.

use graft_domain::NodeId;

use super::world::{World, id};
use crate::error::Outcome;

/// Milliseconds from a write to its sync: more than the four election timeouts after which an opening may be lost.
const WRITE_MS: u64 = 1_300;
const STEP_MS: u64 = 10;

/// Three members, n1 leading; the disks of the others take their time, one write not waiting for another.
struct Slow {
    world: World,
    now: u64,
    /// When writes came, whose, and how many.
    writes: Vec<(u64, NodeId, usize)>,
}

impl Slow {
    fn new(mut world: World) -> Self {
        for n in [2, 3] {
            world.node(id(n)).disk.held = true;
        }
        Self { world, now: 0, writes: Vec::new() }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.world.run(STEP_MS);
            self.now += STEP_MS;
            for id in [id(2), id(3)] {
                let known: usize = self.writes.iter().filter(|write| write.1 == id).map(|write| write.2).sum();
                let new = self.world.nodes[&id].disk.pending.len().saturating_sub(known);
                if new > 0 {
                    self.writes.push((self.now, id, new));
                }
            }
            let now = self.now;
            let (due, rest) = self.writes.drain(..).partition(|write| now - write.0 >= WRITE_MS);
            self.writes = rest;
            let due: Vec<_> = due;
            for (_, id, count) in due {
                self.world.sync(id, count);
            }
        }
    }

    fn sessions(&self) -> usize {
        self.world.nodes[&id(1)].machine.applier.sessions().open.len()
    }
}

#[test]
fn a_node_uses_an_opening_that_was_committed_after_it_was_given_up() {
    let mut world = World::new(3);
    world.crash(id(2), usize::MAX);
    world.start(id(2), 777);
    world.connect_all();
    world.run(1_000);
    assert!(WRITE_MS > 4 * u64::try_from(world.nodes[&id(2)].config.election_timeout.as_millis()).unwrap());
    let mut slow = Slow::new(world);
    let before = slow.sessions();
    let call = slow.world.execute(2, "slow", 60_000);
    slow.run(5 * WRITE_MS);
    assert!(matches!(slow.world.answer(call), Some(Outcome::Done { .. })), "{:?}", slow.world.answer(call));
    let opened = slow.sessions() - before;
    assert!((1..=2).contains(&opened), "{opened} sessions");
    // What is opened too much is not used, and takes nothing from that which is.
    let calls = ["a", "b"].map(|body| slow.world.execute(2, body, 60_000));
    slow.run(5 * WRITE_MS);
    assert!(calls.iter().all(|call| matches!(slow.world.answer(*call), Some(Outcome::Done { .. }))));
    assert_eq!(
        (slow.sessions() - before, slow.world.applied()),
        (opened, vec!["slow".to_owned(), "a".into(), "b".into()])
    );
}
