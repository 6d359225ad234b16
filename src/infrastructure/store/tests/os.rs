//! The same on the operating system's files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use super::super::{OsFiles, open};
use super::*;

/// A directory of its own for a test, gone when the test ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("graft-store-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(env::temp_dir().join(name))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_life_on_real_files() {
    let directory = Directory::new();
    let data = directory.0.join("deep").join("data");
    let mut model = Model::default();
    for steps in life().chunks(5) {
        let (mut wal, opened) = open(&data, &founding(), SMALL).expect("it opens");
        assert_eq!(Model::of(&opened), model.shown());
        assert_eq!(opened.notes, [""; 0]);
        for step in steps {
            match step {
                Step::Persist(writes) => wal.persist(writes),
                Step::Compact(covered) => wal.compact(*covered),
                Step::Cluster(cluster) => wal.record_cluster(ClusterId(*cluster)),
            }
            .unwrap_or_else(|error| panic!("{step:?}: {error}"));
            model = model.after(step);
        }
    }
    let (_, opened) = open(&data, &founding(), StoreConfig::default()).expect("it opens");
    assert_eq!(Model::of(&opened), model.shown());
}

#[test]
fn a_second_opener_learns_who_has_it() {
    let directory = Directory::new();
    let first = open(&directory.0, &founding(), StoreConfig::default()).expect("it opens");
    let path = directory.0.display().to_string();
    let error = open(&directory.0, &founding(), StoreConfig::default()).expect_err("it is in use");
    assert_eq!(error, StoreError::Locked { path, pid: Some(process::id()) });
    drop(first);
    open(&directory.0, &founding(), StoreConfig::default()).expect("it is free again");
}

#[test]
fn a_torn_tail_on_a_real_file() {
    let directory = Directory::new();
    let (mut wal, _) = open(&directory.0, &founding(), SMALL).expect("it opens");
    wal.persist(&[write(1, None, commands(1, 1, 2), 0)]).expect("it is written");
    let position = position(&wal);
    drop(wal);
    let log = directory.0.join("log-0000000001");
    let mut bytes = fs::read(&log).expect("it is there");
    bytes[position..].fill(0xA5);
    fs::write(&log, &bytes).expect("it is written");
    let (wal, opened) = open(&directory.0, &founding(), SMALL).expect("it opens");
    assert_eq!((opened.recovered.entries.len(), opened.notes.len()), (2, 1));
    drop(wal);
    let bytes = fs::read(&log).expect("it is there");
    assert!(bytes[position..].iter().all(|byte| *byte == 0), "the torn bytes are gone");
}

#[test]
fn a_directory_that_cannot_be() {
    let directory = Directory::new();
    fs::create_dir_all(&directory.0).expect("it is made");
    let file = directory.0.join("file");
    fs::write(&file, b"x").expect("it is written");
    let error = open(&file.join("data"), &founding(), SMALL).expect_err("a file is in the way");
    assert!(matches!(&error, StoreError::Io { path, .. } if path.contains("file")), "{error}");
    assert!(matches!(open_in(OsFiles, &file, &founding(), SMALL), Err(StoreError::Io { .. })));
}
