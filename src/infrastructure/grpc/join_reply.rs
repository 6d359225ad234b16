//! The place where the engine puts its answer to a node that asks to be let in.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::event::JoinTrouble;

/// What the engine answers a node that asks to be let in. The first answer counts; without one the node asks again.
///
/// Copies are of the same question, and equal for that reason only.
#[derive(Clone)]
pub struct JoinReply(Arc<Mutex<Option<oneshot::Sender<Verdict>>>>);

pub(super) type Verdict = Result<(), JoinTrouble>;

impl JoinReply {
    /// A question, and where its answer comes. When every copy is gone there will be none.
    pub(super) fn new() -> (Self, oneshot::Receiver<Verdict>) {
        let (sender, answer) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), answer)
    }

    /// The node is a member now.
    pub fn done(&self) {
        self.answer(Ok(()));
    }

    /// The node is not let in. If that is `fatal`, to ask again is of no use.
    pub fn refuse(&self, why: impl Into<String>, fatal: bool) {
        self.answer(Err(JoinTrouble { why: why.into(), fatal, code: None }));
    }

    fn answer(&self, verdict: Verdict) {
        // Nothing panics while it holds the lock.
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // Whoever asked may have gone.
            let _ = sender.send(verdict);
        }
    }
}

impl PartialEq for JoinReply {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for JoinReply {}

impl fmt::Debug for JoinReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinReply").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_counts() {
        let (reply, mut answer) = JoinReply::new();
        reply.clone().refuse("full", true);
        reply.done();
        assert_eq!(answer.try_recv(), Ok(Err(JoinTrouble { why: "full".to_owned(), fatal: true, code: None })));
    }

    #[test]
    fn replies_are_equal_to_their_copies_only() {
        let ((one, _answer), (other, _other_answer)) = (JoinReply::new(), JoinReply::new());
        assert_eq!(one, one.clone());
        assert_ne!(one, other);
    }
}
