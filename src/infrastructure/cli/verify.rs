//! Whether the members have made the same of the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use graft_domain::NodeId;
use graft_services::MemberStatus;
use graft_services::error::Outcome;
use serde_json::{Map, Value as Json, json};

use super::failure::Failure;
use super::output::Out;
use super::talk::Talk;
use super::values::hex;

type Digests = BTreeMap<NodeId, Result<Bytes, String>>;

/// Fails, as unhealthy, if the digests are not all there and all the same.
pub(super) fn verify(talk: &Talk, out: &Out) -> Result<(), Failure> {
    let Outcome::Compared { index, digests } = talk.verify()? else {
        return Err(Failure::new("TIMEOUT", "the replicas were not compared"));
    };
    let mut digests = digests;
    for member in &talk.view()?.status.members {
        digests.entry(member.id).or_insert_with(|| Err(silent(member)));
    }
    let differing = differing(&digests);
    let (mut all, mut rows) = (Map::new(), Vec::new());
    for (id, digest) in &digests {
        let differs = differing.contains(id);
        let (shown, document) = match digest {
            Ok(digest) => (hex(digest), json!({ "digest": hex(digest), "trouble": null, "differs": differs })),
            Err(why) => {
                // The last line of a traceback says what it was.
                let last = why.trim_end().lines().last().unwrap_or_default();
                (format!("none: {last}"), json!({ "digest": null, "trouble": why, "differs": false }))
            }
        };
        rows.push(vec![id.to_string(), shown, if differs { "differs" } else { "" }.to_owned()]);
        all.insert(id.to_string(), document);
    }
    let document = json!({ "index": index.0.to_string(), "digests": Json::Object(all) });
    out.table(&["member", "digest", ""], &rows, "verify", document, "digests")?;
    verdict(index.0, &differing, &digests)
}

/// Why a member has told nothing.
fn silent(member: &MemberStatus) -> String {
    let seen = match (member.trouble.as_deref(), member.reachable) {
        (Some(trouble), _) => trouble,
        (None, Some(false)) => "it is not reachable",
        (None, _) => "it takes longer than the others, or is not reachable",
    };
    format!("it did not answer in time: {seen}")
}

/// Whose state is not the one that most have; all of them if no state is that of more than half of those who answered.
fn differing(digests: &Digests) -> Vec<NodeId> {
    let good = || digests.iter().filter_map(|(id, digest)| Some((*id, digest.as_ref().ok()?)));
    let share = |digest: &Bytes| good().filter(|(_, other)| *other == digest).count();
    let common = good().map(|(_, digest)| digest).find(|digest| share(digest) * 2 > good().count());
    good().filter(|(_, digest)| Some(*digest) != common).map(|(id, _)| id).collect()
}

fn verdict(index: u64, differing: &[NodeId], digests: &Digests) -> Result<(), Failure> {
    let failed: Vec<NodeId> = digests.iter().filter(|(_, digest)| digest.is_err()).map(|(id, _)| *id).collect();
    let names = |ids: &[NodeId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !differing.is_empty() {
        let what = if differing.len() == digests.len() - failed.len() {
            format!("the replicas differ at index {index}, and no state is that of a majority: {}", names(differing))
        } else {
            format!("{} differ{} from the majority at index {index}", names(differing), one(differing, "s", ""))
        };
        return Err(Failure::new("UNHEALTHY", what).meaning("members have made different states of the same log").advice(
            "look for what is not deterministic in the machine, then replace who differs: `graft member replace OLD NEW ADDR`",
        ));
    }
    if failed.is_empty() {
        return Ok(());
    }
    let what = format!("{} gave no digest; all others have the same", names(&failed));
    Err(Failure::new("UNHEALTHY", what)
        .meaning("not every member could be compared")
        .advice("see the trouble that is told above, and `graft health`; then compare again"))
}

fn one(ids: &[NodeId], single: &'static str, several: &'static str) -> &'static str {
    if ids.len() == 1 { single } else { several }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(&str, Option<&'static str>)]) -> Digests {
        let digest = |digest: Option<&'static str>| digest.map(Bytes::from).ok_or_else(|| "down".to_owned());
        all.iter().map(|(id, told)| (NodeId::new(id).unwrap(), digest(*told))).collect()
    }

    #[test]
    fn who_differs_is_who_has_not_what_most_have() {
        let told = |all: &[(&str, Option<&'static str>)]| -> Vec<String> {
            differing(&of(all)).iter().map(ToString::to_string).collect()
        };
        assert!(told(&[("n1", Some("a")), ("n2", Some("a")), ("n3", None)]).is_empty());
        assert_eq!(told(&[("n1", Some("a")), ("n2", Some("b")), ("n3", Some("a"))]), ["n2"]);
        assert_eq!(told(&[("n1", Some("a")), ("n2", Some("b")), ("n3", None)]), ["n1", "n2"]);
        assert!(told(&[("n1", None)]).is_empty());
    }

    #[test]
    fn the_verdict_names_them() {
        let verdict = |all: &[(&str, Option<&'static str>)]| {
            let digests = of(all);
            verdict(7, &differing(&digests), &digests)
        };
        let what = |all: &[(&str, Option<&'static str>)]| verdict(all).unwrap_err().what;
        let (n1, n2) = (("n1", Some("a")), ("n2", Some("b")));
        assert_eq!(what(&[n1, n2, ("n3", Some("a"))]), "n2 differs from the majority at index 7");
        for last in [None, Some("c")] {
            assert!(what(&[n1, n2, ("n3", last)]).contains("no state is that of a majority: n1, n2"), "{last:?}");
        }
        let missing = verdict(&[n1, ("n3", None)]).unwrap_err();
        assert_eq!((missing.what.as_str(), missing.exit), ("n3 gave no digest; all others have the same", 10));
        assert!(verdict(&[n1, ("n2", Some("a"))]).is_ok());
    }
}
