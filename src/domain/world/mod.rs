//! A small world for cores: a network, disks, machines and a clock that do as they are told. What tests the core, but is not a
//! transcript, is here too.

mod chaos;
mod checks;
mod churn;
mod clock;
mod cluster;
mod disk;
mod hostile;
mod leases;
mod show;

pub(crate) use checks::quorums_meet;
pub(crate) use cluster::{Node, World};
pub(crate) use disk::Disk;
pub(crate) use show::Shown;
