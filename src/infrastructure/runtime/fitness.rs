//! Whether a node can serve, for whoever sends it traffic.

use graft_domain::{Index, Target};
use graft_services::Replica;

use crate::infrastructure::grpc::Health;

/// What has to be remembered to tell.
#[derive(Debug, Default)]
pub(crate) struct Fitness {
    /// What was committed when this node came to know its leader, or all that its log had when it led itself: with that
    /// applied it is ready.
    target: Option<Index>,
}

impl Fitness {
    /// How the node is now.
    pub(crate) fn of(&mut self, replica: &Replica) -> Health {
        let (core, role) = (replica.core(), replica.role());
        let alive = role != "failed" && role != "removed";
        let own = core.membership().members.get(&core.id());
        let has_entered = own.is_some_and(|own| own.voter || own.outgoing || own.target != Target::Voter);
        let follows = alive && has_entered && core.leader().is_some() && core.has_quorum();
        // A leader learns how far its log is committed only with the first entry of its own term.
        let now = if core.is_leader() { core.last().index } else { core.commit() };
        let target = follows.then(|| self.target.unwrap_or(now));
        self.target = target;
        let ready = target.is_some_and(|target| core.applied() >= target);
        Health { alive, ready, leads: alive && core.is_leader() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use graft_domain::{ClusterId, Config, Incarnation, Instant, Membership, NodeId, RaftCore};
    use graft_services::ports::Halt;
    use graft_services::{Batch, Clock, Effect, Event, ReplicaConfig, RequestId};

    use super::*;
    use crate::infrastructure::store::{self, Founding, StoreConfig};

    /// A member whose disk is quick and whose machine does nothing until it is told to.
    struct Member {
        replica: Replica,
        fitness: Fitness,
        now: Instant,
        handed: Vec<Batch>,
        /// None if the disk is quick, else what it has still to tell.
        written: Option<Vec<Event>>,
    }

    impl Member {
        fn new(others: usize) -> Self {
            let id = |n: usize| NodeId::new(&format!("n{n}")).expect("a good id");
            let members: Vec<_> = (1..=1 + others).map(|n| (id(n), format!("127.0.0.1:{n}"))).collect();
            let membership = Membership::founding(members.iter().map(|(id, address)| (*id, address.as_str())));
            let directory = tempfile::tempdir().expect("a directory");
            let founding =
                Founding { id: id(1), membership: Arc::new(membership), mint: Incarnation(1), promise: Duration::ZERO };
            let (_, _, opened) = store::open(directory.path(), &founding, StoreConfig::default()).expect("it is new");
            let now = Instant(0);
            let core = RaftCore::new(Config::new(id(1), ClusterId(1), 1), opened.recovered, now);
            let config = ReplicaConfig {
                session: 1,
                command_bytes_max: 1 << 20,
                inflight_max: 10,
                inflight_bytes_max: 1 << 20,
                retry: Duration::from_millis(15),
                read_retry: Duration::from_millis(300),
                election_timeout: Duration::from_millis(300),
                address: "127.0.0.1:1".to_owned(),
                incarnation: Incarnation(1),
                session_ttl: Duration::from_hours(1),
                snapshot_every_bytes: 1 << 20,
                snapshot_every_entries: 1000,
            };
            let replica = Replica::new(config, core, Clock { now, wall: 0 }, None);
            Self { replica, fitness: Fitness::default(), now, handed: Vec::new(), written: None }
        }

        fn handle(&mut self, event: Event) {
            let clock = Clock { now: self.now, wall: 0 };
            let mut events = vec![event];
            while let Some(event) = events.pop() {
                self.replica.handle(clock, event);
                for effect in self.replica.effects(clock) {
                    match effect {
                        Effect::Persist(write) => {
                            self.written.as_mut().unwrap_or(&mut events).push(Event::Persisted { seq: write.seq });
                        }
                        Effect::Apply(batch) => self.handed.push(batch),
                        _ => {}
                    }
                }
            }
        }

        /// Waits until something is to be done, and does it.
        fn wait(&mut self) {
            self.now = self.now.max(self.replica.deadline());
            self.handle(Event::Timeout);
        }

        fn apply(&mut self) {
            for batch in std::mem::take(&mut self.handed) {
                self.handle(Event::Applied { index: batch.upto, expired: Vec::new() });
            }
        }

        fn health(&mut self) -> (bool, bool, bool) {
            let Health { alive, ready, leads } = self.fitness.of(&self.replica);
            (alive, ready, leads)
        }
    }

    #[test]
    fn ready_is_who_has_applied_what_was_committed_when_it_found_its_leader() {
        let mut member = Member::new(0);
        assert_eq!(member.health(), (true, false, false), "nobody leads");
        while !member.replica.core().is_leader() {
            member.wait();
        }
        assert_eq!(member.health(), (true, false, true), "it has not applied its first entries");
        member.apply();
        assert_eq!(member.health(), (true, true, true));
        let (request, deadline) = (RequestId(1), Instant::NEVER);
        member.handle(Event::Execute { request, slot: None, body: Bytes::new(), deadline });
        assert!(member.replica.core().applied() < member.replica.core().commit());
        assert_eq!(member.health(), (true, true, true), "a node that works is always a little behind");
        member.handle(Event::Halted(Halt { index: Index(1), why: "told to".to_owned() }));
        assert_eq!(member.health(), (false, false, false));
    }

    #[test]
    fn a_leader_is_ready_with_the_first_entry_of_its_own_term() {
        let mut member = Member::new(0);
        member.written = Some(Vec::new());
        while !member.replica.core().is_leader() {
            match member.written.replace(Vec::new()) {
                Some(written) if !written.is_empty() => written.into_iter().for_each(|event| member.handle(event)),
                _ => member.wait(),
            }
        }
        assert_eq!(member.health(), (true, false, true), "its first entry is not written, let alone committed");
        let written = member.written.take();
        written.into_iter().flatten().for_each(|event| member.handle(event));
        assert_eq!(member.health(), (true, false, true), "its first entry is committed and not applied");
        member.apply();
        assert_eq!(member.health(), (true, true, true));
    }

    #[test]
    fn who_finds_no_majority_is_not_ready() {
        let mut member = Member::new(2);
        (0..9).for_each(|_| member.wait());
        assert_eq!(member.health(), (true, false, false));
    }
}
