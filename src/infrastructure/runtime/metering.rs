//! Metrics for whoever asks: as text, and on a port of their own.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use graft_services::identity::Identity;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::StartError;
use super::front::Front;
use super::renewal::{Certified, OfHttp1};
use super::security::refuse_plain_listener;
use crate::infrastructure::config::NodeConfig;
use crate::infrastructure::grpc::{self, Complaints, Reader, Readers, Security};
use crate::infrastructure::metrics::{self, Metrics, Seen};

/// How long one may take for all of it.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to leave the port alone after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is counted, and what is looked at.
#[derive(Debug)]
pub(crate) struct Metering {
    metrics: Arc<Metrics>,
    front: Arc<Front>,
    complaints: Arc<Complaints>,
}

impl Metering {
    pub(super) fn new(metrics: Arc<Metrics>, front: Arc<Front>, complaints: Arc<Complaints>) -> Arc<Self> {
        Arc::new(Self { metrics, front, complaints })
    }

    /// Waits a moment for the engine, so that the numbers are of now.
    pub(crate) fn text(&self) -> String {
        let status = self.front.status();
        let waiting = self.front.inflight.load(Ordering::Relaxed);
        self.metrics.text(&Seen { status: &status, waiting, refused: self.complaints.counts() })
    }

    /// Whether this is a member that was removed, as far as this node knows at this moment.
    async fn is_removed(self: &Arc<Self>, identity: &Identity) -> bool {
        let Some(id) = identity.member() else { return false };
        let front = Arc::clone(&self.front);
        // Looking at the engine waits for it.
        spawn_blocking(move || front.status().former.contains(&id)).await.unwrap_or(true)
    }
}

/// Binds the port for metrics, if there is to be one.
pub(super) fn listen(config: &NodeConfig, is_secured: bool) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = &config.metrics else { return Ok(None) };
    let listener = grpc::bind(address).map_err(StartError::Bind)?;
    let local = listener.local_addr().map_err(super::threads::io("reading the address for metrics"))?;
    if !is_secured && !config.insecure {
        refuse_plain_listener(config.id, local)?;
    }
    Ok(Some(listener))
}

/// Serves the port for as long as the runtime lives: to this machine in plain text, beyond it as the node's own port does.
pub(super) fn serve(
    runtime: &Handle,
    listener: TcpListener,
    certified: Option<&Arc<Certified>>,
    metering: &Arc<Metering>,
) -> Result<SocketAddr, std::io::Error> {
    let local = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let listener = {
        let _runtime = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let guard = certified.filter(|_| !local.ip().to_canonical().is_loopback());
    let guard = guard.map(|certified| Security::new(Arc::new(OfHttp1(Arc::clone(certified)))));
    let readers = Readers::new(guard.unwrap_or_default(), Arc::clone(&metering.complaints));
    runtime.spawn(accept(listener, readers, Arc::clone(metering)));
    Ok(local)
}

async fn accept(listener: tokio::net::TcpListener, readers: Readers, metering: Arc<Metering>) {
    let readers = Arc::new(readers);
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let arrival = readers.enter(remote);
        let (readers, metering) = (Arc::clone(&readers), Arc::clone(&metering));
        tokio::spawn(async move {
            let answered = async {
                if let Some(reader) = readers.receive(stream, arrival).await {
                    answer(reader, remote, &readers, &metering).await;
                }
            };
            if timeout(READ_TIMEOUT, answered).await.is_err() {
                debug!(%remote, "whoever asked for metrics took too long");
            }
        });
    }
}

async fn answer(mut reader: Reader, remote: SocketAddr, readers: &Readers, metering: &Arc<Metering>) {
    if let Some(identity) = &reader.identity
        && metering.is_removed(identity).await
    {
        return readers.refuse(remote, &format_args!("{identity} was removed from this cluster"));
    }
    let desk = reader.desk.clone();
    let text = || {
        let (desk, metering) = (desk.clone(), Arc::clone(metering));
        async move {
            let _reading = desk.ask()?;
            // Looking at the engine waits for it.
            spawn_blocking(move || metering.text()).await.ok()
        }
    };
    tokio::select! {
        served = metrics::serve(reader.stream(), text) => {
            if let Err(error) = served {
                debug!(%remote, %error, "a connection for metrics failed");
            }
        }
        () = desk.end().cancelled() => debug!(%remote, "newer ones came before metrics were asked for"),
    }
}
