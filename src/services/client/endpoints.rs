//! Where members are to be found: what the user said, and what members say. Each is believed until it fails.

use std::fmt::Write as _;
use std::time::Duration;

use graft_domain::{Instant, NodeId, Random};

use crate::error::Refusal;
use crate::status::MemberStatus;

/// More members than any cluster has; a list that is longer is a lie.
const LEARNED_MAX: usize = 128;
/// As many as a person reads.
const TOLD_MAX: usize = 16;
/// No address that can be dialled is longer.
const ADDRESS_BYTES_MAX: usize = 1024;

#[derive(Debug)]
struct Endpoint {
    address: String,
    /// The user named it: it is kept whatever members say.
    seed: bool,
    /// Who is there, as members say.
    member: Option<NodeId>,
    /// Failures since it last did what it is for.
    strikes: u32,
    rests_until: Instant,
    trouble: Option<String>,
    /// That it is not believed, or does not believe.
    is_distrust: bool,
    /// That it is of another cluster.
    is_strange: bool,
    /// When it was last chosen, in the order of choices.
    chosen: u64,
}

#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    choices: u64,
    backoff_first: Duration,
    backoff_max: Duration,
}

impl Endpoints {
    /// The seeds in an order of luck, so that many clients do not all begin with the same one.
    pub(super) fn new(seeds: &[String], backoff: (Duration, Duration), random: &mut Random) -> Self {
        let mut all: Vec<Endpoint> = Vec::new();
        for address in seeds {
            if all.iter().all(|endpoint| endpoint.address != *address) {
                all.push(Endpoint::new(address.clone(), true));
            }
        }
        for place in (1..all.len()).rev() {
            let other = random.next() % (place as u64 + 1);
            all.swap(place, usize::try_from(other).unwrap_or(0));
        }
        Self { all, choices: 0, backoff_first: backoff.0, backoff_max: backoff.1 }
    }

    /// The members that somebody told of take the place of those that were told of before.
    pub(super) fn learn(&mut self, members: &[MemberStatus]) {
        let sane = |member: &&MemberStatus| !member.address.is_empty() && member.address.len() <= ADDRESS_BYTES_MAX;
        let members: Vec<&MemberStatus> = members.iter().filter(sane).take(LEARNED_MAX).collect();
        if members.is_empty() {
            return;
        }
        let named = |address: &str| members.iter().find(|member| member.address == address).map(|member| member.id);
        self.all.retain(|endpoint| endpoint.seed || named(&endpoint.address).is_some());
        for endpoint in &mut self.all {
            endpoint.member = named(&endpoint.address);
        }
        for member in members {
            if self.find(&member.address).is_none() {
                let endpoint = Endpoint::new(member.address.clone(), false);
                self.all.push(Endpoint { member: Some(member.id), ..endpoint });
            }
        }
    }

    /// The one to try now: the one that failed least and was not chosen for the longest. Every other time a seed, so that
    /// nobody can draw a client into a world of his own. None while all rest.
    pub(super) fn choose(&mut self, now: Instant, not: &[&str]) -> Option<String> {
        let is_open = |e: &&mut Endpoint| e.rests_until <= now && !not.contains(&e.address.as_str());
        let seeds_only = self.choices % 2 == 1;
        let rank = |e: &&mut Endpoint| (seeds_only && !e.seed, e.strikes.min(8), e.chosen);
        let endpoint = self.all.iter_mut().filter(is_open).min_by_key(rank)?;
        self.choices += 1;
        endpoint.chosen = self.choices;
        Some(endpoint.address.clone())
    }

    /// When one can be chosen.
    pub(super) fn opens(&self, not: &[&str]) -> Instant {
        let others = self.all.iter().filter(|endpoint| !not.contains(&endpoint.address.as_str()));
        others.map(|endpoint| endpoint.rests_until).min().unwrap_or(Instant::NEVER)
    }

    /// Until when this one rests; one that is not known does not.
    pub(super) fn rests_until(&self, address: &str) -> Instant {
        self.find(address).map_or(Instant::default(), |endpoint| endpoint.rests_until)
    }

    /// It did not do what it is for.
    pub(super) fn strike(&mut self, address: &str, why: &str, now: Instant, random: &mut Random) {
        let (first, max) = (self.backoff_first, self.backoff_max);
        if let Some(endpoint) = self.all.iter_mut().find(|endpoint| endpoint.address == address) {
            let wait = first.saturating_mul(1 << endpoint.strikes.min(16)).min(max);
            endpoint.strikes = endpoint.strikes.saturating_add(1);
            // Never nothing at all, or a port that refuses would be dialled in a busy loop.
            endpoint.rests_until = now + random.up_to(wait).max(Duration::from_millis(1));
            (endpoint.trouble, endpoint.is_distrust, endpoint.is_strange) = (Some(why.to_owned()), false, false);
        }
    }

    /// Its last strike was that the two sides do not believe one another.
    pub(super) fn distrust(&mut self, address: &str) {
        if let Some(endpoint) = self.all.iter_mut().find(|endpoint| endpoint.address == address) {
            endpoint.is_distrust = true;
        }
    }

    /// Its last strike was that it is of another cluster.
    pub(super) fn estrange(&mut self, address: &str) {
        if let Some(endpoint) = self.all.iter_mut().find(|endpoint| endpoint.address == address) {
            endpoint.is_strange = true;
        }
    }

    pub(super) fn some_are_strange(&self) -> bool {
        self.all.iter().any(|endpoint| endpoint.is_strange)
    }

    /// Whether there is nobody left who might be of this client's cluster.
    pub(super) fn all_are_strange(&self) -> bool {
        self.all.iter().all(|endpoint| endpoint.is_strange)
    }

    /// Whether there is nobody left who might believe and be believed.
    pub(super) fn all_distrust(&self) -> bool {
        self.all.iter().all(|endpoint| endpoint.is_distrust)
    }

    /// Why nobody can be reached: if that is so for all, because they are of another cluster; if for most, because nobody
    /// believes the other.
    pub(super) fn refusal(&self) -> Refusal {
        let words = self.words();
        let distrusting = self.all.iter().filter(|endpoint| endpoint.is_distrust).count();
        match () {
            () if self.all_are_strange() => Refusal::Strange(words),
            () if 2 * distrusting > self.all.len() => Refusal::Denied(words),
            () => Refusal::Unreachable(words),
        }
    }

    /// It does what it is for.
    pub(super) fn good(&mut self, address: &str) {
        if let Some(endpoint) = self.all.iter_mut().find(|endpoint| endpoint.address == address) {
            (endpoint.strikes, endpoint.trouble) = (0, None);
            (endpoint.is_distrust, endpoint.is_strange) = (false, false);
        }
    }

    pub(super) fn address_of(&self, member: NodeId) -> Option<&str> {
        self.all.iter().find(|endpoint| endpoint.member == Some(member)).map(|endpoint| endpoint.address.as_str())
    }

    fn find(&self, address: &str) -> Option<&Endpoint> {
        self.all.iter().find(|endpoint| endpoint.address == address)
    }

    /// What is wrong with each, in words.
    fn words(&self) -> String {
        let mut words = String::from("no member can be reached: ");
        for (place, endpoint) in self.all.iter().enumerate().take(TOLD_MAX) {
            let separator = if place == 0 { "" } else { "; " };
            let trouble = endpoint.trouble.as_deref().unwrap_or("no answer yet");
            let _ = write!(words, "{separator}{}: {trouble}", endpoint.address);
        }
        if self.all.len() > TOLD_MAX {
            let _ = write!(words, "; and {} more", self.all.len() - TOLD_MAX);
        }
        words
    }
}

impl Endpoint {
    fn new(address: String, seed: bool) -> Self {
        Self {
            address,
            seed,
            member: None,
            strikes: 0,
            rests_until: Instant::default(),
            trouble: None,
            is_distrust: false,
            is_strange: false,
            chosen: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use graft_domain::{Incarnation, Target};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn member(n: usize) -> MemberStatus {
        MemberStatus {
            id: NodeId::new(&format!("n{n}")).unwrap(),
            address: format!("host{n}:1"),
            voter: true,
            target: Target::Voter,
            incarnation: Incarnation(1),
            installing: false,
            sent: None,
            matched: None,
            last_contact: None,
            reachable: None,
            trouble: None,
            difference: None,
        }
    }

    fn of(seeds: &[&str]) -> Endpoints {
        let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
        Endpoints::new(&seeds, (MS * 20, MS * 1000), &mut Random::new(1))
    }

    #[test]
    fn a_seed_gets_its_turn_whatever_members_say() {
        let (mut endpoints, mut random) = (of(&["seed:1"]), Random::new(2));
        endpoints.strike("seed:1", "it was away", Instant(0), &mut random);
        endpoints.learn(&(0..10_000).map(member).collect::<Vec<_>>());
        assert_eq!(endpoints.all.len(), 1 + LEARNED_MAX);
        let later = Instant(0) + MS * 20;
        let tried: Vec<String> = (0..2).filter_map(|_| endpoints.choose(later, &[])).collect();
        assert!(tried.contains(&"seed:1".to_owned()), "{tried:?}");
        assert!(endpoints.words().contains("and 113 more"), "{}", endpoints.words());
    }

    #[test]
    fn learned_members_come_and_go_and_seeds_stay() {
        let mut endpoints = of(&["host1:1", "seed:1"]);
        endpoints.learn(&[member(1), member(2)]);
        assert_eq!(endpoints.address_of(NodeId::new("n1").unwrap()), Some("host1:1"));
        endpoints.learn(&[member(3), MemberStatus { address: "x".repeat(2000), ..member(4) }]);
        let mut known: Vec<&str> = endpoints.all.iter().map(|endpoint| &*endpoint.address).collect();
        known.sort_unstable();
        assert_eq!(known, ["host1:1", "host3:1", "seed:1"]);
        assert_eq!(endpoints.address_of(NodeId::new("n1").unwrap()), None);
        endpoints.learn(&[]);
        assert_eq!(endpoints.all.len(), 3, "nobody is not a membership");
    }

    #[test]
    fn one_that_fails_rests_longer_each_time_and_the_others_are_tried() {
        let (mut endpoints, mut random) = (of(&["a:1", "b:1"]), Random::new(3));
        let mut longest = Duration::ZERO;
        for strikes in 0..40 {
            endpoints.strike("a:1", "no", Instant(5), &mut random);
            let rest = endpoints.rests_until("a:1").since(Instant(5));
            assert!(rest >= MS && rest <= (MS * 20 * (1 << strikes.min(10))).min(MS * 1000), "{rest:?}");
            longest = longest.max(rest);
        }
        assert!(longest > MS * 500, "{longest:?}");
        assert_eq!(endpoints.choose(Instant(5), &[]).as_deref(), Some("b:1"));
        assert_eq!(endpoints.choose(Instant(5), &["b:1"]), None);
        assert_eq!(endpoints.opens(&["b:1"]), endpoints.rests_until("a:1"));
        endpoints.good("a:1");
        assert!(!endpoints.words().contains("a:1: no;"), "{}", endpoints.words());
    }
}
