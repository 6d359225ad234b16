//! Brings certificates and connections together.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use graft_domain::NodeId;

use super::StartError;
use super::renewal::Certified;
use crate::infrastructure::grpc::Security;
use crate::infrastructure::tls::{Source, TlsError};

/// What secures the connections of a client, or of the member `id`, whose certificate it has to be.
pub(super) fn security(source: Option<&Source>, id: Option<NodeId>) -> Result<Option<Arc<Certified>>, StartError> {
    let Some(source) = source else { return Ok(None) };
    let certified = Certified::open(source).map_err(StartError::Tls)?;
    let identity = certified.identity();
    if let Some(id) = id
        && identity.member() != Some(id)
    {
        let why = format!("the certificate is that of {identity}, and this node is {id}: give it its own");
        return Err(StartError::Tls(TlsError(why)));
    }
    Ok(Some(Arc::new(certified)))
}

/// The same, as the transport takes it.
pub(super) fn guard(certified: Option<&Arc<Certified>>) -> Security {
    certified.map_or_else(Security::default, |certified| Security::new(Arc::<Certified>::clone(certified)))
}

/// Refuses to listen in plain text where others come by, and says how to do better.
pub(super) fn refuse_plain_listener(id: NodeId, address: SocketAddr) -> Result<(), StartError> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(StartError::Insecure(format!(
        "node {id} would listen at {address} without certificates, and whoever reaches that could do anything, as a member or as \
         an operator. Make an authority for the cluster, a certificate for each node, and give it to the node:\n    \
         graft tls init CLUSTER\n    \
         graft tls node {id}\n    \
         graft start ADDR --cluster ADDR --ca tls/ca.pem --cert tls/node-{id}.pem --key tls/node-{id}.key\n\
         (in Python: tls=graft.TLS(ca=..., cert=..., key=...)). Where nobody else reaches the network, say insecure=True, or \
         --insecure"
    )))
}

/// Refuses to speak in plain text to members beyond this machine, as far as their addresses say where they are.
pub(super) fn refuse_plain_endpoints(endpoints: &[String]) -> Result<(), StartError> {
    let is_here = |endpoint: &str| {
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host).trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    };
    let Some(beyond) = endpoints.iter().find(|endpoint| !is_here(endpoint)) else { return Ok(()) };
    Err(StartError::Insecure(format!(
        "{beyond} is beyond this machine, and without a certificate whoever is on the way can read and change what is said. Have \
         one made by the cluster's authority (graft tls client NAME --role writer) and give it: tls=graft.TLS(ca=..., cert=..., \
         key=...), or --ca --cert --key. Where nobody else reaches the network, say insecure=True, or --insecure"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_this_machine() {
        let id = NodeId::new("n1").expect("a good id");
        for (address, is_fine) in [
            ("127.0.0.1:1", true),
            ("127.9.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
        ] {
            let refused = refuse_plain_listener(id, address.parse().expect("an address"));
            assert_eq!(refused.is_ok(), is_fine, "{address}");
            assert_eq!(refuse_plain_endpoints(&[address.to_owned()]).is_ok(), is_fine, "{address}");
            let words = refused.map_or_else(|error| error.to_string(), |()| String::new());
            assert!(is_fine || words.contains("graft tls node n1"), "{words}");
        }
        let endpoints = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(refuse_plain_endpoints(&endpoints(&["localhost:1", "127.0.0.1:2"])).is_ok());
        assert!(refuse_plain_endpoints(&endpoints(&["localhost:1", "db1:2"])).is_err());
    }
}
