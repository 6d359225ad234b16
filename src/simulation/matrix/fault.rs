//! Every operation of a life fails once, in every way, and the caller goes on as far as the store lets it. What the store
//! says was done is there afterwards, whichever way the machine goes down.

use std::sync::Arc;

use graft_services::ports::StoreError;

use super::crash::{Expected, Left, Recorded, examine, more};
use super::disk::{Disk, Fault};
use super::image::Image;
use super::model::{Model, Step, Store};
use super::tally::{Share, Tally, Turns};

const FAULTS: [(Fault, &str); 3] =
    [(Fault::Refused, "operation refused"), (Fault::Lost, "operation failed late"), (Fault::Full, "no space")];
/// So many steps before the one that fails are lived again: a store that was opened just now does less than one that runs.
const BEFORE: usize = 2;
/// Opening again takes some operations that the life did not.
const MORE_OPERATIONS: usize = 8;

/// A disk on which an operation failed, and what it may hold.
struct Harmed {
    image: Image,
    expected: Expected,
}

pub(super) fn fail_each(recorded: &Recorded, share: Share, tally: &mut Tally) {
    let mut turns = Turns::new(share);
    for nth in 0..recorded.lived.len() {
        let operations = recorded.lived[nth].images.len() + MORE_OPERATIONS;
        for (at, (fault, part)) in (0..operations).flat_map(|at| FAULTS.map(|fault| (at, fault))) {
            let Some(number) = turns.take() else { continue };
            let kind = recorded.lived[nth].kind;
            let told = |what: String| format!("life {}, step {nth}, operation {at}: {what}", recorded.life.name);
            match fail(recorded, nth, at, fault, number) {
                Ok(None) => {}
                Ok(Some(harmed)) => {
                    for image in endings(&harmed.image, recorded.life.sector, number) {
                        let (first, again) = examine(image, &harmed.expected, &recorded.life, number);
                        tally.count(part, kind, first.map_err(told));
                        if let Some(again) = again {
                            tally.count(part, kind, again.map_err(told));
                        }
                    }
                }
                Err(what) => tally.count(part, kind, Err(told(what))),
            }
        }
    }
}

/// The process is killed, or the power goes and leaves nothing, all, or some of what was not synced.
fn endings(image: &Image, sector: usize, number: u64) -> [Image; 4] {
    let atoms = image.atoms(sector);
    let lucky = image.after_power_cut(&atoms, |nth| Left::Luck(number).leaves(nth));
    [image.clone(), image.dropped(), image.after_power_cut(&atoms, |_| true), lucky]
}

/// Lives up to a step in which an operation fails. None if there is no such operation.
fn fail(recorded: &Recorded, nth: usize, at: usize, fault: Fault, number: u64) -> Result<Option<Harmed>, String> {
    let Recorded { life, lived } = recorded;
    let from = nth.saturating_sub(BEFORE);
    let disk = Disk::on(lived[from].images[0].clone());
    if nth == 0 || matches!(life.steps[nth - 1], Step::Reopen) {
        let disk = Disk::on(lived[nth].images[0].clone());
        disk.fail_at(at, fault);
        let before = &lived[nth].before;
        let opened = Store::open(&disk, life.config).map(drop);
        let model = Arc::new(before.reopened());
        let harmed = Harmed { image: disk.image(), expected: Expected::new(before, &model) };
        return Ok((disk.operations() > at).then_some(harmed).filter(|_| opened.is_err()));
    }
    let open = || Store::open(&disk, life.config).map_err(|error| error.to_string());
    let (mut store, _) = open()?;
    let mut model = if from == 0 { Model::founded() } else { lived[from].before.reopened() };
    for step in (from..nth).filter(|step| *step > 0).map(|step| &life.steps[step - 1]) {
        if matches!(step, Step::Reopen) {
            drop(store);
            store = open()?.0;
        } else {
            store.run(step).map_err(|error| format!("{step:?}: {error}"))?;
        }
        model = model.after(step);
    }
    let (step, begun) = (&life.steps[nth - 1], disk.operations());
    disk.fail_at(begun + at, fault);
    let result = store.run(step);
    if disk.operations() <= begun + at {
        return Ok(None);
    }
    let after = model.after(step);
    let (mut acknowledged, mut later) = match result {
        Ok(()) => (after.clone(), after),
        Err(StoreError::Full { .. }) => {
            store.run(step).map_err(|error| format!("{step:?} again, after a full disk: {error}"))?;
            (after.clone(), after)
        }
        Err(_) => (model, after),
    };
    for step in more(&acknowledged.shown(), number) {
        if store.run(&step).is_ok() {
            (acknowledged, later) = (acknowledged.after(&step), later.after(&step));
        }
    }
    drop(store);
    Ok(Some(Harmed { image: disk.image(), expected: Expected::new(&acknowledged, &later) }))
}
