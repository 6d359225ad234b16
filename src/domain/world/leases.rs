//! What leases rest on, under the misfortune that is made for them: leaders that are cut off while others are elected, answers that
//! are slow, processes that are paused or started anew, clocks that run as far apart as they may.
//!
//! `LEASE_SEEDS=10000` runs so many, from `CHAOS_FIRST` on; `CHAOS_SEED=17` runs one and shows its transcript when it breaks.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use std::println;

use bytes::Bytes;

use super::chaos::number;
use super::cluster::World;
use super::disk::Disk;
use crate::random::Random;
use crate::{
    ClusterId, Config, Entry, Envelope, Index, Input, Instant, Membership, Message, NodeId, Payload, RaftCore, ReadId,
    Term, VoteReply,
};

const SEEDS: u64 = 250;
const TICK: Duration = Duration::from_millis(1);
const TICKS: u64 = 3_000;
/// As far apart as a tenth allows: 1052 is less than a tenth more than 957.
const RATES: [u64; 3] = [957, 1_000, 1_052];

struct Leases {
    world: World,
    random: Random,
    /// On their way for longer.
    late: Vec<(Instant, Envelope)>,
    /// Until when a process is paused.
    paused: BTreeMap<NodeId, Instant>,
    /// Who hears the leader no more, or whom nobody hears any more, and until when.
    cuts: Vec<(Instant, Vec<(NodeId, NodeId)>)>,
    reads: u64,
    by_lease: u64,
    terms: u64,
}

impl Leases {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut world = World { name: format!("lease seed {seed}"), ..World::default() };
        world.recording = number("CHAOS_SEED").is_some();
        let size = if random.next().is_multiple_of(4) { 5 } else { 3 };
        let ids: Vec<NodeId> = (1..=size).map(|n| NodeId::new(&format!("n{n}")).expect("a good id")).collect();
        let mut membership = Membership::founding(ids.iter().map(|id| (*id, "")));
        membership.cluster = ClusterId(1);
        let membership = Arc::new(membership);
        let first = Entry { index: Index(1), term: Term(1), payload: Payload::Membership(Arc::clone(&membership)) };
        for id in &ids {
            let entries = vec![first.clone()];
            let membership = Arc::clone(&membership);
            let disk = Disk { membership, entries, term: Term(1), commit: Index(1), ..Disk::default() };
            world.add(Config::new(*id, ClusterId(1), random.next()), disk);
            let rate = RATES[(random.next() % 3) as usize];
            world.node_mut(id).clock.set_rate(Instant(0), rate);
            world.start(id, true);
        }
        Self {
            world,
            random,
            late: Vec::new(),
            paused: BTreeMap::new(),
            cuts: Vec::new(),
            reads: 0,
            by_lease: 0,
            terms: 0,
        }
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        self.random.next() % 1_000 < thousandths
    }

    fn any(&mut self) -> NodeId {
        let ids = self.world.ids();
        ids[usize::try_from(self.random.next() % ids.len() as u64).expect("a small number")]
    }

    /// A moment so many milliseconds ahead, at the most.
    fn within(&mut self, milliseconds: u64) -> Instant {
        self.world.now + Duration::from_millis(self.random.next() % milliseconds)
    }

    fn run(&mut self) {
        for _ in 0..TICKS {
            self.world.now = self.world.now + TICK;
            self.network();
            self.go_on();
            for id in self.world.ids() {
                if !self.paused.contains_key(&id) {
                    self.world.fire(&id);
                }
            }
            if self.chance(80) {
                self.client();
            }
            if self.chance(25) {
                self.misfortune();
            }
        }
        self.terms = self.world.cores().map(|core| core.term().0).max().unwrap_or(0);
    }

    /// Most messages take no time; some take as long as a lease lasts.
    fn network(&mut self) {
        for envelope in core::mem::take(&mut self.world.wire) {
            let at = if self.chance(60) { self.within(400) } else { self.world.now };
            self.late.push((at, envelope));
        }
        let now = self.world.now;
        let arrived: Vec<(Instant, Envelope)> = self.late.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, envelope) in arrived {
            if self.chance(20) {
                let again = self.within(500);
                self.late.push((again, envelope.clone()));
            }
            self.world.receive(envelope);
        }
    }

    /// Whoever was paused long enough goes on; the link of who was cut off is mended.
    fn go_on(&mut self) {
        let now = self.world.now;
        for (id, _) in self.paused.extract_if(.., |_, until| *until <= now).collect::<Vec<_>>() {
            self.world.node_mut(&id).gathering = false;
            self.world.act(&id);
        }
        self.cuts.retain(|(until, _)| *until > now);
        self.world.cuts = self.cuts.iter().flat_map(|(_, links)| links.iter().copied()).collect();
    }

    fn cut(&mut self, milliseconds: u64, links: Vec<(NodeId, NodeId)>) {
        let until = self.within(milliseconds);
        self.cuts.push((until, links));
    }

    fn client(&mut self) {
        let id = self.any();
        let Some(core) = &self.world.node(&id).core else { return };
        self.by_lease += u64::from(core.holds_lease(self.world.clock(&id)));
        let leads = core.is_leader();
        if leads && self.chance(300) {
            let _ = self.world.step(&id, Input::Propose(vec![Bytes::from_static(b"x")]));
        }
        self.reads += 1;
        let _ = self.world.read(&id, ReadId(self.reads), true);
    }

    fn misfortune(&mut self) {
        let (id, leader) = (self.any(), self.world.leader());
        match self.random.next() % 10 {
            // Some follower does not hear the leader, and wants to lead as soon as the others let it.
            0 | 1 if self.cuts.len() < 3 => {
                let leader = leader.unwrap_or(id);
                self.cut(1_500, vec![(leader, id), (id, leader)]);
            }
            // Nobody hears the leader, and it hears what they have said.
            2 | 3 if self.cuts.len() < 3 => {
                let leader = leader.unwrap_or(id);
                let links = self.world.ids().into_iter().map(|other| (leader, other)).collect();
                self.cut(500, links);
            }
            4 if !self.paused.contains_key(&id) => {
                let until = self.within(600);
                self.paused.insert(id, until);
                self.world.begin_turn(&id);
            }
            // Started again within no time.
            5 | 6 => {
                self.paused.remove(&id);
                let pending = self.world.node(&id).disk.pending.len();
                self.world.crash(&id, pending);
                self.world.start(&id, false);
            }
            7 => {
                let (now, rate) = (self.world.now, RATES[(self.random.next() % 3) as usize]);
                self.world.node_mut(&id).clock.set_rate(now, rate);
            }
            8 => {
                let leader = leader.unwrap_or(id);
                let _ = self.world.step(&leader, Input::TransferLeadership(None));
            }
            // It learns of a term that nobody leads, as from one that has campaigned in vain.
            9 if leader != Some(id) && self.chance(500) => {
                let term = self.world.node(&id).core.as_ref().map_or(Term::ZERO, RaftCore::term).next();
                let message = Message::PreVoteReply(VoteReply { term, granted: false });
                let from = self.any();
                self.world.receive(Envelope { from, to: id, term, message });
            }
            _ => {}
        }
    }
}

#[test]
fn nobody_else_leads_while_a_lease_is_held() {
    let (first, count) = match number("CHAOS_SEED") {
        Some(seed) => (seed, 1),
        None => (number("CHAOS_FIRST").unwrap_or(0), number("LEASE_SEEDS").unwrap_or(SEEDS)),
    };
    let (mut terms, mut reads, mut by_lease) = (0, 0, 0);
    for seed in first..first + count {
        let mut leases = Leases::new(seed);
        leases.run();
        (terms, reads, by_lease) = (terms + leases.terms, reads + leases.reads, by_lease + leases.by_lease);
    }
    println!("{count} runs: {terms} terms, {reads} reads by lease, {by_lease} of them on a leader with one");
    assert!(count < SEEDS || (terms > 3 * count && by_lease > 5 * count), "too little happens to mean anything");
}
