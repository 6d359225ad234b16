//! Who is told how a call ended.

use graft_services::WhatIf;
use graft_services::api::{Caller, SnapshotPart, Then, View};
use graft_services::client::Answer;
use graft_services::error::{Outcome, Refusal};

/// Somebody who is told once. Dropped without a word it is told that nothing was done: whoever has not been told by then was
/// never heard of by a member.
pub(super) struct To(Option<Whom>);

enum Whom {
    Caller(Caller),
    View(Then<View>),
    WhatIf(Then<WhatIf>),
    SnapshotPart(Then<SnapshotPart>),
}

impl To {
    pub(super) fn caller(caller: Caller) -> Self {
        Self(Some(Whom::Caller(caller)))
    }

    pub(super) fn view(then: Then<View>) -> Self {
        Self(Some(Whom::View(then)))
    }

    pub(super) fn what_if(then: Then<WhatIf>) -> Self {
        Self(Some(Whom::WhatIf(then)))
    }

    pub(super) fn snapshot_part(then: Then<SnapshotPart>) -> Self {
        Self(Some(Whom::SnapshotPart(then)))
    }

    pub(super) fn nobody() -> Self {
        Self(None)
    }

    pub(super) fn refuse(self, refusal: Refusal) {
        self.tell(Answer::Outcome(Outcome::Refused(refusal)));
    }

    pub(super) fn tell(mut self, answer: Answer) {
        if let Some(whom) = self.0.take() {
            whom.hears(answer);
        }
    }
}

impl Drop for To {
    fn drop(&mut self) {
        if let Some(whom) = self.0.take() {
            whom.hears(Answer::Outcome(Outcome::Refused(Refusal::Stopped)));
        }
    }
}

impl Whom {
    fn hears(self, answer: Answer) {
        match self {
            Self::Caller(caller) => caller.sink.complete(caller.token, outcome_of(answer)),
            Self::View(then) => then(match answer {
                Answer::View(view) => Ok(*view),
                other => Err(refusal_of(other)),
            }),
            Self::WhatIf(then) => then(match answer {
                Answer::WhatIf(outlook) => Ok(outlook),
                other => Err(refusal_of(other)),
            }),
            Self::SnapshotPart(then) => then(match answer {
                Answer::SnapshotPart(part) => Ok(part),
                other => Err(refusal_of(other)),
            }),
        }
    }
}

fn outcome_of(answer: Answer) -> Outcome {
    match answer {
        Answer::Outcome(outcome) => outcome,
        Answer::Unclear(why) => Outcome::unknown(why),
        Answer::View(_) | Answer::WhatIf(_) | Answer::SnapshotPart(_) => {
            Outcome::unknown("the member answered another question")
        }
    }
}

/// Why there is no answer to a question that changes nothing.
fn refusal_of(answer: Answer) -> Refusal {
    match answer {
        Answer::Outcome(Outcome::Refused(refusal)) => refusal,
        Answer::Outcome(Outcome::Unknown { why, .. }) | Answer::Unclear(why) => Refusal::Unreachable(why),
        _ => Refusal::Unreachable("the member answered another question".to_owned()),
    }
}
