//! Starting a node: what can go wrong goes wrong here, before anything runs.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use graft_domain::{ClusterId, Config, Incarnation, Index, Membership, NodeId, Payload, RaftCore, Recovered};
use graft_services::ports::{Door, Machine, Opened, SnapshotFiles};
use graft_services::{Clock, Replica, ReplicaConfig};

use super::beginning::{Beginning, start_machine};
use super::calls::Callers;
use super::clock::Monotonic;
use super::door::Doorkeeper;
use super::door_queue::Queue;
use super::doubt::Doubt;
use super::engine::{Engine, Message, weight};
use super::events::Events;
use super::faults::Faults;
use super::fitness::Fitness;
use super::front::{Front, Standing};
use super::hub::Hub;
use super::inbox::Inbox;
use super::machine_worker::{MachineJob, MachineWork, panic_words};
use super::metering::{self, Metering};
use super::parts::{Ending, Parts};
use super::peers::Peers;
use super::renewal::{Certified, keep};
use super::security::{guard, refuse_plain_listener, security};
use super::snapshot_worker::{SnapshotWork, run_snapshots};
use super::store_worker::{StoreJob, run_store};
use super::threads::{Thread, USER_STACK_BYTES, io, thread, thread_with_stack};
use super::{Node, Source, StartError};
use crate::infrastructure::config::NodeConfig;
use crate::infrastructure::grpc::{self, LocalHello, Offers, PeerConfig, PeerEvent, PeerSink, Transport};
use crate::infrastructure::metrics::Metrics;
use crate::infrastructure::store::{self, Founding, OsPlace, Snapshots, StoreConfig, Wal};

/// Bytes of peers' messages that may wait for the event loop; beyond, messages are dropped as a network would.
const INBOX_BYTES_MAX: usize = 256 << 20;

/// One: a second one is woken at every message to look whether there is work for it, which costs a command that is alone a
/// third of its processor time, and sixty-four in flight a tenth. What blocks is not done there.
const NETWORK_THREADS: usize = 1;

/// The most often, in a heartbeat, that followers are told of commands that are committed when no others follow: those that
/// do tell of them, and where one comes after the other that halves the messages.
const NOTICES: u32 = 16;

/// Election timeouts for which a disk may owe an answer before a leader hands over.
const STORAGE_TIMEOUTS: u32 = 5;

impl Node {
    /// As [`Node::start_secured`], on a network that is trusted: whoever reaches the port may do anything.
    pub fn start(config: &NodeConfig, machine: Box<dyn Machine>) -> Result<Self, StartError> {
        Self::start_secured(config, machine, None)
    }

    /// Binds the port, opens the data directory, lets the machine open its own, and starts the threads. With `tls` every
    /// connection is secured, and the certificate has to be this node's own.
    pub fn start_secured(
        config: &NodeConfig,
        machine: Box<dyn Machine>,
        tls: Option<&Source>,
    ) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        let certified = security(tls, Some(config.id))?;
        let (listener, address) = listen(config, tls.is_some())?;
        let metrics_port = metering::listen(config, tls.is_some())?;
        let metrics = Arc::new(Metrics::default());
        let membership = config.founding(&address);
        let (wal, snapshots, opened) = open_store(config, &membership)?;
        let doubt = doubt(config, &membership, &opened)?;
        let clock = Monotonic::start();
        let inbox = Inbox::new(clock);
        let (machine_jobs, machine_inbox) = channel();
        let (writer, snapshot_jobs) = channel();
        let dead = Arc::new(AtomicBool::new(false));
        let hub = Arc::new(Hub::default());
        let seal = snapshots.seal();
        let snapshots: Arc<dyn SnapshotFiles> = snapshots;
        let writing = SnapshotWork {
            jobs: snapshot_jobs,
            engine: Arc::clone(&inbox),
            dead: Arc::clone(&dead),
            snapshots: Arc::clone(&snapshots),
            lock: wal.lock(),
        };
        let work = MachineWork {
            jobs: machine_inbox,
            engine: Arc::clone(&inbox),
            dead: Arc::clone(&dead),
            snapshots: Arc::clone(&snapshots),
            hub: Arc::clone(&hub),
            metrics: Arc::clone(&metrics),
            writer,
            _lock: wal.lock(),
        };
        let directory = config.data_dir.join("machine").to_string_lossy().into_owned();
        let door = machine.door();
        let opened = Arc::new(opened);
        let beginning = Beginning { directory, opened: Arc::clone(&opened) };
        let (machine_thread, applied) =
            start_machine(config.id, machine, beginning, work).map_err(StartError::Machine)?;
        // The machine has let go of it: a log may be large, and is moved from here on.
        let opened = Arc::unwrap_or_clone(opened);
        let founding = founding(&opened, seal, &membership);
        let snapshot_thread = thread(config.id, "snap", move || run_snapshots(&writing))?;
        let threads = vec![machine_thread, snapshot_thread];
        let build = Build {
            config,
            certified,
            address,
            opened,
            doubt,
            founding,
            applied,
            wal,
            snapshots,
            machine_jobs,
            threads,
            dead,
            hub,
            door,
            metrics,
            metrics_port,
        };
        build.run(clock, inbox, listener)
    }
}

/// Everything that is there before the threads.
struct Build<'a> {
    config: &'a NodeConfig,
    certified: Option<Arc<Certified>>,
    address: String,
    opened: Opened,
    doubt: Option<Doubt>,
    /// What founders compare.
    founding: u64,
    applied: Index,
    wal: Wal,
    snapshots: Arc<dyn SnapshotFiles>,
    machine_jobs: Sender<MachineJob>,
    /// Of the machine, and of whoever writes snapshots.
    threads: Vec<Thread>,
    /// The engine is gone: what waits for the machine is for nobody.
    dead: Arc<AtomicBool>,
    hub: Arc<Hub>,
    door: Option<Arc<dyn Door>>,
    metrics: Arc<Metrics>,
    metrics_port: Option<TcpListener>,
}

impl Build<'_> {
    fn run(mut self, clock: Monotonic, inbox: Arc<Inbox>, listener: TcpListener) -> Result<Node, StartError> {
        let config = self.config;
        let runtime = network_threads(config.id)?;
        let inbox_bytes = Arc::new(AtomicUsize::new(0));
        let replica = self.replica()?;
        let killed = Arc::new(AtomicBool::new(false));
        let ending = Arc::new(Ending::new(config.id, Arc::clone(&inbox), clock, Arc::clone(&killed)));
        let front = Arc::new(self.front(Arc::clone(&inbox), clock, &replica, &ending));
        if let Some(certified) = &self.certified {
            let events = Arc::clone(&front.events);
            keep(certified, runtime.handle(), move |notice| events.push([notice]));
        }
        let queue = Arc::new(Queue::new(clock, config.inflight_max, config.inflight_bytes_max));
        let at_door = self.door.is_some().then(|| Arc::clone(&queue));
        let doorkeeper = Arc::new(Doorkeeper::new(Arc::clone(&front), at_door, config.command_bytes_max));
        let peers = self.peers();
        let offers =
            Offers { files: Some(Arc::clone(&self.snapshots)), api: Some(Arc::<Doorkeeper>::clone(&doorkeeper)) };
        let transport = self.transport(&runtime, listener, peers.clone(), offers, Arc::clone(&inbox), &inbox_bytes)?;
        let faults = Arc::new(Faults::new(Arc::clone(transport.faults())));
        let complaints = Arc::clone(transport.complaints());
        let metering = Metering::new(Arc::clone(&self.metrics), Arc::clone(&front), complaints);
        let metrics_address = self.serve_metrics(&runtime, &metering)?;
        let (store, store_inbox) = channel();
        let cluster = replica.core().cluster();
        if self.opened.identity.cluster == ClusterId::UNKNOWN && cluster != ClusterId::UNKNOWN {
            // The node stopped after its log had the name and before the identity did.
            transport.set_cluster(cluster);
            let _ = store.send(StoreJob::Cluster(cluster));
        }
        let shared = (killed, Arc::clone(&faults), Arc::clone(&self.metrics));
        let store_thread = start_store(config, self.wal, store_inbox, Arc::clone(&inbox), shared)?;
        let loop_ = Engine {
            replica,
            taken: VecDeque::new(),
            store,
            machine: self.machine_jobs,
            transport: Arc::clone(&transport),
            peers: Peers::new(config, peers.join_wait, self.doubt),
            events: Arc::clone(&front.events),
            hub: self.hub,
            door: Arc::clone(&queue),
            standing: Arc::clone(&front.standing),
            notices: Vec::new(),
            callers: Callers::new(Arc::clone(&front.inflight), self.metrics),
            inflight: Arc::clone(&front.inflight),
            inbox_bytes,
            request_bytes: Arc::clone(&front.request_bytes),
            clock,
            fitness: Fitness::default(),
            parting: None,
            outbox: BTreeMap::new(),
            stopped: false,
            broken: None,
            faults: Arc::clone(&faults),
        };
        tracing::info!(node = %config.id, address = %self.address, data_dir = %config.data_dir.display(), "listening");
        if !config.join.is_empty() {
            transport.join(config.join.clone());
        }
        // There: a heartbeat leaves from the network's thread, and its answers come to it.
        runtime.spawn(Arc::clone(&inbox).keep_time());
        let mut threads = start_door(config.id, self.door, &queue, &front)?;
        // Without an engine nobody else would end the door's thread.
        threads.insert(0, start_engine(config.id, loop_, inbox, self.dead).inspect_err(|_| queue.close())?);
        threads.push(store_thread);
        threads.extend(self.threads);
        ending.started(Parts { transport, runtime, threads, faults: Arc::clone(&faults) });
        Ok(Node { address: self.address, front, doorkeeper, ending, faults, metering, metrics_address })
    }

    fn serve_metrics(
        &self,
        runtime: &tokio::runtime::Runtime,
        metering: &Arc<Metering>,
    ) -> Result<Option<SocketAddr>, StartError> {
        let port = self.metrics_port.as_ref().map(TcpListener::try_clone).transpose();
        let serve = |port| metering::serve(runtime.handle(), port, self.certified.as_ref(), metering);
        port.and_then(|port| port.map(serve).transpose()).map_err(io("serving metrics"))
    }

    fn peers(&self) -> PeerConfig {
        PeerConfig {
            batch_bytes_max: self.config.batch_bytes_max,
            snapshot_bytes_per_second: self.config.snapshot_bytes_per_second,
            clients_max: self.config.clients_max,
            request_bytes_max: PeerConfig::request_bytes_max(self.config.command_bytes_max),
            security: guard(self.certified.as_ref()),
            ..PeerConfig::default()
        }
    }

    fn front(&self, inbox: Arc<Inbox>, clock: Monotonic, replica: &Replica, ending: &Arc<Ending>) -> Front {
        Front {
            inbox,
            inflight: Arc::default(),
            inbox_max: self.config.inflight_max.saturating_mul(2),
            request_bytes: Arc::default(),
            request_bytes_max: self.config.inflight_bytes_max.saturating_mul(2),
            clock,
            session_ttl: self.config.session_ttl,
            standing: Arc::new(Standing::new(replica.status(), self.certified.clone())),
            events: Arc::new(Events::new(Arc::clone(&self.metrics))),
            metrics: Arc::clone(&self.metrics),
            hub: Arc::clone(&self.hub),
            files: Arc::downgrade(&self.snapshots),
            ending: Arc::downgrade(ending),
        }
    }

    fn replica(&mut self) -> Result<Replica, StartError> {
        let config = self.config;
        let cluster = self.cluster()?;
        let core = Config {
            incarnation: self.opened.identity.incarnation,
            storage_timeout: config.election_timeout * STORAGE_TIMEOUTS,
            election_timeout: config.election_timeout,
            heartbeat: config.heartbeat,
            commit_delay: config.heartbeat / NOTICES,
            append_bytes_max: config.batch_bytes_max,
            log_bytes_max: config.log_bytes_max,
            ..Config::new(config.id, cluster, random()?)
        };
        let recovered = Recovered { applied: self.applied, ..std::mem::take(&mut self.opened.recovered) };
        let now = graft_domain::Instant(0);
        let replica = ReplicaConfig {
            session: random()?.max(1),
            command_bytes_max: config.command_bytes_max,
            inflight_max: config.inflight_max,
            inflight_bytes_max: config.inflight_bytes_max,
            retry: config.heartbeat / 2,
            read_retry: config.election_timeout,
            election_timeout: config.election_timeout,
            address: self.address.clone(),
            incarnation: self.opened.identity.incarnation,
            session_ttl: config.session_ttl,
            snapshot_every_bytes: config.snapshot_every_bytes,
            snapshot_every_entries: config.snapshot_every_entries,
        };
        let bytes = self.snapshots.newest().map_or(0, |(_, bytes)| bytes);
        let restored = self.opened.snapshot.clone().map(|meta| (meta, bytes));
        Ok(Replica::new(replica, RaftCore::new(core, recovered, now), Clock { now, wall: 0 }, restored))
    }

    fn transport(
        &self,
        runtime: &tokio::runtime::Runtime,
        listener: TcpListener,
        config: PeerConfig,
        offers: Offers,
        engine: Arc<Inbox>,
        inbox_bytes: &Arc<AtomicUsize>,
    ) -> Result<Arc<Transport>, StartError> {
        let hello = LocalHello {
            id: self.config.id,
            incarnation: self.opened.identity.incarnation,
            cluster: self.opened.identity.cluster,
            address: self.address.clone(),
            membership_hash: self.founding,
        };
        let inbox_bytes = Arc::clone(inbox_bytes);
        let sink: PeerSink = Arc::new(move |event| {
            if let PeerEvent::Messages { messages, .. } = &event {
                let bytes = messages.iter().map(weight).sum();
                if inbox_bytes.fetch_add(bytes, Ordering::Relaxed) > INBOX_BYTES_MAX {
                    inbox_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    return;
                }
            }
            // Nobody is there once the node is stopped. Whoever tells of messages holds no lock.
            let _ = match event {
                PeerEvent::Messages { .. } => engine.bring(Message::Peer(event)),
                event => engine.send(Message::Peer(event)),
            };
        });
        Transport::start(runtime.handle().clone(), listener, hello, config, offers, sink)
            .map(Arc::new)
            .map_err(io("starting the transport"))
    }

    /// The name that the cluster gets if this node is its first leader.
    fn cluster(&self) -> Result<ClusterId, StartError> {
        let first = match self.founding {
            founding if grpc::is_restored(founding) => founding,
            _ => random()?,
        };
        Ok(ClusterId(u128::from(first) << 64 | u128::from(random()?.max(1))))
    }
}

/// What founders compare; 0 for a node that joins, and for one that has come past its founding. `seal` is that of the newest
/// snapshot: bytes of state, and their checksum.
fn founding(opened: &Opened, seal: Option<(u64, u32)>, membership: &Membership) -> u64 {
    match &opened.snapshot {
        Some(meta) if store::is_restored(meta) => {
            let (bytes, checksum) = seal.unwrap_or_default();
            let state = [&meta.encode()[..], &bytes.to_le_bytes(), &checksum.to_le_bytes()].concat();
            grpc::restored(hash(&state))
        }
        Some(_) => 0,
        None if membership.members.is_empty() => 0,
        None => {
            let founding = founded(&opened.recovered).unwrap_or_else(|| membership.clone());
            grpc::founded(hash(&founding.encode()))
        }
    }
}

fn open_store(config: &NodeConfig, membership: &Membership) -> Result<(Wal, Arc<Snapshots>, Opened), StartError> {
    let founding = Founding {
        id: config.id,
        membership: Arc::new(membership.clone()),
        mint: Incarnation(random()?.max(1)),
        promise: config.election_timeout,
    };
    let opened = store::open(&config.data_dir, &founding, StoreConfig::default()).map_err(StartError::Store)?;
    for note in &opened.2.notes {
        tracing::warn!(node = %config.id, "{note}");
    }
    Ok(opened)
}

/// Whether the cluster may be a mistake: one that this start founds, of this node and nobody else, or that an earlier one did.
fn doubt(config: &NodeConfig, membership: &Membership, opened: &Opened) -> Result<Option<Doubt>, StartError> {
    let before = Doubt::read(&config.data_dir)?;
    let is_new = opened.recovered.entries.is_empty() && opened.snapshot.is_none();
    if is_new && membership.members.len() == 1 { Doubt::begin(&config.data_dir).map(Some) } else { Ok(before) }
}

/// Binds the port. Answers what others are told to dial as well.
fn listen(config: &NodeConfig, is_secured: bool) -> Result<(TcpListener, String), StartError> {
    let listener = grpc::bind(config.bind.as_deref().unwrap_or(&config.address)).map_err(StartError::Bind)?;
    let local = listener.local_addr().map_err(io("reading the bound address"))?;
    if !is_secured && !config.insecure {
        refuse_plain_listener(config.id, local)?;
    }
    let address = announced(&config.address, local.port());
    Ok((listener, address))
}

fn network_threads(id: NodeId) -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS)
        .thread_name(format!("graft-net-{id}"))
        .enable_all()
        .build()
        .map_err(io("starting the network threads"))
}

fn start_store(
    config: &NodeConfig,
    wal: Wal,
    jobs: Receiver<StoreJob>,
    engine: Arc<Inbox>,
    (killed, faults, metrics): (Arc<AtomicBool>, Arc<Faults>, Arc<Metrics>),
) -> Result<Thread, StartError> {
    let promise = config.election_timeout;
    let place = OsPlace::of(&config.data_dir).map_err(io("looking for the data directory"))?;
    thread(config.id, "log", move || {
        let store = (wal, place);
        let run =
            catch_unwind(AssertUnwindSafe(|| run_store(store, &jobs, &engine, &killed, &faults, &metrics, promise)));
        if let Err(panic) = run {
            let failed = graft_services::Event::StorageFailed(panic_words(&*panic));
            let _ = engine.send(Message::Event(failed));
        }
    })
}

fn start_engine(id: NodeId, engine: Engine, inbox: Arc<Inbox>, dead: Arc<AtomicBool>) -> Result<Thread, StartError> {
    let unstarted = Arc::clone(&inbox);
    let run = move || {
        let mut engine = inbox.run(engine);
        dead.store(true, Ordering::Relaxed);
        engine.abandon(&inbox);
    };
    thread(id, "raft", run).inspect_err(|_| unstarted.close())
}

/// The thread of the door, if there is one, and the one that sees to it that nobody waits for it too long.
fn start_door(
    id: NodeId,
    door: Option<Arc<dyn Door>>,
    queue: &Arc<Queue>,
    front: &Arc<Front>,
) -> Result<Vec<Thread>, StartError> {
    let Some(door) = door else { return Ok(Vec::new()) };
    let keeper = Arc::clone(queue);
    let late = thread(id, "late", move || keeper.keep_deadlines())?;
    let (work, front) = (Arc::clone(queue), Arc::clone(front));
    let run = move || door.stay()(&mut || work.run(&*door, &front));
    let door = thread_with_stack(id, "door", USER_STACK_BYTES, run).inspect_err(|_| queue.close())?;
    Ok(vec![late, door])
}

/// The address that others dial: the port that was really bound in place of 0.
fn announced(address: &str, port: u16) -> String {
    match address.strip_suffix(":0") {
        Some(host) => format!("{host}:{port}"),
        None => address.to_owned(),
    }
}

/// What the cluster was founded with, if the log has it: the list given at a later start may say where members are now.
fn founded(recovered: &Recovered) -> Option<Membership> {
    let first = recovered.entries.first().filter(|entry| entry.index == Index::ZERO.next())?;
    let Payload::Membership(membership) = &first.payload else { return None };
    // What the founders were given has neither the cluster's name nor the leader's directory.
    Some(Membership::founding(membership.members.iter().map(|(id, member)| (*id, &*member.address))))
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// From the operating system: names and seeds must not repeat.
pub(super) fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::Io {
        doing: "drawing a random number from the operating system",
        error: std::io::Error::other(error),
    })
}
