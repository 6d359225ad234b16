//! Directories of other people: one that no node has used, and in which there is something already.
//!
//! A log among other files is lost with them sooner or later: somebody cleans up, or copies one without the other. So a new
//! directory has nothing in it but what a start, a restore or a recovery that was not finished leaves.

use std::path::Path;

use graft_services::ports::StoreError;

use super::errors::refused;
use super::files::Files;
use super::{identity, open, segment, snapshots};

/// What lies beside the log and is not the store's: the machine's own files, and words on a cluster that is new.
const BESIDE: [&str; 3] = ["machine", "doubt", "doubt.new"];
/// What file systems put into the directory that they are mounted on.
const MOUNTED: [&str; 3] = ["lost+found", ".snapshot", ".zfs"];
/// As many as a person reads.
const TOLD_MAX: usize = 3;

/// Whether a file system put it there.
pub(super) fn is_of_the_file_system(name: &str) -> bool {
    MOUNTED.contains(&name)
}

/// Refuses a directory that no node has used and in which there are other people's files. Changes nothing.
pub(super) fn refuse<F: Files>(files: &F, directory: &Path) -> Result<(), StoreError> {
    // One that is not there will be made, and of one that cannot be looked into whoever opens it says why.
    let Ok(mut names) = files.list(directory) else { return Ok(()) };
    let is_used =
        |name: &String| name == identity::NAME || name == snapshots::DIRECTORY || segment::number_of(name).is_some();
    if names.iter().any(is_used) {
        return Ok(());
    }
    names.retain(|name| !is_left_over(name) && !is_of_the_file_system(name));
    names.sort_unstable();
    if names.is_empty() {
        return Ok(());
    }
    let told = names.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join(", ");
    let more = if names.len() > TOLD_MAX { format!(" and {} more", names.len() - TOLD_MAX) } else { String::new() };
    let what = format!(
        "no node has used it, and there is something in it that is not of Graft: {told}{more}. Give the node a directory of its \
         own, which is empty or not there; or correct the path, if it has one"
    );
    Err(refused(directory, what))
}

/// Whether a start that was not finished leaves a thing of this name.
fn is_left_over(name: &str) -> bool {
    name == open::LOCK_NAME || name == identity::NEW_NAME || segment::is_spare(name) || BESIDE.contains(&name)
}
