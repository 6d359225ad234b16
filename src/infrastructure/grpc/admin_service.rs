//! The service `graft.v1.Admin`: what operators ask of a member and of its cluster.

use std::sync::Arc;
use std::time::Duration;

use graft_domain::{EntryId, Incarnation};
use graft_services::api::{Api, Happening, SnapshotPart, View};
use graft_services::change::{Ask, Change};
use graft_services::error::Refusal;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status};

use super::convert::BadFrame;
use super::convert_answer::{self, Answered};
use super::convert_status::{self, optional_id, text};
use super::deadline::{Deadline, TIMEOUT_MAX};
use super::desk::Desk;
use super::feeding::{Form, feed};
use super::owing::Owed;
use super::wire::admin_server::Admin;
use super::{convert_ask, convert_events, wire};

#[derive(Debug)]
pub(super) struct AdminService {
    desk: Desk,
}

/// How long a member may take to end if it is not said.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

impl AdminService {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk }
    }

    async fn view(&self, extensions: &Extensions) -> Result<View, Status> {
        self.desk.learn(Deadline::left(extensions), |api, then| api.view(then)).await
    }

    async fn ask(&self, ask: Ask, extensions: &Extensions) -> Result<u64, Status> {
        let outcome = self.desk.ask(extensions, |api, caller, timeout| api.ask(ask, caller, timeout)).await;
        self.answered(convert_answer::index(outcome))
    }

    fn answered<T>(&self, answered: Answered<T>) -> Result<T, Status> {
        answered.map_err(|failure| self.desk.fail(&failure))
    }

    fn understood<T>(&self, decoded: Result<T, BadFrame>) -> Result<T, Status> {
        decoded.map_err(|bad| self.desk.refuse(Refusal::Invalid(bad.to_string())))
    }

    /// A newcomer alone says which life of its data directory it is.
    fn of_an_operator(&self, change: &Change) -> Result<(), Status> {
        match change {
            Change::Add { incarnation, .. } if *incarnation != Incarnation::UNKNOWN => {
                let why = "add.incarnation is what a joining node says of itself; leave it out";
                Err(self.desk.refuse(Refusal::Invalid(why.to_owned())))
            }
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    type EventsStream = ReceiverStream<Result<wire::EventsResponse, Status>>;

    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<wire::StatusResponse>, Status> {
        let view = self.view(request.extensions()).await?;
        Ok(Response::new(convert_status::encode(view)))
    }

    async fn members(&self, request: Request<wire::MembersRequest>) -> Result<Response<wire::MembersResponse>, Status> {
        let status = self.view(request.extensions()).await?.status;
        Ok(Response::new(wire::MembersResponse {
            leader: status.leader.map(text).unwrap_or_default(),
            membership_index: status.membership_index.0,
            members: convert_status::encode_members(status.members),
        }))
    }

    async fn change_membership(
        &self,
        request: Request<wire::Change>,
    ) -> Result<Response<wire::ChangeMembershipResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let (change, guard) = self.understood(convert_ask::decode_change(request))?;
        self.of_an_operator(&change)?;
        let index = self.ask(Ask::Change { change, guard }, &extensions).await?;
        Ok(Response::new(wire::ChangeMembershipResponse { index }))
    }

    async fn what_if(&self, request: Request<wire::Change>) -> Result<Response<wire::WhatIfResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let (change, _) = self.understood(convert_ask::decode_change(request))?;
        self.of_an_operator(&change)?;
        let outlook = self.desk.learn(Deadline::left(&extensions), |api, then| api.what_if(change, then)).await?;
        Ok(Response::new(convert_status::encode_what_if(outlook)))
    }

    async fn transfer_leadership(
        &self,
        request: Request<wire::TransferLeadershipRequest>,
    ) -> Result<Response<wire::TransferLeadershipResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let to = self.understood(optional_id(&request.to))?;
        let index = self.ask(Ask::Transfer { to }, &extensions).await?;
        Ok(Response::new(wire::TransferLeadershipResponse { index }))
    }

    async fn snapshot(
        &self,
        request: Request<wire::SnapshotRequest>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        let current = request.get_ref().current;
        let snapshot = |api: &dyn Api, caller, timeout| api.snapshot(current, caller, timeout);
        let outcome = self.desk.ask(request.extensions(), snapshot).await;
        let index = self.answered(convert_answer::index(outcome))?;
        Ok(Response::new(wire::SnapshotResponse { index }))
    }

    async fn read_snapshot(
        &self,
        request: Request<wire::ReadSnapshotRequest>,
    ) -> Result<Response<wire::ReadSnapshotResponse>, Status> {
        let (_, extensions, wire::ReadSnapshotRequest { last_term, last_index, offset }) = request.into_parts();
        let owed = Owed::of(&extensions);
        if owed.is_full() {
            return Err(self.desk.refuse(Refusal::Busy("this client takes its answers too slowly".to_owned())));
        }
        let from = (last_index > 0).then(|| (EntryId::new(last_term, last_index), offset));
        // It is read from the disk, and tasks must not wait for that.
        let api = Arc::clone(&self.desk.api);
        let read = move |then| drop(spawn_blocking(move || api.read_snapshot(from, then)));
        let part = self.desk.learn(Deadline::left(&extensions), |_, then| read(then)).await?;
        let SnapshotPart { last: EntryId { term, index }, total: length, offset, data } = part;
        let answer = wire::ReadSnapshotResponse { last_term: term.0, last_index: index.0, length, offset, data };
        owed.send(0, &answer);
        Ok(Response::new(answer))
    }

    async fn verify(&self, request: Request<wire::VerifyRequest>) -> Result<Response<wire::VerifyResponse>, Status> {
        let verify = |api: &dyn Api, caller, timeout| api.verify(caller, timeout);
        let outcome = self.desk.ask_harmless(request.extensions(), verify).await;
        self.answered(convert_answer::compared(outcome)).map(Response::new)
    }

    async fn events(&self, request: Request<wire::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let since = request.get_ref().since;
        Ok(Response::new(feed(&self.desk, Owed::of(request.extensions()), HAPPENINGS, |wake| {
            self.desk.api.events(since, wake)
        })))
    }

    async fn shutdown(
        &self,
        request: Request<wire::ShutdownRequest>,
    ) -> Result<Response<wire::ShutdownResponse>, Status> {
        let timeout = request.get_ref().timeout.map_or(SHUTDOWN_TIMEOUT, Duration::from_nanos);
        self.desk.api.shutdown(timeout.min(TIMEOUT_MAX));
        Ok(Response::new(wire::ShutdownResponse {}))
    }
}

/// What an event takes, about: its texts are few and short.
const HAPPENING_BYTES: usize = 1 << 10;

const HAPPENINGS: Form<Happening, wire::EventsResponse> = Form {
    bytes: |_| HAPPENING_BYTES,
    message: |all| wire::EventsResponse { events: all.into_iter().map(convert_events::encode).collect() },
};
