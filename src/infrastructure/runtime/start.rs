//! Starting a node: what can go wrong goes wrong here, before anything runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use graft_domain::{ClusterId, Config, Incarnation, Index, Membership, NodeId, Payload, RaftCore, Recovered};
use graft_services::ports::{Halt, Machine, Opened, SnapshotFiles};
use graft_services::snapshot_meta::SnapshotMeta;
use graft_services::{Clock, Replica, ReplicaConfig};

use super::calls::Callers;
use super::engine::{Engine, Message, weight};
use super::events::Events;
use super::machine_worker::{MachineJob, MachineWork, panic_words, restore, run_machine};
use super::peers::Peers;
use super::snapshot_worker::{SnapshotWork, run_snapshots};
use super::store_worker::{StoreJob, run_store};
use super::{Node, Parts, StartError};
use crate::infrastructure::config::NodeConfig;
use crate::infrastructure::grpc::{self, LocalHello, PeerConfig, PeerEvent, PeerSink, Transport};
use crate::infrastructure::store::{self, Founding, StoreConfig, Wal};

/// Bytes of peers' messages that may wait for the event loop; beyond, messages are dropped as a network would.
const INBOX_BYTES_MAX: usize = 256 << 20;

/// Election timeouts for which a disk may owe an answer before a leader hands over.
const STORAGE_TIMEOUTS: u32 = 5;

/// What the standard library gives a thread.
const STACK_BYTES: usize = 2 << 20;
/// For user code: an interpreter checks its recursion against the stack of a main thread, 8 MiB, and must not run out before.
const MACHINE_STACK_BYTES: usize = 32 << 20;

/// A thread, and what tells that it has ended.
type Thread = (JoinHandle<()>, Receiver<()>);

impl Node {
    /// Binds the port, opens the data directory, lets the machine open its own, and starts the threads.
    pub fn start(config: &NodeConfig, machine: Box<dyn Machine>) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        let listener = grpc::bind(config.bind.as_deref().unwrap_or(&config.address)).map_err(StartError::Bind)?;
        let port = listener.local_addr().map_err(io("reading the bound address"))?.port();
        let address = announced(&config.address, port);
        let membership = config.founding(&address);
        let mint = Incarnation(random()?.max(1));
        let founding = Founding { id: config.id, membership: Arc::new(membership.clone()), mint };
        let (wal, snapshots, opened) =
            store::open(&config.data_dir, &founding, StoreConfig::default()).map_err(StartError::Store)?;
        for note in &opened.notes {
            tracing::warn!(node = %config.id, "{note}");
        }
        let (engine, inbox) = channel();
        let (machine_jobs, machine_inbox) = channel();
        let (writer, snapshot_jobs) = channel();
        let dead = Arc::new(AtomicBool::new(false));
        let snapshots: Arc<dyn SnapshotFiles> = snapshots;
        let writing = SnapshotWork {
            jobs: snapshot_jobs,
            engine: engine.clone(),
            dead: Arc::clone(&dead),
            snapshots: Arc::clone(&snapshots),
            lock: wal.lock(),
        };
        let work = MachineWork {
            jobs: machine_inbox,
            engine: engine.clone(),
            dead: Arc::clone(&dead),
            snapshots: Arc::clone(&snapshots),
            writer,
            _lock: wal.lock(),
        };
        let directory = config.data_dir.join("machine").to_string_lossy().into_owned();
        let beginning = Beginning { directory, last: last_of(&opened.recovered), snapshot: opened.snapshot.clone() };
        let (machine_thread, applied) =
            start_machine(config.id, machine, beginning, work).map_err(StartError::Machine)?;
        let snapshot_thread = thread(config.id, "snap", move || run_snapshots(&writing))?;
        let threads = vec![machine_thread, snapshot_thread];
        let build = Build { config, address, membership, opened, applied, wal, snapshots, machine_jobs, threads, dead };
        build.run(engine, inbox, listener)
    }
}

/// Everything that is there before the threads.
struct Build<'a> {
    config: &'a NodeConfig,
    address: String,
    membership: Membership,
    opened: Opened,
    applied: Index,
    wal: Wal,
    snapshots: Arc<dyn SnapshotFiles>,
    machine_jobs: Sender<MachineJob>,
    /// Of the machine, and of whoever writes snapshots.
    threads: Vec<Thread>,
    /// The engine is gone: what waits for the machine is for nobody.
    dead: Arc<AtomicBool>,
}

impl Build<'_> {
    fn run(
        self,
        engine: Sender<Message>,
        inbox: Receiver<Message>,
        listener: std::net::TcpListener,
    ) -> Result<Node, StartError> {
        let config = self.config;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(format!("graft-net-{}", config.id))
            .enable_all()
            .build()
            .map_err(io("starting the network threads"))?;
        let inbox_bytes = Arc::new(AtomicUsize::new(0));
        let replica = self.replica()?;
        let transport = self.transport(&runtime, listener, engine.clone(), Arc::clone(&inbox_bytes))?;
        let (store, store_inbox) = channel();
        let cluster = replica.core().cluster();
        if self.opened.identity.cluster == ClusterId::UNKNOWN && cluster != ClusterId::UNKNOWN {
            // The node stopped after its log had the name and before the identity did.
            transport.set_cluster(cluster);
            let _ = store.send(StoreJob::Cluster(cluster));
        }
        let killed = Arc::new(AtomicBool::new(false));
        let store_thread = start_store(config.id, self.wal, store_inbox, engine.clone(), Arc::clone(&killed))?;
        let inflight = Arc::new(AtomicUsize::new(0));
        let broken = Arc::new(Mutex::new(None));
        let last_status = Mutex::new(replica.status());
        let events = Arc::new(Events::default());
        let loop_ = Engine {
            replica,
            inbox,
            store,
            machine: self.machine_jobs,
            transport: Arc::clone(&transport),
            peers: Peers::new(config),
            events: Arc::clone(&events),
            notices: Vec::new(),
            callers: Callers::new(Arc::clone(&inflight)),
            inflight: Arc::clone(&inflight),
            inbox_bytes,
            origin: Instant::now(),
            outbox: std::collections::BTreeMap::new(),
            stopped: false,
        };
        tracing::info!(node = %config.id, address = %self.address, data_dir = %config.data_dir.display(), "listening");
        if !config.join.is_empty() {
            transport.join(config.join.clone());
        }
        let mut threads = vec![start_engine(config.id, loop_, Arc::clone(&broken), self.dead)?, store_thread];
        threads.extend(self.threads);
        let parts = Parts { transport, runtime, threads };
        Ok(Node {
            address: self.address,
            inbox: engine,
            inflight,
            inbox_max: config.inflight_max.saturating_mul(2),
            killed,
            last_status,
            events,
            broken,
            parts: Mutex::new(Some(parts)),
        })
    }

    fn replica(&self) -> Result<Replica, StartError> {
        let config = self.config;
        let cluster = ClusterId(u128::from(random()?) << 64 | u128::from(random()?.max(1)));
        let core = Config {
            incarnation: self.opened.identity.incarnation,
            storage_timeout: config.election_timeout * STORAGE_TIMEOUTS,
            election_timeout: config.election_timeout,
            heartbeat: config.heartbeat,
            append_bytes_max: config.batch_bytes_max,
            log_bytes_max: config.log_bytes_max,
            ..Config::new(config.id, cluster, random()?)
        };
        let recovered = Recovered { applied: self.applied, ..self.opened.recovered.clone() };
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
        listener: std::net::TcpListener,
        engine: Sender<Message>,
        inbox_bytes: Arc<AtomicUsize>,
    ) -> Result<Arc<Transport>, StartError> {
        let hello = LocalHello {
            id: self.config.id,
            incarnation: self.opened.identity.incarnation,
            cluster: self.opened.identity.cluster,
            address: self.address.clone(),
            membership_hash: self.founding(),
        };
        // Sending from several threads at once: std's sender is `Sync`.
        let sink: PeerSink = Arc::new(move |event| {
            if let PeerEvent::Messages { messages, .. } = &event {
                let bytes = messages.iter().map(weight).sum();
                if inbox_bytes.fetch_add(bytes, Ordering::Relaxed) > INBOX_BYTES_MAX {
                    inbox_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    return;
                }
            }
            // Nobody is there once the node is stopped.
            let _ = engine.send(Message::Peer(event));
        });
        let config = PeerConfig {
            batch_bytes_max: self.config.batch_bytes_max,
            snapshot_bytes_per_second: self.config.snapshot_bytes_per_second,
            ..PeerConfig::default()
        };
        let snapshots = Some(Arc::clone(&self.snapshots));
        Transport::start(runtime.handle().clone(), listener, hello, config, snapshots, sink)
            .map(Arc::new)
            .map_err(io("starting the transport"))
    }

    /// What founders compare; 0 for a node that joins, and for one that has come past its founding.
    fn founding(&self) -> u64 {
        if self.membership.members.is_empty() || self.opened.snapshot.is_some() {
            return 0;
        }
        hash(&founded(&self.opened.recovered).unwrap_or_else(|| self.membership.clone()))
    }
}

fn start_store(
    id: NodeId,
    wal: Wal,
    jobs: Receiver<StoreJob>,
    engine: Sender<Message>,
    killed: Arc<AtomicBool>,
) -> Result<Thread, StartError> {
    thread(id, "log", move || {
        let run = catch_unwind(AssertUnwindSafe(|| run_store(wal, &jobs, &engine, &killed)));
        if let Err(panic) = run {
            let failed = graft_services::Event::StorageFailed(panic_words(&*panic));
            let _ = engine.send(Message::Event(failed));
        }
    })
}

fn start_engine(
    id: NodeId,
    mut engine: Engine,
    broken: Arc<Mutex<Option<String>>>,
    dead: Arc<AtomicBool>,
) -> Result<Thread, StartError> {
    thread(id, "raft", move || {
        let why = catch_unwind(AssertUnwindSafe(|| engine.run())).err().map(|panic| panic_words(&*panic));
        if let Some(why) = &why {
            tracing::error!("{why}");
            *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
        }
        dead.store(true, Ordering::Relaxed);
        engine.abandon(why);
    })
}

/// What the machine begins with.
struct Beginning {
    directory: String,
    /// The log ends here.
    last: Index,
    snapshot: Option<SnapshotMeta>,
}

/// Starts the machine's thread and waits for the machine to open what it keeps itself, or to be restored.
fn start_machine(
    id: NodeId,
    machine: Box<dyn Machine>,
    beginning: Beginning,
    work: MachineWork,
) -> Result<(Thread, Index), Halt> {
    let (opened, answer) = channel();
    let halt = |error: StartError| Halt { index: Index::ZERO, why: error.to_string() };
    let stay = machine.stay();
    let mut once = Some((machine, beginning, work, opened));
    let body = move || {
        stay(&mut || {
            let Some((mut machine, beginning, work, opened)) = once.take() else { return };
            let index = begin(&mut *machine, &beginning, &*work.snapshots);
            // The starter waits for the answer. A directory that could not be used is free when it has it.
            match index {
                Ok(applied) => {
                    let _ = opened.send(Ok(applied));
                    run_machine(&mut *machine, &work, applied);
                    drop((machine, work));
                }
                Err(halt) => {
                    drop((machine, work));
                    let _ = opened.send(Err(halt));
                }
            }
        });
    };
    let thread = thread_with_stack(id, "machine", MACHINE_STACK_BYTES, body).map_err(halt)?;
    let gone = Halt { index: Index::ZERO, why: "the machine's thread ended before it was open".to_owned() };
    let index = answer.recv().unwrap_or(Err(gone))?;
    Ok((thread, index))
}

/// Opens the machine's own state, and restores the snapshot unless that is newer. Answers the last index it has applied.
fn begin(machine: &mut dyn Machine, beginning: &Beginning, snapshots: &dyn SnapshotFiles) -> Result<Index, Halt> {
    let Beginning { directory, last, snapshot } = beginning;
    let panicked = |panic: Box<dyn std::any::Any + Send>| Halt { index: Index::ZERO, why: panic_words(&*panic) };
    let applied = catch_unwind(AssertUnwindSafe(|| machine.open(directory))).unwrap_or_else(|p| Err(panicked(p)))?;
    // A machine on its own disk may lag behind its log, never lead it.
    if applied > *last {
        let why = format!(
            "the machine says that it has applied entry {applied}, but the log ends at {last}: \
             its files do not belong to this data directory"
        );
        return Err(Halt { index: applied, why });
    }
    let Some(meta) = snapshot else { return Ok(applied) };
    // Entries behind the snapshot's last command change nothing.
    if applied < meta.command || applied == Index::ZERO {
        restore(machine, snapshots, meta.last).map_err(|why| Halt { index: meta.last.index, why })?;
    }
    Ok(applied.max(meta.last.index))
}

/// Where the log, or the snapshot in its stead, ends.
fn last_of(recovered: &Recovered) -> Index {
    recovered.entries.last().map_or(recovered.snapshot.index, |entry| entry.index)
}

/// A named thread; names longer than 15 bytes are cut by the system.
fn thread(id: NodeId, what: &str, body: impl FnOnce() + Send + 'static) -> Result<Thread, StartError> {
    thread_with_stack(id, what, STACK_BYTES, body)
}

fn thread_with_stack(
    id: NodeId,
    what: &str,
    stack_bytes: usize,
    body: impl FnOnce() + Send + 'static,
) -> Result<Thread, StartError> {
    let (ends, ended) = channel::<()>();
    let body = move || {
        body();
        drop(ends);
    };
    let builder = std::thread::Builder::new().name(format!("graft-{what}-{id}")).stack_size(stack_bytes);
    Ok((builder.spawn(body).map_err(io("starting a thread"))?, ended))
}

fn io(doing: &'static str) -> impl Fn(std::io::Error) -> StartError {
    move |error| StartError::Io { doing, error }
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

/// What two founders compare: FNV-1a over the founding membership.
fn hash(membership: &Membership) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    membership.encode().iter().fold(0xcbf2_9ce4_8422_2325, step).max(1)
}

/// From the operating system: names and seeds must not repeat.
fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::Io {
        doing: "drawing a random number from the operating system",
        error: std::io::Error::other(error),
    })
}
