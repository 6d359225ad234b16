//! Playing a search to its end, or as far as is asked.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::model::{Action, Cluster, ENOUGH, State};
use crate::scenario::Scenario;
use crate::story;

/// What a search has come to.
#[derive(Debug)]
pub struct Report {
    pub name: &'static str,
    /// Different states.
    pub unique: usize,
    /// States that were come to, by whatever way.
    pub generated: usize,
    /// The longest way to any of them, in actions.
    pub depth: usize,
    pub took: Duration,
    /// Different members, messages, pasts.
    pub variety: (usize, usize, usize),
    /// No state within the bounds was left out.
    pub complete: bool,
    /// What had to be reached, and how many actions that took.
    pub reached: Vec<(&'static str, Option<usize>)>,
    /// The rule that does not hold, and the story of it.
    pub broken: Option<(&'static str, Vec<String>)>,
}

impl Report {
    pub fn holds(&self) -> bool {
        self.broken.is_none() && self.reached.iter().all(|(_, steps)| steps.is_some())
    }
}

/// Searches breadth first until a rule is broken, all states are seen, or so many are. `tell` hears how far it is.
pub fn run(scenario: Scenario, states: usize, threads: usize, mut tell: impl FnMut(usize, usize)) -> Report {
    let (name, begun) = (scenario.name, Instant::now());
    let cluster = Cluster::new(scenario);
    let rules = cluster.properties().into_iter().filter(|property| property.expectation.discovery_is_failure());
    let mut ends: std::collections::BTreeSet<&'static str> = rules.map(|property| property.name).collect();
    ends.insert(ENOUGH);
    let ends = HasDiscoveries::AnyOf(ends);
    let checker = cluster.checker().threads(threads).finish_when(ends).spawn_bfs();
    let mut told = Instant::now();
    while !checker.is_done() {
        std::thread::sleep(Duration::from_millis(5));
        if checker.unique_state_count() >= states {
            checker.model().enough.store(true, Ordering::Relaxed);
        }
        if told.elapsed() >= Duration::from_secs(10) {
            told = Instant::now();
            tell(checker.unique_state_count(), checker.max_depth());
        }
    }
    let checker = checker.join();
    let mut found = checker.discoveries();
    let complete = found.remove(ENOUGH).is_none();
    let model = checker.model();
    let wanted = model.properties().into_iter().filter(|p| !p.expectation.discovery_is_failure() && p.name != ENOUGH);
    let reached = wanted.map(|p| (p.name, found.remove(p.name).map(|path| steps(&path)))).collect();
    let shortest = found.into_iter().min_by_key(|(_, path)| steps(path));
    let broken = shortest.map(|(rule, path)| (rule, story::of(model, path)));
    Report {
        name,
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        variety: model.variety(),
        complete: complete && broken.is_none(),
        reached,
        broken,
    }
}

fn steps(path: &Path<State, Action>) -> usize {
    path.clone().into_actions().len()
}
