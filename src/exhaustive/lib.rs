//! The core that ships, in every order of events that a bound leaves, breadth first.
//!
//! A state is what all members are and what is on the wire; an action is one message, one timeout, one write that becomes
//! durable, one crash. Every state is looked at: `docs/exhaustive.md` says what is in the model, and what is not.
#![forbid(unsafe_code)]

mod beginning;
mod checks;
mod disk;
mod kept;
mod member;
mod model;
mod past;
mod promises;
mod reach;
mod run;
mod scenario;
mod story;
#[cfg(test)]
mod tests;
mod turn;
mod wire;

pub use run::{Report, run};
pub use scenario::{Scenario, all};
