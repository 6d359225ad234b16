//! The clerk against a model of a cluster that crashes, hangs and lies.

mod chaos;
mod cluster;
mod stories;
mod story;
mod strangers;
mod world;
