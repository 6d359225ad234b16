//! Backups: the file of a snapshot that covers everything that had returned, copied to a place of its own and verified there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_domain::{EntryId, Index};
use graft_services::api::{Api, Caller, SnapshotPart};
use graft_services::error::{Outcome, Refusal};
use graft_services::ports::{Reply, StoreError};

use super::calls::{Waiting, until};
use crate::infrastructure::store::Backup;

/// Writes a backup of a cluster to `path`, where nothing may be yet, on a thread of its own. It covers every command that had
/// returned to anybody before; answered with its index when it is durable and was read back. After a refusal nothing is there.
pub fn backup(api: &Arc<dyn Api>, path: PathBuf, caller: Caller, timeout: Duration) {
    let api = Arc::clone(api);
    let deadline = Instant::now() + timeout;
    let (sink, token) = (Arc::clone(&caller.sink), caller.token);
    let body = move || {
        let made = make(&*api, &path, deadline);
        caller.sink.complete(caller.token, made.unwrap_or_else(Outcome::Refused));
    };
    if let Err(error) = std::thread::Builder::new().name("graft-backup".to_owned()).spawn(body) {
        let why = format!("no backup was made: no thread can be started: {error}");
        sink.complete(token, Outcome::Refused(Refusal::Snapshot(why)));
    }
}

fn make(api: &dyn Api, path: &Path, deadline: Instant) -> Result<Outcome, Refusal> {
    // What is wrong with the place is known before anybody works for it.
    let mut file = Backup::begin(path).map_err(|error| refused(&error))?;
    while !copy(api, &mut file, snapshot(api, deadline)?, deadline)? {
        file.restart().map_err(|error| refused(&error))?;
    }
    let meta = file.finish().map_err(|error| refused(&error))?;
    Ok(Outcome::Done { index: meta.last.index, term: meta.last.term, reply: Reply::Value(Bytes::new()) })
}

/// Has a snapshot taken that covers everything; answers how far it goes.
fn snapshot(api: &dyn Api, deadline: Instant) -> Result<Index, Refusal> {
    let waiting = Waiting::new(1);
    api.snapshot(true, Caller { sink: Arc::<Waiting>::clone(&waiting), token: 0 }, until(deadline));
    if !waiting.wait(until(deadline)) {
        return Err(Refusal::Timeout);
    }
    match waiting.take().pop() {
        Some(Outcome::Done { index, .. }) => Ok(index),
        Some(Outcome::Refused(refusal)) => Err(refusal),
        // Whether there is a snapshot now is of no account to who wanted a backup.
        _ => Err(Refusal::Timeout),
    }
}

/// Copies a snapshot that goes so far. False if whoever answers now has none, and has to take one.
fn copy(api: &dyn Api, file: &mut Backup, covered: Index, deadline: Instant) -> Result<bool, Refusal> {
    let mut from: Option<(EntryId, u64)> = None;
    loop {
        let SnapshotPart { last, offset, data, .. } = read(api, from, deadline)?;
        if last.index < covered {
            return Ok(false);
        }
        let (expected, position) = from.unwrap_or((last, 0));
        if last != expected {
            // A newer one has replaced it, and comes from its beginning.
            file.restart().map_err(|error| refused(&error))?;
        }
        let position = if last == expected { position } else { 0 };
        if offset != position {
            return Err(Refusal::Snapshot(format!(
                "no backup was made: bytes from {offset} came in place of {position}"
            )));
        }
        if data.is_empty() {
            return Ok(true);
        }
        file.put(&data).map_err(|error| refused(&error))?;
        from = Some((last, offset + data.len() as u64));
    }
}

fn read(api: &dyn Api, from: Option<(EntryId, u64)>, deadline: Instant) -> Result<SnapshotPart, Refusal> {
    let (tell, told) = channel();
    let then = move |part| {
        // Whoever asked may have given up.
        let _ = tell.send(part);
    };
    api.read_snapshot(from, Box::new(then));
    told.recv_timeout(until(deadline)).map_err(|_| Refusal::Timeout)?
}

fn refused(error: &StoreError) -> Refusal {
    Refusal::Snapshot(format!("no backup was made: {error}"))
}
