//! `graft top`: the cluster as it changes.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use graft_services::api::View;

use super::failure::Failure;
use super::output::Out;
use super::talk::Talk;
use super::views;

/// Home, and what is left of the screen before is erased line by line.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K\n";
const REST_OF_SCREEN: &str = "\x1b[J";

/// Shows how the cluster is, again and again; once if nobody looks at a terminal and no number was given.
pub(super) fn top(talk: &Talk, out: &Out, interval: f64, count: Option<u64>) -> Result<(), Failure> {
    let is_live = std::io::stdout().is_terminal() && out.is_for_people();
    let count = count.or((!is_live).then_some(1));
    let interval = Duration::from_secs_f64(interval);
    let mut before: Option<(Instant, u64)> = None;
    let mut shown = 0;
    if is_live {
        write("\x1b[2J")?;
    }
    loop {
        let begun = Instant::now();
        let view = talk.view()?;
        let commit = view.status.commit.0;
        let rate = before.map(|(at, then)| rate(commit.saturating_sub(then), begun - at));
        before = Some((begun, commit));
        if is_live {
            let lines = lines(&view, rate).join(REST_OF_LINE);
            write(&format!("{HOME}{lines}{REST_OF_LINE}{REST_OF_SCREEN}"))?;
        } else {
            views::tell_members(&view, out)?;
        }
        shown += 1;
        if count.is_some_and(|count| shown >= count) {
            return Ok(());
        }
        std::thread::sleep(interval.saturating_sub(begun.elapsed()));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
fn rate(entries: u64, time: Duration) -> f64 {
    entries as f64 / time.as_secs_f64().max(0.001)
}

fn lines(view: &View, rate: Option<f64>) -> Vec<String> {
    let status = &view.status;
    let leader = status.leader.map_or_else(|| "nobody leads".to_owned(), |leader| format!("{leader} leads"));
    let rate = rate.map_or_else(String::new, |rate| format!(", {rate:.0} entries/s"));
    let mut lines = vec![
        format!("cluster {}: {leader} in term {}, seen by {}", status.cluster, status.term.0, status.id),
        format!("log: {} committed, {} applied there{rate}", status.commit.0, status.applied.0),
    ];
    lines.extend(status.change.iter().map(|change| format!("under way: {change}")));
    lines.push(String::new());
    lines.extend(views::members_table(view).lines().map(str::to_owned));
    if !view.why.is_empty() {
        lines.push(String::new());
        lines.extend(view.why.iter().map(|why| format!("! {why}")));
    }
    lines
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
