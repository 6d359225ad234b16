//! Work on data directories that no node runs in: looking into one, restoring one from a backup, and going on with what is
//! left of a cluster whose majority is lost.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use graft_domain::{ClusterId, EntryId, Incarnation, NodeId};
use graft_services::ports::StoreError;
use graft_services::rescue::{Remains, Verdict, judge};

use super::StartError;
use super::start::random;
use crate::infrastructure::grpc;
use crate::infrastructure::store;

pub use crate::infrastructure::store::{Inspection, inspect, restore, verify_backup};

/// Why it was not done. What is left of a directory that was begun is refused by whoever opens it, and is made anew.
#[derive(Debug)]
pub enum OfflineError {
    Store(StoreError),
    /// What was asked for makes no sense, in words.
    Refused(String),
    Start(StartError),
}

/// What is left of a cluster: the directories, the locks of which it holds, and what to make of them.
#[derive(Debug)]
pub struct Wreck {
    pub survivors: Vec<Survivor>,
    pub verdict: Verdict,
}

/// One directory that is left.
#[derive(Debug)]
pub struct Survivor {
    pub directory: PathBuf,
    pub remains: Remains,
    found: Inspection,
}

/// Who goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    pub id: NodeId,
    pub address: String,
    pub cluster: ClusterId,
    /// Where the log ends now.
    pub last: EntryId,
}

/// What to do about a backup that could not be looked at, or restored.
pub fn advice_on_backup(error: &StoreError, backup: &Path) -> Option<&'static str> {
    let backup = backup.display().to_string();
    match error {
        StoreError::Corrupt { file, .. } if *file == backup => {
            Some("use another backup: this one is not what was written, and nothing was made of it")
        }
        StoreError::Io { path, .. } if *path == backup => {
            Some("give the file of a backup, and see that this user may read it")
        }
        StoreError::Io { .. } => Some("choose another directory for the new member, or remove that one"),
        _ => None,
    }
}

impl Wreck {
    /// Reads what is left of a cluster, changing nothing.
    ///
    /// # Errors
    /// As [`inspect`]; in words if they are not of one cluster.
    pub fn look(directories: &[PathBuf]) -> Result<Self, OfflineError> {
        let survivors = directories.iter().map(|directory| Survivor::look(directory)).collect::<Result<Vec<_>, _>>()?;
        let remains: Vec<Remains> = survivors.iter().map(|survivor| survivor.remains.clone()).collect();
        let verdict = judge(&remains).map_err(OfflineError::Refused)?;
        Ok(Self { survivors, verdict })
    }

    /// The one that has most.
    pub fn best(&self) -> &Survivor {
        &self.survivors[self.verdict.best]
    }

    /// Makes `target`, which must be empty or not there, the directory of the only member of a new cluster, with all that the
    /// best survivor has. That one's id and address are taken for what is not given.
    ///
    /// # Errors
    /// As [`store::recover`]; in words if the id or the address is none.
    pub fn recover(&self, target: &Path, id: Option<&str>, address: Option<&str>) -> Result<Recovered, OfflineError> {
        let best = self.best();
        let id = id.map_or(Ok(best.remains.id), |id| {
            NodeId::new(id).map_err(|bad| OfflineError::Refused(format!("{id:?} is no id: {bad}")))
        })?;
        let member = best.remains.memberships.last().and_then(|membership| membership.members.get(&best.remains.id));
        let known = member.map(|member| member.address.to_string());
        let missing = || OfflineError::Refused(format!("the log does not tell the address of {id}: give one"));
        let address = address.map(str::to_owned).or(known).ok_or_else(missing)?;
        if !grpc::is_address(&address) {
            return Err(OfflineError::Refused(format!("{address:?} is no address: write host:port")));
        }
        let random = || random().map_err(OfflineError::Start);
        let cluster = ClusterId(u128::from(random()?) << 64 | u128::from(random()?.max(1)));
        let mint = Incarnation(random()?.max(1));
        // Nobody of the new cluster was promised anything.
        let promise = Duration::ZERO;
        let successor = store::Successor { id, address: address.clone(), cluster, mint, promise };
        let last = store::recover(&best.directory, &best.found, target, &successor)?;
        Ok(Recovered { id, address, cluster, last })
    }
}

impl Survivor {
    fn look(directory: &Path) -> Result<Self, OfflineError> {
        let found = inspect(directory)?;
        let memberships: Vec<_> = found.memberships().cloned().collect();
        let named = memberships.last().map_or(ClusterId::UNKNOWN, |membership| membership.cluster);
        let known = found.identity.cluster;
        let remains = Remains {
            id: found.identity.id,
            incarnation: found.identity.incarnation,
            cluster: if known == ClusterId::UNKNOWN { named } else { known },
            last: found.last,
            commit: found.commit,
            memberships,
        };
        Ok(Self { directory: directory.to_owned(), remains, found })
    }

    /// The newest snapshot and the bytes of its file.
    pub fn snapshot(&self) -> Option<(EntryId, u64)> {
        self.found.snapshot.as_ref().map(|(meta, bytes)| (meta.last, *bytes))
    }
}

impl From<StoreError> for OfflineError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for OfflineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Refused(why) => f.write_str(why),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OfflineError {}
