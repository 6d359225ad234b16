//! Work on directories that no node runs in: looking into a log, restoring from a backup, going on after a majority was lost.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use graft_domain::{Entry, Index, Membership, Payload};
use graft_services::commands::{self, Act};
use graft_services::ports::StoreError;
use graft_services::snapshot_meta::SnapshotMeta;
use serde_json::{Value as Json, json};

use super::failure::Failure;
use super::note;
use super::output::Out;
use super::values::{answer, moment};
use crate::infrastructure::runtime::offline::{self, Inspection, OfflineError, Survivor, Wreck};

/// A cluster to begin with the state of a backup.
#[derive(Args, Debug)]
pub(super) struct Restore {
    /// What `graft backup` wrote
    backup: PathBuf,
    /// Where the new member is to keep its log and snapshots: empty, or not there
    #[arg(long, value_name = "DIRECTORY", required_unless_present = "dry_run")]
    data_dir: Option<PathBuf>,
    /// Verify the backup and say what it holds, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is left of a cluster, and where to go on.
#[derive(Args, Debug)]
pub(super) struct Recover {
    /// The data directories of all members that are left; no node may run in them, and they are not changed
    #[arg(required = true, value_name = "DIRECTORY")]
    directories: Vec<PathBuf>,
    /// Where to go on with the best of them: empty, or not there. Without it, only say what there is
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
    /// Id of the only member of the new cluster [default: that of the best survivor]
    #[arg(long)]
    id: Option<String>,
    /// Its address, `host:port` [default: that of the best survivor]
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Even though a majority is left, which would only have to be started
    #[arg(long)]
    force: bool,
}

/// A log that no node has open.
#[derive(Subcommand, Debug)]
pub(super) enum Log {
    /// Say what is in a data directory: its files, its log, its snapshot
    Ls {
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
    /// Show the entries of a log
    Show {
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
        /// From this index on
        #[arg(long, value_name = "INDEX", default_value_t = 1)]
        from: u64,
        /// Up to and with this index [default: its end]
        #[arg(long, value_name = "INDEX")]
        to: Option<u64>,
    },
    /// Read every byte of log and snapshot, and exit with 8 if one is not what was written
    Verify {
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
}

/// Bytes of a command that are shown; `-o json` has all of them.
const SHOWN: usize = 60;

pub(super) fn restore(restore: &Restore, out: &Out) -> Result<(), Failure> {
    let backup = restore.backup.display();
    let of_backup = |error: StoreError| {
        let advice = offline::advice_on_backup(&error, &restore.backup);
        advised(error.into(), advice)
    };
    match restore.data_dir.as_ref().filter(|_| !restore.dry_run) {
        None => {
            let (meta, bytes) = offline::verify_backup(&restore.backup).map_err(of_backup)?;
            let words = format!("{backup} is good: {bytes} bytes, the state {}", covered(&meta));
            out.done(&words, "backup", document(&meta))
        }
        Some(directory) => {
            let meta = offline::restore(&restore.backup, directory).map_err(of_backup)?;
            let place = directory.display();
            let words = format!(
                "{place} begins with the state {}\nStart a new cluster with it: graft start ADDR --cluster ADDR \
                 --machine WHERE:CLASS --data-dir {place}",
                covered(&meta)
            );
            out.done(&words, "restore", document(&meta))
        }
    }
}

fn advised(failure: Failure, advice: Option<&str>) -> Failure {
    match advice {
        Some(advice) => failure.advice(advice),
        None => failure,
    }
}

/// What a data directory was read for, and could not be.
fn of_directory(error: StoreError) -> Failure {
    let advice =
        "give the data directory of a node: what `graft start` is given with --data-dir, or graft-ID without it";
    let is_of_its_place = matches!(error, StoreError::Io { .. });
    advised(error.into(), is_of_its_place.then_some(advice))
}

fn covered(meta: &SnapshotMeta) -> String {
    let of = if meta.time > 0 { format!(", as of {}", moment(meta.time)) } else { String::new() };
    format!("up to entry {}{of}", meta.last.index)
}

fn document(meta: &SnapshotMeta) -> Json {
    json!({ "index": meta.last.index.0.to_string(), "term": meta.last.term.0.to_string(), "time": moment(meta.time) })
}

pub(super) fn recover(recover: &Recover, out: &Out) -> Result<(), Failure> {
    let wreck = Wreck::look(&recover.directories).map_err(|error| match error {
        OfflineError::Store(error) => of_directory(error),
        other => other.into(),
    })?;
    let Some(into) = recover.into.as_ref().filter(|_| !recover.dry_run) else { return tell_wreck(&wreck, out) };
    if wreck.verdict.is_quorum && !recover.force {
        return Err(Failure::new(
            "MEMBERSHIP_REFUSED",
            "a majority of the voters is left: start them, and they elect a leader; nothing is lost then. --force goes \
             on with one of them all the same",
        ));
    }
    let best = wreck.best();
    if recover.yes {
        out.note(&verdict(&wreck));
    } else {
        note(&verdict(&wreck));
        confirm(best)?;
    }
    let done = wreck.recover(into, recover.id.as_deref(), recover.address.as_deref()).map_err(|error| match error {
        OfflineError::Store(error @ StoreError::Io { .. }) => {
            Failure::from(error).advice("choose another directory with --into, or remove that one")
        }
        other => other.into(),
    })?;
    let place = into.display();
    let words = format!(
        "{place} has all of {}'s log, up to entry {}; {} is the only member of the new cluster {}\n\
         Start it: graft start {} --cluster {} --machine WHERE:CLASS --id {} --data-dir {place}\n\
         Then let others join it, with empty directories.",
        best.directory.display(),
        best.remains.last.index,
        done.id,
        done.cluster,
        done.address,
        done.address,
        done.id
    );
    let document = json!({
        "id": done.id.to_string(), "address": done.address, "cluster": done.cluster.to_string(),
        "last_index": done.last.index.0.to_string(), "data_dir": into, "from": best.directory,
    });
    out.done(&words, "recover", document)
}

/// What a hurried hand must not do by itself.
fn confirm(best: &Survivor) -> Result<(), Failure> {
    let id = best.remains.id;
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked here: say --yes if this is meant"));
    }
    note(&format!("Type {id} to go on with it:"));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == id.as_str() { Ok(()) } else { Err(Failure::usage("nothing was done")) }
}

fn verdict(wreck: &Wreck) -> String {
    let best = wreck.best();
    let names: Vec<String> = wreck.verdict.missing.iter().map(ToString::to_string).collect();
    let missing = if names.is_empty() { "no voter".to_owned() } else { names.join(", ") };
    let (last, commit) = (best.remains.last.index, best.remains.commit);
    let kept = match (wreck.verdict.is_quorum, wreck.verdict.is_complete) {
        (true, _) => {
            "A majority is left: start these members, and they go on by themselves. Nothing is lost.".to_owned()
        }
        (false, true) => {
            "Nothing that was acknowledged is lost, if the members were still these: whatever a majority had, \
            one of these has."
                .to_owned()
        }
        (false, false) => format!(
            "Commands that only {missing} had are lost, if there are any: {} may have acknowledged some that never came here.",
            if names.len() == 1 { "it" } else { "they" }
        ),
    };
    let beyond = if last > commit {
        format!(" Up to {commit} they are known to be committed; the others are kept, and count from now on.")
    } else {
        String::new()
    };
    format!("{} has most: entries up to {last}.{beyond}\nMissing: {missing}. {kept}", best.remains.id)
}

fn tell_wreck(wreck: &Wreck, out: &Out) -> Result<(), Failure> {
    let snapshot = |survivor: &Survivor| survivor.snapshot().map_or(0, |(last, _)| last.index.0).to_string();
    let row = |survivor: &Survivor| {
        let remains = &survivor.remains;
        vec![
            remains.id.to_string(),
            survivor.directory.display().to_string(),
            remains.last.index.0.to_string(),
            remains.last.term.0.to_string(),
            remains.commit.0.to_string(),
            snapshot(survivor),
        ]
    };
    let item = |survivor: &Survivor| {
        let remains = &survivor.remains;
        json!({
            "id": remains.id.to_string(), "data_dir": survivor.directory,
            "last_index": remains.last.index.0.to_string(), "last_term": remains.last.term.0.to_string(),
            "commit_index": remains.commit.0.to_string(), "snapshot_index": snapshot(survivor),
        })
    };
    let rows: Vec<Vec<String>> = wreck.survivors.iter().map(row).collect();
    let document = json!({
        "best": wreck.best().remains.id.to_string(),
        "missing": wreck.verdict.missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "has_quorum": wreck.verdict.is_quorum,
        "complete": wreck.verdict.is_complete,
        "survivors": wreck.survivors.iter().map(item).collect::<Vec<_>>(),
    });
    out.table(&["id", "directory", "last", "term", "commit", "snapshot"], &rows, "wreck", document, "survivors")?;
    out.note(&verdict(wreck));
    Ok(())
}

pub(super) fn log(log: Log, out: &Out) -> Result<(), Failure> {
    match log {
        Log::Ls { directory } => list(&offline::inspect(&directory).map_err(of_directory)?, out),
        Log::Show { directory, from, to } => {
            show(&offline::inspect(&directory).map_err(of_directory)?, Index(from), to.map_or(Index::LAST, Index), out)
        }
        Log::Verify { directory } => verify(&directory, out),
    }
}

fn list(found: &Inspection, out: &Out) -> Result<(), Failure> {
    let mut rows = vec![
        vec!["node".to_owned(), found.identity.id.to_string()],
        vec!["cluster".to_owned(), found.identity.cluster.to_string()],
        vec!["directory".to_owned(), found.identity.incarnation.to_string()],
        vec!["term".to_owned(), found.term.0.to_string()],
        vec!["vote".to_owned(), found.vote.map_or_else(|| "nobody".to_owned(), |vote| vote.to_string())],
        vec!["log".to_owned(), format!("{}, {} committed", range(found), found.commit)],
    ];
    if let Some((meta, bytes)) = &found.snapshot {
        rows.push(vec!["snapshot".to_owned(), format!("{}, {bytes} bytes", covered(meta))]);
    }
    if let Some(membership) = found.membership() {
        rows.push(vec!["members".to_owned(), members(membership)]);
    }
    if found.is_torn {
        rows.push(vec!["tail".to_owned(), "of a write that was not finished; the next start cuts it off".to_owned()]);
    }
    rows.extend(found.segments.iter().map(|(name, bytes)| vec![name.clone(), format!("{bytes} bytes")]));
    let segments = found.segments.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes }));
    let document = json!({
        "id": found.identity.id.to_string(),
        "cluster": found.identity.cluster.to_string(),
        "incarnation": found.identity.incarnation.to_string(),
        "term": found.term.0.to_string(),
        "vote": found.vote.map(|vote| vote.to_string()),
        "first_index": found.entries.first().map(|entry| entry.index.0.to_string()),
        "last_index": found.last.index.0.to_string(),
        "commit_index": found.commit.0.to_string(),
        "snapshot": found.snapshot.as_ref().map(|(meta, _)| document(meta)),
        "torn": found.is_torn,
        "segments": segments.collect::<Vec<_>>(),
    });
    out.table(&["", ""], &rows, "log", document, "segments")
}

fn range(found: &Inspection) -> String {
    match (found.entries.first(), found.entries.last()) {
        (Some(first), Some(last)) => format!("entries {} to {}", first.index, last.index),
        _ => format!("no entries after {}", found.last.index),
    }
}

fn members(membership: &Membership) -> String {
    let member = |(id, member): (&graft_domain::NodeId, &graft_domain::Member)| {
        format!("{id} ({}{})", member.address, if member.voter { "" } else { ", learner" })
    };
    membership.members.iter().map(member).collect::<Vec<_>>().join(", ")
}

fn show(found: &Inspection, from: Index, to: Index, out: &Out) -> Result<(), Failure> {
    let wanted = found.entries.iter().filter(|entry| entry.index >= from && entry.index <= to);
    let (rows, items): (Vec<_>, Vec<_>) = wanted.map(|entry| described(entry, found.commit)).unzip();
    let document = json!({ "id": found.identity.id.to_string(), "entries": items });
    out.table(&["index", "term", "time", "kind", "what"], &rows, "entries", document, "entries")
}

/// One entry, as a row and as a document.
fn described(entry: &Entry, commit: Index) -> (Vec<String>, Json) {
    let (kind, time, what, mut document) = match &entry.payload {
        Payload::Noop => ("noop", None, String::new(), json!({})),
        Payload::Membership(membership) => {
            let words = members(membership);
            let document = json!({ "members": words, "joint": membership.is_joint() });
            ("membership", None, words, document)
        }
        Payload::Command(bytes) => match commands::decode(bytes) {
            Err(bad) => ("unreadable", None, bad.to_string(), json!({ "error": bad.to_string() })),
            Ok(logged) => {
                let (kind, what, document) = acted(&logged.act);
                (kind, Some(logged.time), what, document)
            }
        },
    };
    let time = time.map(moment);
    document["index"] = json!(entry.index.0.to_string());
    document["term"] = json!(entry.term.0.to_string());
    document["kind"] = json!(kind);
    document["time"] = json!(time);
    document["bytes"] = json!(entry.size());
    document["committed"] = json!(entry.index <= commit);
    let row =
        vec![entry.index.0.to_string(), entry.term.0.to_string(), time.unwrap_or_default(), kind.to_owned(), what];
    (row, document)
}

fn acted(act: &Act) -> (&'static str, String, Json) {
    match act {
        Act::Command { slot, body } => {
            let value = answer(body);
            let mut words = value.to_string();
            if let Some((cut, _)) = words.char_indices().nth(SHOWN) {
                words.truncate(cut);
                words.push('…');
            }
            let session =
                slot.map(|slot| json!({ "id": slot.session.to_string(), "sequence": slot.sequence.to_string() }));
            ("command", words, json!({ "value": value, "session": session }))
        }
        Act::OpenSession { ttl, .. } => {
            let words = format!("lasts {} s without being used", ttl.as_secs_f64());
            ("session", words, json!({ "ttl_seconds": ttl.as_secs_f64() }))
        }
        Act::Verify { origin } => ("verify", format!("asked by {origin}"), json!({ "origin": origin.to_string() })),
    }
}

fn verify(directory: &Path, out: &Out) -> Result<(), Failure> {
    let begun = std::time::Instant::now();
    let found = offline::inspect(directory).map_err(of_directory)?;
    found.verify_snapshot(directory)?;
    let bad = |entry: &&Entry| matches!(&entry.payload, Payload::Command(bytes) if commands::decode(bytes).is_err());
    if let Some(entry) = found.entries.iter().find(bad) {
        let what = format!("entry {} is a command that this program cannot read", entry.id());
        return Err(Failure::new("CORRUPTION", what));
    }
    let seconds = Duration::as_secs_f64(&begun.elapsed());
    let snapshot =
        found.snapshot.as_ref().map_or_else(String::new, |(meta, _)| format!(", a snapshot {}", covered(meta)));
    let torn = if found.is_torn { "; a write at its end was not finished, which a crash may leave" } else { "" };
    let words = format!("{} is good: {}{snapshot}{torn}", directory.display(), range(&found));
    let document = json!({
        "good": true, "entries": found.entries.len(), "last_index": found.last.index.0.to_string(),
        "torn": found.is_torn, "seconds": seconds,
    });
    out.done(&words, "log-verify", document)
}
