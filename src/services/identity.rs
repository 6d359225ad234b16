//! Who somebody is, as a certificate says it, and what somebody of that kind may do.
//!
//! An identity is a URI: `spiffe://<cluster>/node/<id>` for a member, `spiffe://<cluster>/client/<name>?role=<role>` for
//! everybody else. `<cluster>` is the name that an operator chose for the cluster when its authority was made.

use std::fmt;

use graft_domain::NodeId;

/// Characters of the name of a cluster, and of a client.
const NAME_MAX: usize = 63;
const SCHEME: &str = "spiffe://";

/// What a client may do; each may do what those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Asks queries, watches, and sees how the cluster is.
    Reader,
    /// Executes commands, too.
    Writer,
    /// Changes the cluster, too: its members, who leads, its snapshots.
    Operator,
}

/// What every refusal for want of a role says, and no other.
const TAKES: &str = "that takes the role";

/// Who it is within its cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Who {
    Node(NodeId),
    Client { name: String, role: Role },
}

/// Somebody who has proved who he is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    pub cluster: String,
    pub who: Who,
}

/// The other side could not prove who it is, or would not believe this one; in words that say what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distrust(pub String);

impl Role {
    pub const ALL: [Self; 3] = [Self::Reader, Self::Writer, Self::Operator];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Operator => "operator",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == text)
    }
}

impl Identity {
    /// Of the member `id`; an error says what is wrong with the cluster's name.
    pub fn node(cluster: &str, id: NodeId) -> Result<Self, String> {
        Ok(Self { cluster: cluster_name(cluster)?, who: Who::Node(id) })
    }

    /// Of a client; an error says which name is wrong and why.
    pub fn client(cluster: &str, name: &str, role: Role) -> Result<Self, String> {
        let name = client_name(name)?;
        Ok(Self { cluster: cluster_name(cluster)?, who: Who::Client { name, role } })
    }

    /// Reads a URI. An error says what is wrong with it.
    pub fn parse(uri: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{uri:?} is neither spiffe://<cluster>/node/<id> nor \
                 spiffe://<cluster>/client/<name>?role=reader|writer|operator"
            )
        };
        let (cluster, path) = uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(bad)?;
        match path.split_once('/').ok_or_else(bad)? {
            ("node", id) => {
                let id = NodeId::new(id).map_err(|error| format!("{uri:?}: {error}"))?;
                Self::node(cluster, id)
            }
            ("client", rest) => {
                let (name, role) = rest.split_once("?role=").ok_or_else(bad)?;
                Self::client(cluster, name, Role::parse(role).ok_or_else(bad)?)
            }
            _ => Err(bad()),
        }
    }

    /// The member that it is, if it is one.
    pub fn member(&self) -> Option<NodeId> {
        match &self.who {
            Who::Node(id) => Some(*id),
            Who::Client { .. } => None,
        }
    }

    /// That its role does not allow to do something, in words.
    pub fn may_not(&self, doing: &str, needed: Role) -> String {
        format!("{self} may not {doing}: {TAKES} {needed}, and its role is {}", self.role())
    }

    /// A member is trusted with everything: it could say anything in the log.
    pub fn role(&self) -> Role {
        match &self.who {
            Who::Node(_) => Role::Operator,
            Who::Client { role, .. } => *role,
        }
    }
}

/// Whether a refusal is for want of a role, by its words: so much of it comes over the wire.
pub fn is_for_want_of_a_role(why: &str) -> bool {
    why.contains(TAKES)
}

/// The name of a cluster: what may stand for a host in a URI, in lower case so that there is one way to write it.
fn cluster_name(name: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
        return Err(format!(
            "the cluster's name {name:?} must be 1 to {NAME_MAX} lower-case letters, digits, and any of - . _"
        ));
    }
    Ok(name.to_owned())
}

fn client_name(name: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:@".contains(c);
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
        return Err(format!(
            "the client's name {name:?} must be 1 to {NAME_MAX} letters, digits, and any of - . _ : @"
        ));
    }
    Ok(name.to_owned())
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Node(id) => write!(f, "{SCHEME}{}/node/{id}", self.cluster),
            Who::Client { name, role } => write!(f, "{SCHEME}{}/client/{name}?role={role}", self.cluster),
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Distrust {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_what_its_uri_says() {
        let uris = [
            ("spiffe://bank/node/n1", Role::Operator, Some("n1")),
            ("spiffe://bank.example/client/web@1?role=reader", Role::Reader, None),
            ("spiffe://b_1/client/a.b:c?role=writer", Role::Writer, None),
            ("spiffe://b/client/ops?role=operator", Role::Operator, None),
        ];
        for (uri, role, member) in uris {
            let identity = Identity::parse(uri).unwrap();
            assert_eq!((identity.to_string().as_str(), identity.role()), (uri, role));
            assert_eq!(identity.member().map(|id| id.to_string()).as_deref(), member);
        }
    }

    #[test]
    fn what_a_role_does_not_allow_is_told_from_distrust() {
        let reader = Identity::client("bank", "web", Role::Reader).unwrap();
        let why = reader.may_not("take a snapshot", Role::Operator);
        assert_eq!(
            why,
            "spiffe://bank/client/web?role=reader may not take a snapshot: that takes the role operator, and its role is reader"
        );
        assert!(is_for_want_of_a_role(&why) && !is_for_want_of_a_role("it is of another authority"));
    }

    #[test]
    fn a_uri_that_could_be_read_in_two_ways_is_none() {
        let long = format!("spiffe://{}/node/n1", "x".repeat(64));
        let bad = [
            "",
            "bank/node/n1",
            "https://bank/node/n1",
            "spiffe://bank",
            "spiffe:///node/n1",
            "spiffe://bank/node/",
            "spiffe://bank/node/n1/x",
            "spiffe://bank/node/n 1",
            "spiffe://Bank/node/n1",
            "spiffe://bank:1/node/n1",
            "spiffe://u@bank/node/n1",
            "spiffe://bank/client/web",
            "spiffe://bank/client/web?role=root",
            "spiffe://bank/client/web?role=",
            "spiffe://bank/client/web?role=reader&role=operator",
            "spiffe://bank/client/web?role=Reader",
            "spiffe://bank/client/?role=reader",
            "spiffe://bank/client/w%65b?role=reader",
            "spiffe://bank/other/x",
            long.as_str(),
        ];
        for uri in bad {
            let why = Identity::parse(uri).unwrap_err();
            assert!(!why.is_empty(), "{uri}");
        }
    }

    #[test]
    fn a_role_may_what_those_below_it_may() {
        assert!(Role::Reader < Role::Writer && Role::Writer < Role::Operator);
        assert!(Role::ALL.into_iter().all(|role| Role::parse(role.name()) == Some(role)));
    }
}
