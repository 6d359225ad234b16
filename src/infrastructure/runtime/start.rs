//! Starting a node: what can go wrong goes wrong here, before anything runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use graft_domain::{ClusterId, Config, Incarnation, Index, Membership, NodeId, Payload, RaftCore, Recovered};
use graft_services::ports::{Halt, Machine, Opened};
use graft_services::{Clock, Replica, ReplicaConfig};

use super::calls::Callers;
use super::engine::{Engine, Message, weight};
use super::workers::{MachineJob, StoreJob, panic_words, run_machine, run_store};
use super::{Node, Parts, StartError};
use crate::infrastructure::config::NodeConfig;
use crate::infrastructure::grpc::{self, LocalHello, PeerConfig, PeerEvent, PeerSink, Transport};
use crate::infrastructure::store::{self, Founding, StoreConfig, Wal};

/// Bytes of peers' messages that may wait for the event loop; beyond, messages are dropped as a network would.
const INBOX_BYTES_MAX: usize = 256 << 20;

/// What the standard library gives a thread.
const STACK_BYTES: usize = 2 << 20;
/// For user code: an interpreter checks its recursion against the stack of a main thread, 8 MiB, and must not run out before.
const MACHINE_STACK_BYTES: usize = 32 << 20;

/// What the machine's thread has besides the machine.
struct MachineWork {
    jobs: Receiver<MachineJob>,
    engine: Sender<Message>,
    dead: Arc<AtomicBool>,
    /// Held until the machine is done: another node on the same directory would apply the same commands beside it.
    lock: Arc<store::OsLock>,
}

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
        let (wal, opened) =
            store::open(&config.data_dir, &founding, StoreConfig::default()).map_err(StartError::Store)?;
        for note in &opened.notes {
            tracing::warn!(node = %config.id, "{note}");
        }
        let (engine, inbox) = channel();
        let (machine_jobs, machine_inbox) = channel();
        let directory = config.data_dir.join("machine").to_string_lossy().into_owned();
        let dead = Arc::new(AtomicBool::new(false));
        let doing =
            MachineWork { jobs: machine_inbox, engine: engine.clone(), dead: Arc::clone(&dead), lock: wal.lock() };
        let (machine_thread, applied) =
            start_machine(config.id, machine, directory, doing).map_err(StartError::Machine)?;
        check_machine(applied, &opened.recovered).map_err(StartError::Machine)?;
        let build = Build { config, address, membership, opened, applied, wal, machine_jobs, machine_thread, dead };
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
    machine_jobs: Sender<MachineJob>,
    machine_thread: Thread,
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
        let wal = self.wal;
        let to_engine = engine.clone();
        let killed = Arc::new(AtomicBool::new(false));
        let dead = Arc::clone(&killed);
        let store_thread = thread(config.id, "log", move || {
            let run = catch_unwind(AssertUnwindSafe(|| run_store(wal, &store_inbox, &to_engine, &dead)));
            if let Err(panic) = run {
                let failed = graft_services::Event::StorageFailed(panic_words(&*panic));
                let _ = to_engine.send(Message::Event(failed));
            }
        })?;
        let inflight = Arc::new(AtomicUsize::new(0));
        let broken = Arc::new(Mutex::new(None));
        let last_status = Mutex::new(replica.status());
        let loop_ = Engine {
            replica,
            inbox,
            store,
            machine: self.machine_jobs,
            transport: Arc::clone(&transport),
            addresses: config.members.clone().unwrap_or_default(),
            callers: Callers::new(Arc::clone(&inflight)),
            inbox_bytes,
            origin: Instant::now(),
            outbox: std::collections::BTreeMap::new(),
            stopped: false,
        };
        tracing::info!(node = %config.id, address = %self.address, data_dir = %config.data_dir.display(), "listening");
        let engine_thread = start_engine(config.id, loop_, Arc::clone(&broken), self.dead)?;
        let parts = Parts { transport, runtime, threads: vec![engine_thread, store_thread, self.machine_thread] };
        Ok(Node {
            address: self.address,
            inbox: engine,
            inflight,
            inbox_max: config.inflight_max.saturating_mul(2),
            killed,
            last_status,
            broken,
            parts: Mutex::new(Some(parts)),
        })
    }

    fn replica(&self) -> Result<Replica, StartError> {
        let config = self.config;
        let cluster = ClusterId(u128::from(random()?) << 64 | u128::from(random()?.max(1)));
        let core = Config {
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
        };
        Ok(Replica::new(replica, RaftCore::new(core, recovered, now), Clock { now, wall: 0 }))
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
            membership_hash: hash(&founded(&self.opened.recovered).unwrap_or_else(|| self.membership.clone())),
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
        let config = PeerConfig { batch_bytes_max: self.config.batch_bytes_max, ..PeerConfig::default() };
        Transport::start(runtime.handle().clone(), listener, hello, config, sink)
            .map(Arc::new)
            .map_err(io("starting the transport"))
    }
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

/// Starts the machine's thread and waits for the machine to open what it keeps itself.
fn start_machine(
    id: NodeId,
    machine: Box<dyn Machine>,
    directory: String,
    work: MachineWork,
) -> Result<(Thread, Index), Halt> {
    let (opened, answer) = channel();
    let halt = |error: StartError| Halt { index: Index::ZERO, why: error.to_string() };
    let stay = machine.stay();
    let mut once = Some((machine, work, opened));
    let body = move || {
        stay(&mut || {
            let Some((mut machine, work, opened)) = once.take() else { return };
            let index = catch_unwind(AssertUnwindSafe(|| machine.open(&directory)))
                .unwrap_or_else(|panic| Err(Halt { index: Index::ZERO, why: panic_words(&*panic) }));
            let open = index.is_ok();
            // The starter waits for it.
            let _ = opened.send(index);
            if open {
                run_machine(&mut *machine, &work.jobs, &work.engine, &work.dead);
            }
            // The machine lets go of its files before the directory is free for another node.
            drop(machine);
            drop(work.lock);
        });
    };
    let thread = thread_with_stack(id, "machine", MACHINE_STACK_BYTES, body).map_err(halt)?;
    let gone = Halt { index: Index::ZERO, why: "the machine's thread ended before it was open".to_owned() };
    let index = answer.recv().unwrap_or(Err(gone))?;
    Ok((thread, index))
}

/// A machine on its own disk may lag behind its log, never lead it.
fn check_machine(applied: Index, recovered: &Recovered) -> Result<(), Halt> {
    let last = recovered.entries.last().map_or(recovered.snapshot.index, |entry| entry.index);
    if applied > last {
        let why = format!(
            "the machine says that it has applied entry {applied}, but the log ends at {last}: \
             its files do not belong to this data directory"
        );
        return Err(Halt { index: applied, why });
    }
    Ok(())
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
    Some(Membership { cluster: ClusterId::UNKNOWN, ..(**membership).clone() })
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
