//! Errors as the command line tells them, and what each means.

use std::io;

use graft_services::error::{Outcome, Refusal};
use graft_services::identity::is_for_want_of_a_role;
use graft_services::ports::StoreError;
use serde_json::json;

use super::args::Form;
use super::note;
use super::terminal::{RED, harmless, has_colours, painted};
use crate::infrastructure::runtime::offline::OfflineError;
use crate::infrastructure::runtime::{StartError, TlsError};

pub(super) const USAGE: u8 = 2;
const ERROR: u8 = 1;
const UNREACHABLE: u8 = 3;
const LEADERLESS: u8 = 4;
const REFUSED: u8 = 5;
const UNKNOWN: u8 = 6;
const DENIED: u8 = 7;
const DAMAGED: u8 = 8;
pub(super) const UNHEALTHY: u8 = 10;

/// Codes, what they mean, what to do about them.
const CODES: &[(&str, u8, &str, &str)] = &[
    (
        "UNREACHABLE",
        UNREACHABLE,
        "no member answers at the addresses that were given",
        "give the address of a live member by --cluster or GRAFT_CLUSTER",
    ),
    (
        "NO_LEADER",
        LEADERLESS,
        "nobody leads the cluster now; nothing was applied",
        "see `graft why`; elections take a moment, so try again",
    ),
    (
        "NO_QUORUM",
        LEADERLESS,
        "too few voting members are up to decide anything; nothing was applied",
        "start the members that are down; `graft health` names them",
    ),
    ("NOT_LEADER", LEADERLESS, "the member that was asked does not lead; nothing was applied", "try again"),
    ("BUSY", REFUSED, "a limit is reached; nothing was applied", "send less at once, and try again"),
    (
        "TOO_LARGE",
        REFUSED,
        "the call is over a limit; nothing was applied",
        "send less, or raise `command_bytes_max` on every node",
    ),
    (
        "TIMEOUT",
        ERROR,
        "the time was over first; nothing was applied",
        "give it more with --timeout, and see `graft why`",
    ),
    (
        "UNKNOWN_OUTCOME",
        UNKNOWN,
        "the answer did not come: the command may have been applied, or may be later",
        "ask the state whether it was, before it is sent again",
    ),
    (
        "MEMBERSHIP_REFUSED",
        REFUSED,
        "the change of the membership cannot be made; nothing was changed",
        "see what stands in its way above, and `graft member list`",
    ),
    (
        "STORAGE",
        ERROR,
        "a file or directory cannot be used",
        "see to what is named above; of a node, to its log and its free space",
    ),
    (
        "LOCKED",
        REFUSED,
        "another process has the data directory open; nothing was changed",
        "stop the node that runs in it, and try again",
    ),
    (
        "CORRUPTION",
        DAMAGED,
        "a file is not what was written; nothing was changed",
        "leave it as it is, and replace the member by one with a new id and an empty directory; for a backup, take another",
    ),
    (
        "CONFIG",
        USAGE,
        "a setting of the node is not right; it was not started",
        "correct the setting that is named above",
    ),
    (
        "ADDRESS_IN_USE",
        ERROR,
        "another process listens on the address; the node was not started",
        "stop that process, or choose another port",
    ),
    (
        "CLUSTER_MISMATCH",
        REFUSED,
        "the data directory, or a peer, belongs to another cluster",
        "correct --data-dir and --cluster; never mix the directories of two clusters",
    ),
    (
        "IDENTITY_MISMATCH",
        REFUSED,
        "the data directory, or a peer, is another node than its id says",
        "correct --id and --data-dir: a directory belongs to one id for ever",
    ),
    (
        "DIVERGED",
        ERROR,
        "the states of replicas differ",
        "look for what is not deterministic in the machine, have a member lead whose state is that of most, and replace the others",
    ),
    (
        "INTERNAL",
        ERROR,
        "something is wrong inside Graft",
        "report it with what is said above; the log of the node has more",
    ),
    ("IO", ERROR, "the operating system said no", "see what it said above"),
    ("REMOVED", REFUSED, "the node that was asked is no member any more", "ask another member"),
    ("STOPPED", REFUSED, "the node that was asked is stopping", "ask another member"),
    ("HALTED", ERROR, "the machine or the store of the node failed", "see `graft status`, and the node's log"),
    (
        "SESSION_EXPIRED",
        REFUSED,
        "the session of the call is forgotten",
        "make the call again, if the state shows that it was not applied",
    ),
    (
        "INVALID_CALL",
        REFUSED,
        "the machine has no such command or query, or its arguments do not fit; nothing was applied",
        "compare the name and the KEY=VALUE with the class of the machine",
    ),
    (
        "TLS",
        DENIED,
        "a certificate is missing, cannot be used, or does not allow it; nothing was applied",
        "use a certificate of this cluster with the role that it takes: --ca, --cert, --key",
    ),
    (
        "INSECURE",
        DENIED,
        "what is said would leave this machine in plain text, and nobody said that this is meant",
        "give a certificate: --ca, --cert, --key; or say --insecure where nobody else reaches the network",
    ),
    (
        "APPLY",
        ERROR,
        "the command ran on every replica, and raised",
        "see what it raised; the state is as the command left it",
    ),
    ("USAGE", USAGE, "the words of the command line are off", "see `graft help`"),
    ("UNHEALTHY", UNHEALTHY, "the cluster works less well than it should, or not at all", "do what is said above"),
];

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) exit: u8,
    pub(super) what: String,
    /// What it means and what to do about it, where its code says too little.
    why: Option<&'static str>,
    fix: Option<String>,
    /// Where the machine's code raised it, if it did.
    traceback: Option<String>,
    pub(super) is_closed_pipe: bool,
}

/// What the command exits with on an error of this code.
pub fn exit_status(code: &str) -> u8 {
    CODES.iter().find(|known| known.0 == code).map_or(ERROR, |known| known.1)
}

impl Failure {
    pub(super) fn new(code: &'static str, what: impl Into<String>) -> Self {
        Self {
            code,
            exit: exit_status(code),
            what: what.into(),
            why: None,
            fix: None,
            traceback: None,
            is_closed_pipe: false,
        }
    }

    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self::new("USAGE", what)
    }

    /// What this one means.
    pub(super) fn meaning(self, why: &'static str) -> Self {
        Self { why: Some(why), ..self }
    }

    /// What to do about this one.
    pub(super) fn advice(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// With the traceback of what the machine's code raised.
    pub(super) fn traced(self, traceback: &str) -> Self {
        Self { traceback: Some(traceback.trim_end().to_owned()), ..self }
    }

    /// Says it on stderr: in words for people, as one line of JSON for programs that read answers as JSON.
    pub(super) fn tell(&self, form: Form) {
        let (why, fix) = self.explanation();
        if form.is_json() {
            let mut document = json!({
                "schema": "graft/error/v1", "code": self.code, "message": self.what, "why": why, "fix": fix,
                "exit": self.exit,
            });
            if let Some(traceback) = &self.traceback {
                document["traceback"] = json!(traceback);
            }
            return note(&document.to_string());
        }
        if let Some(traceback) = &self.traceback {
            note(traceback);
        }
        let head = format!("error[{}]", self.code);
        let head = if has_colours(&io::stderr()) { painted(RED, &head) } else { head };
        note(&format!("{head}: {}", harmless(&self.what)));
        if let (Some(why), Some(fix)) = (why, fix) {
            note(&format!("  why: {why}\n  fix: {}", harmless(fix)));
        }
    }

    /// What it means, and what to do about it.
    fn explanation(&self) -> (Option<&str>, Option<&str>) {
        let known = CODES.iter().find(|known| known.0 == self.code);
        let fix = self.fix.as_deref().or(known.map(|known| known.3));
        (self.why.or(known.map(|known| known.2)), fix)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let is_closed_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Self { is_closed_pipe, ..Self::new("IO", format!("the answer cannot be written: {error}")) }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::new("TLS", error.0)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Locked { .. } => "LOCKED",
            StoreError::Corrupt { .. } | StoreError::NewerFormat { .. } => "CORRUPTION",
            StoreError::WrongNode { .. } => "IDENTITY_MISMATCH",
            _ => "STORAGE",
        };
        Self::new(code, error.to_string())
    }
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::Store(error) => error.into(),
            OfflineError::Refused(why) => Self::usage(why),
            OfflineError::Start(error) => error.into(),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let code = match &error {
            StartError::Tls(_) => "TLS",
            StartError::Insecure(_) => "INSECURE",
            StartError::Contradicted(_) => "CLUSTER_MISMATCH",
            StartError::Config(_) => "USAGE",
            _ => "IO",
        };
        Self::new(code, error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Unreachable(_) => "UNREACHABLE",
            Refusal::Strange(_) => "CLUSTER_MISMATCH",
            Refusal::NotLeader { .. } => "NOT_LEADER",
            Refusal::NoLeader => "NO_LEADER",
            Refusal::NoQuorum { .. } => "NO_QUORUM",
            Refusal::Busy(_) => "BUSY",
            Refusal::TooLarge { .. } => "TOO_LARGE",
            Refusal::Timeout => "TIMEOUT",
            Refusal::Membership(_) => "MEMBERSHIP_REFUSED",
            Refusal::Snapshot(_) => "STORAGE",
            Refusal::Removed => "REMOVED",
            Refusal::Stopped => "STOPPED",
            Refusal::Halted(_) => "HALTED",
            Refusal::SessionExpired => "SESSION_EXPIRED",
            Refusal::Invalid(_) => "INVALID_CALL",
            Refusal::Denied(_) => "TLS",
        };
        let failure = Self::new(code, refusal.to_string());
        match &refusal {
            Refusal::Denied(why) if is_for_want_of_a_role(why) => failure
                .meaning("the role of the certificate does not allow it; nothing was applied")
                .advice("use a certificate of a role that does: `graft tls client NAME --role ROLE` makes one"),
            Refusal::Strange(_) => failure
                .meaning("the members at the addresses that were given belong to another cluster; nothing was applied")
                .advice("correct --cluster or --cluster-id; `graft status` of a member shows the id of its cluster"),
            _ => failure,
        }
    }
}

/// What is wrong with an outcome that is no answer.
pub(super) fn of_outcome(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Refused(refusal) => refusal.into(),
        Outcome::Unknown { why, .. } => Failure::new("UNKNOWN_OUTCOME", format!("the outcome is not known: {why}")),
        Outcome::Done { .. } | Outcome::Compared { .. } => {
            Failure::new("UNKNOWN_OUTCOME", "the answer is of another kind than was asked for")
        }
    }
}

/// One code in words, or all of them.
pub(super) fn explain(code: Option<&str>) -> Result<String, Failure> {
    let words =
        |(code, exit, why, fix): &(&str, u8, &str, &str)| format!("{code} (exit {exit})\n  {why}\n  fix: {fix}\n");
    let Some(code) = code else { return Ok(CODES.iter().map(words).collect()) };
    let wanted = code.to_uppercase().replace('-', "_");
    let known = CODES.iter().find(|known| known.0 == wanted).map(words);
    known.ok_or_else(|| {
        let all: Vec<&str> = CODES.iter().map(|known| known.0).collect();
        Failure::usage(format!("there is no error {code}; there are {}", all.join(", ")))
    })
}
