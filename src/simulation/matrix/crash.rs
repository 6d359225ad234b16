//! Power cuts after every operation, with all that they may leave; then recovery, life that goes on, another power cut, and
//! recovery again. A crash alone is never refused, and never costs what was acknowledged.

use std::sync::Arc;

use graft_domain::{EntryId, Index};
use graft_services::ports::Opened;
use graft_store::StoreConfig;

use crate::dice::Dice;

use super::disk::Disk;
use super::image::Image;
use super::lives::{Life, Lived};
use super::model::{Model, Step, Store, command, commands, write};
use super::tally::{Share, Tally, Turns, Verdict};

/// Up to so many undecided parts every subset is tried.
const ALL_SUBSETS_MAX: usize = 12;
/// Ways in which life goes on after the process alone was killed.
const KILLED: usize = 12;
/// Subsets drawn by luck where there are more.
const LUCKY: u64 = 200;

/// Which of the undecided parts a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    These(u64),
    First(usize),
    AllBut(usize),
    Only(usize),
    Luck(u64),
}

impl Left {
    pub(super) fn leaves(self, nth: usize) -> bool {
        match self {
            Self::These(bits) => bits >> nth & 1 == 1,
            Self::First(count) => nth < count,
            Self::AllBut(one) => nth != one,
            Self::Only(one) => nth == one,
            Self::Luck(seed) => Dice::new(seed ^ (nth as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)).draw() & 1 == 1,
        }
    }

    /// All subsets of a few; of many all beginnings, all without one, all of one, and some by luck.
    pub(super) fn of(count: usize) -> Vec<Self> {
        if count <= ALL_SUBSETS_MAX {
            return (0..1 << count).map(Self::These).collect();
        }
        let beginnings = (0..=count).map(Self::First);
        let each = (0..count).flat_map(|nth| [Self::AllBut(nth), Self::Only(nth)]);
        beginnings.chain(each).chain((0..LUCKY).map(Self::Luck)).collect()
    }
}

/// What may be found, in the form in which recovery shows it.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) acknowledged: Model,
    pub(super) later: Model,
}

impl Expected {
    pub(super) fn new(acknowledged: &Model, later: &Model) -> Self {
        Self { acknowledged: acknowledged.shown(), later: later.shown() }
    }

    fn verdict(&self, opened: &Opened) -> Option<Verdict> {
        if self.acknowledged.is(opened) {
            Some(Verdict::Whole)
        } else {
            self.later.is(opened).then_some(Verdict::Later)
        }
    }

    fn model(&self, verdict: Verdict) -> &Model {
        if verdict == Verdict::Whole { &self.acknowledged } else { &self.later }
    }
}

/// Tries every power cut in a life.
pub(super) fn cut_power(life: &Life, lived: &[Lived], share: Share, tally: &mut Tally) {
    let mut turns = Turns::new(share);
    for (nth, step) in lived.iter().enumerate() {
        for (done, image) in step.images.iter().enumerate() {
            let acknowledged = if done + 1 == step.images.len() { &step.after } else { &step.before };
            let expected = Expected::new(acknowledged, &step.after);
            let told = |what: String, left: &dyn std::fmt::Debug| {
                format!("life {}, step {nth}, after {done} operations, left {left:?}: {what}", life.name)
            };
            for _ in 0..KILLED {
                let Some(number) = turns.take() else { continue };
                let (first, again) = examine(image.clone(), &expected, life, number);
                tally.count("process killed", step.kind, first.map_err(|what| told(what, &"all, in the cache")));
                if let Some(again) = again {
                    let again = again.map_err(|what| told(what, &"all, in the cache; then again"));
                    tally.count("power cut after that", step.kind, again);
                }
            }
            let atoms = image.atoms(life.sector);
            for left in Left::of(atoms.len()) {
                let Some(number) = turns.take() else { continue };
                let image = image.after_power_cut(&atoms, |nth| left.leaves(nth));
                let (first, again) = examine(image, &expected, life, number);
                tally.count("power cut", step.kind, first.map_err(|what| told(what, &left)));
                if let Some(again) = again {
                    tally.count(
                        "power cut after that",
                        step.kind,
                        again.map_err(|what| told(what, &(left, "then again"))),
                    );
                }
            }
        }
    }
}

type Answer = Result<Verdict, String>;

/// Recovers, goes on, cuts the power somewhere between, and recovers again. The second answer is there if the first is right.
pub(super) fn examine(image: Image, expected: &Expected, life: &Life, number: u64) -> (Answer, Option<Answer>) {
    let disk = Disk::on(image);
    let mut dice = Dice::new(number);
    // About as many operations as there are.
    let mark = dice.size(44);
    if dice.chance(700) {
        disk.mark_at(mark);
    }
    let (store, opened) = match Store::open(&disk, life.config) {
        Ok(open) => open,
        Err(error) => return (Err(format!("refused after a crash alone: {error}")), None),
    };
    let Some(verdict) = expected.verdict(&opened) else {
        let (found, wanted) = (&opened.recovered, &expected.acknowledged);
        return (Err(format!("found {found:?}, cluster {}, not {wanted:?}", opened.identity.cluster)), None);
    };
    if let Err(unfit) = store.check_snapshot(&opened) {
        return (Err(format!("{unfit:?}")), None);
    }
    let model = expected.model(verdict);
    (Ok(verdict), Some(go_on(&disk, store, model, expected, life, &mut dice)))
}

/// Writes on, cuts the power, and recovers twice: what comes back is what was acknowledged, and is not cut a second time.
fn go_on(disk: &Disk, mut store: Store, found: &Model, first: &Expected, life: &Life, dice: &mut Dice) -> Answer {
    let mut timeline = vec![(disk.operations(), found.reopened())];
    for step in more(found, dice.draw()) {
        store.run(&step).map_err(|error| format!("recovered, {step:?} fails: {error}"))?;
        let (_, model) = &timeline[timeline.len() - 1];
        let after = model.after(&step);
        timeline.push((disk.operations(), after));
    }
    drop(store);
    let (at, image) = disk.marked().unwrap_or_else(|| (disk.operations(), disk.image()));
    let expected = between(&timeline, at, first);
    let atoms = image.atoms(life.sector);
    let luck = dice.draw();
    let image = match luck % 3 {
        0 => image.dropped(),
        1 => image.after_power_cut(&atoms, |_| true),
        _ => image.after_power_cut(&atoms, |nth| Left::Luck(luck).leaves(nth)),
    };
    let disk = Disk::on(image);
    let verdict = {
        let (store, opened) =
            Store::open(&disk, life.config).map_err(|error| format!("refused after operation {at}: {error}"))?;
        let verdict = expected.iter().find_map(|expected| expected.verdict(&opened));
        let Some(verdict) = verdict else {
            return Err(format!("after operation {at} found {:?}, not {expected:?}", opened.recovered));
        };
        store.check_snapshot(&opened).map_err(|unfit| format!("after operation {at}: {unfit:?}"))?;
        verdict
    };
    closed_and_opened(&disk, &expected, life.config)?;
    Ok(verdict)
}

/// A store that was closed in peace holds what it held, and has nothing to tell.
fn closed_and_opened(disk: &Disk, expected: &[Expected], config: StoreConfig) -> Result<(), String> {
    let (_, opened) = Store::open(disk, config).map_err(|error| format!("closed in peace: {error}"))?;
    let is = |model: &Model| model.reopened().shown().is(&opened);
    if !expected.iter().any(|expected| is(&expected.acknowledged) || is(&expected.later)) {
        return Err(format!("closed in peace it holds {:?}, not {expected:?}", opened.recovered));
    }
    if opened.notes.is_empty() { Ok(()) } else { Err(format!("told again: {:?}", opened.notes)) }
}

/// What may be found when the power goes after this operation.
fn between(timeline: &[(usize, Model)], at: usize, first: &Expected) -> Vec<Expected> {
    let done = timeline.iter().take_while(|(operations, _)| *operations <= at).count();
    let Some(last) = done.checked_sub(1) else {
        // Amid the recovery: what it was to hand out, under the promise of before or of now.
        let raised = Expected::new(&first.acknowledged.reopened(), &first.later.reopened());
        return vec![first.clone(), raised];
    };
    let (operations, model) = &timeline[last];
    let next = timeline.get(done).filter(|_| at > *operations).map_or(model, |(_, next)| next);
    vec![Expected::new(model, next)]
}

/// How life goes on: another term and a vote in it, an overwritten end, more entries, and now and then a snapshot.
pub(super) fn more(found: &Model, luck: u64) -> Vec<Step> {
    let (term, last, base) = (found.term.0 + 1, found.last().index, found.base.index);
    let first = last.prev().max(base.next()).0;
    let commit = found.commit.min(Index(first - 1)).0;
    let persist = |entries| Step::Persist(vec![write(term, Some("n2"), entries, commit)]);
    let mut steps = vec![persist(vec![]), persist(commands(term, first, first))];
    if luck & 1 == 1 {
        let size = usize::try_from(luck >> 8 & 0x1ff).unwrap_or_default();
        steps.push(persist([commands(term, first + 1, first + 2), vec![command(term, first + 3, 40 + size)]].concat()));
    }
    if luck & 6 == 6 {
        let covered = EntryId::new(term, first);
        steps.extend([Step::Write(covered), Step::Cut(covered)]);
        steps.push(persist(commands(term, first + 1, first + 2)));
    }
    steps
}

/// A life with everything that was recorded of it.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) life: Life,
    pub(super) lived: Vec<Lived>,
}

impl Recorded {
    pub(super) fn of(life: Life) -> Result<Arc<Self>, String> {
        let lived = life.lived()?;
        Ok(Arc::new(Self { life, lived }))
    }
}
