//! Snapshots on their way from a leader to a follower.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graft_domain::{ClusterId, EntryId, Incarnation};
use graft_services::ports::SnapshotFiles;
use graft_services::snapshot_meta::SnapshotMeta;
use tokio::runtime::Runtime;
use tonic::Status;

use super::super::{Peer, PeerEvent, wire};
use super::files::{Files, body, file, meta};
use super::raw::Server;
use super::{LocalHello, Node, PeerConfig, RefusedCode, hello, id, raw, runtime};

const LAST: EntryId = EntryId::new(3, 900);

fn config() -> PeerConfig {
    PeerConfig { snapshot_part_bytes_max: 64 << 10, ..PeerConfig::default() }
}

fn node(runtime: &Runtime, name: &str, config: PeerConfig, files: &Arc<Files>) -> Node {
    let hello = LocalHello { cluster: ClusterId(7), ..hello(name) };
    let files: Arc<dyn SnapshotFiles> = Arc::clone(files) as _;
    Node::with_files(runtime, "127.0.0.1:0", hello, config, Some(files))
}

/// A leader `n1` that has a snapshot and a follower `n2` that has none, each known to the other.
fn pair(runtime: &Runtime, leader: PeerConfig, bytes: usize) -> (Node, Arc<Files>, Node, Arc<Files>) {
    let (has, wants) = (Files::with(LAST, &body(bytes)), Arc::new(Files::default()));
    let (n1, n2) = (node(runtime, "n1", leader, &has), node(runtime, "n2", config(), &wants));
    n1.dial("n2", &n2.address().to_string());
    n2.dial("n1", &n1.address().to_string());
    (n1, has, n2, wants)
}

/// A follower `n2` of a leader that sends what it is told to.
fn follower(runtime: &Runtime, config: PeerConfig) -> (Server, Node, Arc<Files>) {
    let server = Server::start(runtime, raw::hello("n1", "n2"));
    let wants = Arc::new(Files::default());
    let n2 = node(runtime, "n2", config, &wants);
    n2.dial("n1", &server.address.to_string());
    (server, n2, wants)
}

impl Node {
    fn wait_fetched(&self) -> (SnapshotMeta, u64) {
        self.wait("snapshot", |event| match event {
            PeerEvent::SnapshotFetched { meta, bytes } => Some((meta, bytes)),
            PeerEvent::SnapshotFetchFailed { why, .. } => panic!("{why}"),
            _ => None,
        })
    }

    fn wait_failed(&self) -> (EntryId, String) {
        self.wait("failure", |event| match event {
            PeerEvent::SnapshotFetchFailed { last, why } => Some((last, why)),
            PeerEvent::SnapshotFetched { .. } => panic!("fetched"),
            _ => None,
        })
    }

    /// From which byte on it is fetched.
    fn wait_begun(&self) -> u64 {
        self.wait("progress", |event| match event {
            PeerEvent::SnapshotFetching { bytes, .. } => Some(bytes),
            _ => None,
        })
    }
}

/// The file of `LAST` in parts of 1000 bytes.
fn parts(body: &[u8]) -> Vec<wire::SnapshotPart> {
    parts_of(LAST, body)
}

fn parts_of(last: EntryId, body: &[u8]) -> Vec<wire::SnapshotPart> {
    let file = file(last, body);
    let part = |(at, data): (usize, &[u8])| wire::SnapshotPart {
        last_term: last.term.0,
        last_index: last.index.0,
        length: file.len() as u64,
        offset: at as u64 * 1000,
        data: data.to_vec().into(),
    };
    file.chunks(1000).enumerate().map(part).collect()
}

fn sent(parts: &[wire::SnapshotPart]) -> Vec<Result<wire::SnapshotPart, Status>> {
    parts.iter().cloned().map(Ok).collect()
}

fn cut(parts: &[wire::SnapshotPart]) -> Vec<Result<wire::SnapshotPart, Status>> {
    let mut all = sent(parts);
    all.push(Err(Status::unavailable("cut")));
    all
}

#[test]
fn a_snapshot_arrives_as_it_was_and_both_sides_tell_of_it() {
    let runtime = runtime();
    let bytes = 20 << 20;
    let (n1, has, n2, wants) = pair(&runtime, PeerConfig::default(), bytes);
    n2.transport.fetch(id("n1"), LAST);
    let mut progress = Vec::new();
    let (meta, total) = n2.wait("snapshot", |event| match event {
        PeerEvent::SnapshotFetching { last, bytes, total } => {
            assert_eq!((last, total), has.newest().unwrap());
            progress.push(bytes);
            None
        }
        PeerEvent::SnapshotFetched { meta, bytes } => Some((meta, bytes)),
        _ => None,
    });
    assert_eq!((meta, total), (super::files::meta(LAST), has.newest().unwrap().1));
    assert!(wants.body().unwrap() == body(bytes), "the bytes changed on their way");
    assert!(progress.len() >= 3 && progress.is_sorted(), "{progress:?}");
    let mut sent = Vec::new();
    n1.wait("end of sending", |event| match event {
        PeerEvent::SnapshotSending { to, bytes, total } => {
            assert_eq!(to, id("n2"));
            sent.push(bytes);
            (bytes == total).then_some(())
        }
        _ => None,
    });
    assert!(sent[0] == 0 && sent.len() >= 4 && sent.is_sorted(), "{sent:?}");
}

#[test]
fn the_newest_one_is_sent_whatever_was_wanted() {
    let runtime = runtime();
    let (_n1, _, n2, wants) = pair(&runtime, config(), 1000);
    n2.transport.fetch(id("n1"), EntryId::new(2, 100));
    assert_eq!(n2.wait_fetched().0, meta(LAST));
    assert_eq!(wants.body().unwrap(), body(1000));
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let runtime = runtime();
    let (server, n2, wants) = follower(&runtime, config());
    let parts = parts(&body(9500));
    // More breaks than attempts may bring nothing: each of these brings something.
    for at in 0..9 {
        server.send_of_snapshots(cut(&parts[at..=at]));
    }
    server.send_of_snapshots(sent(&parts[9..]));
    n2.transport.fetch(id("n1"), LAST);
    assert_eq!(n2.wait_fetched().0, meta(LAST));
    assert_eq!(wants.body().unwrap(), body(9500));
    let offsets: Vec<_> = server.fetches().iter().map(|fetch| fetch.offset / 1000).collect();
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    assert_eq!(wants.taken(), file(LAST, &body(9500)).len() as u64, "no byte was sent twice");
}

#[test]
fn attempts_that_bring_nothing_are_few_and_what_is_here_is_kept() {
    let runtime = runtime();
    let (server, n2, _wants) = follower(&runtime, config());
    let parts = parts(&body(2500));
    // Two do not count any more once bytes have come.
    for count in [0, 0, 1, 0, 0, 0, 0, 0] {
        server.send_of_snapshots(cut(&parts[..count]));
    }
    n2.transport.fetch(id("n1"), LAST);
    let (last, why) = n2.wait_failed();
    assert!(last == LAST && why.contains("cut"), "{why}");
    assert_eq!(server.fetches().len(), 8);
    server.send_of_snapshots(sent(&parts[1..]));
    n2.transport.fetch(id("n1"), LAST);
    assert_eq!(n2.wait_begun(), 1000);
    n2.wait_fetched();
}

#[test]
fn a_damaged_file_is_dropped_and_fetched_from_its_beginning() {
    let runtime = runtime();
    let (_n1, has, n2, wants) = pair(&runtime, config(), 200_000);
    has.spoil();
    n2.transport.fetch(id("n1"), LAST);
    let (_, why) = n2.wait_failed();
    assert!(why.contains("damaged") && why.contains("n1"), "{why}");
    assert_eq!(wants.newest(), None);
    has.spoil();
    n2.transport.fetch(id("n1"), LAST);
    assert_eq!(n2.wait_begun(), 0);
    n2.wait_fetched();
}

#[test]
fn a_full_disk_is_told_and_what_is_here_is_kept() {
    let runtime = runtime();
    let (_n1, _, n2, wants) = pair(&runtime, config(), 200_000);
    wants.limit(Some(100_000));
    n2.transport.fetch(id("n1"), LAST);
    let (_, why) = n2.wait_failed();
    assert!(why.contains("no space") && why.contains("free some"), "{why}");
    wants.limit(None);
    n2.transport.fetch(id("n1"), LAST);
    assert_eq!(n2.wait_begun(), 64 << 10, "one part had found its place");
    n2.wait_fetched();
    assert_eq!(wants.body().unwrap(), body(200_000));
}

#[test]
fn parts_that_are_not_the_next_ones_are_not_taken() {
    let runtime = runtime();
    let parts = parts(&body(3500));
    let spoilt: [fn(&mut wire::SnapshotPart); 6] = [
        |part| part.offset += 1,
        |part| part.length += 1,
        |part| part.last_index += 1,
        |part| part.last_term += 1,
        |part| part.data.clear(),
        |part| part.data = vec![0; 9000].into(),
    ];
    for spoil in spoilt {
        let (server, n2, wants) = follower(&runtime, config());
        let mut bad = parts[1].clone();
        spoil(&mut bad);
        server.send_of_snapshots(sent(&[parts[0].clone(), bad]));
        server.send_of_snapshots(sent(&parts[1..]));
        n2.transport.fetch(id("n1"), LAST);
        n2.wait_fetched();
        assert_eq!(wants.body().unwrap(), body(3500));
        let offsets: Vec<_> = server.fetches().iter().map(|fetch| fetch.offset).collect();
        assert_eq!(offsets, [0, 1000]);
    }
}

#[test]
fn a_transfer_that_stands_still_is_broken_off_on_either_side() {
    let runtime = runtime();
    let stall = PeerConfig { snapshot_stall_timeout: Duration::from_millis(100), ..config() };
    let (server, n2, _wants) = follower(&runtime, stall);
    let parts = parts(&body(2500));
    // What comes after the first part never comes.
    server.send_of_snapshots(sent(&parts[..1]));
    server.send_of_snapshots(sent(&parts[1..]));
    n2.transport.fetch(id("n1"), LAST);
    n2.wait_fetched();
    assert_eq!(server.fetches().len(), 2);
    // One that asks and reads nothing does not keep its place.
    let stall = PeerConfig { snapshot_stall_timeout: Duration::from_millis(100), ..config() };
    let n1 = node(&runtime, "n1", stall, &Files::with(LAST, &body(32 << 20)));
    n1.dial("n2", &n2.address().to_string());
    let unread: Vec<_> = (0..4).map(|_| runtime.block_on(raw::Fetch::begin(n1.address(), "n2"))).collect();
    assert!(unread.iter().all(Result::is_ok));
    let deadline = Instant::now() + super::DEADLINE;
    while runtime.block_on(raw::Fetch::begin(n1.address(), "n2")).is_err() {
        assert!(Instant::now() < deadline, "no place became free");
    }
    drop(unread);
}

#[test]
fn few_are_served_at_a_time_and_the_others_wait() {
    let runtime = runtime();
    // So slow that none of them ends by itself.
    let slow = PeerConfig { snapshot_bytes_per_second: 64 << 10, ..config() };
    let (n1, _, n2, _) = pair(&runtime, slow, 1 << 20);
    let mut served: Vec<_> = (0..4).map(|_| runtime.block_on(raw::Fetch::begin(n1.address(), "n2")).unwrap()).collect();
    let one_more = runtime.block_on(raw::Fetch::begin(n1.address(), "n2"));
    let status = one_more.err().expect("a refusal");
    assert!(status.code() == tonic::Code::ResourceExhausted && status.message().contains("at a time"), "{status:?}");
    n2.transport.fetch(id("n1"), LAST);
    // It is let in when a place is free, and has not given up before.
    served.clear();
    assert_eq!(n2.wait_begun(), 0);
}

#[test]
fn the_rate_is_kept() {
    let runtime = runtime();
    let slow = PeerConfig { snapshot_bytes_per_second: 1 << 20, ..config() };
    let (_n1, _, n2, _) = pair(&runtime, slow, 512 << 10);
    let started = Instant::now();
    n2.transport.fetch(id("n1"), LAST);
    n2.wait_fetched();
    // Half a second's worth, of which a tenth of a second's was saved up, and the last part is sent when it is due.
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
}

#[test]
fn only_members_get_it() {
    let runtime = runtime();
    let (n1, _, n2, _) = pair(&runtime, config(), 1000);
    let status = runtime.block_on(raw::Fetch::begin(n1.address(), "n9")).err().expect("a refusal");
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    // It dialled this node, which knows no more of it.
    let guest = Peer { address: "127.0.0.1:1".to_owned(), incarnation: Incarnation::UNKNOWN, member: false };
    let known = Peer { address: n2.address().to_string(), member: true, ..guest.clone() };
    n1.transport.set_peers(&BTreeMap::from([(id("n9"), guest), (id("n2"), known)]));
    let status = runtime.block_on(raw::Fetch::begin(n1.address(), "n9")).err().expect("a refusal");
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    n1.transport.set_removed(&[id("n2")].into());
    n2.transport.fetch(id("n1"), LAST);
    assert!(n2.wait_failed().1.starts_with("n2 was removed"));
    let other = LocalHello { cluster: ClusterId(8), ..hello("n3") };
    let n3 = Node::with_files(&runtime, "127.0.0.1:0", other, config(), Some(Arc::new(Files::default())));
    n3.dial("n1", &n1.address().to_string());
    n3.transport.fetch(id("n1"), LAST);
    assert!(n3.wait_failed().1.contains("cluster"));
}

#[test]
fn one_that_is_removed_gets_no_more_of_it() {
    let runtime = runtime();
    let slow = PeerConfig { snapshot_bytes_per_second: 64 << 10, ..config() };
    let (n1, _, n2, _) = pair(&runtime, slow, 1 << 20);
    n2.transport.fetch(id("n1"), LAST);
    n2.wait_begun();
    n1.transport.set_removed(&[id("n2")].into());
    assert!(n2.wait_failed().1.starts_with("n2 was removed"));
}

#[test]
fn without_snapshots_none_is_given_or_fetched() {
    let runtime = runtime();
    let (n1, n2) = (Node::start(&runtime, "n1"), node(&runtime, "n2", config(), &Arc::new(Files::default())));
    n2.dial("n1", &n1.address().to_string());
    n1.dial("n2", &n2.address().to_string());
    n2.transport.fetch(id("n1"), LAST);
    assert!(n2.wait_failed().1.contains("n1 keeps no snapshots"));
    n1.transport.fetch(id("n2"), LAST);
    assert!(n1.wait_failed().1.contains("this node keeps no snapshots"));
    let n3 = node(&runtime, "n3", config(), &Arc::new(Files::default()));
    n3.dial("n2", &n2.address().to_string());
    n2.dial("n3", &n3.address().to_string());
    n3.transport.fetch(id("n2"), LAST);
    assert!(n3.wait_failed().1.contains("n2 has no snapshot"));
    n3.transport.fetch(id("n9"), LAST);
    assert!(n3.wait_failed().1.contains("not known where n9 is"));
}

#[test]
fn a_file_that_cannot_be_read_is_told_where_it_is() {
    let runtime = runtime();
    let (n1, has, n2, _) = pair(&runtime, config(), 1000);
    has.cut();
    n2.transport.fetch(id("n1"), LAST);
    let why = n1.wait("fault", |event| match event {
        PeerEvent::SnapshotUnreadable { why } => Some(why),
        _ => None,
    });
    assert!(why.contains("3/900") && why.contains("input/output error"), "{why}");
    assert!(n2.wait_failed().1.contains("input/output error"));
}

#[test]
fn a_newer_one_that_replaces_it_midway_is_fetched_instead() {
    let runtime = runtime();
    let slow = PeerConfig { snapshot_bytes_per_second: 64 << 10, ..config() };
    let (n1, has, n2, wants) = pair(&runtime, slow, 1 << 20);
    n2.transport.fetch(id("n1"), LAST);
    n2.wait_begun();
    let newer = EntryId::new(4, 1000);
    has.put(newer, b"small");
    let (fetched, _) = n2.wait_fetched();
    assert_eq!((fetched, wants.body().unwrap().as_slice()), (meta(newer), &b"small"[..]));
    n1.wait("end", |event| match event {
        PeerEvent::SnapshotUnreadable { why } => panic!("{why}"),
        PeerEvent::SnapshotSending { bytes, total, .. } if bytes == total => Some(()),
        _ => None,
    });
}

#[test]
fn one_transfer_at_a_time_and_the_next_one_where_it_stands_still() {
    let runtime = runtime();
    let patient = PeerConfig { snapshot_stall_timeout: Duration::from_hours(1), ..config() };
    let (server, n2, wants) = follower(&runtime, patient);
    let other = node(&runtime, "n3", config(), &Files::with(EntryId::new(4, 1000), b"of n3"));
    other.dial("n2", &n2.address().to_string());
    let peer = |address: String| Peer { address, incarnation: Incarnation::UNKNOWN, member: true };
    let peers = [("n1", server.address.to_string()), ("n3", other.address().to_string())];
    let peers: BTreeMap<_, _> = peers.map(|(name, address)| (id(name), peer(address))).into();
    n2.transport.set_peers(&peers);
    server.send_of_snapshots(sent(&parts(&body(2500))[..1]));
    n2.transport.fetch(id("n1"), LAST);
    n2.wait_begun();
    n2.transport.fetch(id("n1"), LAST);
    n2.transport.fetch(id("n3"), EntryId::new(4, 1000));
    assert_eq!(n2.wait_fetched().0, meta(EntryId::new(4, 1000)));
    assert_eq!(wants.body().unwrap(), b"of n3");
    assert_eq!(server.fetches().len(), 1, "the first one was asked for once");
}

#[test]
fn a_transfer_that_gets_on_is_not_given_up_for_another() {
    let runtime = runtime();
    let slow = PeerConfig { snapshot_bytes_per_second: 256 << 10, ..config() };
    let (_n1, _, n2, wants) = pair(&runtime, slow, 256 << 10);
    n2.transport.fetch(id("n1"), LAST);
    n2.wait_begun();
    // Nobody is there: it would fail.
    n2.transport.fetch(id("n9"), EntryId::new(4, 1000));
    assert_eq!(n2.wait_fetched().0, meta(LAST));
    assert_eq!(wants.body().unwrap(), body(256 << 10));
}

#[test]
fn a_refusal_midway_is_told_as_one() {
    let runtime = runtime();
    let (server, n2, _) = follower(&runtime, config());
    let refusal = super::super::refusal::Refusal::new(RefusedCode::Removed, "n2 is gone");
    let mut script = sent(&parts(&body(2500))[..1]);
    script.push(Err(refusal.to_status()));
    server.send_of_snapshots(script);
    n2.transport.fetch(id("n1"), LAST);
    let told = n2.wait("refusal", |event| match event {
        PeerEvent::Refused { peer, code, why, by_peer, .. } => Some((peer, code, why, by_peer)),
        _ => None,
    });
    assert_eq!(told, (Some(id("n1")), RefusedCode::Removed, "n2 is gone".to_owned(), true));
    assert_eq!(n2.wait_failed().1, "n2 is gone");
}

#[test]
fn shutdown_does_not_wait_for_transfers() {
    let runtime = runtime();
    let slow = PeerConfig { snapshot_bytes_per_second: 64 << 10, ..config() };
    let (n1, _, n2, _) = pair(&runtime, slow, 4 << 20);
    n2.transport.fetch(id("n1"), LAST);
    n2.wait_begun();
    let started = Instant::now();
    n1.transport.shutdown(super::DEADLINE);
    n2.transport.shutdown(super::DEADLINE);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
