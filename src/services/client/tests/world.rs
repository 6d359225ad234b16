//! Time, and connections between one client and the model of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Instant, Random};

use super::cluster::{Cluster, Mood, address, id};
use crate::Consistency;
use crate::client::{Answer, Clerk, ClerkConfig, Demand, Effect, Event, Hint, LinkId};
use crate::error::{Outcome, Refusal};
use crate::waiting::RequestId;

/// Turns that may follow on one another without time going on.
const SPIN_MAX: u32 = 64;

#[derive(Debug)]
enum Pending {
    Client(Event),
    Arrive {
        link: LinkId,
        number: u64,
        demand: Demand,
        until: Instant,
    },
    /// In the hands of a member, whatever becomes of the connection.
    Stuck {
        member: usize,
        link: LinkId,
        number: u64,
        demand: Demand,
        until: Instant,
    },
    Dial {
        link: LinkId,
        address: String,
    },
}

/// What somebody asked, and how it ended.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) demand: Demand,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    /// It was said to a member.
    pub(crate) said: bool,
    pub(crate) answer: Option<(Instant, Answer)>,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) clerk: Clerk,
    pub(crate) cluster: Cluster,
    /// Other clusters, by the members of this one whose addresses they have.
    pub(crate) others: BTreeMap<usize, Cluster>,
    /// What they were told that they must never hear.
    pub(crate) misled: Vec<Demand>,
    pub(crate) random: Random,
    pub(crate) asked: BTreeMap<RequestId, Asked>,
    /// Standing connections, and to whom.
    links: BTreeMap<LinkId, usize>,
    closed: BTreeSet<LinkId>,
    pending: BTreeMap<(Instant, u64), Pending>,
    /// What a leader has been given and has not committed.
    in_flight: Vec<(LinkId, u64, Demand)>,
    count: u64,
    spins: u32,
    pub(crate) dials: u64,
}

impl World {
    pub(crate) fn new(seed: u64, size: usize, seeds: usize) -> Self {
        let endpoints = (0..seeds).map(address).collect();
        Self {
            now: Instant::default(),
            clerk: Clerk::new(ClerkConfig::new(endpoints, seed), Instant::default()),
            cluster: Cluster::new(size),
            others: BTreeMap::new(),
            misled: Vec::new(),
            random: Random::new(seed ^ 0x5eed),
            asked: BTreeMap::new(),
            links: BTreeMap::new(),
            closed: BTreeSet::new(),
            pending: BTreeMap::new(),
            in_flight: Vec::new(),
            count: 0,
            spins: 0,
            dials: 0,
        }
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.random.next() % end
    }

    pub(crate) fn ask(&mut self, demand: Demand, timeout: Duration) -> RequestId {
        let request = RequestId(self.asked.len() as u64);
        let deadline = self.now + timeout;
        self.asked
            .insert(request, Asked { demand: demand.clone(), since: self.now, deadline, said: false, answer: None });
        self.clerk.handle(self.now, Event::Call { request, demand, deadline });
        request
    }

    pub(crate) fn execute(&mut self, body: &str, timeout: Duration) -> RequestId {
        self.ask(Demand::Execute { slot: None, body: Bytes::copy_from_slice(body.as_bytes()) }, timeout)
    }

    pub(crate) fn outcome(&self, request: RequestId) -> Option<&Outcome> {
        match &self.asked[&request].answer {
            Some((_, Answer::Outcome(outcome))) => Some(outcome),
            _ => None,
        }
    }

    fn later(&mut self, pending: Pending) {
        let delay = Duration::from_micros(500 + self.below(3_000));
        self.at(self.now + delay, pending);
    }

    fn at(&mut self, at: Instant, pending: Pending) {
        self.count += 1;
        self.pending.insert((at, self.count), pending);
    }

    /// Lets time go on to there.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.turn();
            let next = self.pending.first_key_value().map_or(Instant::NEVER, |((at, _), _)| *at);
            let at = next.min(self.clerk.deadline());
            if at > end {
                break;
            }
            self.spins = if at <= self.now { self.spins + 1 } else { 0 };
            assert!(self.spins < SPIN_MAX, "it spins at {}: {:?}", self.now, self.clerk);
            self.now = self.now.max(at);
            while let Some(((at, number), pending)) = self.pending.pop_first() {
                if at > self.now {
                    self.pending.insert((at, number), pending);
                    break;
                }
                self.happen(pending);
            }
            self.clerk.handle(self.now, Event::Timeout);
        }
        self.now = end;
    }

    fn turn(&mut self) {
        for effect in self.clerk.effects(self.now) {
            match effect {
                Effect::Dial { link, address } => {
                    self.dials += 1;
                    self.later(Pending::Dial { link, address });
                }
                Effect::Close(link) => {
                    self.links.remove(&link);
                    self.closed.insert(link);
                }
                Effect::Send { link, number, demand, timeout } => {
                    assert!(!self.closed.contains(&link), "said on a closed connection");
                    if let Demand::Execute { slot, body } = &demand {
                        assert!(slot.is_some(), "a command without a slot");
                        let is_it =
                            |asked: &&mut Asked| matches!(&asked.demand, Demand::Execute { body: b, .. } if b == body);
                        self.asked.values_mut().filter(is_it).for_each(|asked| asked.said = true);
                    }
                    self.later(Pending::Arrive { link, number, demand, until: self.now + timeout });
                }
                Effect::Answer(request, answer) => {
                    let asked = self.asked.get_mut(&request).expect("somebody asked it");
                    assert!(asked.answer.is_none(), "answered twice: {asked:?} {answer:?}");
                    assert!(self.now <= asked.deadline, "too late at {}: {asked:?}", self.now);
                    asked.answer = Some((self.now, answer));
                }
                Effect::Use(_) => {}
            }
        }
    }

    fn happen(&mut self, pending: Pending) {
        match pending {
            Pending::Client(event) => {
                let (Event::Heard { link, .. } | Event::Connected { link, .. } | Event::Lost { link, .. }) = &event
                else {
                    unreachable!("nothing else comes over the network")
                };
                // A lost connection is told of; what was on its way is not.
                if matches!(event, Event::Lost { .. }) || self.links.contains_key(link) {
                    self.clerk.handle(self.now, event);
                }
            }
            Pending::Dial { link, address: to } => self.dialled(link, &to),
            Pending::Stuck { member, link, number, demand, until } => self.arrive(member, link, number, demand, until),
            Pending::Arrive { link, number, demand, until } => {
                if let Some(member) = self.links.get(&link).copied() {
                    self.arrive(member, link, number, demand, until);
                }
            }
        }
    }

    fn dialled(&mut self, link: LinkId, to: &str) {
        if self.closed.contains(&link) {
            return;
        }
        let member = (0..self.cluster.moods.len()).find(|n| address(*n) == to);
        match member.map(|n| (n, self.cluster.moods[n])) {
            Some((member, Mood::Well | Mood::Liar | Mood::Strange)) => {
                self.links.insert(link, member);
                let hint = Some(self.hint(member));
                self.later(Pending::Client(Event::Connected { link, hint }));
            }
            // Its port takes the connection, and nothing follows.
            Some((_, Mood::Hung)) => {}
            _ => self.later(Pending::Client(Event::Lost { link, why: "connection refused".to_owned().into() })),
        }
    }

    fn hint(&mut self, member: usize) -> Hint {
        let leads = |n: usize| Hint::Leads { id: id(n), address: address(n) };
        if self.cluster.moods[member] == Mood::Liar {
            // Members that do not exist are among them.
            let n = usize::try_from(self.below(self.cluster.moods.len() as u64 + 2)).unwrap();
            return if self.below(4) == 0 { Hint::Nobody } else { leads(n) };
        }
        self.others.get(&member).unwrap_or(&self.cluster).leader.map_or(Hint::Nobody, leads)
    }

    fn arrive(&mut self, member: usize, link: LinkId, number: u64, demand: Demand, until: Instant) {
        match self.cluster.moods[member] {
            Mood::Down => {}
            // It does it when it wakes up, as far as anybody still wants it.
            Mood::Hung => {
                let stuck = Pending::Stuck { member, link, number, demand, until };
                self.at(self.now + Duration::from_millis(50), stuck);
            }
            Mood::Liar => self.lie(member, link, number),
            Mood::Well => self.serve(member, link, number, demand, until),
            Mood::Strange => self.serve_astray(member, link, number, demand),
        }
    }

    fn lie(&mut self, member: usize, link: LinkId, number: u64) {
        let refusal = match self.below(7) {
            0 => Refusal::NotLeader { leader: Some(id(member)) },
            1 => Refusal::NotLeader { leader: Some(id(0)) },
            2 => Refusal::NoLeader,
            3 => Refusal::Halted("it said so".to_owned()),
            4 => {
                let view = self.cluster.view(member);
                return self.tell(link, number, Answer::View(Box::new(view)));
            }
            5 => return self.tell(link, number, Answer::Unclear("it is confused".to_owned())),
            _ => return,
        };
        self.tell(link, number, Answer::Outcome(Outcome::Refused(refusal)));
    }

    fn serve(&mut self, member: usize, link: LinkId, number: u64, demand: Demand, until: Instant) {
        if demand == Demand::View {
            let view = self.cluster.view(member);
            return self.tell(link, number, Answer::View(Box::new(view)));
        }
        if until <= self.now {
            return self.tell(link, number, Answer::Outcome(Outcome::Refused(Refusal::Timeout)));
        }
        if self.cluster.leads().is_some() {
            match self.below(100) {
                0 => self.tell(link, number, Answer::Outcome(Outcome::Refused(Refusal::Busy("for no reason".into())))),
                // It takes its time, and a crash of the leader may come in between.
                1..20 => self.in_flight.push((link, number, demand)),
                _ => self.apply(link, number, &demand),
            }
        } else if self.below(3) == 0 {
            let refusal = if self.below(2) == 0 { Refusal::NoLeader } else { Refusal::NotLeader { leader: None } };
            self.tell(link, number, Answer::Outcome(Outcome::Refused(refusal)));
        } else {
            // It waits for a leader.
            let again = until.min(self.now + Duration::from_millis(20));
            self.at(again, Pending::Arrive { link, number, demand, until });
        }
    }

    /// The other cluster does all that it is asked, at once.
    fn serve_astray(&mut self, member: usize, link: LinkId, number: u64, demand: Demand) {
        let Some(other) = self.others.get_mut(&member) else { return };
        let answer = match &demand {
            Demand::View => Answer::View(Box::new(other.view(member))),
            Demand::Execute { slot, body } => Answer::Outcome(other.execute(*slot, body)),
            Demand::Query { body, .. } => Answer::Outcome(other.query(body, other.index)),
            Demand::OpenSession { .. } => Answer::Outcome(other.open_session()),
            Demand::Ask(ask) => Answer::Outcome(other.change(ask)),
            _ => Answer::Outcome(Outcome::Refused(Refusal::Invalid("not here".to_owned()))),
        };
        if demand != Demand::View {
            self.misled.push(demand);
        }
        self.tell(link, number, answer);
    }

    fn apply(&mut self, link: LinkId, number: u64, demand: &Demand) {
        let outcome = match demand {
            Demand::Execute { slot, body } => self.cluster.execute(*slot, body),
            Demand::Query { body, read } => {
                assert!(read.at_least.0 <= self.cluster.index, "nobody has seen that");
                let lag = if read.consistency == Consistency::Linearizable { 0 } else { self.below(50) };
                let index = self.cluster.index.saturating_sub(lag).max(read.at_least.0);
                self.cluster.query(body, index)
            }
            Demand::Ask(ask) => self.cluster.change(ask),
            Demand::OpenSession { .. } => self.cluster.open_session(),
            _ => Outcome::Refused(Refusal::Invalid("not here".to_owned())),
        };
        self.tell(link, number, Answer::Outcome(outcome));
    }

    fn tell(&mut self, link: LinkId, number: u64, answer: Answer) {
        let Some(member) = self.links.get(&link).copied() else { return };
        let hint = (self.below(10) == 0).then(|| self.hint(member));
        self.later(Pending::Client(Event::Heard { link, answers: vec![(number, answer)], hint }));
    }

    /// What the leader had been given is committed, by it or by the next one.
    pub(crate) fn commit_late(&mut self) {
        for (link, number, demand) in std::mem::take(&mut self.in_flight) {
            self.apply(link, number, &demand);
        }
    }

    /// Of what the leader had been given some is lost with it, some is committed by the next one; members that are up say
    /// that they do not know.
    pub(crate) fn depose(&mut self) {
        self.cluster.leader = None;
        for (link, number, demand) in std::mem::take(&mut self.in_flight) {
            let why = "the leader is gone".to_owned();
            match (self.below(5), &demand) {
                (0, Demand::Execute { slot, .. }) => {
                    let slot = slot.filter(|_| self.below(2) == 0);
                    self.tell(link, number, Answer::Outcome(Outcome::Unknown { why, slot }));
                }
                (1, _) => self.tell(link, number, Answer::Unclear(why)),
                _ => {}
            }
            // Whatever is said of it, it may be in the next one's log.
            if self.below(3) > 0 {
                self.in_flight.push((link, number, demand));
            }
        }
    }

    pub(crate) fn crash(&mut self, member: usize) {
        self.cluster.moods[member] = Mood::Down;
        self.cluster.unnamed.insert(member);
        self.others.remove(&member);
        let broken: Vec<LinkId> = self.links.iter().filter(|(_, to)| **to == member).map(|(link, _)| *link).collect();
        for link in broken {
            self.links.remove(&link);
            self.later(Pending::Client(Event::Lost { link, why: "connection reset".to_owned().into() }));
        }
        if self.cluster.leader == Some(member) {
            self.depose();
        }
    }

    /// Another cluster is at the address of this member now.
    pub(crate) fn usurp(&mut self, member: usize, other: Cluster) {
        self.crash(member);
        self.cluster.moods[member] = Mood::Strange;
        self.others.insert(member, other);
    }

    /// The member is itself again.
    pub(crate) fn heal(&mut self, member: usize) {
        if self.cluster.moods[member] == Mood::Strange {
            self.crash(member);
        }
        self.cluster.moods[member] = Mood::Well;
        if self.cluster.leads().is_some() {
            self.hears_of_the_leader();
        }
    }

    fn hears_of_the_leader(&mut self) {
        let Cluster { moods, unnamed, .. } = &mut self.cluster;
        unnamed.retain(|member| moods[*member] != Mood::Well);
    }

    pub(crate) fn elect(&mut self) {
        let well: Vec<usize> = (0..self.cluster.moods.len()).filter(|n| self.cluster.moods[*n] == Mood::Well).collect();
        if well.len() > self.cluster.moods.len() / 2 {
            let leader = well[usize::try_from(self.below(well.len() as u64)).unwrap()];
            self.cluster.leader = Some(leader);
            self.cluster.term += 1;
            self.hears_of_the_leader();
            self.commit_late();
            let standing: Vec<LinkId> = self.links.keys().copied().collect();
            for link in standing {
                let hint = Some(Hint::Leads { id: id(leader), address: address(leader) });
                self.later(Pending::Client(Event::Heard { link, answers: Vec::new(), hint }));
            }
        }
    }
}
