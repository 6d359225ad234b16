//! The file of a story: prose, commands, and what happened under each.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

#[derive(Clone, Debug)]
pub(super) struct Script {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    /// A comment or an empty line.
    Prose(String),
    Step(Step),
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Where the command stands in the file.
    pub(super) line: usize,
    pub(super) command: String,
    pub(super) output: Vec<String>,
}

impl Script {
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            if let Some(command) = text.strip_prefix("> ") {
                parts.push(Part::Step(Step { line, command: command.trim().to_string(), output: Vec::new() }));
            } else if text.is_empty() || text.starts_with('#') {
                parts.push(Part::Prose(text.to_string()));
            } else {
                match parts.last_mut() {
                    Some(Part::Step(step)) => step.output.push(text.to_string()),
                    _ => panic!("line {line}: neither a comment nor under a command: {text}"),
                }
            }
        }
        Self { parts }
    }

    pub(super) fn steps_mut(&mut self) -> impl Iterator<Item = &mut Step> {
        self.parts.iter_mut().filter_map(|part| match part {
            Part::Step(step) => Some(step),
            Part::Prose(_) => None,
        })
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.parts.iter().filter_map(|part| match part {
            Part::Step(step) => Some(step),
            Part::Prose(_) => None,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        for part in &self.parts {
            match part {
                Part::Prose(prose) => lines.push(prose.clone()),
                Part::Step(step) => {
                    lines.push(format!("> {}", step.command));
                    lines.extend_from_slice(&step.output);
                }
            }
        }
        lines.push(String::new());
        lines.join("\n")
    }

    /// What is written here and did not happen (`-`), and what happened and is not written (`+`).
    pub(super) fn difference(&self, happened: &Self, name: &str) -> String {
        let mut lines = Vec::new();
        for (written, happened) in self.steps().zip(happened.steps()) {
            let (old, new) = (&written.output, &happened.output);
            if old == new {
                continue;
            }
            lines.push(format!("{name}:{} > {}\n", written.line, written.command));
            let before = old.iter().zip(new).take_while(|(a, b)| a == b).count();
            let rest = old.len().min(new.len()) - before;
            let after = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
            let mut show =
                |mark: char, part: &[String]| lines.extend(part.iter().map(|line| format!("{mark} {line}\n")));
            show(' ', &old[..before]);
            show('-', &old[before..old.len() - after]);
            show('+', &new[before..new.len() - after]);
            show(' ', &old[old.len() - after..]);
        }
        lines.concat()
    }
}
