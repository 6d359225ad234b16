//! What is served on the port: which service a path belongs to, and what every call of a client passes through.

use std::sync::Arc;
use std::time::Duration;

use graft_services::error::Refusal;
use graft_services::identity::{Identity, Role};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;
use tracing::warn;

use super::admin_service::AdminService;
use super::admission::Full;
use super::allowance::{Allowance, Counted};
use super::bodies::{Answering, Metered};
use super::client_service::ClientService;
use super::complaints::{Complaints, Refused};
use super::config::PeerConfig;
use super::deadline::Deadline;
use super::desk::Desk;
use super::failure::Failure;
use super::handshake::View;
use super::health_service::HealthService;
use super::leading::Leading;
use super::plain::plain;
use super::reflection;
use super::security::{doing, needed};
use super::server::Connection;
use super::service::Service;
use super::transport::Shared;
use super::wire::admin_server::AdminServer;
use super::wire::client_server::ClientServer;
use super::wire::peer_server::PeerServer;

/// Bytes of a single request of a member.
const REQUEST_BYTES_MAX: usize = 4 << 10;
const PEER_PREFIX: &str = "/graft.v1.Peer/";
const LINK_PATH: &str = "/graft.v1.Peer/Link";
/// Those who call these are let in even if clients leave no room: to see what is wrong, and to set it right.
const OPERATORS_PREFIXES: [&str; 2] = ["/graft.v1.Admin/", "/grpc.health.v1.Health/"];
/// Bytes of a path that are logged and said.
const PATH_BYTES_MAX: usize = 256;
/// A request that is not here so long after its deadline does not come any more.
const REQUEST_GRACE: Duration = Duration::from_secs(5);

/// Every service that the port serves.
///
/// Messages of a link may be large, and are not read before it is known who sends them. Of a member's single request all is
/// read first, so that a stranger's must be small. Requests of clients are metered as they come in.
#[derive(Clone, Debug)]
pub(super) struct Served {
    links: Routes,
    requests: Routes,
    clients: Routes,
    config: Arc<PeerConfig>,
    /// Who was removed.
    view: watch::Receiver<View>,
    complaints: Arc<Complaints>,
}

impl Served {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let service = Arc::new(Service::new(Arc::clone(shared)));
        let routes = |bytes_max| {
            let peer = PeerServer::from_arc(Arc::clone(&service)).max_decoding_message_size(bytes_max);
            Routes::new(peer).prepare()
        };
        let config = &shared.config;
        Self {
            links: routes(config.message_bytes_max),
            requests: routes(REQUEST_BYTES_MAX),
            clients: clients(shared).prepare(),
            config: Arc::new(config.clone()),
            view: shared.view.subscribe(),
            complaints: Arc::clone(&shared.complaints),
        }
    }

    /// Answers a request that came on `connection`.
    pub(super) async fn call(self, connection: Connection, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if !path.starts_with(PEER_PREFIX) {
            if let Err(why) = self.authorise(connection.identity.as_ref(), path) {
                connection.place.speak();
                self.complaints.refuse(
                    Refused::Call,
                    || warn!(remote = %connection.remote, path = shown(path), "call refused: {why}"),
                );
                return deny(why);
            }
            if let Some(identity) = &connection.identity {
                request.extensions_mut().insert(identity.clone());
            }
            return self.client_call(&connection, request).await;
        }
        connection.place.speak();
        if let Some(identity) = &connection.identity
            && identity.member().is_none()
        {
            let why = format!("{identity} is a client, and this is for members only");
            self.complaints.refuse(
                Refused::PeerCall,
                || warn!(remote = %connection.remote, path = shown(path), "call refused: {why}"),
            );
            return deny(why);
        }
        let mut routes = if path == LINK_PATH { self.links } else { self.requests };
        request.extensions_mut().insert(connection);
        answered(routes.call(request.map(Body::new)).await)
    }

    /// Whether who is there may make this call.
    fn authorise(&self, identity: Option<&Identity>, path: &str) -> Result<(), String> {
        let Some(identity) = identity else { return Ok(()) };
        if let Some(id) = identity.member() {
            let view = self.view.borrow();
            if view.removed.contains(&id) {
                return Err(format!(
                    "{identity} was removed from the cluster: its certificate is worth nothing any more"
                ));
            }
            if id != view.me.id && !view.peers.get(&id).is_some_and(|peer| peer.member) {
                return Err(format!(
                    "{identity} is no member of this cluster, as far as this member knows: use the certificate of a client, \
                     or that of a member"
                ));
            }
        }
        let needed = needed(path);
        if identity.role() < needed {
            let doing = doing(path).map_or_else(|| format!("call {}", shown(path)), str::to_owned);
            return Err(identity.may_not(&doing, needed));
        }
        Ok(())
    }

    async fn client_call(self, connection: &Connection, mut request: Request<Incoming>) -> Response<Body> {
        let Connection { place, account, coming, identity, .. } = connection;
        let path = request.uri().path().to_owned();
        let operates = OPERATORS_PREFIXES.iter().any(|prefix| path.starts_with(prefix));
        // Where nobody proves who he is, what is called has to do.
        let is_operator = operates && identity.as_ref().is_none_or(|identity| identity.role() == Role::Operator);
        let call = match place.begin_call(is_operator) {
            Ok(call) => call,
            Err(full) => {
                place.speak();
                self.complaints.count(Refused::Crowded);
                return refuse(too_many(full, identity.as_ref()));
            }
        };
        if !operates && let Err(refusal) = account.check() {
            return refuse(refusal);
        }
        let owed = account.owed();
        request.extensions_mut().insert(Arc::clone(&owed));
        let deadline = match Deadline::of(request.headers(), Instant::now()) {
            Ok(deadline) => deadline,
            Err(refusal) => return refuse(refusal),
        };
        request.extensions_mut().insert(deadline);
        let Self { mut clients, config, .. } = self;
        let Allowance { bytes_max, counted } = Allowance::of(&path, &config);
        let share = match counted {
            Counted::Not => None,
            Counted::WithClients => Some(&coming.clients),
            Counted::WithOperators => Some(&coming.operators),
        };
        let metered = request.map(|body| Body::new(Metered::new(body, share, bytes_max)));
        // All but the reading of the request keeps its deadline by itself.
        let response = match timeout_at(deadline.at() + REQUEST_GRACE, clients.call(metered)).await {
            Ok(response) => answered(response),
            Err(_) => refuse(Refusal::Timeout),
        };
        with_words(response, &path).map(|body| Body::new(Answering::new(body, call, owed)))
    }
}

/// The services for those who are no members.
fn clients(shared: &Arc<Shared>) -> Routes {
    let health = HealthServer::new(HealthService::new(shared));
    let routes = reflection::add_to(Routes::new(health));
    let Some(api) = &shared.api else { return routes };
    let desk = Desk {
        api: Arc::clone(api),
        leading: Leading::follow(api, &shared.tasks, &shared.stop),
        tasks: shared.tasks.clone(),
        answer_bytes_max: shared.config.answer_bytes_max(),
        stop: shared.stop.clone(),
    };
    // Requests are metered before they come here, in words that say more.
    let bytes_max = shared.config.request_bytes_max.max(shared.config.message_bytes_max);
    let client = ClientServer::new(ClientService::new(desk.clone())).max_decoding_message_size(bytes_max);
    let admin = AdminServer::new(AdminService::new(desk)).max_decoding_message_size(bytes_max);
    routes.add_service(client).add_service(admin)
}

fn answered(response: Result<Response<Body>, std::convert::Infallible>) -> Response<Body> {
    match response {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn deny(why: String) -> Response<Body> {
    refuse(Refusal::Denied(why))
}

fn refuse(refusal: Refusal) -> Response<Body> {
    Failure::Refused(refusal).to_status(None).into_http()
}

fn too_many(full: Full, identity: Option<&Identity>) -> Refusal {
    let max = full.max;
    if full.is_share
        && let Some(identity) = identity
    {
        return Refusal::Busy(format!(
            "{identity} has {max} connections to this member, and calls open on all of them: one certificate may have half \
             of `clients_max`. Close clients, give others certificates of their own, use another member, or raise \
             `clients_max`"
        ));
    }
    Refusal::Busy(format!(
        "{max} clients are connected to this member, and all have calls open, which is as many as it may have. Close \
         clients, use another member, or raise `clients_max`"
    ))
}

/// A path as it may be logged.
fn shown(path: &str) -> String {
    plain(path, PATH_BYTES_MAX)
}

/// A method that is not known is answered without a word by those who route calls.
fn with_words(mut response: Response<Body>, path: &str) -> Response<Body> {
    let unknown = HeaderValue::from(Code::Unimplemented as i32);
    let headers = response.headers_mut();
    if headers.get(Status::GRPC_STATUS) == Some(&unknown) && !headers.contains_key(Status::GRPC_MESSAGE) {
        let path = shown(path);
        let why = format!("this member has no method {path}: is the client of a newer version than the member?");
        return Status::unimplemented(why).into_http();
    }
    response
}
