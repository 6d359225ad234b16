//! Whole clusters of replicas in one thread, under one clock, with everything that can go wrong around them.

mod calls;
mod chaos;
mod disk;
mod endings;
mod history;
mod limits;
mod machine;
mod queries;
mod random;
mod time;
mod world;
