//! Answers in the form that was asked for.

use std::io::{self, IsTerminal as _, Write};

use serde_json::{Value as Json, json};

use super::args::Form;
use super::failure::Failure;
use super::note;
use super::terminal::{self, BOLD, GREEN, RED, YELLOW, harmless, painted};

type Told = Result<(), Failure>;

pub(super) struct Out {
    form: Form,
}

impl Out {
    pub(super) fn new(form: Form) -> Self {
        Self { form }
    }

    /// Whether people are to read it.
    pub(super) fn is_for_people(&self) -> bool {
        self.form == Form::Table
    }

    /// The form that was asked for.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Says something on the way, where people read along.
    pub(super) fn note(&self, words: &str) {
        if !self.form.is_json() {
            note(words);
        }
    }

    /// As it is, in every form.
    pub(super) fn text(&self, text: &str) -> Told {
        match self.form {
            Form::Json | Form::Jsonl => self.document("text", json!({ "text": text.trim_end() })),
            Form::Table | Form::Plain => write(&seen(text.trim_end())),
        }
    }

    /// A value that a machine gave.
    pub(super) fn value(&self, schema: &str, value: &Json, mut more: Json) -> Told {
        match (self.form, value) {
            (Form::Json | Form::Jsonl, _) => {
                more["value"] = value.clone();
                self.document(schema, more)
            }
            (_, Json::String(text)) => write(&seen(text)),
            (Form::Table, Json::Array(_) | Json::Object(_)) => write(&seen(&format!("{value:#}"))),
            _ => write(&seen(&value.to_string())),
        }
    }

    /// What was done, in words for people and as a document for programs.
    pub(super) fn done(&self, words: &str, schema: &str, document: Json) -> Told {
        match self.form {
            Form::Json | Form::Jsonl => self.document(schema, document),
            Form::Table | Form::Plain => write(&seen(words)),
        }
    }

    /// Rows under heads; `document` is the whole for programs, `items` names its rows.
    pub(super) fn table(
        &self,
        heads: &[&str],
        rows: &[Vec<String>],
        schema: &str,
        document: Json,
        items: &str,
    ) -> Told {
        match self.form {
            Form::Json => self.document(schema, document),
            Form::Jsonl => {
                let all: Vec<Json> = match &document[items] {
                    // What is named by its key tells it itself when it stands alone.
                    Json::Object(named) => named.iter().map(|(id, item)| with_id(item.clone(), id)).collect(),
                    items => items.as_array().cloned().unwrap_or_default(),
                };
                all.into_iter().try_for_each(|item| self.document(schema, item))
            }
            Form::Plain => rows.iter().try_for_each(|row| write(&seen(&row.join("\t")))),
            Form::Table => write(&fitted(heads, rows)),
        }
    }

    fn document(&self, schema: &str, mut document: Json) -> Told {
        document["schema"] = json!(format!("graft/{schema}/v1"));
        write(&seen(&if self.form == Form::Json { format!("{document:#}") } else { document.to_string() }))
    }
}

fn with_id(mut item: Json, id: &str) -> Json {
    item["id"] = json!(id);
    item
}

/// A text that is as it is in every form, such as a script.
pub(super) fn script(bytes: &[u8]) -> Told {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

fn write(text: &str) -> Told {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// For eyes what does a terminal no harm, for programs what it is.
fn seen(text: &str) -> String {
    if io::stdout().is_terminal() { harmless(text) } else { text.to_owned() }
}

/// As wide as the terminal, and in colours where it takes them.
fn fitted(heads: &[&str], rows: &[Vec<String>]) -> String {
    let text = aligned(heads, rows);
    let has_head = heads.iter().any(|head| !head.is_empty());
    let (width, has_colours) = (terminal::width(), terminal::has_colours(&io::stdout()));
    let line = |(number, line): (usize, &str)| {
        let line = cut(line, width);
        match () {
            () if !has_colours => line,
            () if has_head && number == 0 => painted(BOLD, &line),
            () => coloured(&line),
        }
    };
    text.lines().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

/// What does not fit ends in an ellipsis; `-o json` has all of it.
fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => {
            line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
        }
        _ => line.to_owned(),
    }
}

/// Words that say how something is.
fn coloured(line: &str) -> String {
    let colours = [("not reachable", RED), ("  bad", RED), ("  poor", YELLOW), ("  good", GREEN), ("leader", GREEN)];
    match colours.into_iter().find(|(word, _)| line.contains(word)) {
        Some((word, colour)) => line.replacen(word, &painted(colour, word), 1),
        None => line.to_owned(),
    }
}

pub(super) fn aligned(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads = heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>();
    // One line for each, whatever is in it.
    let shown = |cell: &String| harmless(cell).replace(['\n', '\t'], " ");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&heads]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    [&heads].into_iter().chain(&rows).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_long_as_the_terminal_is_wide() {
        assert_eq!(cut("äbcdef", Some(6)), "äbcdef");
        assert_eq!(cut("äbcdefg", Some(6)), "äbcde…");
        assert_eq!(cut("äbcdefg", None), "äbcdefg");
    }

    #[test]
    fn what_is_not_well_is_red() {
        assert_eq!(
            coloured("n1  10.0.0.1:7001  voter  not reachable"),
            "n1  10.0.0.1:7001  voter  \x1b[31mnot reachable\x1b[0m"
        );
        assert_eq!(coloured("nothing of the kind"), "nothing of the kind");
    }
}
