//! Whether a cluster that one node has founded alone should be there: it may be the mistake of a member whose disk was lost
//! and whose line founds, and then whatever it is given is lost to those who mean the cluster of before.
//!
//! A file beside the log says so until it is settled. It outlives the process, for a supervisor starts again what has
//! ended: once others have shown that the cluster should not be, no start goes on with it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use graft_domain::Instant;

use super::StartError;
use super::threads::io;

const NAME: &str = "doubt";
const NEW_NAME: &str = "doubt.new";

/// How long a node runs alone before others who miss it are not believed any more. Members call for one another about twice
/// a second, and seldom less often than once in ten; after a power cut, one machine may start minutes before the next one.
const DOUBT: Duration = Duration::from_mins(10);

/// That of a node which has founded a cluster, is alone in it, and has not been so for long.
#[derive(Debug)]
pub(crate) struct Doubt {
    directory: PathBuf,
}

impl Doubt {
    /// Before the log has anything: this start founds a cluster of one.
    pub(super) fn begin(directory: &Path) -> Result<Self, StartError> {
        write(directory, "").map_err(io("writing that the cluster is new"))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// That of an earlier start; [`StartError::Contradicted`] if it was shown to be right.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, StartError> {
        match fs::read(directory.join(NAME)) {
            Ok(words) if words.is_empty() => Ok(Some(Self { directory: directory.to_owned() })),
            Ok(words) => Err(StartError::Contradicted(String::from_utf8_lossy(&words).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("reading whether the cluster is new")(error)),
        }
    }

    /// Whether others are believed at this time of a node that has no company.
    pub(crate) fn holds(now: Instant) -> bool {
        now < Instant(0) + DOUBT
    }

    /// The file, for whoever knows better.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// The cluster should not be: no start goes on with it.
    pub(crate) fn confirm(&self, why: &str) {
        if let Err(error) = write(&self.directory, why) {
            tracing::error!(%error, "what others say of this node could not be written down: do not start it again");
        }
    }

    /// It has company, or has been there for long enough.
    pub(crate) fn settle(self) {
        // Found again, it is settled a little later.
        if let Err(error) = fs::remove_file(self.path()) {
            tracing::warn!(%error, "the mark that the cluster is new could not be removed");
        }
    }
}

/// As a whole, and durably.
fn write(directory: &Path, words: &str) -> io::Result<()> {
    let new = directory.join(NEW_NAME);
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    // For this user alone, as all that a node writes.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(words.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, directory.join(NAME))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_outlives_the_process_until_it_is_settled_or_shown_to_be_right() {
        let directory = tempfile::tempdir().expect("a directory");
        let here = directory.path();
        assert!(Doubt::read(here).expect("nothing is said").is_none());
        drop(Doubt::begin(here).expect("it is written"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(here.join(NAME)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "for nobody else");
        }
        Doubt::read(here).expect("it is no more than a doubt").expect("it is there").settle();
        assert!(Doubt::read(here).expect("nothing is said").is_none());
        Doubt::begin(here).expect("it is written").confirm("n2 misses it");
        for _ in 0..2 {
            let refused = Doubt::read(here).expect_err("it should not be there");
            assert_eq!(refused.to_string(), "n2 misses it");
        }
        fs::remove_file(here.join(NAME)).expect("somebody knows better");
        assert!(Doubt::read(here).expect("nothing is said").is_none());
    }

    #[test]
    fn it_ends() {
        assert!(Doubt::holds(Instant(0)) && !Doubt::holds(Instant(0) + DOUBT));
    }
}
