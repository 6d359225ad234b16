//! Finding out who is at an address, before a member is added there.

use std::sync::Arc;

use graft_domain::{ClusterId, Incarnation, NodeId};
use tokio::time::timeout;
use tonic::Request;

use super::address::Connector;
use super::event::PeerEvent;
use super::handshake::{self, Introduction, View};
use super::http2::{self, NoConnection, Single};
use super::refusal::Refusal;
use super::transport::{Shared, Transport};
use super::wire;

/// Probes at a time.
pub(super) const PROBES_MAX: usize = 16;
/// More than an introduction takes.
const REPLY_BYTES_MAX: usize = 64 << 10;

impl Transport {
    /// Finds out whether it is `id` that answers at `address`, and says so as [`PeerEvent::Probed`], within the times
    /// that connecting and introductions may take.
    pub fn probe(&self, id: NodeId, address: impl Into<String>) {
        let (shared, address) = (Arc::clone(&self.shared), address.into());
        let Ok(place) = Arc::clone(&shared.probes).try_acquire_owned() else {
            let found = Err(format!("{PROBES_MAX} other addresses are being looked at; try again"));
            return (shared.sink)(PeerEvent::Probed { id, address, found });
        };
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            let stop = shared.stop.clone();
            let found = stop.run_until_cancelled(probe(&shared, id, &address)).await;
            drop(place);
            if let Some(found) = found {
                (shared.sink)(PeerEvent::Probed { id, address, found });
            }
        });
    }
}

async fn probe(shared: &Arc<Shared>, id: NodeId, address: &str) -> Result<Incarnation, String> {
    let other = greet(shared, id, address).await?;
    judge(&shared.view.borrow(), id, address, &other)?;
    Ok(other.incarnation)
}

async fn greet(shared: &Arc<Shared>, id: NodeId, address: &str) -> Result<Introduction, String> {
    let foreign = |why: &str| {
        format!(
            "what listens at {address} does not answer as a node does ({why}): correct the address, or start {id} there"
        )
    };
    let mut connector = Connector::of_member(address.to_owned(), &shared.faults);
    let connection = Single::open(&mut connector, &shared.config, &shared.tasks, REPLY_BYTES_MAX, Some(id)).await;
    let mut connection = connection.map_err(|none| match none {
        NoConnection::Unreachable(why) => {
            format!("nobody can be reached at {address} ({why}): start {id} there first, or correct the address")
        }
        NoConnection::Foreign(why) => foreign(&why),
    })?;
    let mut request = Request::new(wire::GreetRequest {});
    let hello = shared.view.borrow().hello_to_anyone();
    handshake::into_metadata(&hello, request.metadata_mut());
    let limit = shared.config.handshake_timeout;
    let reply = match timeout(limit, connection.client.greet(request)).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => {
            return Err(
                Refusal::from_status(&status).map_or_else(|| foreign(&http2::words(&status)), |refusal| refusal.why)
            );
        }
        Err(_) => return Err(foreign(&format!("nothing within {limit:?}"))),
    };
    let hello = reply.hello.ok_or_else(|| foreign("it does not say who it is"))?;
    Introduction::parse(hello).map_err(|refusal| refusal.why)
}

/// Whether what answers can become the member `id` of this node's cluster, or is it already.
fn judge(view: &View, id: NodeId, address: &str, other: &Introduction) -> Result<(), String> {
    let (me, mine) = (&view.me, view.cluster());
    if other.id != id {
        return Err(format!("{} answers at {address}, not {id}: correct the address, or the id", other.id));
    }
    if other.cluster != ClusterId::UNKNOWN && mine != ClusterId::UNKNOWN && other.cluster != mine {
        return Err(format!(
            "{id} at {address} belongs to another cluster ({}, not {mine}): to move it, start it with an empty data \
             directory under a new id, with `join=` and the address of a member of this cluster",
            other.cluster
        ));
    }
    let founds = other.cluster == ClusterId::UNKNOWN && other.founding != 0;
    if founds && other.founding != me.membership_hash {
        return Err(format!(
            "{id} at {address} was started to found a cluster of its own: start it with an empty data directory and \
             `join=` in place of `members=`, with the address of a member of this cluster"
        ));
    }
    view.judge(other).map_err(|refusal| refusal.why)
}
