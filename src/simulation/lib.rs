//! Worlds in which a cluster is tried: the replica, the applier and the log that ship, under virtual time, over a disk and a
//! network that fail, with all luck from one seed.
//!
//! [`run`] plays one seed: misfortune up to a horizon with every check after every step, then everything heals, and within
//! a bounded time all must converge and be served. The same seed gives the same transcript, bit for bit.
#![forbid(unsafe_code)]

mod amnesia;
mod checks;
mod clients;
mod coverage;
mod dice;
mod disk;
mod faults;
mod fetching;
mod history;
mod kept;
mod ledger;
mod life;
mod liveness;
mod machine;
pub mod matrix;
mod mix;
mod network;
mod node;
mod pace;
mod release;
mod run;
mod serving;
mod shadow;
mod storage;
mod trace;
mod turn;
mod world;

#[cfg(test)]
mod tests;

pub use coverage::Coverage;
pub use mix::{Fault, Mix};
pub use run::{Report, Twist, run, shrink};
pub use trace::{Behaviour, behaviour};
