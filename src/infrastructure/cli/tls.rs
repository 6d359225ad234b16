//! `graft tls`: certificates on disk.

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use graft_services::identity::{Identity, Role};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::args::Secrets;
use super::failure::Failure;
use super::output::Out;
use crate::infrastructure::runtime::TlsError;
use crate::infrastructure::runtime::certificates::{
    Certificate, Depot, Endpoint, Files, SecuredStream, certificates, date,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The preface of HTTP/2 and an empty SETTINGS frame.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const DAY_SECONDS: i64 = 86_400;

#[derive(Subcommand, Debug)]
pub(super) enum Tls {
    /// Make an authority for a cluster; its key stays in the directory and belongs on no member
    Init {
        /// The cluster's name, in every certificate: lower-case letters, digits and -._
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Make the certificates of members
    Node {
        /// Their ids: what `graft start` is given with --id, or the address
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Make the certificate of a client
    Client {
        /// Who it is, in the logs of the members
        name: String,
        /// What it may do; each may do what those before it may
        #[arg(long, value_enum, default_value_t = Job::Writer)]
        role: Job,
        #[command(flatten)]
        place: Place,
    },
    /// Show what certificates say
    Show {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// See whether --ca, --cert and --key can be used together, and say what is wrong if not
    Verify {
        /// Connect to a member as well, and see that both sides believe one another
        #[arg(long, value_name = "ADDR")]
        connect: Option<String>,
    },
    /// Make certificates anew, with the same names and new keys; members and clients read them without a restart
    Renew {
        /// Certificates to renew [default: all in the directory]
        certs: Vec<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Replace the authority: `rotate-ca`, give everybody ca.pem, `renew`, give everybody theirs, `rotate-ca --finish`, ca.pem again
    RotateCa {
        /// Believe the one before no more
        #[arg(long)]
        finish: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args, Debug)]
pub(super) struct Place {
    /// Where the authority is kept
    #[arg(long, value_name = "DIRECTORY", default_value = "tls")]
    dir: PathBuf,
}

/// Roles, as they are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(super) enum Job {
    /// Asks queries, watches, and sees how the cluster is
    Reader,
    /// Executes commands, too
    Writer,
    /// Changes the cluster, too
    Operator,
}

impl Tls {
    /// Whether it looks at the certificate that is set.
    pub(super) fn takes_secrets(&self) -> bool {
        matches!(self, Self::Verify { .. })
    }
}

pub(super) fn run(tls: Tls, secrets: &Secrets, out: &Out) -> Result<(), Failure> {
    match tls {
        Tls::Init { name, place } => {
            let depot = Depot::create(&place.dir, &name).map_err(|error| already(error, &place.dir))?;
            let ca = depot.ca();
            let words = format!(
                "{} is the authority of {name}; make certificates with `graft tls node ID` and `graft tls client NAME`",
                ca.display()
            );
            out.done(&words, "tls", json!({ "cluster": name, "ca": ca }))
        }
        Tls::Node { ids, place } => {
            let depot = Depot::load(&place.dir)?;
            let made = ids.iter().map(|id| Ok((id.clone(), depot.node(id)?))).collect::<Result<Vec<_>, Failure>>()?;
            tell(out, &made)
        }
        Tls::Client { name, role, place } => {
            let role = match role {
                Job::Reader => Role::Reader,
                Job::Writer => Role::Writer,
                Job::Operator => Role::Operator,
            };
            let made = Depot::load(&place.dir)?.client(&name, role)?;
            tell(out, &[(name, made)])
        }
        Tls::Show { files } => show(out, &files),
        Tls::Verify { connect } => verify(out, secrets, connect.as_deref()),
        Tls::Renew { certs, place } => {
            let renewed = Depot::load(&place.dir)?.renew(&certs)?;
            let renewed: Vec<_> = renewed.into_iter().map(|(identity, files)| (identity.to_string(), files)).collect();
            tell(out, &renewed)
        }
        Tls::RotateCa { finish, place } => rotate(out, &place.dir, finish),
    }
}

/// An authority is not made anew in its place: certificates of the one before would be worth nothing.
fn already(error: TlsError, directory: &Path) -> Failure {
    let failure = Failure::from(error);
    match Depot::load(directory) {
        Ok(depot) => {
            let cluster = depot.cluster();
            failure.meaning("there is an authority already, and it is left as it is").advice(format!(
                "go on with that of {cluster}: `graft tls node ID`, `graft tls client NAME`; or make another one elsewhere with --dir"
            ))
        }
        Err(_) => failure
            .meaning("no authority was made")
            .advice("mend what is said above, or name another directory with --dir"),
    }
}

fn tell(out: &Out, made: &[(String, Files)]) -> Result<(), Failure> {
    let path = |path: &Path| path.display().to_string();
    let rows: Vec<_> =
        made.iter().map(|(name, files)| vec![name.clone(), path(&files.cert), path(&files.key)]).collect();
    let list: Vec<Json> = made
        .iter()
        .map(|(name, Files { ca, cert, key })| json!({ "name": name, "ca": ca, "cert": cert, "key": key }))
        .collect();
    out.table(&["name", "cert", "key"], &rows, "tls", json!({ "certificates": list }), "certificates")
}

fn show(out: &Out, files: &[PathBuf]) -> Result<(), Failure> {
    let mut list = Vec::new();
    let mut rows = Vec::new();
    for file in files {
        for found in certificates(file)? {
            let name = found.uris.first().cloned().unwrap_or_else(|| found.subject.clone());
            let left = left(&found);
            rows.push(vec![
                file.display().to_string(),
                name,
                if found.is_authority { "authority" } else { "leaf" }.to_owned(),
                date(found.not_after),
                left.clone(),
                found.issuer.clone(),
            ]);
            list.push(json!({
                "file": file, "subject": found.subject, "issuer": found.issuer, "serial": found.serial,
                "not_before": found.not_before, "not_after": found.not_after, "is_authority": found.is_authority,
                "uris": found.uris, "hosts": found.hosts,
            }));
        }
    }
    let heads = ["file", "name", "kind", "valid until", "left", "made by"];
    out.table(&heads, &rows, "tls", json!({ "certificates": list }), "certificates")
}

fn left(certificate: &Certificate) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let left = certificate.not_after - i64::try_from(now).unwrap_or(i64::MAX);
    if left < 0 { "expired".to_owned() } else { format!("{} days", (left + DAY_SECONDS / 2) / DAY_SECONDS) }
}

fn verify(out: &Out, secrets: &Secrets, connect: Option<&str>) -> Result<(), Failure> {
    let source = secrets.source().ok_or_else(|| {
        Failure::usage("which certificate? Give --ca, --cert and --key, or GRAFT_CA, GRAFT_CERT and GRAFT_KEY")
    })?;
    let own = Endpoint::open_believed(&source)?.identity().clone();
    let Some(address) = connect else {
        let words = format!("{own}: the three fit one another");
        return out.done(&words, "tls", json!({ "identity": own.to_string() }));
    };
    let other = meet(&Endpoint::open(&source)?, address)?;
    let words = format!("{own}: the three fit one another; {address} is {other}, and believes it");
    out.done(&words, "tls", json!({ "identity": own.to_string(), "other": other.to_string() }))
}

/// Shakes hands with whoever is there.
fn meet(endpoint: &Endpoint, address: &str) -> Result<Identity, Failure> {
    let unreachable = |why: &dyn std::fmt::Display| Failure::new("UNREACHABLE", format!("{address}: {why}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let meeting = async {
            let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
            let mut met = endpoint.connect(stream).await.map_err(|why| Failure::new("TLS", why.0))?;
            // What the other side thinks of this one shows only after the handshake: it closes, or it waits to be spoken to.
            greet(&mut met.stream).await.map_err(|why| Failure::new("TLS", why.to_string()))?;
            Ok(met.identity)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, meeting).await.unwrap_or_else(|_| Err(unreachable(&"no answer in time")))
    })
}

/// Opens HTTP/2, and waits for the first word of the other side.
async fn greet(stream: &mut SecuredStream) -> io::Result<()> {
    let mut left = GREETING;
    while !left.is_empty() {
        let written = poll_fn(|context| Pin::new(&mut *stream).poll_write(context, left)).await?;
        left = &left[written.max(1).min(left.len())..];
    }
    poll_fn(|context| Pin::new(&mut *stream).poll_flush(context)).await?;
    let mut first = [0; 1];
    let mut buffer = ReadBuf::new(&mut first);
    poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer)).await?;
    if buffer.filled().is_empty() {
        return Err(io::Error::other("it closed the connection without a word: does it believe this certificate?"));
    }
    Ok(())
}

fn rotate(out: &Out, directory: &Path, finish: bool) -> Result<(), Failure> {
    let mut depot = Depot::load(directory)?;
    let words = if finish {
        depot.retire()?;
        "believes the new authority alone. Give it to every member and client: the old one is worth nothing then"
    } else {
        depot.rotate()?;
        "believes both authorities. Give it to every member and client; then `graft tls renew`, give everybody the new \
         certificates, and end with `graft tls rotate-ca --finish`"
    };
    let ca = depot.ca();
    out.done(&format!("{} {words}", ca.display()), "tls", json!({ "ca": ca, "finished": finish }))
}
