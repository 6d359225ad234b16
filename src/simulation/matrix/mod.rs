//! The storage matrix: the real log and the real snapshots over files in memory, with every damage and every power cut that
//! a small store can meet, one case at a time. `docs/storage-matrix.md` tells what is tried and what was found.
//!
//! Whatever the case, the answer is everything that was acknowledged, or that and the step under way, or an explicit
//! refusal of a disk that was harmed. The two harms that nothing can tell from a crash are counted apart.

mod crash;
mod damage;
mod disk;
mod fault;
mod image;
mod layout;
mod lives;
mod misdirect;
mod model;
mod restore;
mod scene;
mod tally;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crash::Recorded;
use restore::Restores;
use scene::Scene;
pub use tally::{Share, Tally, VERDICTS, Verdict};

/// Everything to try, prepared.
#[derive(Debug)]
pub struct Matrix {
    jobs: Vec<Job>,
}

#[derive(Debug)]
enum Job {
    Crash(Arc<Recorded>),
    Fault(Arc<Recorded>),
    Restore(Arc<Restores>),
    Damage(Arc<Scene>, Damage),
}

type Damage = fn(&Scene, Share, &mut Tally);

/// What is done to a store at rest.
const DAMAGES: [Damage; 6] = [
    damage::flip,
    damage::replace_tails,
    damage::lose_sectors,
    misdirect::records,
    misdirect::sectors,
    misdirect::files,
];
/// Stores at rest: so many steps before the end of a life.
const AT_REST: [usize; 2] = [0, 20];

impl Matrix {
    /// # Errors
    /// If a life without any misfortune already comes to what it should not.
    pub fn prepare() -> Result<Self, String> {
        let lives = lives::all().map_err(|error| error.to_string())?;
        let recorded = lives.into_iter().map(Recorded::of).collect::<Result<Vec<_>, _>>()?;
        let mut jobs = Vec::new();
        for recorded in &recorded {
            jobs.push(Job::Crash(Arc::clone(recorded)));
            jobs.push(Job::Fault(Arc::clone(recorded)));
            jobs.push(Job::Restore(Arc::new(Restores::of(recorded)?)));
            let Recorded { life, lived } = &**recorded;
            for steps in AT_REST.iter().filter_map(|steps| lived.len().checked_sub(steps + 1)) {
                let scene = Scene::of(life, lived, steps).ok_or("a life without a log")?;
                let scene = Arc::new(scene);
                jobs.extend(DAMAGES.iter().map(|damage| Job::Damage(Arc::clone(&scene), *damage)));
            }
        }
        Ok(Self { jobs })
    }

    /// How many pieces of work there are, each of which can be done in shares.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Does a share of a piece of work.
    pub fn run(&self, job: usize, share: Share) -> Tally {
        let mut tally = Tally::default();
        match &self.jobs[job] {
            Job::Crash(recorded) => crash::cut_power(&recorded.life, &recorded.lived, share, &mut tally),
            Job::Fault(recorded) => fault::fail_each(recorded, share, &mut tally),
            Job::Restore(restores) => restore::cut_power(restores, share, &mut tally),
            Job::Damage(scene, damage) => damage(scene, share, &mut tally),
        }
        tally
    }
}
