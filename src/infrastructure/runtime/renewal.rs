//! Certificates that are replaced while connections stand: new ones are used for every connection that is made from then on,
//! bad ones are told of and left alone.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use graft_services::identity::Identity;
use graft_services::{CertificateLife, Notice};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::infrastructure::grpc::{Guard, Secured, Securing};
use crate::infrastructure::tls::{Endpoint, Source, Stamp, TlsError, date};

/// A certificate, and what may take its place.
pub(crate) struct Certified {
    source: Source,
    endpoint: RwLock<Endpoint>,
}

/// How often files are looked at.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How often one that is about to expire is told of.
const EXPIRY_PAUSE: Duration = Duration::from_hours(24);

impl Certified {
    pub(super) fn open(source: &Source) -> Result<Self, TlsError> {
        let endpoint = Endpoint::open(source)?;
        Ok(Self { source: source.clone(), endpoint: RwLock::new(endpoint) })
    }

    pub(super) fn identity(&self) -> Identity {
        self.endpoint().identity().clone()
    }

    /// How long the certificate is good.
    pub(crate) fn life(&self) -> CertificateLife {
        let endpoint = self.endpoint();
        CertificateLife { expires: endpoint.expires(), is_expiring: endpoint.is_expiring(SystemTime::now()) }
    }

    /// The one that new connections are secured with.
    fn endpoint(&self) -> Endpoint {
        // Nothing panics while it holds the lock.
        self.endpoint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what is in the source now. What cannot be used, or is somebody else's, changes nothing.
    fn renew(&self) -> Result<Notice, TlsError> {
        let next = Endpoint::open(&self.source)?;
        let (before, now) = (self.identity(), next.identity());
        if before != *now {
            return Err(TlsError(format!("the certificate is that of {now}, and {before} goes on with its own")));
        }
        let expires = next.expires();
        *self.endpoint.write().unwrap_or_else(PoisonError::into_inner) = next;
        info!("certificate of {before} renewed; it is good until {}", date(expires));
        Ok(Notice::Certificate { phase: "renewed", expires, why: None })
    }
}

/// Looks at the files until the node or client is gone, and tells what comes of it.
pub(super) fn keep(certified: &Arc<Certified>, runtime: &Handle, tell: impl Fn(Notice) + Send + 'static) {
    let mut keeper = Keeper::new(certified.source.stamp());
    let certified = Arc::downgrade(certified);
    runtime.spawn(async move {
        loop {
            let looking = certified.clone();
            // The disk may be slow, and the network's threads wait for nobody.
            let looked =
                tokio::task::spawn_blocking(move || keeper.look(&looking, SystemTime::now()).map(|all| (keeper, all)));
            let Ok(Some((again, notices))) = looked.await else { return };
            keeper = again;
            notices.into_iter().for_each(&tell);
            sleep(LOOK_PAUSE).await;
        }
    });
}

/// What is known of the files.
struct Keeper {
    /// As they were when they were read.
    read: Option<Stamp>,
    /// As they were at the last look: somebody may be replacing them, and they are read when they stay the same for one.
    last: Option<Stamp>,
    /// When it was told last that the certificate expires.
    told: Option<SystemTime>,
}

impl Keeper {
    fn new(read: Option<Stamp>) -> Self {
        Self { last: read.clone(), read, told: None }
    }

    /// None if there is nobody left to look for.
    fn look(&mut self, certified: &Weak<Certified>, now: SystemTime) -> Option<Vec<Notice>> {
        let certified = certified.upgrade()?;
        let stamp = certified.source.stamp();
        let mut notices = Vec::new();
        if stamp != self.read && stamp == self.last {
            self.read.clone_from(&stamp);
            notices.push(certified.renew().unwrap_or_else(|error| {
                warn!("new certificate not used: {error}");
                let expires = certified.endpoint().expires();
                Notice::Certificate { phase: "refused", expires, why: Some(error.0) }
            }));
        }
        self.last = stamp;
        notices.extend(self.expiry(&certified, now));
        Some(notices)
    }

    /// From a third of its life on it is told of, once a day.
    fn expiry(&mut self, certified: &Certified, now: SystemTime) -> Option<Notice> {
        let endpoint = certified.endpoint();
        let is_told = self.told.is_some_and(|told| now < told + EXPIRY_PAUSE);
        if is_told || !endpoint.is_expiring(now) {
            return None;
        }
        self.told = Some(now);
        let (identity, expires) = (endpoint.identity().clone(), endpoint.expires());
        warn!("the certificate of {identity} expires at {}: `graft tls renew` makes another one", date(expires));
        let why = format!("it expires at {}", date(expires));
        Some(Notice::Certificate { phase: "expiring", expires, why: Some(why) })
    }
}

impl Guard for Certified {
    fn accept(&self, stream: TcpStream) -> Securing<'_> {
        let endpoint = self.endpoint();
        Box::pin(async move {
            let secured = endpoint.accept(stream).await?;
            Ok(Secured { stream: Box::new(secured.stream), identity: secured.identity })
        })
    }

    fn connect(&self, stream: TcpStream) -> Securing<'_> {
        let endpoint = self.endpoint();
        Box::pin(async move {
            let secured = endpoint.connect(stream).await?;
            Ok(Secured { stream: Box::new(secured.stream), identity: secured.identity })
        })
    }
}

impl std::fmt::Debug for Certified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.endpoint().fmt(f)
    }
}

#[cfg(test)]
#[path = "tests/renewal.rs"]
mod tests;
