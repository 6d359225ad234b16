//! What is expected, and what is said of what was counted.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::callgrind::Counts;

/// Beside the crate.
const FILE: &str = "instructions/expected.txt";
const HEAD: &str = "# Instructions and allocations for each command, written by `make instructions UPDATE=1`.\n";

/// By so much of what is expected a count may be larger: from one compiler to the next it moves by some percent.
const TOLERANCE: f64 = 0.1;
/// Allocations are counted one by one, and do not go by the compiler; a part of one in a batch is growth.
const ALLOCATIONS_TOLERANCE: f64 = 0.02;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE)
}

/// For each command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    instructions: f64,
    allocations: f64,
}

/// What one case came to.
#[derive(Debug)]
pub(crate) struct Counted {
    name: &'static str,
    cost: Cost,
}

impl Counted {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below what a float holds exactly")]
    pub(crate) fn new(name: &'static str, commands: usize, counts: &Counts) -> Self {
        let each = |count: u64| count as f64 / commands as f64;
        Self { name, cost: Cost { instructions: each(counts.instructions), allocations: each(counts.allocations) } }
    }
}

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct Expected(BTreeMap<String, Cost>);

impl Expected {
    pub(crate) fn read() -> Result<Self, Box<dyn Error>> {
        Self::parse(&fs::read_to_string(path()).unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        let mut costs = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, numbers) = line.split_once("  ").ok_or("a name, two spaces, two numbers")?;
            let (instructions, allocations) = numbers.trim().split_once(' ').ok_or("two numbers")?;
            let (instructions, allocations) = (instructions.parse()?, allocations.trim().parse()?);
            costs.insert(name.to_owned(), Cost { instructions, allocations });
        }
        Ok(Self(costs))
    }

    /// Cases that were not counted this time keep what they have.
    pub(crate) fn write(&self, counted: &[Counted]) -> Result<(), Box<dyn Error>> {
        let mut costs = self.0.clone();
        costs.extend(counted.iter().map(|counted| (counted.name.to_owned(), counted.cost)));
        let mut text = HEAD.to_owned();
        for (name, Cost { instructions, allocations }) in costs {
            writeln!(text, "{name:<26}  {instructions:>8.1} {allocations:>7.2}")?;
        }
        Ok(fs::write(path(), text)?)
    }

    /// The table.
    pub(crate) fn compare(&self, counted: &[Counted]) -> String {
        let mut text = format!(
            "{:<26} {:>9} {:>9} {:>6}   {:>9} {:>9}\n",
            "instructions per command", "expected", "counted", "ratio", "allocated", "expected"
        );
        for Counted { name, cost } in counted {
            let Cost { instructions, allocations } = cost;
            let expected = self.0.get(*name);
            let number = |cost: fn(&Cost) -> f64, digits| {
                expected.map_or("-".to_owned(), |expected| format!("{:.digits$}", cost(expected)))
            };
            let ratio = expected.map_or("-".to_owned(), |e| format!("{:.3}", instructions / e.instructions));
            let (was, had) = (number(|cost| cost.instructions, 1), number(|cost| cost.allocations, 2));
            // A text takes every write.
            let _ = writeln!(text, "{name:<26} {was:>9} {instructions:>9.1} {ratio:>6}   {allocations:>9.2} {had:>9}");
        }
        text.trim_end().to_owned()
    }

    /// What is not as it should be, in words.
    pub(crate) fn problems(&self, counted: &[Counted]) -> Vec<String> {
        let mut problems = Vec::new();
        for Counted { name, cost } in counted {
            let Some(expected) = self.0.get(*name) else {
                problems.push(format!("{name} is not in the file of what is expected: UPDATE=1 puts it there"));
                continue;
            };
            let mut judge = |what: &str, is: f64, was: f64, tolerance: f64| {
                if is > was * (1.0 + tolerance) + tolerance {
                    problems.push(format!("{name}: {is:.2} {what} for each command, and {was:.2} are expected"));
                }
            };
            judge("instructions", cost.instructions, expected.instructions, TOLERANCE);
            judge("allocations", cost.allocations, expected.allocations, ALLOCATIONS_TOLERANCE);
        }
        problems
    }
}
