//! Whole clusters of replicas in one thread, under one clock, with everything that can go wrong around them.

mod calls;
mod chaos;
mod clients;
mod disk;
mod endings;
mod history;
mod interrupted;
mod limits;
mod machine;
mod membership;
mod network;
mod outlook;
mod perform;
mod plans;
mod queries;
mod random;
mod snapshots;
mod time;
mod transfers;
mod upheaval;
mod world;
