//! Tells what a clerk does: what happened (`<`) and what it wants done (`>`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Index, Instant, Term};

use super::cluster::{Cluster, address, id};
use crate::client::{Answer, Clerk, ClerkConfig, Demand, Effect, Event, Hint, LinkId};
use crate::error::Outcome;
use crate::identity::Distrust;
use crate::ports::Reply;
use crate::waiting::RequestId;

pub(super) struct Story {
    pub(super) clerk: Clerk,
    pub(super) now: Instant,
    pub(super) told: String,
    /// The questions of a connection's member how it is, the newest of each.
    views: BTreeMap<LinkId, u64>,
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[expect(clippy::unnecessary_wraps, reason = "it stands where a member may have said nothing")]
pub(super) fn leads(n: usize) -> Option<Hint> {
    Some(Hint::Leads { id: id(n), address: address(n) })
}

pub(super) fn done(index: u64) -> Outcome {
    Outcome::Done { index: Index(index), term: Term(1), reply: Reply::Value(Bytes::from_static(b"ok")) }
}

impl Story {
    /// Begins with one address; the others are learned.
    pub(super) fn begins(tune: impl FnOnce(&mut ClerkConfig)) -> Self {
        let mut config = ClerkConfig::new(vec![address(0)], 1);
        tune(&mut config);
        let mut story = Self {
            clerk: Clerk::new(config, Instant::default()),
            now: Instant::default(),
            told: String::new(),
            views: BTreeMap::new(),
        };
        story.effects();
        story
    }

    pub(super) fn tell(&mut self, line: &str) {
        let at = self.now.0 / 1_000_000;
        writeln!(self.told, "{at:>5} {line}").unwrap();
    }

    pub(super) fn effects(&mut self) {
        for effect in self.clerk.effects(self.now) {
            let line = match effect {
                Effect::Dial { link, address } => format!("dial {} {address}", link.0),
                Effect::Close(link) => format!("close {}", link.0),
                Effect::Send { link, number, demand, timeout } => {
                    if demand == Demand::View {
                        self.views.insert(link, number);
                    }
                    format!("say {} #{number} {} within {timeout:?}", link.0, demand_words(&demand))
                }
                Effect::Answer(request, Answer::Outcome(outcome)) => {
                    format!("answer {} {}", request.0, outcome_words(&outcome))
                }
                Effect::Answer(request, _) => format!("answer {}", request.0),
                Effect::Use(link) => format!("use {}", link.map_or("none".to_owned(), |link| link.0.to_string())),
            };
            self.tell(&format!("> {line}"));
        }
    }

    pub(super) fn happens(&mut self, words: &str, event: Event) {
        self.tell(&format!("< {words}"));
        self.clerk.handle(self.now, event);
        self.effects();
    }

    pub(super) fn asks(&mut self, request: u64, timeout: u64) {
        let (request, deadline) = (RequestId(request), self.now + ms(timeout));
        let demand = Demand::Execute { slot: None, body: Bytes::from_static(b"x") };
        self.happens(&format!("call {}", request.0), Event::Call { request, demand, deadline });
    }

    pub(super) fn connects(&mut self, link: u64, hint: Option<Hint>) {
        let words = format!("{link} connected, {}", hint_words(hint.as_ref()));
        self.happens(&words, Event::Connected { link: LinkId(link), hint });
    }

    /// It connects and says who it is: the leader.
    pub(super) fn introduces(&mut self, link: u64, member: usize) {
        self.connects(link, leads(member));
        self.hears_view(link, self.views[&LinkId(link)], member, Some(member));
    }

    pub(super) fn loses(&mut self, link: u64) {
        let event = Event::Lost { link: LinkId(link), why: "connection refused".to_owned().into() };
        self.happens(&format!("{link} lost"), event);
    }

    pub(super) fn distrusts(&mut self, link: u64) {
        let event = Event::Lost { link: LinkId(link), why: Distrust("of another authority".to_owned()).into() };
        self.happens(&format!("{link} distrusts"), event);
    }

    pub(super) fn hears(&mut self, link: u64, number: u64, outcome: Outcome) {
        let words = format!("{link} answers #{number} {}", outcome_words(&outcome));
        let answers = vec![(number, Answer::Outcome(outcome))];
        self.happens(&words, Event::Heard { link: LinkId(link), answers, hint: None });
    }

    pub(super) fn hears_hint(&mut self, link: u64, hint: Hint) {
        let words = format!("{link} says {}", hint_words(Some(&hint)));
        self.happens(&words, Event::Heard { link: LinkId(link), answers: vec![], hint: Some(hint) });
    }

    /// The member that answers tells of three members.
    pub(super) fn hears_view(&mut self, link: u64, number: u64, member: usize, leader: Option<usize>) {
        let cluster = Cluster { leader, ..Cluster::new(3) };
        self.hears_of(link, number, member, &cluster, "");
    }

    /// The same, of another cluster or of none.
    pub(super) fn hears_of(&mut self, link: u64, number: u64, member: usize, cluster: &Cluster, what: &str) {
        let answers = vec![(number, Answer::View(Box::new(cluster.view(member))))];
        let words = format!("{link} answers #{number} that it is m{member} of three{what}");
        self.happens(&words, Event::Heard { link: LinkId(link), answers, hint: None });
    }

    /// Time goes on, with everything that it brings.
    pub(super) fn waits(&mut self, span: u64) {
        let end = self.now + ms(span);
        while self.clerk.deadline() <= end {
            self.now = self.now.max(self.clerk.deadline());
            self.clerk.handle(self.now, Event::Timeout);
            self.effects();
        }
        self.now = end;
    }

    /// Connected to m0, which leads; there is a session of id 7.
    pub(super) fn goes_well(&mut self) {
        self.connects(1, leads(0));
        self.hears_view(1, 1, 0, Some(0));
        self.asks(1, 8_000);
        self.hears(1, 2, done(7));
        self.hears(1, 3, done(8));
        self.told.clear();
    }

    pub(super) fn is(&self, expected: &str) {
        let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let told: Vec<&str> = self.told.lines().map(str::trim).collect();
        assert_eq!(told, expected, "\n{}", self.told);
    }
}

fn demand_words(demand: &Demand) -> String {
    match demand {
        Demand::Execute { slot: Some(slot), .. } => {
            format!("execute {}/{} from {}", slot.session, slot.sequence, slot.unanswered)
        }
        Demand::OpenSession { .. } => "session".to_owned(),
        Demand::View => "view".to_owned(),
        other => format!("{other:?}"),
    }
}

fn outcome_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { index, .. } => format!("done {index}"),
        Outcome::Refused(refusal) => format!("refused: {refusal}"),
        Outcome::Unknown { why, slot } => {
            format!("unknown {:?}: {why}", slot.map(|slot| (slot.session, slot.sequence)))
        }
        Outcome::Compared { .. } => "compared".to_owned(),
    }
}

fn hint_words(hint: Option<&Hint>) -> String {
    match hint {
        None => "of no leader told".to_owned(),
        Some(Hint::Nobody) => "nobody leads".to_owned(),
        Some(Hint::Leads { id, .. }) => format!("{id} leads"),
    }
}
