//! What only a terminal gets: its width, colours, a line that is drawn anew.

use std::io::{self, IsTerminal, Write as _};

/// Columns of what stdout goes to; none if that is no terminal.
pub(super) fn width() -> Option<usize> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Whether this takes colours: a terminal, and nobody has said no (<https://no-color.org>).
pub(super) fn has_colours(to: &impl IsTerminal) -> bool {
    let no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    to.is_terminal() && !no && !dumb
}

pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

pub(super) fn painted(colour: &str, text: &str) -> String {
    format!("{colour}{text}{PLAIN}")
}

/// Text of others, in which nothing moves the cursor, paints or rings: it may come from whoever can write.
pub(super) fn harmless(text: &str) -> String {
    let is_fine = |letter: char| !letter.is_control() || letter == '\n' || letter == '\t';
    let shown = |letter: char| if is_fine(letter) { letter.to_string() } else { letter.escape_default().to_string() };
    if text.chars().all(is_fine) { text.to_owned() } else { text.chars().map(shown).collect() }
}

/// A line on stderr that shows how far something is, where somebody looks.
pub(super) struct Progress {
    is_seen: bool,
    is_drawn: bool,
}

const BAR: usize = 24;

impl Progress {
    pub(super) fn new() -> Self {
        Self { is_seen: io::stderr().is_terminal(), is_drawn: false }
    }

    pub(super) fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// Draws it anew: `share` from 0 to 1, if that is known.
    pub(super) fn draw(&mut self, words: &str, share: Option<f64>) {
        if self.is_seen {
            let bar = share.map_or_else(String::new, bar);
            // Whoever closed it wants no more of it.
            let _ = write!(io::stderr(), "\r\x1b[K{bar}{words}");
            self.is_drawn = true;
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a bar"
)]
fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64) as usize;
    format!("[{}{}] {:3.0}% ", "#".repeat(full), ".".repeat(BAR - full), share.clamp(0.0, 1.0) * 100.0)
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_drawn {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_it_is_far() {
        assert_eq!(bar(0.0), format!("[{}]   0% ", ".".repeat(24)));
        assert_eq!(bar(0.5), format!("[{}{}]  50% ", "#".repeat(12), ".".repeat(12)));
        assert_eq!(bar(7.0), format!("[{}] 100% ", "#".repeat(24)));
    }

    #[test]
    fn text_of_others_does_nothing_to_a_terminal() {
        assert_eq!(harmless("a\tb\nc äß…"), "a\tb\nc äß…");
        assert_eq!(harmless("\x1b[2Jgone\r\x07\u{9b}1m"), "\\u{1b}[2Jgone\\r\\u{7}\\u{9b}1m");
    }
}
