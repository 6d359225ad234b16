//! One seed, from the first start to the last answer; and a smaller world in which the same goes wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use graft_domain::Instant;

use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::mix::{Fault, Mix};
use crate::world::World;

/// What is changed about the world that a seed draws.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Twist {
    /// Kinds of misfortune that do not happen.
    pub without: Vec<Fault>,
    /// Milliseconds of misfortune, instead of what the mix says.
    pub horizon: Option<u64>,
    /// Syncs are lies: the negative control.
    pub lying: bool,
    /// Keep the story.
    pub told: bool,
}

/// What became of a world.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub mix: Mix,
    /// What does not hold, if something does not.
    pub broken: Option<String>,
    /// Of everything that happened, in order.
    pub hash: u64,
    pub happenings: u64,
    /// How long it was in the world.
    pub lasted: Duration,
    pub coverage: Coverage,
    /// The last of what happened, if it was to be told.
    pub story: Vec<String>,
}

/// Plays one seed.
pub fn run(seed: u64, twist: &Twist) -> Report {
    let mut dice = Dice::new(seed);
    let mut mix = Mix::draw(&mut dice);
    mix.faults.retain(|fault| !twist.without.contains(fault));
    mix.horizon = twist.horizon.unwrap_or(mix.horizon);
    mix.lying = twist.lying;
    let mut world = World::new(seed, mix, dice, twist.told);
    for node in world.nodes.values_mut() {
        node.disk.faults(|faults| faults.lies = twist.lying);
    }
    let played = catch_unwind(AssertUnwindSafe(|| {
        world.run_until(Instant(world.mix.horizon * 1_000_000));
        if world.broken.is_none() {
            let verdict = world.lives();
            world.must(verdict);
        }
    }));
    if let Err(panic) = played {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.broken.get_or_insert(format!("a panic: {}", words.unwrap_or_default()));
    }
    world.count_answers();
    if world.broken.is_some() {
        world.look_around();
    }
    Report {
        seed,
        broken: world.broken,
        hash: world.hash,
        happenings: world.happenings,
        lasted: Duration::from_nanos(world.now.0),
        coverage: world.coverage,
        story: world.story.map(Vec::from).unwrap_or_default(),
        mix: world.mix,
    }
}

/// The shortest and poorest world of this seed in which something still does not hold.
pub fn shrink(seed: u64, twist: &Twist) -> Twist {
    let mut best = twist.clone();
    let breaks = |twist: &Twist| run(seed, twist).broken.is_some();
    for fault in Fault::ALL {
        let mut poorer = best.clone();
        poorer.without.push(fault);
        if breaks(&poorer) {
            best = poorer;
        }
    }
    let (mut well, mut ill) = (0, best.horizon.unwrap_or(run(seed, &best).mix.horizon));
    while ill - well > 50 {
        let middle = u64::midpoint(well, ill);
        if breaks(&Twist { horizon: Some(middle), ..best.clone() }) { ill = middle } else { well = middle }
    }
    best.horizon = Some(ill);
    best
}
