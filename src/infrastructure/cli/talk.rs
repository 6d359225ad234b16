//! A conversation with a cluster: calls that wait for their answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_domain::{ClusterId, NodeId};
use graft_services::api::{Api, Call, Caller, Sink, View};
use graft_services::change::Ask;
use graft_services::error::{Outcome, Refusal};
use graft_services::{Read, named};

use super::args::Global;
use super::failure::{Failure, of_outcome};
use super::interrupt;
use crate::infrastructure::runtime::{Client, ClientConfig, backup};

pub(super) const CALL_SECONDS: f64 = 10.0;
const CHANGE_SECONDS: f64 = 300.0;
/// How long an answer may be late before it is given up: the client itself keeps the time.
const GRACE: Duration = Duration::from_secs(2);
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Talk {
    client: Arc<Client>,
    seconds: Option<f64>,
    endpoints: String,
}

/// Passes outcomes on.
struct Told(Sender<Outcome>);

impl Sink for Told {
    fn complete(&self, _token: u64, outcome: Outcome) {
        // Whoever asked may have given up.
        let _ = self.0.send(outcome);
    }
}

impl Talk {
    pub(super) fn open(global: &Global) -> Result<Self, Failure> {
        if global.cluster.is_empty() {
            return Err(Failure::usage(
                "which cluster? Give the address of a member by --cluster host:port or the environment's GRAFT_CLUSTER",
            ));
        }
        let (tls, insecure) = (global.secrets.source(), global.secrets.insecure);
        // Before the time is over it is told what was wrong.
        let seconds = global.timeout.unwrap_or(CALL_SECONDS);
        let look_timeout = Duration::from_secs_f64(seconds / 2.0).min(LOOK_TIMEOUT);
        let endpoints = global.cluster.iter().map(String::as_str);
        let cluster = global.cluster_id.unwrap_or(ClusterId::UNKNOWN);
        let config = ClientConfig { cluster, tls, insecure, look_timeout, ..ClientConfig::new(endpoints) };
        let client = Arc::new(Client::start(config)?);
        Ok(Self { client, seconds: global.timeout, endpoints: global.cluster.join(", ") })
    }

    pub(super) fn close(&self) {
        self.client.close(CLOSE_TIMEOUT);
    }

    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    pub(super) fn call_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(CALL_SECONDS))
    }

    fn change_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(CHANGE_SECONDS))
    }

    /// What the member that answers says of itself and of the cluster. Waits for one until the time is over.
    pub(super) fn view(&self) -> Result<View, Failure> {
        self.view_by(Instant::now() + self.call_timeout())
    }

    pub(super) fn view_by(&self, deadline: Instant) -> Result<View, Failure> {
        let mut last = None;
        loop {
            let (tell, told) = channel();
            self.client.view(Box::new(move |view| drop(tell.send(view))));
            let left = deadline.saturating_duration_since(Instant::now());
            match told.recv_timeout(left) {
                Ok(Ok(view)) => return Ok(view),
                Ok(Err(refusal @ (Refusal::Unreachable(_) | Refusal::Stopped | Refusal::Timeout))) if left > PAUSE => {
                    last = Some(refusal);
                    std::thread::sleep(PAUSE);
                }
                Ok(Err(refusal)) => return Err(refusal.into()),
                Err(_) => return Err(self.unreachable(last.as_ref())),
            }
        }
    }

    /// What a member says of the cluster. A node that was not let in yet knows nothing of it.
    pub(super) fn view_of_cluster(&self) -> Result<View, Failure> {
        let View { status, why } = self.view()?;
        if status.members.is_empty() && status.error.is_none() {
            let (id, why) = (status.id, why.join("; "));
            return Err(Failure::new("NO_LEADER", format!("{id} is no member yet, and no other one answers: {why}")));
        }
        Ok(View { status, why })
    }

    /// A call that came to nothing in its time, told by what kept the cluster from it, if that can be seen.
    pub(super) fn explained(&self, failure: Failure) -> Failure {
        if failure.code != "TIMEOUT" {
            return failure;
        }
        match self.view() {
            Ok(View { status, why }) if status.leader.is_none() || !status.has_quorum => {
                let seconds = self.call_timeout().as_secs_f64();
                Failure::new("NO_QUORUM", format!("nothing was applied within {seconds} s: {}", why.join("; ")))
            }
            _ => failure,
        }
    }

    fn unreachable(&self, last: Option<&Refusal>) -> Failure {
        let seconds = self.call_timeout().as_secs_f64();
        let why = last.map(|refusal| format!(": {refusal}")).unwrap_or_default();
        Failure::new("UNREACHABLE", format!("no member of {} has answered within {seconds} s{why}", self.endpoints))
    }

    pub(super) fn execute(&self, body: Bytes) -> Result<Outcome, Failure> {
        let (caller, told) = caller();
        let _waited = interrupt::waits(&self.client, &interrupt::COMMAND);
        self.client.execute(vec![Call { body, slot: None, caller }], self.call_timeout());
        Self::answer(&told, self.call_timeout())
    }

    pub(super) fn query(&self, body: Bytes, read: Read) -> Result<Outcome, Failure> {
        let (caller, told) = caller();
        self.client.query(vec![(body, caller)], read, self.call_timeout());
        Self::answer(&told, self.call_timeout())
    }

    /// Asks, and calls `meanwhile` again and again until there is an answer.
    pub(super) fn ask(&self, ask: Ask, mut meanwhile: impl FnMut()) -> Result<Outcome, Failure> {
        let (caller, told) = caller();
        let _waited = interrupt::waits(&self.client, &interrupt::CHANGE);
        let deadline = Instant::now() + self.change_timeout() + GRACE;
        self.client.ask(ask, caller, self.change_timeout());
        loop {
            match told.recv_timeout(PAUSE * 4) {
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => meanwhile(),
                Ok(answer @ (Outcome::Done { .. } | Outcome::Compared { .. })) => return Ok(answer),
                Ok(outcome) => return Err(of_outcome(outcome)),
                Err(_) => return Err(of_outcome(Outcome::unknown("no answer came"))),
            }
        }
    }

    pub(super) fn snapshot(&self) -> Result<Outcome, Failure> {
        let (caller, told) = caller();
        self.client.snapshot(false, caller, self.change_timeout());
        Self::answer(&told, self.change_timeout())
    }

    pub(super) fn backup(&self, file: PathBuf) -> Result<Outcome, Failure> {
        let (caller, told) = caller();
        let client = Arc::<Client>::clone(&self.client);
        let api: Arc<dyn Api> = client;
        backup(&api, file, caller, self.change_timeout());
        Self::answer(&told, self.change_timeout())
    }

    pub(super) fn verify(&self) -> Result<Outcome, Failure> {
        let (caller, told) = caller();
        self.client.verify(caller, self.call_timeout());
        Self::answer(&told, self.call_timeout())
    }

    /// Ends the node that is connected.
    pub(super) fn shutdown(&self) {
        self.client.shutdown(self.call_timeout());
    }

    fn answer(told: &Receiver<Outcome>, timeout: Duration) -> Result<Outcome, Failure> {
        match told.recv_timeout(timeout + GRACE) {
            Ok(answer @ (Outcome::Done { .. } | Outcome::Compared { .. })) => Ok(answer),
            Ok(outcome) => Err(of_outcome(outcome)),
            Err(_) => Err(of_outcome(Outcome::unknown("no answer came"))),
        }
    }

    /// The member with this id or address.
    pub(super) fn member(&self, name: &str) -> Result<NodeId, Failure> {
        let view = self.view_of_cluster()?;
        let members = &view.status.members;
        let found = members.iter().find(|member| member.id.as_str() == name || member.address == name);
        found.map(|member| member.id).ok_or_else(|| {
            let all: Vec<String> = members.iter().map(|member| named(member.id, &member.address)).collect();
            Failure::new("MEMBERSHIP_REFUSED", format!("there is no member {name}; there are {}", all.join(", ")))
        })
    }
}

fn caller() -> (Caller, Receiver<Outcome>) {
    let (tell, told) = channel();
    (Caller { sink: Arc::new(Told(tell)), token: 0 }, told)
}
