//! What happens to a store in its life: every kind of record, every operation, and the shapes that others were caught by.

use std::sync::Arc;
use std::time::Duration;

use graft_domain::EntryId;
use graft_services::ports::StoreError;
use graft_store::StoreConfig;

use super::disk::Disk;
use super::image::Image;
use super::model::{Model, Step, Store, command, commands, member, noop, snapshot_file, write};

/// A life, the store that it happens to, and what a power cut tears.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) name: &'static str,
    pub(super) config: StoreConfig,
    /// Bytes that are there or not as a whole.
    pub(super) sector: usize,
    pub(super) steps: Vec<Step>,
}

/// A step as it happened.
#[derive(Debug)]
pub(super) struct Lived {
    pub(super) kind: &'static str,
    /// The disk before the step, and after each operation of it: the last one was acknowledged.
    pub(super) images: Vec<Image>,
    pub(super) before: Arc<Model>,
    pub(super) after: Arc<Model>,
}

pub(super) fn all() -> Result<Vec<Life>, StoreError> {
    let small = StoreConfig { segment_bytes: 4096 + 640, preallocate_bytes: 512, spares_max: 1 };
    let steps = whole_life()?;
    let life = |name, config, sector| Life { name, config, sector, steps: steps.clone() };
    Ok(vec![
        life("recycled", small, 64),
        life("fresh", StoreConfig { spares_max: 0, preallocate_bytes: 192, ..small }, 32),
        life("roomy", StoreConfig { segment_bytes: 4096 + 1600, preallocate_bytes: 300, spares_max: 4 }, 8),
    ])
}

/// Votes, terms, conflicts within a batch and across segments, every payload, snapshots of its own and of others, with and
/// without the entry that they end with, forgetting and recycling, restarts in between.
fn whole_life() -> Result<Vec<Step>, StoreError> {
    let mut steps = vec![
        Step::Persist(vec![write(1, Some("n1"), vec![], 0)]),
        Step::Persist(vec![write(1, Some("n1"), vec![noop(1, 1)], 0)]),
        Step::Persist(vec![
            write(1, Some("n1"), commands(1, 2, 3), 1),
            write(1, Some("n1"), vec![member(1, 4), command(1, 5, 40)], 2),
        ]),
        Step::Cluster(77),
        Step::Promise(Duration::from_millis(500)),
        Step::Persist(vec![write(2, None, vec![], 2)]),
        Step::Persist(vec![write(2, Some("n3"), vec![noop(2, 4)], 3)]),
        Step::Persist(vec![
            write(2, Some("n3"), commands(2, 5, 9), 4),
            write(4, Some("n2"), [vec![noop(4, 8)], commands(4, 9, 10)].concat(), 7),
        ]),
        Step::Persist(vec![write(4, Some("n2"), vec![command(4, 11, 1500)], 10)]),
        Step::Persist(vec![write(4, Some("n2"), commands(4, 12, 13), 11)]),
        Step::Write(EntryId::new(2, 6)),
        Step::Cut(EntryId::new(2, 6)),
        Step::Promise(Duration::from_millis(100)),
        Step::Persist(vec![write(4, Some("n2"), commands(4, 14, 22), 13)]),
        Step::Write(EntryId::new(4, 13)),
        // The process ends between the two.
        Step::Reopen,
        Step::Persist(vec![write(5, None, commands(5, 16, 20), 15)]),
    ];
    steps.extend(overwritten_below_a_snapshot());
    steps.extend(taken_in()?);
    steps.extend(recycled());
    steps.extend(at_last());
    Ok(steps)
}

/// etcd#22442: a suffix is overwritten, a snapshot covers the place, and what was overwritten lies behind that. Once in one
/// segment, once with the overwritten entries in segments of their own.
fn overwritten_below_a_snapshot() -> Vec<Step> {
    vec![
        Step::Persist(vec![write(6, Some("n3"), commands(6, 18, 19), 15)]),
        Step::Write(EntryId::new(6, 19)),
        Step::Cut(EntryId::new(6, 19)),
        Step::Persist(vec![write(6, Some("n3"), commands(6, 20, 25), 19)]),
        Step::Persist(vec![write(6, Some("n3"), commands(6, 26, 32), 19)]),
        Step::Persist(vec![write(7, None, commands(7, 22, 23), 21)]),
        Step::Write(EntryId::new(7, 23)),
        Step::Reopen,
        Step::Persist(vec![write(8, Some("n1"), vec![], 23)]),
        Step::Persist(vec![write(8, Some("n1"), commands(8, 24, 27), 23)]),
        Step::Write(EntryId::new(8, 24)),
        Step::Cut(EntryId::new(8, 24)),
    ]
}

/// Snapshots of what the log has otherwise, and of what it does not have at all.
fn taken_in() -> Result<Vec<Step>, StoreError> {
    let (conflict, ahead) = (EntryId::new(9, 25), EntryId::new(10, 100));
    Ok(vec![
        Step::Persist(vec![write(9, None, vec![], 24)]),
        Step::Accept(conflict, snapshot_file(conflict)?),
        Step::Cut(conflict),
        Step::Persist(vec![write(9, None, commands(9, 26, 28), 25)]),
        Step::Accept(ahead, snapshot_file(ahead)?),
        Step::Reopen,
        Step::Persist(vec![write(10, Some("n1"), vec![], 100)]),
        Step::Persist(vec![write(10, Some("n1"), commands(10, 101, 106), 100)]),
    ])
}

/// Segments come and go, and the files of the ones become the others.
fn recycled() -> Vec<Step> {
    let turn = |first: u64| {
        let snapshot = EntryId::new(10, first);
        let entries = [commands(10, first, first + 5), vec![member(10, first + 6)]].concat();
        [Step::Persist(vec![write(10, Some("n1"), entries, first)]), Step::Write(snapshot), Step::Cut(snapshot)]
    };
    (107..142).step_by(7).flat_map(turn).collect()
}

/// Several segments that all are needed, with every kind of record.
fn at_last() -> Vec<Step> {
    vec![
        Step::Reopen,
        Step::Persist(vec![write(11, Some("node-2"), vec![noop(11, 142), member(11, 143), command(11, 144, 13)], 141)]),
        Step::Persist(vec![write(11, Some("node-2"), commands(11, 145, 149), 143)]),
        Step::Persist(vec![write(12, None, vec![], 143)]),
        Step::Persist(vec![write(12, Some("n3"), vec![noop(12, 148), command(12, 149, 150)], 147)]),
        Step::Persist(vec![write(12, Some("n3"), vec![member(12, 150), command(12, 151, 33)], 148)]),
        Step::Write(EntryId::new(11, 143)),
        Step::Cut(EntryId::new(11, 143)),
        Step::Persist(vec![write(12, Some("n3"), commands(12, 152, 155), 150)]),
        Step::Persist(vec![write(13, Some("n1"), vec![noop(13, 154), command(13, 155, 21)], 153)]),
        Step::Write(EntryId::new(11, 144)),
        Step::Cut(EntryId::new(11, 144)),
        Step::Persist(vec![write(13, Some("n1"), vec![command(13, 156, 50)], 155)]),
    ]
}

impl Life {
    /// Lives it on a new disk. Answers every step; the first is the founding.
    pub(super) fn lived(&self) -> Result<Vec<Lived>, String> {
        let disk = Disk::recording(Image::empty());
        let mut begun = disk.operations();
        let (mut store, _) = Store::open(&disk, self.config).map_err(|error| error.to_string())?;
        let mut model = Arc::new(Model::founded());
        let mut steps = vec![(begun, disk.operations(), "founding", Arc::clone(&model), Arc::clone(&model))];
        let mut segment = newest_segment(&disk.image());
        for step in &self.steps {
            begun = disk.operations();
            let told = |error: StoreError| format!("{}: {step:?}: {error}", self.name);
            if matches!(step, Step::Reopen) {
                drop(store);
                let (reopened, opened) = Store::open(&disk, self.config).map_err(told)?;
                if !model.shown().is(&opened) {
                    return Err(format!("{}: reopened it holds {opened:?}, not {model:?}", self.name));
                }
                store = reopened;
            } else {
                store.run(step).map_err(told)?;
            }
            let after = Arc::new(model.after(step));
            let now = newest_segment(&disk.image());
            let kind = kind_of(step, &model, segment != now);
            steps.push((begun, disk.operations(), kind, model, Arc::clone(&after)));
            (model, segment) = (after, now);
        }
        let trail = disk.trail();
        let lived = |(from, to, kind, before, after): (usize, usize, _, _, _)| {
            let images = trail[from..=to].to_vec();
            Lived { kind, images, before, after }
        };
        Ok(steps.into_iter().map(lived).collect())
    }
}

fn newest_segment(image: &Image) -> Option<Arc<str>> {
    image.files().map(|(name, ..)| name).filter(|name| name.contains("/log-")).last().cloned()
}

fn kind_of(step: &Step, before: &Model, rolled: bool) -> &'static str {
    match step {
        Step::Persist(_) if rolled => "roll",
        Step::Persist(writes) if writes.iter().all(|write| write.entries.is_empty()) => "vote",
        Step::Persist(writes) => {
            let mut last = before.last().index;
            let mut overwrites = false;
            for entry in writes.iter().flat_map(|write| &write.entries) {
                overwrites |= entry.index <= last;
                last = entry.index;
            }
            if overwrites { "truncation" } else { "append" }
        }
        Step::Cluster(_) | Step::Promise(_) => "identity",
        Step::Write(_) => "snapshot written",
        Step::Accept(..) => "snapshot taken in",
        Step::Cut(_) => "compaction",
        Step::Reopen => "restart",
    }
}
