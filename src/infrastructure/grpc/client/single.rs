//! Calls of `Admin`, one by one, each on a stream of its own.

use std::time::Duration;

use graft_domain::{EntryId, Index};
use graft_services::api::SnapshotPart;
use graft_services::change::Ask;
use graft_services::client::{Answer, Demand};
use graft_services::error::Outcome;
use tonic::{Request, Status};

use super::super::convert::BadFrame;
use super::super::convert_answer::{decode_compared, decode_index};
use super::super::{convert_ask, convert_status, wire};
use super::connection::{Channel, answer_of};

/// How long to wait for the word of a member beyond the time that it was given.
const GRACE: Duration = Duration::from_millis(100);

/// Makes the call, and answers what came of it. `shutdown` is how long an end may take.
pub(super) async fn make(channel: Channel, demand: Demand, timeout: Duration) -> Answer {
    let call = call(&channel, demand, timeout);
    match tokio::time::timeout(timeout + GRACE, call).await {
        Ok(Ok(Ok(answer))) => answer,
        Ok(Ok(Err(bad))) => Answer::Unclear(format!("the answer makes no sense: {bad}")),
        Ok(Err(status)) => answer_of(&status),
        Err(_) => Answer::Unclear("no answer in time".to_owned()),
    }
}

fn with<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    // As many digits as the header has room for.
    request.set_timeout(timeout.min(Duration::from_hours(24)));
    request
}

async fn call(channel: &Channel, demand: Demand, timeout: Duration) -> Result<Result<Answer, BadFrame>, Status> {
    let Some(mut admin) = channel.admin() else {
        return Err(Status::unavailable("the connection is not made yet"));
    };
    let done = |index: u64| Ok(Answer::Outcome(decode_index(index)));
    Ok(match demand {
        Demand::View => {
            let said = admin.status(with(wire::StatusRequest {}, timeout)).await?.into_inner();
            convert_status::decode(said).map(|view| Answer::View(Box::new(view)))
        }
        Demand::WhatIf(change) => {
            let said = admin.what_if(with(convert_ask::encode_change(change, None), timeout)).await?.into_inner();
            convert_status::decode_what_if(said).map(Answer::WhatIf)
        }
        Demand::Ask(Ask::Change { change, guard }) => {
            let change = convert_ask::encode_change(change, guard);
            done(admin.change_membership(with(change, timeout)).await?.into_inner().index)
        }
        Demand::Ask(Ask::Transfer { to }) => {
            let to = to.map(|to| to.as_str().to_owned()).unwrap_or_default();
            let request = wire::TransferLeadershipRequest { to };
            done(admin.transfer_leadership(with(request, timeout)).await?.into_inner().index)
        }
        Demand::Snapshot { current } => {
            done(admin.snapshot(with(wire::SnapshotRequest { current }, timeout)).await?.into_inner().index)
        }
        Demand::SnapshotPart(from) => {
            let (last, offset) = from.unwrap_or_default();
            let (last_term, last_index) = (last.term.0, last.index.0);
            let request = wire::ReadSnapshotRequest { last_term, last_index, offset };
            let wire::ReadSnapshotResponse { last_term, last_index, length, offset, data } =
                admin.read_snapshot(with(request, timeout)).await?.into_inner();
            let last = EntryId::new(last_term, last_index);
            Ok(Answer::SnapshotPart(SnapshotPart { last, total: length, offset, data }))
        }
        Demand::Verify => {
            let said = admin.verify(with(wire::VerifyRequest {}, timeout)).await?.into_inner();
            decode_compared(said).map(Answer::Outcome)
        }
        Demand::Shutdown => {
            let request = wire::ShutdownRequest { timeout: Some(convert_status::nanos(timeout)) };
            admin.shutdown(with(request, timeout + GRACE)).await?;
            done(Index::ZERO.0)
        }
        Demand::Execute { .. } | Demand::Query { .. } | Demand::OpenSession { .. } => {
            Ok(Answer::Outcome(Outcome::unknown("it was said where only single calls are")))
        }
    })
}
