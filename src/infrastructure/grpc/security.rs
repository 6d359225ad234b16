//! Who is at the other end of a connection: what secures it is given from outside.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use graft_domain::NodeId;
use graft_services::identity::{Distrust, Identity, Role};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::watched::{self, Fault, Watched};

/// A connection of whatever kind.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, and who has proved to be at its other end.
pub struct Secured {
    pub stream: Box<dyn Io>,
    pub identity: Identity,
}

/// The end of securing a connection.
pub type Securing<'a> = Pin<Box<dyn Future<Output = Result<Secured, Distrust>> + Send + 'a>>;

/// Secures connections, accepted and dialled.
pub trait Guard: Send + Sync {
    fn accept(&self, stream: TcpStream) -> Securing<'_>;
    fn connect(&self, stream: TcpStream) -> Securing<'_>;
}

/// What secures every connection of a transport or client; nothing, for networks that are trusted.
#[derive(Clone, Default)]
pub struct Security(Option<Arc<dyn Guard>>);

/// Reading, or more, by path. What is not listed here takes an operator.
const ROLES: [(&str, Role); 12] = [
    ("/graft.v1.Client/Query", Role::Reader),
    ("/graft.v1.Client/Watch", Role::Reader),
    // Each call on it is judged by itself.
    ("/graft.v1.Client/Calls", Role::Reader),
    ("/graft.v1.Client/Execute", Role::Writer),
    ("/graft.v1.Client/OpenSession", Role::Writer),
    ("/graft.v1.Admin/Status", Role::Reader),
    ("/graft.v1.Admin/Members", Role::Reader),
    ("/graft.v1.Admin/WhatIf", Role::Reader),
    ("/graft.v1.Admin/Events", Role::Reader),
    ("/grpc.health.v1.Health/Check", Role::Reader),
    ("/grpc.health.v1.Health/List", Role::Reader),
    ("/grpc.health.v1.Health/Watch", Role::Reader),
];
/// What calls that not every role allows do, in the words of whoever makes them.
const DOINGS: [(&str, &str); 8] = [
    ("/graft.v1.Client/Execute", "execute commands"),
    ("/graft.v1.Client/OpenSession", "open a session for commands"),
    ("/graft.v1.Admin/ChangeMembership", "change the membership"),
    ("/graft.v1.Admin/TransferLeadership", "transfer the leadership"),
    ("/graft.v1.Admin/Snapshot", "have a snapshot or a backup taken"),
    ("/graft.v1.Admin/ReadSnapshot", "read a snapshot for a backup"),
    ("/graft.v1.Admin/Verify", "have the replicas compared"),
    ("/graft.v1.Admin/Shutdown", "shut a member down"),
];
/// Reflection tells what is in the documentation.
const REFLECTION_PREFIX: &str = "/grpc.reflection.";

/// What a call of this path takes.
pub(super) fn needed(path: &str) -> Role {
    if path.starts_with(REFLECTION_PREFIX) {
        return Role::Reader;
    }
    ROLES.iter().find(|(known, _)| *known == path).map_or(Role::Operator, |(_, role)| *role)
}

/// What a call of this path does, if not every role allows it.
pub(super) fn doing(path: &str) -> Option<&'static str> {
    DOINGS.iter().find(|(known, _)| *known == path).map(|(_, doing)| *doing)
}

impl Security {
    pub fn new(guard: Arc<dyn Guard>) -> Self {
        Self(Some(guard))
    }

    /// Secures an accepted connection within `limit`; whoever is there is not known without a guard.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<(Box<dyn Io>, Option<Identity>, Fault), Distrust> {
        match &self.0 {
            None => {
                let (stream, fault) = Watched::plain(stream, watched::ACCEPTED);
                Ok((Box::new(stream), None, fault))
            }
            Some(guard) => secured(guard.accept(stream), limit).await,
        }
    }

    /// Secures a dialled connection within `limit`, to the member `expected` if one is.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        expected: Option<NodeId>,
        limit: Duration,
    ) -> Result<(Box<dyn Io>, Fault), Distrust> {
        let Some(guard) = &self.0 else {
            let (stream, fault) = Watched::plain(stream, watched::DIALLED);
            return Ok((Box::new(stream), fault));
        };
        let (stream, identity, fault) = secured(guard.connect(stream), limit).await?;
        let found = identity.as_ref().and_then(Identity::member);
        match (expected, identity) {
            (Some(expected), Some(identity)) if found != Some(expected) => Err(Distrust(format!(
                "the certificate there is that of {identity}, and {expected} was dialled: correct the address of \
                 {expected}, or give that node its own certificate"
            ))),
            _ => Ok((stream, fault)),
        }
    }
}

async fn secured(securing: Securing<'_>, limit: Duration) -> Result<(Box<dyn Io>, Option<Identity>, Fault), Distrust> {
    let late = |_| Distrust(format!("the other side did not prove within {limit:?} who it is: does it speak TLS?"));
    let Secured { stream, identity } = timeout(limit, securing).await.map_err(late)??;
    let (stream, fault) = Watched::secured(stream);
    Ok((Box::new(stream), Some(identity), fault))
}

impl PartialEq for Security {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Security {}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Security(on)" } else { "Security(off)" })
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_takes_an_operator() {
        assert_eq!(needed("/graft.v1.Client/Query"), Role::Reader);
        assert_eq!(needed("/graft.v1.Client/Execute"), Role::Writer);
        let others = ["/graft.v1.Admin/Shutdown", "/graft.v1.Admin/ChangeMembership", "/graft.v1.Client/Query/", "/x"];
        assert!(others.iter().all(|path| needed(path) == Role::Operator));
    }

    #[test]
    fn what_a_reader_may_not_do_has_a_name() {
        for (path, _) in DOINGS {
            assert!(needed(path) > Role::Reader, "{path}");
        }
        let listed = ROLES.iter().filter(|(_, role)| *role > Role::Reader);
        assert!(listed.map(|(path, _)| doing(path)).all(|doing| doing.is_some()));
        assert_eq!(doing("/graft.v1.Admin/Snapshot"), Some("have a snapshot or a backup taken"));
    }
}
