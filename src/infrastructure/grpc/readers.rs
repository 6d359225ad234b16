//! Another port of the node on which one thing is read, such as its metrics: who is there is found out as on the node's own
//! port, with places for newcomers and for those who read, and complaints that are counted with the others.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use graft_services::identity::Identity;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::admission::{Admission, Limits, OpenCall, Place, Seated};
use super::complaints::{Complaints, Refused};
use super::security::{Io, Security};

/// Those who have not asked yet, and those who are answered, at a time. Few ask, and seldom.
const NEWCOMERS_MAX: usize = 32;
const READERS_MAX: usize = 16;
/// How long one may take to prove who he is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Everybody on such a port.
#[derive(Debug)]
pub struct Readers {
    admission: Arc<Admission>,
    complaints: Arc<Complaints>,
    security: Security,
}

/// One connection on it. Its place is free when this is dropped.
pub struct Reader {
    /// Who has proved to be there; none if connections are not secured.
    pub identity: Option<Identity>,
    pub desk: Desk,
    stream: Box<dyn Io>,
    _seat: Seated,
}

/// Where one reader asks.
#[derive(Clone, Debug)]
pub struct Desk(Place);

/// Somebody is being answered.
#[derive(Debug)]
pub struct Reading(#[expect(dead_code, reason = "it is held")] OpenCall);

impl Readers {
    pub fn new(security: Security, complaints: Arc<Complaints>) -> Self {
        let limits =
            Limits { newcomers_max: NEWCOMERS_MAX, members_max: 0, clients_max: READERS_MAX, operators_max: 0 };
        Self { admission: Admission::new(limits), complaints, security }
    }

    /// Takes a place for a connection that was accepted just now, for which an older one may have to go.
    pub fn enter(&self, remote: SocketAddr) -> Arrival {
        Arrival { remote, seat: self.admission.enter(remote.ip()) }
    }

    /// Has whoever connected prove who he is. None if he cannot, or the place is needed.
    pub async fn receive(&self, stream: TcpStream, arrival: Arrival) -> Option<Reader> {
        let Arrival { remote, seat } = arrival;
        let secured = tokio::select! {
            secured = self.security.accept(stream, HANDSHAKE_TIMEOUT) => secured,
            () = seat.0.end.cancelled() => {
                self.complaints.count(Refused::Crowded);
                return None;
            }
        };
        match secured {
            Ok((stream, identity, _)) => {
                if let Some(identity) = &identity {
                    seat.0.identify(identity);
                }
                Some(Reader { identity, desk: Desk(seat.0.clone()), stream, _seat: seat })
            }
            Err(why) => {
                self.refuse(remote, &why);
                None
            }
        }
    }

    /// Counts that one was refused, and says why unless too much was said of late.
    pub fn refuse(&self, remote: SocketAddr, why: &dyn fmt::Display) {
        self.complaints.refuse(Refused::Connection, || warn!(%remote, "connection to read refused: {why}"));
    }
}

/// One that has come and not been looked at yet.
#[derive(Debug)]
pub struct Arrival {
    remote: SocketAddr,
    seat: Seated,
}

impl Reader {
    /// What is said on it.
    pub fn stream(&mut self) -> &mut (dyn Io + 'static) {
        &mut *self.stream
    }
}

impl Desk {
    /// He asks: from now on he is one of those who are answered. None if these are too many, none of them idle.
    pub fn ask(&self) -> Option<Reading> {
        self.0.begin_call(false).ok().map(Reading)
    }

    /// Is cancelled when the place of one who has not asked is needed.
    pub fn end(&self) -> &CancellationToken {
        &self.0.end
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tests/readers.rs"]
mod tests;
