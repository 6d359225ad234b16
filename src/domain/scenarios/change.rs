//! The commands of a story that change the membership.

use alloc::format;
use alloc::sync::Arc;

use super::command::{Words, node};
use super::stage::Stage;
use crate::{Incarnation, Input, Member, Membership, NodeId, RaftCore, Target};

impl Stage {
    pub(super) fn membership(&mut self, verb: &str, words: &mut Words<'_>) -> bool {
        match verb {
            // What the members are to become; who is not one yet is added.
            "target" => {
                let id = words.id();
                let mut membership = self.in_force(id);
                while let Some(word) = words.next() {
                    set_target(&mut membership, word);
                }
                self.tell(id, Input::ChangeMembership(Arc::new(membership)));
            }
            // One step towards that.
            "next" => {
                let id = words.id();
                match self.in_force(id).next() {
                    Some(next) => self.tell(id, Input::ChangeMembership(Arc::new(next))),
                    None => self.world.note(|| format!("{id} has nowhere to go")),
                }
            }
            // `change n1 {n1 n2 -> n1 n3}`, sense or nonsense.
            "change" => {
                let id = words.id();
                let first = words.word();
                let next = self.change(first.trim_start_matches('{'), words);
                self.tell(id, Input::ChangeMembership(Arc::new(next)));
            }
            "successor" => {
                let id = words.id();
                let best = self.core(id).best_successor();
                self.world.note(|| match best {
                    Some(best) => format!("{id} would hand over to {best}"),
                    None => format!("{id} knows nobody to hand over to"),
                });
            }
            _ => return false,
        }
        true
    }

    fn core(&self, id: NodeId) -> &RaftCore {
        self.world.node(&id).core.as_ref().unwrap_or_else(|| panic!("{id} is down"))
    }

    fn in_force(&self, id: NodeId) -> Membership {
        (**self.core(id).membership()).clone()
    }
}

/// `n4=voter`, `n4=learner` or `n4=gone`; `n4=#7` says which life of its disk it is.
fn set_target(membership: &mut Membership, word: &str) {
    let Some((id, what)) = word.split_once('=') else { panic!("{word} is not a target such as n4=voter") };
    let newcomer = Member {
        address: Arc::from(""),
        incarnation: Incarnation::UNKNOWN,
        voter: false,
        outgoing: false,
        target: Target::Learner,
    };
    let member = membership.members.entry(node(id)).or_insert(newcomer);
    match what {
        "voter" => member.target = Target::Voter,
        "learner" => member.target = Target::Learner,
        "gone" => member.target = Target::Gone,
        life => member.incarnation = Incarnation(super::command::number(life)),
    }
}
