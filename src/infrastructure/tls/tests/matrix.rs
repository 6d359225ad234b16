//! Two sides that do not believe one another: each says why, and what to do.

use std::time::Duration;

use graft_services::identity::Role;
use rcgen::{CertificateParams, KeyPair};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::infrastructure::tls::authority::{Authority, Life};
use crate::infrastructure::tls::material::Pem;
use crate::infrastructure::tls::{Depot, Names};

const DAY: Duration = Duration::from_hours(24);

/// What the accepting and the dialling side say; who is there, if they believe it.
type Said = (Result<String, String>, Result<String, String>);

fn endpoint(pem: Pem) -> Endpoint {
    Endpoint::open(&Source::Memory(pem)).unwrap()
}

/// One whose certificate is good from so many days from now to so many.
fn of_another_time(authority: &Authority, from: i64, to: i64) -> Endpoint {
    let at = |days: i64| OffsetDateTime::now_utc() + time::Duration::days(days);
    let identity = authority.node_identity("n2").unwrap();
    let pem = authority.issue_for(&identity, Life(at(from), at(to))).unwrap();
    let then = SystemTime::UNIX_EPOCH
        + Duration::from_secs(u64::try_from(at(i64::midpoint(from, to)).unix_timestamp()).unwrap());
    Endpoint::open_at(&Source::Memory(pem), then).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Has them meet, and speak.
fn meet(accepting: &Endpoint, dialling: &Endpoint) -> Said {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut secured = accepting.accept(stream).await.map_err(|distrust| distrust.to_string())?;
            secured.stream.write_all(b"!").await.map_err(|error| error.to_string())?;
            let mut byte = [0];
            secured.stream.read_exact(&mut byte).await.map_err(|error| error.to_string())?;
            Ok(secured.identity.to_string())
        };
        let dial = async {
            let stream = TcpStream::connect(place).await.unwrap();
            let mut secured = dialling.connect(stream).await.map_err(|distrust| distrust.to_string())?;
            let mut byte = [0];
            // It hears only now whether it is believed.
            secured.stream.read_exact(&mut byte).await.map_err(|error| error.to_string())?;
            secured.stream.write_all(b"!").await.map_err(|error| error.to_string())?;
            Ok(secured.identity.to_string())
        };
        tokio::join!(accept, dial)
    })
}

#[track_caller]
fn refused((accepting, dialling): Said, here: &str, there: &str) {
    let (accepting, dialling) = (accepting.unwrap_err(), dialling.unwrap_err());
    assert!(accepting.contains(here), "the accepting side says: {accepting}");
    assert!(dialling.contains(there), "the dialling side says: {dialling}");
}

#[test]
fn who_believes_one_another_knows_who_is_there() {
    let bank = Authority::new("bank").unwrap();
    let (n1, n2) = (endpoint(bank.node("n1").unwrap()), endpoint(bank.node("n2").unwrap()));
    let till = endpoint(bank.client("till", Role::Writer).unwrap());
    let said = |who: &str| Ok(who.to_owned());
    assert_eq!(meet(&n1, &n2), (said("spiffe://bank/node/n2"), said("spiffe://bank/node/n1")));
    assert_eq!(meet(&n1, &till), (said("spiffe://bank/client/till?role=writer"), said("spiffe://bank/node/n1")));
}

#[test]
fn another_authority() {
    let (bank, other) = (Authority::new("bank").unwrap(), Authority::new("bank").unwrap());
    let (n1, stranger) = (endpoint(bank.node("n1").unwrap()), endpoint(other.node("n2").unwrap()));
    refused(meet(&n1, &stranger), "does not know the authority", "of an authority that this side does not know");
    // Whoever believes both is not believed by whoever believes one.
    let mut both = other.node("n2").unwrap();
    both.ca.extend(bank.node("n1").unwrap().ca);
    refused(meet(&n1, &endpoint(both)), "of an authority that this side does not know", "make both with the same");
}

#[test]
fn out_of_date() {
    let bank = Authority::new("bank").unwrap();
    let n1 = endpoint(bank.node("n1").unwrap());
    let expired = of_another_time(&bank, -10, -1);
    refused(meet(&n1, &expired), "expired at", "this side's certificate has expired");
    refused(meet(&expired, &n1), "this side's certificate has expired", "put a new one in its place");
    let early = of_another_time(&bank, 1, 10);
    refused(meet(&n1, &early), "is not valid before", "compare the clocks");
    refused(meet(&early, &n1), "compare the clocks", "are both clocks right?");
    // Nor does its own side begin with it.
    let identity = bank.node_identity("n2").unwrap();
    let now = OffsetDateTime::now_utc();
    for (life, words) in
        [(Life(now - 2 * DAY, now - DAY), "it expired at"), (Life(now + DAY, now + 2 * DAY), "is not valid before")]
    {
        let error = Endpoint::open(&Source::Memory(bank.issue_for(&identity, life).unwrap())).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn another_cluster_of_one_authority() {
    let bank = Authority::new("bank").unwrap();
    let shop = {
        // The same key and certificate, which says that it is of another cluster: an authority of several.
        let identity = Identity::node("shop", graft_domain::NodeId::new("n2").unwrap()).unwrap();
        endpoint(bank.issue(&identity).unwrap())
    };
    let n1 = endpoint(bank.node("n1").unwrap());
    let words = "of the cluster \"bank\", and this one is of \"shop\": correct the address";
    refused(meet(&n1, &shop), "is it of the same cluster?", words);
}

#[test]
fn a_client_where_a_member_should_be() {
    let bank = Authority::new("bank").unwrap();
    let (n1, till) = (endpoint(bank.node("n1").unwrap()), endpoint(bank.client("till", Role::Operator).unwrap()));
    refused(meet(&till, &n1), "is it of the same cluster?", "a client's certificate cannot be a member's");
}

/// A certificate that the authority of `bank` signs, with these names in it; and that authority.
fn foreign(uris: &[&str], hosts: &[&str], common_name: &str) -> Pem {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::create(directory.path(), "bank").unwrap();
    let ca = std::fs::read_to_string(depot.ca()).unwrap();
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(directory.path().join("ca.key")).unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca, ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.subject_alt_names.extend(uris.iter().map(|text| rcgen::SanType::URI((*text).try_into().unwrap())));
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    let cert = params.signed_by(&key, &issuer).unwrap().pem();
    Pem { ca: ca.into_bytes(), cert: cert.into_bytes(), key: key.serialize_pem().into_bytes() }
}

#[test]
fn a_certificate_that_says_nothing_or_too_much() {
    let nobody = Endpoint::open(&Source::Memory(foreign(&[], &["db1.example.com"], "db1"))).unwrap_err();
    assert!(nobody.to_string().contains("list one of its names in `names` (db1.example.com, db1)"), "{nobody}");
    let both = ["spiffe://bank/node/n1", "spiffe://bank/node/n2"];
    let torn = Endpoint::open(&Source::Memory(foreign(&both, &[], "db1"))).unwrap_err();
    assert!(torn.to_string().contains("has 2 identities, and must have one"), "{torn}");
    for bad in ["spiffe://bank", "spiffe://bank/node/", "spiffe://bank/node/a b", "spiffe://bank/client/x?role=king"] {
        assert!(Endpoint::open(&Source::Memory(foreign(&[bad], &[], "db1"))).is_err(), "{bad}");
    }
}

#[test]
fn certificates_of_others_are_known_by_a_list_of_names() {
    let names: Names = [
        ("db1.example.com", "spiffe://bank/node/n1"),
        ("10.0.0.2", "spiffe://bank/node/n2"),
        ("till", "spiffe://bank/client/till?role=writer"),
    ]
    .into_iter()
    .map(|(name, uri)| (name.to_owned(), Identity::parse(uri).unwrap()))
    .collect();
    let listed = |pem: Pem| Endpoint::open(&Source::Listed(Box::new(Source::Memory(pem)), names.clone()));
    // Each is of an authority of its own here: all believe all.
    let mut pems = [
        foreign(&[], &["db1.example.com"], "x"),
        foreign(&[], &["10.0.0.2"], "y"),
        foreign(&[], &["desk.example.com"], "till"),
        foreign(&[], &["db3.example.com"], "z"),
    ];
    let all: Vec<u8> = pems.iter().flat_map(|pem| pem.ca.clone()).collect();
    for pem in &mut pems {
        pem.ca.clone_from(&all);
    }
    let [one, two, till, unlisted] = pems;
    let (n1, n2, till) = (listed(one).unwrap(), listed(two).unwrap(), listed(till).unwrap());
    let said = |who: &str| Ok(who.to_owned());
    assert_eq!(meet(&n1, &n2), (said("spiffe://bank/node/n2"), said("spiffe://bank/node/n1")));
    assert_eq!(meet(&n2, &till), (said("spiffe://bank/client/till?role=writer"), said("spiffe://bank/node/n2")));
    assert!(listed(unlisted.clone()).is_err(), "it does not know itself");
    // It goes by a name that the others do not have.
    let own: Names = [("db3.example.com".to_owned(), Identity::parse("spiffe://bank/node/n3").unwrap())].into();
    let own = own.into_iter().chain(names.clone()).collect();
    let n3 = Endpoint::open(&Source::Listed(Box::new(Source::Memory(unlisted)), own)).unwrap();
    refused(meet(&n1, &n3), "list one of its names in `names` (db3.example.com, z)", "log says why");
}

#[test]
fn what_is_no_tls_13() {
    let bank = Authority::new("bank").unwrap();
    let n1 = endpoint(bank.node("n1").unwrap());
    // A hello of TLS 1.2, as any old client sends it: no extension offers another version.
    let hello = [&[0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0]].concat();
    let plain = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let said = |bytes: Vec<u8>| {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let accepted = listener.accept().await.unwrap().0;
            n1.accept(accepted).await.unwrap_err().to_string()
        })
    };
    let old = said(hello);
    assert!(old.contains("there is no way to speak TLS 1.3, which is the only version spoken here"), "{old}");
    let plain = said(plain);
    assert!(plain.contains("does not speak TLS") && plain.contains("give it `tls=`"), "{plain}");
}

#[test]
fn a_key_is_never_shown() {
    let bank = Authority::new("bank").unwrap();
    let pem = bank.node("n1").unwrap();
    let secret = String::from_utf8(pem.key.clone()).unwrap().lines().nth(1).unwrap().to_owned();
    let source = Source::Listed(Box::new(Source::Memory(pem.clone())), Names::new());
    let material = Material::parse(&pem, &source, &Names::new(), SystemTime::now()).map(|material| material.identity);
    let broken = Pem { key: pem.key[..60].to_vec(), ..pem.clone() };
    let mixed = Pem { key: bank.node("n1").unwrap().key, ..pem.clone() };
    let all = [
        format!("{bank:?} {pem:?} {source:?} {:?} {material:?}", endpoint(pem.clone())),
        format!("{:?}", Endpoint::open(&Source::Memory(broken))),
        format!("{:?}", Endpoint::open(&Source::Memory(mixed))),
    ];
    for text in all {
        assert!(!text.contains(&secret) && !text.contains("PRIVATE KEY-----\\nM"), "{text}");
    }
}
