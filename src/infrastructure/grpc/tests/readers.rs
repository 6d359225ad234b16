use std::net::SocketAddr;

use graft_services::identity::Distrust;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::security::{Guard, Secured, Securing};
use super::super::tests::{DEADLINE, runtime};
use super::*;

/// Believes whoever says `y`, and nobody who says anything else.
struct Asking;

impl Guard for Asking {
    fn accept(&self, mut stream: TcpStream) -> Securing<'_> {
        Box::pin(async {
            let said = stream.read_u8().await.map_err(|error| Distrust(error.to_string()))?;
            if said != b'y' {
                return Err(Distrust("he said no".to_owned()));
            }
            let identity = Identity::parse("spiffe://bank/client/web?role=reader").expect("an identity");
            Ok(Secured { stream: Box::new(stream), identity })
        })
    }

    fn connect(&self, stream: TcpStream) -> Securing<'_> {
        self.accept(stream)
    }
}

struct Port {
    readers: Arc<Readers>,
    listener: TcpListener,
    address: SocketAddr,
}

type Received = tokio::task::JoinHandle<Option<Reader>>;

impl Port {
    async fn open() -> Self {
        let readers = Arc::new(Readers::new(Security::new(Arc::new(Asking)), Arc::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { readers, listener, address }
    }

    async fn come(&self) -> (TcpStream, Received) {
        let (stream, accepted) = tokio::join!(TcpStream::connect(self.address), self.listener.accept());
        let (accepted, remote) = accepted.unwrap();
        let (readers, arrival) = (Arc::clone(&self.readers), self.readers.enter(remote));
        (stream.unwrap(), tokio::spawn(async move { readers.receive(accepted, arrival).await }))
    }

    async fn come_and_say(&self, word: u8) -> (TcpStream, Option<Reader>) {
        let (mut stream, received) = self.come().await;
        stream.write_u8(word).await.unwrap();
        (stream, received.await.unwrap())
    }

    fn counted(&self, what: &str) -> u64 {
        self.readers.complaints.counts().into_iter().find(|(word, _)| *word == what).map_or(0, |(_, count)| count)
    }
}

fn within(story: impl Future<Output = ()>) {
    runtime().block_on(async { tokio::time::timeout(DEADLINE, story).await.expect("in time") });
}

#[test]
fn strangers_who_are_silent_keep_nobody_out() {
    within(async {
        let port = Port::open().await;
        let mut strangers = Vec::new();
        for _ in 0..NEWCOMERS_MAX * 2 {
            strangers.push(port.come().await);
            let (_stream, reader) = port.come_and_say(b'y').await;
            assert!(reader.expect("he has proved who he is").desk.ask().is_some());
        }
        // All come from one machine, which has half of the places; one of these was the last reader's.
        let gone = strangers.len() - (NEWCOMERS_MAX / 2 - 1);
        for (_, received) in strangers.drain(..gone) {
            assert!(received.await.unwrap().is_none());
        }
        assert_eq!(port.counted("crowded"), gone as u64);
        assert!(strangers.iter().all(|(_, received)| !received.is_finished()));
    });
}

#[test]
fn who_is_refused_is_counted() {
    within(async {
        let port = Port::open().await;
        for _ in 0..50 {
            assert!(port.come_and_say(b'n').await.1.is_none());
        }
        assert_eq!((port.counted("connection"), port.counted("crowded")), (50, 0));
    });
}

#[test]
fn no_more_are_answered_than_there_are_places_and_one_certificate_has_half() {
    within(async {
        let port = Port::open().await;
        let mut answered = Vec::new();
        for _ in 0..READERS_MAX / 2 {
            let (stream, reader) = port.come_and_say(b'y').await;
            let reader = reader.expect("a reader");
            answered.push((reader.desk.ask().expect("a place"), reader, stream));
        }
        let (_stream, late) = port.come_and_say(b'y').await;
        let late = late.expect("a reader");
        assert!(late.desk.ask().is_none());
        answered.clear();
        assert!(late.desk.ask().is_some());
    });
}
