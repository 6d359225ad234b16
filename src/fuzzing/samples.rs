//! What a corpus begins with: real examples, small ones, made by the code that ships.

use graft_domain::{Membership, NodeId};

/// One input.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Of its file.
    pub name: String,
    pub bytes: Vec<u8>,
    /// It is another one each time that it is made: the one that is kept is as good.
    pub is_made_anew: bool,
}

impl Sample {
    pub(crate) fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), bytes, is_made_anew: false }
    }
}

/// The members' names. Of four, three are members.
pub(crate) fn id(number: u64) -> NodeId {
    let text = ["n1", "n2", "n3", "n4"][usize::try_from(number.saturating_sub(1) % 4).unwrap_or_default()];
    NodeId::new(text).unwrap_or_else(|bad| panic!("{text}: {bad}"))
}

/// The first so many found a cluster.
pub(crate) fn membership(count: u64) -> Membership {
    Membership::founding((1..=count).map(|number| (id(number), "127.0.0.1:7001")))
}
