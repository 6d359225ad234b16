//! Brings certificates and connections together.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::StartError;
use crate::infrastructure::grpc::{Guard, Secured, Securing, Security};
use crate::infrastructure::tls::{Endpoint, Names, Source, TlsError};

struct Certified(Endpoint);

impl Guard for Certified {
    fn accept(&self, stream: TcpStream) -> Securing<'_> {
        Box::pin(async {
            let secured = self.0.accept(stream).await?;
            Ok(Secured { stream: Box::new(secured.stream), identity: secured.identity })
        })
    }

    fn connect(&self, stream: TcpStream) -> Securing<'_> {
        Box::pin(async {
            let secured = self.0.connect(stream).await?;
            Ok(Secured { stream: Box::new(secured.stream), identity: secured.identity })
        })
    }
}

/// What secures the connections of a client, or of the member `id`, whose certificate it has to be.
pub(super) fn security(source: Option<&Source>, id: Option<graft_domain::NodeId>) -> Result<Security, StartError> {
    let Some(source) = source else { return Ok(Security::default()) };
    let endpoint = Endpoint::open(source, Names::new()).map_err(StartError::Tls)?;
    if let Some(id) = id
        && endpoint.identity().member() != Some(id)
    {
        let why = format!("the certificate is that of {}, and this node is {id}: give it its own", endpoint.identity());
        return Err(StartError::Tls(TlsError(why)));
    }
    Ok(Security::new(Arc::new(Certified(endpoint))))
}
