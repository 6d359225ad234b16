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
    /// How the files were just before they were read for the first time: whatever is put in their place since is news.
    opened: Option<Stamp>,
    endpoint: RwLock<Endpoint>,
}

/// How often files are looked at.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How often files that could not be used are tried again: it may be their mode that was wrong, a clock, or the disk.
const TRY_PAUSE: Duration = Duration::from_secs(10);
/// How often one that is about to expire is told of.
const EXPIRY_PAUSE: Duration = Duration::from_hours(24);

impl Certified {
    pub(super) fn open(source: &Source) -> Result<Self, TlsError> {
        let opened = source.stamp();
        let endpoint = Endpoint::open(source)?;
        Ok(Self { source: source.clone(), opened, endpoint: RwLock::new(endpoint) })
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

    /// Takes what is in the source now. What cannot be used, nobody would believe, or is somebody else's, changes nothing.
    fn renew(&self) -> Result<Notice, TlsError> {
        // Members believe the same authorities; a client may be known by one that it does not know itself.
        let is_member = self.identity().member().is_some();
        let next = if is_member { Endpoint::open_believed(&self.source) } else { Endpoint::open(&self.source) }?;
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
    let mut keeper = Keeper::new(certified.opened.clone());
    let certified = Arc::downgrade(certified);
    runtime.spawn(async move {
        loop {
            let looking = certified.clone();
            // The disk may be slow, and the network's threads wait for nobody.
            let looked =
                tokio::task::spawn_blocking(move || keeper.look(&looking, SystemTime::now()).map(|all| (keeper, all)));
            let (again, notices) = match looked.await {
                Ok(Some(seen)) => seen,
                Ok(None) => return,
                Err(error) => {
                    // Told, for the one in use expires some day; only a fault of ours, or the end of the runtime, comes here.
                    return warn!(%error, "the certificate's files are not looked at any more");
                }
            };
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
    /// Why what was read last is not in use, and when it is tried again.
    refused: Option<(String, SystemTime)>,
}

impl Keeper {
    fn new(read: Option<Stamp>) -> Self {
        Self { last: read.clone(), read, told: None, refused: None }
    }

    /// None if there is nobody left to look for.
    fn look(&mut self, certified: &Weak<Certified>, now: SystemTime) -> Option<Vec<Notice>> {
        let certified = certified.upgrade()?;
        let stamp = certified.source.stamp();
        let mut notices = Vec::new();
        let is_due = self.refused.as_ref().is_some_and(|(_, again)| now >= *again);
        if stamp == self.last && (stamp != self.read || is_due) {
            self.read.clone_from(&stamp);
            notices.extend(self.renew(&certified, now));
        }
        self.last = stamp;
        notices.extend(self.expiry(&certified, now));
        Some(notices)
    }

    /// What is wrong is told once, however often it is tried.
    fn renew(&mut self, certified: &Certified, now: SystemTime) -> Option<Notice> {
        let why = match certified.renew() {
            Ok(notice) => {
                self.refused = None;
                return Some(notice);
            }
            Err(TlsError(why)) => why,
        };
        let before = self.refused.replace((why.clone(), now + TRY_PAUSE));
        if before.is_some_and(|(known, _)| known == why) {
            return None;
        }
        warn!("new certificate not used: {why}");
        let expires = certified.endpoint().expires();
        Some(Notice::Certificate { phase: "refused", expires, why: Some(why) })
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

/// The same for a port on which HTTP/1.1 is spoken.
pub(super) struct OfHttp1(pub(super) Arc<Certified>);

impl Guard for OfHttp1 {
    fn accept(&self, stream: TcpStream) -> Securing<'_> {
        let endpoint = self.0.endpoint();
        Box::pin(async move {
            let secured = endpoint.accept_http1(stream).await?;
            Ok(Secured { stream: Box::new(secured.stream), identity: secured.identity })
        })
    }

    fn connect(&self, stream: TcpStream) -> Securing<'_> {
        self.0.connect(stream)
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
