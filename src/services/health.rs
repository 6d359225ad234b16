//! What is not well, and what to do about it: for people and programs that watch a cluster.

use std::fmt;
use std::time::Duration;

use crate::api::View;
use crate::status::{MemberStatus, Status, named};

/// A member that is in touch is heard with every heartbeat, at rest once a second at the least; whoever starts or is busy may be
/// late by this much.
const SILENT: Duration = Duration::from_secs(3);

/// One thing that is not well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.what, self.fix)
    }
}

/// All that is not well as far as one member can tell; nothing if all is.
pub fn troubles(view: &View) -> Vec<Trouble> {
    let status = &view.status;
    let mut found = Vec::new();
    let mut tell = |what: String, fix: &str| found.push(Trouble { what, fix: fix.to_owned() });
    if let Some(error) = &status.error {
        tell(format!("{} does not work: {error}", status.id), own_fix(status));
    } else if status.leader.is_none() {
        let is_missing = |member: &MemberStatus| member.reachable == Some(false);
        let fix = if status.members.iter().any(is_missing) || status.members.is_empty() {
            "Start the members that are missing, with the same lines as ever"
        } else {
            "Mend what it says; the others' why() may say more"
        };
        tell(format!("nobody leads{}", because(&view.why)), fix);
    } else if !status.has_quorum {
        let fix = "Start the members that are missing, with the same lines as ever, or mend the network between them";
        tell(format!("no majority answers the leader{}", because(&view.why)), fix);
    }
    if let Some(trouble) = &status.trouble {
        tell(format!("{} does not get on: {trouble}", status.id), "It goes on by itself when that is mended");
    }
    if let Some(why) = &status.snapshot_error {
        tell(
            format!("the last snapshot of {} failed: {why}", status.id),
            "Until one succeeds its log grows, up to log_bytes_max: mend what it says",
        );
    }
    if status.certificate.is_some_and(|certificate| certificate.is_expiring) {
        tell(
            format!("the certificate of {} is about to expire", status.id),
            "`graft tls renew` makes another one: put it in its place, and it is read without a restart",
        );
    }
    found.extend(status.members.iter().filter_map(differing));
    found.extend(status.members.iter().filter(|member| member.id != status.id).filter_map(ailing));
    found
}

fn own_fix(status: &Status) -> &'static str {
    if status.role == "removed" {
        return "Its id is used up: start a node with another id and an empty directory to join again";
    }
    "Mend what it says and start it again; if its data is lost or damaged, replace the member by a new one"
}

/// That the state of a member is not what it should be, if it was found so.
fn differing(member: &MemberStatus) -> Option<Trouble> {
    let MemberStatus { id, address, difference, .. } = member;
    let why = difference.as_ref()?;
    Some(Trouble {
        what: format!("{}: {why}", named(*id, address)),
        fix: format!(
            "Look for what is not deterministic in the machine's commands. Have a member lead whose state is that of most (graft \
             leader ADDR), for newcomers and backups have theirs from whoever leads; then put a node with a new id and an empty \
             directory into its place: graft member replace {id} NEW-ID ADDR"
        ),
    })
}

/// What is wrong with another member, if anything is.
fn ailing(member: &MemberStatus) -> Option<Trouble> {
    let MemberStatus { id, address, reachable, last_contact, trouble, .. } = member;
    let what = match (reachable, trouble, last_contact) {
        (Some(false), why, _) => format!("is not reachable: {}", why.as_deref().unwrap_or("it does not answer")),
        (_, Some(why), _) => format!("does not work: {why}"),
        (Some(true), None, Some(ago)) if *ago > SILENT => {
            format!(
                "is connected and has not answered for {:.0} s: it is paused, or nothing gets through",
                ago.as_secs_f64()
            )
        }
        _ => return None,
    };
    let again = if *reachable == Some(true) {
        "Mend that and, should it not go on by itself, start it again"
    } else {
        "Start it again"
    };
    Some(Trouble {
        what: format!("{} {what}", named(*id, address)),
        fix: format!(
            "{again} with the same line as ever, or, if its disk is lost, start another one with a new id and --cluster, \
             and then: graft member replace {id} NEW-ID ADDR"
        ),
    })
}

fn because(why: &[String]) -> String {
    if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) }
}

#[cfg(test)]
#[path = "tests/health.rs"]
mod tests;
