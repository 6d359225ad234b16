//! What a connection gets, by who has proved to be there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use graft_services::error::Refusal;
use graft_services::identity::Identity;

use super::super::failure::Failure;
use super::super::security::{Guard, Secured, Securing, Security};
use super::super::wire;
use super::toy::Toy;
use super::visit::{Visit, execute, soon, told};
use super::{DEADLINE, Node, PeerConfig, runtime};

/// Takes whoever comes for this one.
struct Believing(&'static str);

impl Believing {
    fn believe(&self, stream: tokio::net::TcpStream) -> Securing<'_> {
        let identity = Identity::parse(self.0).expect("an identity");
        Box::pin(async { Ok(Secured { stream: Box::new(stream), identity }) })
    }
}

impl Guard for Believing {
    fn accept(&self, stream: tokio::net::TcpStream) -> Securing<'_> {
        self.believe(stream)
    }

    fn connect(&self, stream: tokio::net::TcpStream) -> Securing<'_> {
        self.believe(stream)
    }
}

fn config(uri: &'static str) -> PeerConfig {
    PeerConfig { security: Security::new(Arc::new(Believing(uri))), ..PeerConfig::default() }
}

/// The windows of a call and of the connection, as HTTP/2 begins with them.
fn windows(address: SocketAddr) -> (u32, u32) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").unwrap();
    let (mut of_stream, mut of_connection) = (None, None);
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        match head[3] {
            4 if length > 0 => {
                let setting = body.chunks(6).find(|setting| setting[..2] == [0, 4]).expect("a window");
                of_stream = Some(number(&setting[2..]));
            }
            // What every connection has is not said.
            8 => of_connection = Some(65_535 + number(&body)),
            _ => {}
        }
        if let (Some(of_stream), Some(of_connection)) = (of_stream, of_connection) {
            return (of_stream, of_connection);
        }
    }
}

const CLIENT: &str = "spiffe://bank/client/web?role=writer";

#[test]
fn clients_that_are_known_have_small_ones() {
    let (runtime, toy) = (runtime(), Toy::new());
    let of = |config| windows(Node::open(&runtime, &toy, config).address());
    assert_eq!(of(config(CLIENT)), (1 << 20, 2 << 20));
    assert_eq!(of(config("spiffe://bank/node/n2")), (8 << 20, 16 << 20));
    assert_eq!(of(PeerConfig::default()), (8 << 20, 16 << 20), "it may be a member");
}

#[test]
fn the_largest_commands_go_through_small_ones() {
    let (runtime, toy) = (runtime(), Toy::new());
    let n1 = Node::open(&runtime, &toy, config(CLIENT));
    runtime.block_on(async {
        let visit = Visit::to(n1.address()).await;
        let largest = "x".repeat(8 << 20);
        let mut client = visit.client.clone().max_decoding_message_size(16 << 20);
        for _ in 0..4 {
            soon(client.execute(execute(&largest))).await.unwrap();
        }
    });
}

#[test]
fn what_is_kept_for_operators_is_for_their_certificates() {
    let (runtime, toy) = (runtime(), Toy::new());
    let status_beside_a_busy_one = |uri| {
        let n1 = Node::open(&runtime, &toy, PeerConfig { clients_max: 2, ..config(uri) });
        runtime.block_on(async {
            let mut busy = Visit::to(n1.address()).await;
            let _watched = soon(busy.client.watch(wire::WatchRequest::default())).await.unwrap();
            let mut second = Visit::to(n1.address()).await;
            soon(second.admin.status(wire::StatusRequest {})).await
        })
    };
    let refused = status_beside_a_busy_one("spiffe://bank/client/web?role=reader").unwrap_err();
    let Failure::Refused(Refusal::Busy(why)) = told(&refused).failure else { panic!("{refused:?}") };
    assert!(why.contains("one certificate") && why.contains("spiffe://bank/client/web"), "{why}");
    assert!(status_beside_a_busy_one("spiffe://bank/client/ops?role=operator").is_ok());
}
