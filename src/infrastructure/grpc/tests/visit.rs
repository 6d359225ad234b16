//! A client that is no member: one connection, and every public service on it.

use std::future::Future;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::http::Uri;
use tonic::{Response, Status};
use tonic_health::pb::health_client::HealthClient;

use super::super::PeerConfig;
use super::super::address;
use super::super::failure::Told;
use super::super::http2::{self, Http2};
use super::super::tasks::Tasks;
use super::super::wire;
use super::super::wire::admin_client::AdminClient;
use super::super::wire::client_client::ClientClient;
use super::DEADLINE;

/// Dropped, its connection closes.
pub(super) struct Visit {
    pub(super) client: ClientClient<Http2>,
    pub(super) admin: AdminClient<Http2>,
    pub(super) health: HealthClient<Http2>,
    pub(super) http2: Http2,
    _ended_with_this: tokio_util::sync::DropGuard,
}

impl Visit {
    pub(super) async fn to(address: SocketAddr) -> Self {
        Self::with(address, &PeerConfig::default()).await
    }

    pub(super) async fn with(to: SocketAddr, config: &PeerConfig) -> Self {
        let (tasks, guard) = Tasks::new(tokio::runtime::Handle::current()).subgroup();
        let stream = address::ready(TcpStream::connect(to).await.expect("a connection")).expect("a socket");
        let http2 = http2::http2(stream, config, &tasks).await.expect("HTTP/2");
        let origin = || Uri::from_static("http://graft.invalid");
        Self {
            client: ClientClient::with_origin(http2.clone(), origin()),
            admin: AdminClient::with_origin(http2.clone(), origin()),
            health: HealthClient::with_origin(http2.clone(), origin()),
            http2,
            _ended_with_this: guard,
        }
    }

    pub(super) async fn execute(&mut self, command: &str) -> Result<wire::ExecuteResponse, Status> {
        soon(self.client.execute(execute(command))).await
    }
}

pub(super) fn execute(command: &str) -> wire::ExecuteRequest {
    wire::ExecuteRequest { command: command.as_bytes().to_vec().into(), slot: None }
}

/// What is answered, which it must be in time.
pub(super) async fn soon<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    timeout(DEADLINE, answer).await.expect("an answer in time").map(Response::into_inner)
}

/// What a member says in a status.
#[track_caller]
pub(super) fn told(status: &Status) -> Told {
    Told::from_status(status).unwrap_or_else(|| panic!("not an error of Graft's: {status:?}"))
}
