//! Addresses: what a user writes, and the sockets that come of it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::faults::LinkFaults;

/// Why a node cannot listen at an address.
#[derive(Debug)]
pub enum BindError {
    /// Not `host:port`.
    Malformed {
        address: String,
    },
    /// The host's name means nothing here.
    Unresolvable {
        address: String,
        source: io::Error,
    },
    /// Somebody listens there.
    InUse {
        address: String,
    },
    /// This user may not listen there.
    Denied {
        address: String,
    },
    /// The address is not one of this machine's.
    NotHere {
        address: String,
    },
    Other {
        address: String,
        source: io::Error,
    },
}

/// Listens at `host:port`; port 0 takes a free one. Tries every address that the host resolves to. Blocks.
pub fn bind(address: &str) -> Result<TcpListener, BindError> {
    let owned = || address.to_owned();
    split(address).ok_or_else(|| BindError::Malformed { address: owned() })?;
    let resolved = resolve(address).map_err(|source| BindError::Unresolvable { address: owned(), source })?;
    TcpListener::bind(&resolved[..]).map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => BindError::InUse { address: owned() },
        ErrorKind::PermissionDenied => BindError::Denied { address: owned() },
        ErrorKind::AddrNotAvailable => BindError::NotHere { address: owned() },
        _ => BindError::Other { address: owned(), source },
    })
}

/// Host and port of `host:port` or `[v6]:port`.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let printable = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if digits && printable { Some((bare, port.parse().ok()?)) } else { None }
}

/// Whether this can be dialled: `host:port`, with a port.
pub fn is_address(text: &str) -> bool {
    split(text).is_some_and(|(_, port)| port > 0)
}

/// How many addresses of one name are tried.
const RESOLVED_MAX: usize = 8;

fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = split(address)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the address is not of the form host:port"))?;
    let found: Vec<_> = (host, port).to_socket_addrs()?.take(RESOLVED_MAX).collect();
    if found.is_empty() {
        return Err(io::Error::new(ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

/// Connects to one address, resolving it anew each time.
#[derive(Debug)]
pub(super) struct Connector {
    address: String,
    /// A look-up that took too long. The system cannot be told to give it up, so it is waited for rather than
    /// started again: one thread at the most is stuck in it.
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
    /// What may be in the way of members.
    faults: Option<Arc<LinkFaults>>,
}

impl Connector {
    pub(super) fn new(address: String) -> Self {
        Self { address, lookup: None, faults: None }
    }

    /// One that is cut off by the faults of this node's links.
    pub(super) fn of_member(address: String, faults: &Arc<LinkFaults>) -> Self {
        Self { faults: Some(Arc::clone(faults)), ..Self::new(address) }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Takes at most `limit` to resolve and as long again to connect, shared among the addresses found.
    pub(super) async fn connect(&mut self, limit: Duration) -> io::Result<TcpStream> {
        if let Some(faults) = &self.faults {
            let passage = timeout(limit, faults.passage(&self.address)).await;
            passage.map_err(|_| timed_out("connecting", limit))?;
        }
        let found = self.lookup(limit).await?;
        let each = limit / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
        let mut error = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for socket in found {
            match timeout(each, TcpStream::connect(socket)).await {
                Ok(Ok(stream)) => return ready(stream),
                Ok(Err(failed)) => error = failed,
                Err(_) => error = timed_out("connecting", each),
            }
        }
        Err(error)
    }

    async fn lookup(&mut self, limit: Duration) -> io::Result<Vec<SocketAddr>> {
        if let Ok(socket) = self.address.parse() {
            return Ok(vec![socket]);
        }
        let mut lookup = self.lookup.take().unwrap_or_else(|| {
            let address = self.address.clone();
            tokio::task::spawn_blocking(move || resolve(&address))
        });
        if let Ok(done) = timeout(limit, &mut lookup).await {
            return done.unwrap_or_else(|lost| Err(io::Error::other(lost)));
        }
        self.lookup = Some(lookup);
        Err(timed_out("looking up the name", limit))
    }
}

fn timed_out(what: &str, limit: Duration) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("{what} took longer than {limit:?}"))
}

/// Every connection, dialled or accepted, passes through here before a byte is sent: the place for what all need.
pub(super) fn ready(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { address } => {
                write!(f, "{address:?} is not an address: write host:port, for example 127.0.0.1:7001 or [::1]:7001")
            }
            Self::Unresolvable { address, source } => write!(
                f,
                "{address}: the host cannot be resolved ({source}): check the name, or use an address of this machine"
            ),
            Self::InUse { address } => write!(
                f,
                "{address} is in use by another program, or by a node that is still running: stop it, or choose \
                 another port (`ss -ltnp` shows who listens)"
            ),
            Self::Denied { address } => write!(
                f,
                "{address}: this user may not listen there: ports below 1024 are often reserved, choose a higher one"
            ),
            Self::NotHere { address } => write!(
                f,
                "{address} is not an address of this machine: listen on one that is, or on 0.0.0.0, and announce \
                 this one to the other members"
            ),
            Self::Other { address, source } => write!(f, "cannot listen on {address}: {source}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unresolvable { source, .. } | Self::Other { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        assert_eq!(split("127.0.0.1:7001"), Some(("127.0.0.1", 7001)));
        assert_eq!(split("[::1]:0"), Some(("::1", 0)));
        assert_eq!(split("n1.example:65535"), Some(("n1.example", 65535)));
        for bad in
            ["", ":", "host", "host:", ":7001", "host:65536", "host:-1", "::1:7001", "[::1:7001", "a b:1", "h/x:1"]
        {
            assert_eq!(split(bad), None, "{bad}");
            assert!(matches!(bind(bad), Err(BindError::Malformed { .. })), "{bad}");
        }
    }

    #[test]
    fn a_free_port_is_bound_once() {
        let first = bind("127.0.0.1:0").unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = bind(&address).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
        assert!(error.to_string().contains(&address) && error.to_string().contains("stop it"), "{error}");
        drop(first);
        bind(&address).unwrap();
    }

    #[test]
    fn what_cannot_be_listened_on_says_why() {
        let nowhere = bind("no-such-host.invalid:7001").unwrap_err();
        assert!(matches!(nowhere, BindError::Unresolvable { .. }), "{nowhere:?}");
        // A block reserved for documentation: no machine has such an address.
        let foreign = bind("192.0.2.1:7001").unwrap_err();
        assert!(matches!(foreign, BindError::NotHere { .. }), "{foreign:?}");
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_connected_to() {
        let listener = bind("127.0.0.1:0").unwrap();
        let mut connector = Connector::new(format!("localhost:{}", listener.local_addr().unwrap().port()));
        let stream = connector.connect(Duration::from_secs(5)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
    }
}
