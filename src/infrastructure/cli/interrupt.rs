//! Ctrl-C while something is under way that may have been done already.
//!
//! The signal comes to Python's main thread, which tells of it here; the command itself runs on another one. Its client is
//! closed then, which answers whoever waits with what is known: nothing was sent, or nobody can say.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::failure::Failure;
use crate::infrastructure::runtime::Client;

/// An answer that is on its way comes by then.
const PATIENCE: Duration = Duration::from_millis(200);

const INTERRUPTED_STATUS: u8 = 130;

static UNDER_WAY: Mutex<Option<(Arc<Client>, &'static Kind)>> = Mutex::new(None);
static INTERRUPTED: Mutex<Option<&'static Kind>> = Mutex::new(None);

/// What may have been done.
#[derive(Debug)]
pub(super) struct Kind {
    may_be: &'static str,
    fix: &'static str,
}

pub(super) const COMMAND: Kind = Kind {
    may_be: "the command may have been applied, or may be yet",
    fix: "ask the state whether it was (`graft query`), before it is sent again",
};
pub(super) const CHANGE: Kind = Kind {
    may_be: "what was asked for may have been done, or goes on without this command",
    fix: "see what has become of it: `graft member list`, `graft leader`; `graft member cancel` gives a change up",
};

/// There as long as somebody waits for the answer.
pub(super) struct Waited(());

pub(super) fn waits(client: &Arc<Client>, kind: &'static Kind) -> Waited {
    *UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(client), kind));
    Waited(())
}

impl Drop for Waited {
    fn drop(&mut self) {
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Ends the wait for something that may have been done, if there is one; what is known of it is told then.
pub fn interrupt() -> bool {
    let Some((client, kind)) = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).take() else { return false };
    *INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
    client.close(PATIENCE);
    true
}

/// The same failure, in the words of whoever did not want to wait any longer.
pub(super) fn told(failure: Failure) -> Failure {
    let Some(kind) = *INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner) else { return failure };
    let mut told = match failure.code {
        "UNKNOWN_OUTCOME" => {
            Failure::new("UNKNOWN_OUTCOME", format!("interrupted before the answer came: {}", kind.may_be))
                .advice(kind.fix)
        }
        "STOPPED" => Failure::new("STOPPED", "interrupted before anything was sent: nothing was applied")
            .meaning("the command was interrupted")
            .advice("call again"),
        _ => return failure,
    };
    // As a shell has it of a program that a signal ended.
    told.exit = INTERRUPTED_STATUS;
    told
}
