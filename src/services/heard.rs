//! What a leader has been asked to propose, so that each handing-over gets one verdict however often it arrives.

use std::collections::{BTreeMap, VecDeque};

use graft_domain::{NodeId, Term};

use crate::ports::Ticket;

/// Runs of one member that are remembered within a term. A message of an older run is long gone with its connection.
const SESSIONS_MAX: usize = 16;

/// The newest ticket heard of every member's runs, in the last term that this run of the node has led.
///
/// Members hand over in the order of their tickets. One that is not newer was dealt with, or was overtaken on its way and
/// counts as lost; either way to be silent is safe, and to propose or to refuse it is not.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    term: Term,
    newest: BTreeMap<NodeId, VecDeque<Ticket>>,
}

impl Heard {
    /// The term that this is about; 0 if this run of the node has not led any.
    pub(crate) fn term(&self) -> Term {
        self.term
    }

    /// This node leads `term` now.
    pub(crate) fn begin(&mut self, term: Term) {
        self.term = term;
        self.newest.clear();
    }

    /// Whether this node led `term` in this run and hears the ticket for the first time. Before a restart it may have led
    /// the term and heard anything.
    pub(crate) fn is_first(&mut self, from: NodeId, term: Term, ticket: Ticket) -> bool {
        if term != self.term {
            return false;
        }
        let sessions = self.newest.entry(from).or_default();
        if let Some(newest) = sessions.iter_mut().find(|newest| newest.session == ticket.session) {
            let first = ticket.sequence > newest.sequence;
            newest.sequence = newest.sequence.max(ticket.sequence);
            return first;
        }
        if sessions.len() >= SESSIONS_MAX {
            sessions.pop_back();
        }
        sessions.push_front(ticket);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard() -> (Heard, NodeId) {
        let mut heard = Heard::default();
        heard.begin(Term(3));
        (heard, NodeId::new("n2").expect("a good id"))
    }

    fn ticket(session: u64, sequence: u64) -> Ticket {
        Ticket { session, sequence }
    }

    #[test]
    fn a_ticket_is_heard_once_and_never_after_a_newer_one() {
        let (mut heard, n2) = heard();
        let n3 = NodeId::new("n3").expect("a good id");
        let mut first = |from, session, sequence| heard.is_first(from, Term(3), ticket(session, sequence));
        assert!(first(n2, 7, 5) && !first(n2, 7, 5) && !first(n2, 7, 4) && first(n2, 7, 6));
        assert!(first(n2, 8, 1) && !first(n2, 7, 6) && !first(n2, 8, 1), "each run counts for itself");
        assert!(first(n3, 7, 5), "and so does each member");
    }

    #[test]
    fn only_the_last_term_that_was_led_is_known() {
        let (mut heard, n2) = heard();
        assert!(!heard.is_first(n2, Term(2), ticket(1, 1)) && !heard.is_first(n2, Term(4), ticket(1, 1)));
        assert!(heard.is_first(n2, Term(3), ticket(1, 1)));
        heard.begin(Term(5));
        assert!(heard.is_first(n2, Term(5), ticket(1, 1)) && !heard.is_first(n2, Term(3), ticket(1, 2)));
        assert!(!Heard::default().is_first(n2, Term(3), ticket(1, 1)), "a new run knows of none");
    }

    #[test]
    fn the_runs_that_are_remembered_have_a_limit() {
        let (mut heard, n2) = heard();
        for session in 0..100 {
            assert!(heard.is_first(n2, Term(3), ticket(session, 1)));
            assert!(heard.newest[&n2].len() <= SESSIONS_MAX);
        }
        assert!(!heard.is_first(n2, Term(3), ticket(99, 1)) && !heard.is_first(n2, Term(3), ticket(84, 1)));
    }
}
