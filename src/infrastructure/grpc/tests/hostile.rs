//! Whatever reaches the port: nothing panics, nothing stays for ever, and peers still get through.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use tonic::client::Grpc;
use tonic::codegen::http;
use tonic_prost::ProstCodec;

use super::super::tasks::Tasks;
use super::super::{handshake, http2, wire};
use super::raw::{Call, refusal};
use super::{DEADLINE, Node, PeerConfig, RefusedCode, append, command, hello, id, raw, runtime};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Reads until the other side closes, however it does.
fn wait_closed(stream: &mut TcpStream, what: &str) {
    match std::io::copy(stream, &mut std::io::sink()) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{what}: not closed: {error}"),
    }
}

/// Bytes that look like luck and are the same every time.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

fn still_works(runtime: &tokio::runtime::Runtime, node: &Node) {
    runtime.block_on(Call::accepted(node.address(), &raw::hello("n9", "n1")));
}

#[test]
fn garbage_and_other_protocols_are_hung_up_on() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let mut said = vec![
        b"GET / HTTP/1.1\r\nHost: n1\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"SSH-2.0-OpenSSH_9.7\r\n\r\n\r\n\r\n\r\n".to_vec(),
        vec![0; 4096],
    ];
    said.extend((0..20).map(|seed| noise(seed, 2048)));
    said.extend((20..40).map(|seed| [PREFACE, &noise(seed, 2048)].concat()));
    for (at, bytes) in said.iter().enumerate() {
        let mut stream = connect(n1.address());
        // The other side may hang up in the middle of it.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        wait_closed(&mut stream, &format!("{at}"));
    }
    still_works(&runtime, &n1);
}

#[test]
fn who_says_nothing_is_hung_up_on_in_time() {
    let runtime = runtime();
    let config = PeerConfig { handshake_timeout: Duration::from_millis(50), ..PeerConfig::default() };
    let n1 = Node::with(&runtime, "127.0.0.1:0", hello("n1"), config);
    let empty_settings = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let whole = [PREFACE, empty_settings].concat();
    for said in [&b""[..], &PREFACE[..10], PREFACE, &whole] {
        let mut stream = connect(n1.address());
        stream.write_all(said).unwrap();
        wait_closed(&mut stream, &format!("{said:?}"));
    }
    still_works(&runtime, &n1);
}

#[test]
fn a_call_that_was_made_in_time_may_be_silent() {
    let runtime = runtime();
    let config = PeerConfig { handshake_timeout: Duration::from_millis(50), ..PeerConfig::default() };
    let n1 = Node::with(&runtime, "127.0.0.1:0", hello("n1"), config);
    runtime.block_on(async {
        let mut call = Call::accepted(n1.address(), &raw::hello("n2", "n1")).await;
        let silence = tokio::time::timeout(Duration::from_millis(200), call.answers.message()).await;
        assert!(silence.is_err(), "the link ended: {silence:?}");
    });
}

#[test]
fn a_message_over_the_limit_ends_its_link_only() {
    let runtime = runtime();
    let config = PeerConfig { message_bytes_max: 64 << 10, ..PeerConfig::default() };
    let n1 = Node::with(&runtime, "127.0.0.1:0", hello("n1"), config);
    let said = runtime.block_on(async {
        let mut call = Call::accepted(n1.address(), &raw::hello("n2", "n1")).await;
        let bulk = append(id("n2"), id("n1"), vec![command(42, vec![0; 1 << 20])]);
        call.send(vec![super::super::convert::encode(bulk)]).await;
        refusal(&call.end().await)
    });
    assert_eq!(said.code, RefusedCode::Malformed);
    assert!(said.why.contains("limit"), "{}", said.why);
    assert_eq!(n1.wait_refused(), (Some(id("n2")), said.code, said.why));
    still_works(&runtime, &n1);
}

#[test]
fn messages_of_garbage_end_their_link_only() {
    let runtime = runtime();
    let n1 = Node::start(&runtime, "n1");
    let link = |bytes: Vec<u8>| async {
        let stream = tokio::net::TcpStream::connect(n1.address()).await.unwrap();
        let (tasks, _guard) = Tasks::new(tokio::runtime::Handle::current()).subgroup();
        // Bytes as a message are the first field, which is where frames are.
        let codec = ProstCodec::<Bytes, wire::Hello>::default();
        let client = http2::http2(stream, &PeerConfig::default(), &tasks).await.unwrap();
        let mut client = Grpc::with_origin(client, http::Uri::from_static("http://graft.invalid"));
        client.ready().await.unwrap();
        let mut request = tonic::Request::new(tokio_stream::once(Bytes::from(bytes)));
        handshake::into_metadata(&raw::hello("n2", "n1"), request.metadata_mut());
        let path = http::uri::PathAndQuery::from_static("/graft.v1.Peer/Link");
        let mut answers = client.streaming(request, path, codec).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some());
        tokio::time::timeout(DEADLINE, answers.message()).await.expect("an end in time")
    };
    let mut refused = 0;
    for seed in 0..50 {
        let count = usize::try_from(seed).unwrap() * 7;
        // What happens to be a message is delivered; what is not ends the link with a refusal.
        if let Err(status) = runtime.block_on(link(noise(seed, count))) {
            assert_eq!(refusal(&status).code, RefusedCode::Malformed);
            refused += 1;
        }
    }
    assert!(refused > 40, "{refused}");
    still_works(&runtime, &n1);
}
