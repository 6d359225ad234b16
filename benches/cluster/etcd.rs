//! etcd: its own binary, a member in each process, and calls by a native client, straight to its leader.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::Subject;
use super::load::{Counts, Kind, Load, MIXED, Sample};
use super::processes::free_addresses;
use super::times::Times;

// The fields of etcd's API that are needed here, by their published numbers.

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Range {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    /// What this member has, however old.
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EtcdStatus {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// HTTP/2 connections, among which calls in flight are divided: one alone is the bottleneck.
const CONNECTIONS: usize = 8;

pub(crate) struct Etcd {
    members: Vec<Child>,
    runtime: Runtime,
    channels: Vec<Channel>,
    clients: Vec<String>,
    /// So many keys there are to read, of so many bytes.
    put: (usize, usize),
}

impl Etcd {
    pub(crate) fn start(members: usize, directory: &Path) -> Result<Self, String> {
        let (peers, clients) = (free_addresses(members), free_addresses(members));
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(number, address)| format!("e{number}=http://{address}")).collect();
        let mut children = Vec::new();
        for number in 0..members {
            let (peer, client) = (format!("http://{}", peers[number]), format!("http://{}", clients[number]));
            let name = format!("e{number}");
            let mut command = Command::new("etcd");
            command.arg("--data-dir").arg(directory.join(&name)).args(["--name", &name]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--initial-cluster", &cluster.join(",")]);
            // Large values for a while would fill what it has room for otherwise.
            command.args(["--quota-backend-bytes", "8589934592"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().map_err(|error| format!("{error}; Debian has it as etcd-server"));
            match child {
                Ok(child) => children.push(child),
                Err(why) => {
                    end(&mut children);
                    return Err(why);
                }
            }
        }
        let runtime = Runtime::new().unwrap();
        let mut etcd = Self { members: children, runtime, channels: Vec::new(), clients, put: (0, 0) };
        let leader = etcd.leader().ok_or("it has no leader after 30 s")?;
        let endpoint = Endpoint::from_shared(format!("http://{leader}")).unwrap().tcp_nodelay(true);
        etcd.channels = (0..CONNECTIONS).map(|_| etcd.runtime.block_on(endpoint.connect()).unwrap()).collect();
        Ok(etcd)
    }

    fn leader(&self) -> Option<String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let leads = |address: &String| {
            self.runtime.block_on(async {
                let channel = Endpoint::from_shared(format!("http://{address}")).ok()?.connect().await.ok()?;
                let path = "/etcdserverpb.Maintenance/Status";
                let status: EtcdStatus = unary(&channel, path, Empty {}).await.ok()?;
                (status.leader != 0 && status.header?.member == status.leader).then_some(())
            })
        };
        while Instant::now() < deadline {
            if let Some(leader) = self.clients.iter().find(|address| leads(address).is_some()) {
                return Some(leader.clone());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

async fn unary<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?.into_inner())
}

async fn once(channel: &Channel, kind: Kind, number: u64, key: &Bytes, value: &Bytes) {
    let is_command = kind == Kind::Command || kind == Kind::Mixed && number.is_multiple_of(MIXED);
    let called = if is_command {
        let put = Put { key: key.clone(), value: value.clone() };
        unary::<_, Empty>(channel, "/etcdserverpb.KV/Put", put).await
    } else {
        let range = Range { key: key.clone(), serializable: kind == Kind::Stale };
        unary::<_, Empty>(channel, "/etcdserverpb.KV/Range", range).await
    };
    called.expect("etcd refused a call");
}

/// What a member counts: syncs of its log and of its tree.
fn counts(address: &str) -> std::io::Result<Counts> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let value = |name: &str| page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let syncs = ["etcd_disk_wal_fsync_duration_seconds_count", "etcd_disk_backend_commit_duration_seconds_count"];
    Ok(Counts { syncs: syncs.into_iter().filter_map(value).sum(), bytes: 0 })
}

fn end(members: &mut [Child]) {
    for member in members {
        let _ = member.kill();
        let _ = member.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        end(&mut self.members);
    }
}

impl Subject for Etcd {
    fn name(&self) -> String {
        "etcd".to_owned()
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Command, Kind::Linearizable, Kind::Stale, Kind::Mixed]
    }

    fn run(&mut self, load: Load) -> Sample {
        let value = Bytes::from(vec![7; load.bytes]);
        let channels = Arc::new(self.channels.clone());
        let (keys, bytes) = self.put;
        if keys < load.depth || bytes != load.bytes {
            let put = (0..load.depth).map(|number| {
                let channel = channels[number % CONNECTIONS].clone();
                let (key, value) = (Bytes::from(format!("{number:016}")), value.clone());
                self.runtime.spawn(async move { once(&channel, Kind::Command, 0, &key, &value).await })
            });
            put.collect::<Vec<_>>().into_iter().for_each(|put| self.runtime.block_on(put).unwrap());
            self.put = (load.depth, load.bytes);
        }
        let start = Instant::now();
        let caller = |number: usize| {
            let (channels, value) = (Arc::clone(&channels), value.clone());
            let key = Bytes::from(format!("{number:016}"));
            self.runtime.spawn(async move {
                let channel = &channels[number % CONNECTIONS];
                let mut times = Vec::new();
                while times.is_empty() || start.elapsed() < load.time {
                    let begun = Instant::now();
                    // So that not all callers write at the same time.
                    once(channel, load.kind, (number + times.len()) as u64, &key, &value).await;
                    times.push(begun.elapsed());
                }
                times
            })
        };
        let callers: Vec<_> = (0..load.depth).map(caller).collect();
        let mut times = Times::new();
        callers.into_iter().flat_map(|caller| self.runtime.block_on(caller).unwrap()).for_each(|time| times.add(time));
        Sample::of(&times, start.elapsed())
    }

    fn processes(&self) -> Vec<u32> {
        self.members.iter().map(Child::id).collect()
    }

    fn counts(&mut self) -> Option<Counts> {
        let each = self.clients.iter().map(|address| counts(address));
        let sum = |all: Counts, one: Counts| Counts { syncs: all.syncs + one.syncs, bytes: 0 };
        each.collect::<Result<Vec<_>, _>>().ok().map(|all| all.into_iter().fold(Counts::default(), sum))
    }
}
