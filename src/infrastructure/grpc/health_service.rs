//! The standard health service: `""` and `graft.v1.Admin` for a node that lives, `graft.ready` and `graft.v1.Client` for one
//! that can serve, `graft.leader` for the one that leads.

use graft_domain::NodeId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::event::Health;
use super::tasks::Tasks;
use super::transport::Shared;

#[derive(Debug)]
pub(super) struct HealthService {
    health: watch::Receiver<Health>,
    tasks: Tasks,
    stop: CancellationToken,
    me: NodeId,
}

impl HealthService {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            health: shared.health.subscribe(),
            tasks: shared.tasks.clone(),
            stop: shared.stop.clone(),
            me: shared.me,
        }
    }
}

/// What one may ask after. A stream keeps this rather than the caller's words, which may be long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Alive,
    Ready,
    Leads,
}

impl Asked {
    /// None for a service that there is not.
    fn of(service: &str) -> Option<Self> {
        match service {
            "" | "graft.v1.Admin" => Some(Self::Alive),
            "graft.ready" | "graft.v1.Client" => Some(Self::Ready),
            "graft.leader" => Some(Self::Leads),
            _ => None,
        }
    }

    fn serves(self, health: Health) -> bool {
        health.alive
            && match self {
                Self::Alive => true,
                Self::Ready => health.ready,
                Self::Leads => health.leads,
            }
    }
}

fn answer(serves: Option<bool>) -> HealthCheckResponse {
    let status = match serves {
        Some(true) => ServingStatus::Serving,
        Some(false) => ServingStatus::NotServing,
        None => ServingStatus::ServiceUnknown,
    };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for HealthService {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let health = *self.health.borrow();
        let found = Asked::of(&request.get_ref().service).map(|asked| asked.serves(health));
        if found.is_none() {
            return Err(Status::not_found(
                "there is no such service; there are \"\" (alive), \"graft.ready\" and \"graft.leader\"",
            ));
        }
        Ok(Response::new(answer(found)))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let asked = Asked::of(&request.into_inner().service);
        let (mut health, stop, me) = (self.health.clone(), self.stop.clone(), self.me);
        let (out, answers) = mpsc::channel(1);
        self.tasks.spawn(async move {
            let mut told = None;
            loop {
                let now = *health.borrow_and_update();
                let found = asked.map(|asked| asked.serves(now));
                // Not every change is one of this service.
                if told != Some(found) {
                    told = Some(found);
                    if out.send(Ok(answer(found))).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = out.closed() => return,
                    changed = health.changed() => if changed.is_err() { break },
                }
            }
            let _ = out.try_send(Err(Status::unavailable(format!("{me} is stopping"))));
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stream_keeps_of_a_name_does_not_depend_on_its_length() {
        assert_eq!(size_of::<Option<Asked>>(), 1, "no words of the caller's");
        assert_eq!(Asked::of(&"x".repeat(1 << 20)), None);
        let health = Health { alive: true, ready: true, leads: false };
        let serves = |name| Asked::of(name).map(|asked: Asked| asked.serves(health));
        assert_eq!(["", "graft.ready", "graft.leader"].map(serves), [Some(true), Some(true), Some(false)]);
        let dead = Health { alive: false, ..health };
        assert_eq!(Asked::of("graft.v1.Client").map(|asked| asked.serves(dead)), Some(false));
    }
}
