//! What the tools of others ask: health, and the schema.

use tokio::time::timeout;
use tonic::Code;
use tonic::codegen::http::Uri;
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::{v1, v1alpha};

use super::super::Health;
use super::toy::Toy;
use super::visit::{Visit, soon};
use super::{DEADLINE, Node, PeerConfig, hello, runtime};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[test]
fn health_follows_the_node() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let set = |alive, ready, leads| n1.transport.set_health(Health { alive, ready, leads });
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        for (health, expected) in [
            ((false, false, false), [false, false, false]),
            ((true, false, false), [true, false, false]),
            ((true, true, false), [true, true, false]),
            ((true, true, true), [true, true, true]),
            ((false, true, true), [false, false, false]),
        ] {
            set(health.0, health.1, health.2);
            for (service, serves) in ["", "graft.ready", "graft.leader"].into_iter().zip(expected) {
                let said = soon(visit.health.check(of(service))).await.unwrap().status;
                assert_eq!(said, if serves { SERVING } else { NOT_SERVING }, "{service:?} with {health:?}");
            }
        }
        assert_eq!(soon(visit.health.check(of("graft.unready"))).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn health_is_watched_until_the_node_stops() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let (mut watched, mut unknown, _visit) = runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        let watched = soon(visit.health.watch(of("graft.ready"))).await.unwrap();
        (watched, soon(visit.health.watch(of("graft.unready"))).await.unwrap(), visit)
    });
    let next = |answers: &mut tonic::Streaming<tonic_health::pb::HealthCheckResponse>| {
        runtime.block_on(async { timeout(DEADLINE, answers.message()).await.expect("an answer in time") })
    };
    assert_eq!(next(&mut unknown).unwrap().unwrap().status, SERVICE_UNKNOWN);
    assert_eq!(next(&mut watched).unwrap().unwrap().status, NOT_SERVING);
    n1.transport.set_health(Health { alive: true, ready: false, leads: false });
    n1.transport.set_health(Health { alive: true, ready: true, leads: false });
    assert_eq!(next(&mut watched).unwrap().unwrap().status, SERVING, "what is no change of it is not told");
    n1.transport.shutdown(DEADLINE);
    assert_eq!(next(&mut watched).unwrap_err().code(), Code::Unavailable);
}

#[test]
fn both_versions_of_reflection_tell_the_schema() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, PeerConfig::default());
    runtime.block_on(async {
        let visit = Visit::to(n1.address()).await;
        let origin = || Uri::from_static("http://graft.invalid");
        let mut newer =
            v1::server_reflection_client::ServerReflectionClient::with_origin(visit.http2.clone(), origin());
        let ask = |request| v1::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let list = ask(v1::server_reflection_request::MessageRequest::ListServices(String::new()));
        let symbol =
            |name: &str| ask(v1::server_reflection_request::MessageRequest::FileContainingSymbol(name.to_owned()));
        let asked = [list, symbol("graft.v1.Admin"), symbol("google.rpc.ErrorInfo"), symbol("grpc.health.v1.Health")];
        let mut answers = soon(newer.server_reflection_info(tokio_stream::iter(asked))).await.unwrap();
        let mut said = Vec::new();
        while let Some(answer) = timeout(DEADLINE, answers.message()).await.expect("an answer in time").unwrap() {
            said.push(answer.message_response.expect("an answer"));
        }
        let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = &said[0] else {
            panic!("no list: {said:?}")
        };
        let names: Vec<_> = list.service.iter().map(|service| &*service.name).collect();
        assert!(names.contains(&"graft.v1.Client") && !names.contains(&"graft.v1.Peer"), "{names:?}");
        let is_file = |answer: &v1::server_reflection_response::MessageResponse| {
            matches!(answer, v1::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
        };
        assert!(said.len() == 4 && said[1..].iter().all(is_file), "{said:?}");
        let mut older =
            v1alpha::server_reflection_client::ServerReflectionClient::with_origin(visit.http2.clone(), origin());
        let list = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
        };
        let mut answers = soon(older.server_reflection_info(tokio_stream::once(list))).await.unwrap();
        assert!(timeout(DEADLINE, answers.message()).await.expect("an answer in time").unwrap().is_some());
    });
}

#[test]
fn a_node_that_serves_no_clients_still_tells_how_it_is() {
    let runtime = runtime();
    let n1 = Node::with(&runtime, "127.0.0.1:0", hello("n1"), PeerConfig::default());
    runtime.block_on(async {
        let mut visit = Visit::to(n1.address()).await;
        let refused = visit.execute("x").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains("/graft.v1.Client/Execute"), "{refused:?}");
        soon(visit.health.check(of(""))).await.unwrap();
    });
}
