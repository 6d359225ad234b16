//! The service `graft.v1.Client`: what programs ask of the replicated state.

use bytes::Bytes;
use graft_services::api::{Api, Call, News};
use graft_services::error::Refusal;
use graft_services::identity::Identity;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::convert_call::Asked;
use super::desk::Desk;
use super::feeding::{Form, feed};
use super::owing::Owed;
use super::wire::client_server::Client;
use super::{calls, convert_answer, convert_events, wire};

#[derive(Debug)]
pub(super) struct ClientService {
    desk: Desk,
}

impl ClientService {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk }
    }

    fn understood<T>(&self, decoded: Result<T, Refusal>) -> Result<T, Status> {
        decoded.map_err(|refusal| self.desk.refuse(refusal))
    }

    async fn call(&self, asked: Asked, extensions: &Extensions) -> graft_services::error::Outcome {
        let desk = &self.desk;
        match asked {
            Asked::Execute { body, slot } => {
                let execute = |api: &dyn Api, caller, timeout| api.execute(vec![Call { body, slot, caller }], timeout);
                desk.ask(extensions, execute).await
            }
            Asked::Query { body, read } => {
                let query = |api: &dyn Api, caller, timeout| api.query(vec![(body, caller)], read, timeout);
                desk.ask_harmless(extensions, query).await
            }
            Asked::OpenSession { ttl } => {
                desk.ask(extensions, |api, caller, timeout| api.open_session(ttl, caller, timeout)).await
            }
        }
    }
}

#[tonic::async_trait]
impl Client for ClientService {
    type CallsStream = ReceiverStream<Result<wire::AnswerBatch, Status>>;
    type WatchStream = ReceiverStream<Result<wire::WatchResponse, Status>>;

    async fn execute(&self, request: Request<wire::ExecuteRequest>) -> Result<Response<wire::ExecuteResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let outcome = self.call(self.understood(Asked::execute(request))?, &extensions).await;
        let leader = self.desk.leading.elsewhere();
        convert_answer::executed(outcome, leader.as_ref())
            .map(Response::new)
            .map_err(|failure| self.desk.fail(&failure))
    }

    async fn calls(&self, request: Request<Streaming<wire::CallBatch>>) -> Result<Response<Self::CallsStream>, Status> {
        let identity = request.extensions().get::<Identity>().cloned();
        let owed = Owed::of(request.extensions());
        Ok(Response::new(calls::begin(&self.desk, identity, owed, request.into_inner())))
    }

    async fn query(&self, request: Request<wire::QueryRequest>) -> Result<Response<wire::QueryResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let outcome = self.call(self.understood(Asked::query(request))?, &extensions).await;
        let leader = self.desk.leading.elsewhere();
        convert_answer::queried(outcome, leader.as_ref()).map(Response::new).map_err(|failure| self.desk.fail(&failure))
    }

    async fn open_session(
        &self,
        request: Request<wire::OpenSessionRequest>,
    ) -> Result<Response<wire::OpenSessionResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let outcome = self.call(Asked::open_session(request), &extensions).await;
        let leader = self.desk.leading.elsewhere();
        convert_answer::opened(outcome, leader.as_ref()).map(Response::new).map_err(|failure| self.desk.fail(&failure))
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (_, extensions, request) = request.into_parts();
        let watch = convert_events::decode_watch(request);
        let watch = watch.map_err(|bad| self.desk.refuse(Refusal::Invalid(bad.to_string())))?;
        Ok(Response::new(feed(&self.desk, Owed::of(&extensions), NEWS, |wake| self.desk.api.watch(watch, wake))))
    }
}

/// What one of the news takes beside topic and value, about.
const NEWS_OVERHEAD: usize = 40;

const NEWS: Form<News, wire::WatchResponse> = Form {
    bytes: |news| match news {
        News::Emitted(emitted) => NEWS_OVERHEAD + emitted.topic.len() + Bytes::len(&emitted.value),
        News::Behind { .. } | News::Upto(_) => NEWS_OVERHEAD,
    },
    message: |news| wire::WatchResponse { items: news.into_iter().map(convert_events::encode_news).collect() },
};
