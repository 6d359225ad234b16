//! Metrics for whoever asks: as text, and on a port of their own.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::StartError;
use super::front::Front;
use super::renewal::Certified;
use super::security::refuse_plain_listener;
use crate::infrastructure::config::NodeConfig;
use crate::infrastructure::grpc::{self, Complaints, Guard as _};
use crate::infrastructure::metrics::{self, Metrics, Seen};

/// Those who read at a time; more are hung up on. Few ask, and seldom.
const READERS_MAX: usize = 16;
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
    let guard = certified.filter(|_| !local.ip().to_canonical().is_loopback()).cloned();
    runtime.spawn(accept(listener, guard, Arc::clone(metering)));
    Ok(local)
}

async fn accept(listener: tokio::net::TcpListener, guard: Option<Arc<Certified>>, metering: Arc<Metering>) {
    let places = Arc::new(Semaphore::new(READERS_MAX));
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let answered = answer(stream, remote, guard.clone(), Arc::clone(&metering));
        tokio::spawn(async move {
            let _place = place;
            if timeout(READ_TIMEOUT, answered).await.is_err() {
                debug!(%remote, "whoever asked for metrics took too long");
            }
        });
    }
}

async fn answer(stream: TcpStream, remote: SocketAddr, guard: Option<Arc<Certified>>, metering: Arc<Metering>) {
    let text = || {
        let metering = Arc::clone(&metering);
        // Looking at the engine waits for it.
        async move { spawn_blocking(move || metering.text()).await.unwrap_or_default() }
    };
    let served = match guard {
        None => metrics::serve(stream, text).await,
        Some(guard) => {
            let secured = match guard.accept(stream).await {
                Ok(secured) => secured,
                Err(why) => return warn!(%remote, "connection for metrics refused: {why}"),
            };
            let member = secured.identity.member();
            if member.is_some_and(|id| metering.front.standing.status().former.contains(&id)) {
                return warn!(%remote, "connection for metrics refused: {} was removed", secured.identity);
            }
            metrics::serve(secured.stream, text).await
        }
    };
    if let Err(error) = served {
        debug!(%remote, %error, "a connection for metrics failed");
    }
}
