//! Where calls of clients and operators are taken to the node, and its answers waited for.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use graft_services::api::{Api, Caller, Sink, Then};
use graft_services::error::{Outcome, Refusal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Status};

use super::deadline::Deadline;
use super::failure::Failure;
use super::leading::Leading;
use super::owing::Owed;
use super::tasks::Tasks;

/// What every call needs.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) api: Arc<dyn Api>,
    pub(super) leading: Leading,
    pub(super) tasks: Tasks,
    /// Bytes of the largest reply that a stream of calls carries.
    pub(super) answer_bytes_max: usize,
    /// The transport is to end in good order.
    pub(super) stop: CancellationToken,
}

/// The node keeps its deadlines. If it does not, the caller is told after so much more.
const GRACE: Duration = Duration::from_secs(1);
/// How long a client may take to hear why a stream ends.
pub(super) const LAST_WORD_TIMEOUT: Duration = Duration::from_millis(250);

/// Takes the answer to one call.
struct Once {
    answer: Mutex<Option<oneshot::Sender<Outcome>>>,
    owed: Arc<Owed>,
    is_harmless: bool,
}

impl Sink for Once {
    fn complete(&self, _token: u64, outcome: Outcome) {
        // Nothing panics while it holds the lock.
        if let Some(answer) = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = answer.send(self.owed.owe(outcome, self.is_harmless).0);
        }
    }
}

impl Desk {
    /// Asks for something that may change the cluster, and waits for what comes of it, as long as its caller does.
    pub(super) async fn ask(&self, extensions: &Extensions, ask: impl FnOnce(&dyn Api, Caller, Duration)) -> Outcome {
        let answered = self.wait(extensions, false, ask).await;
        answered.unwrap_or_else(|| Outcome::unknown("this member did not say in time what came of the call"))
    }

    /// Asks for something that changes nothing.
    pub(super) async fn ask_harmless(
        &self,
        extensions: &Extensions,
        ask: impl FnOnce(&dyn Api, Caller, Duration),
    ) -> Outcome {
        self.wait(extensions, true, ask).await.unwrap_or(Outcome::Refused(Refusal::Timeout))
    }

    async fn wait(
        &self,
        extensions: &Extensions,
        is_harmless: bool,
        ask: impl FnOnce(&dyn Api, Caller, Duration),
    ) -> Option<Outcome> {
        let patience = Deadline::left(extensions);
        let (sink, answer) = oneshot::channel();
        let sink = Once { answer: Mutex::new(Some(sink)), owed: Owed::of(extensions), is_harmless };
        ask(&*self.api, Caller { sink: Arc::new(sink), token: 0 }, patience);
        let outcome = timeout(patience + GRACE, answer).await.ok()?.ok()?;
        self.leading.note(&outcome);
        Some(outcome)
    }

    /// Asks for something that the node tells of itself.
    pub(super) async fn learn<T: Send + 'static>(
        &self,
        patience: Duration,
        ask: impl FnOnce(&dyn Api, Then<T>),
    ) -> Result<T, Status> {
        let told = learn(&*self.api, patience + GRACE, ask).await;
        told.map_err(|refusal| self.refuse(refusal))
    }

    /// The status that tells a client why there is no answer.
    pub(super) fn fail(&self, failure: &Failure) -> Status {
        failure.to_status(self.leading.elsewhere().as_ref())
    }

    pub(super) fn refuse(&self, refusal: Refusal) -> Status {
        self.fail(&Failure::Refused(refusal))
    }
}

/// What a node tells of itself.
pub(super) async fn learn<T: Send + 'static>(
    api: &dyn Api,
    patience: Duration,
    ask: impl FnOnce(&dyn Api, Then<T>),
) -> Result<T, Refusal> {
    let (then, told) = oneshot::channel();
    ask(
        api,
        Box::new(move |result| {
            let _ = then.send(result);
        }),
    );
    match timeout(patience, told).await {
        Ok(Ok(result)) => result,
        // Who drops the question is not there any more.
        Ok(Err(_)) => Err(Refusal::Stopped),
        Err(_) => Err(Refusal::Timeout),
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("leading", &self.leading).finish_non_exhaustive()
    }
}
