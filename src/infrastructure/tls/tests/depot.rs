use super::*;

fn depot() -> (tempfile::TempDir, Depot) {
    let directory = tempfile::tempdir().expect("a directory");
    let depot = Depot::create(&directory.path().join("tls"), "bank").expect("it is new");
    (directory, depot)
}

fn reload(depot: &Depot) -> Depot {
    Depot::load(&depot.directory).unwrap_or_else(|error| panic!("{error}"))
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn what_is_made_is_there_after_loading_and_fits() {
    let (_directory, made) = depot();
    let node = made.node("n1").expect("it can be made");
    let depot = reload(&made);
    assert_eq!(depot.cluster(), "bank");
    let client = depot.client("web", Role::Writer).expect("it can be made");
    assert_eq!(node.check().expect("it fits").to_string(), "spiffe://bank/node/n1");
    assert_eq!(client.check().expect("it fits").to_string(), "spiffe://bank/client/web?role=writer");
    assert!(depot.authority.has_signed(&fs::read(&node.cert).unwrap()).unwrap());
    assert!(!format!("{depot:?}").contains("PRIVATE"));
    let ids = depot.node("10.0.0.1:7001").expect("an address is an id");
    assert!(ids.cert.ends_with("node-10.0.0.1_7001.pem"));
}

#[test]
#[cfg(unix)]
fn keys_are_their_owners_alone() {
    let (_directory, depot) = depot();
    let files = depot.node("n1").unwrap();
    assert_eq!((mode(&files.key), mode(&depot.path(CA_KEY)), mode(&files.cert)), (0o600, 0o600, 0o644));
    assert_eq!(mode(&depot.directory), 0o700);
    let mut depot = depot;
    depot.rotate().unwrap();
    depot.renew(&[]).unwrap();
    assert_eq!((mode(&files.key), mode(&depot.path(CA_KEY))), (0o600, 0o600));
}

#[test]
fn nothing_is_overwritten() {
    let (_directory, depot) = depot();
    let why = Depot::create(&depot.directory, "other").unwrap_err();
    assert!(why.0.contains("nothing is overwritten"), "{why}");
    assert_eq!(reload(&depot).cluster(), "bank");
    let files = depot.client("web", Role::Reader).unwrap();
    let before = fs::read(&files.cert).unwrap();
    assert_eq!(depot.client("web", Role::Reader).unwrap(), files, "the same again");
    assert_eq!(fs::read(&files.cert).unwrap(), before);
    let why = depot.client("web", Role::Operator).unwrap_err();
    assert!(why.0.contains("role=reader") && why.0.contains("nothing is overwritten"), "{why}");
    fs::write(&files.cert, "something else").unwrap();
    let why = depot.client("web", Role::Reader).unwrap_err();
    assert!(why.0.contains("client-web.pem") && why.0.contains("Nothing is overwritten"), "{why}");
}

#[test]
fn a_renewed_certificate_is_another_one_of_the_same_name() {
    let (_directory, depot) = depot();
    let files = depot.node("n1").unwrap();
    let (cert, key) = (fs::read(&files.cert).unwrap(), fs::read(&files.key).unwrap());
    let renewed = depot.renew(std::slice::from_ref(&files.cert)).unwrap();
    assert_eq!(renewed, [(files.check().unwrap(), files.clone())]);
    assert_ne!((fs::read(&files.cert).unwrap(), fs::read(&files.key).unwrap()), (cert, key));
    // A pair that is kept under two names stays as it is.
    let apart = depot.directory.join("apart.pem");
    fs::copy(&files.cert, &apart).unwrap();
    let why = depot.renew(std::slice::from_ref(&apart)).unwrap_err();
    assert!(why.0.contains("apart.key"), "{why}");
    assert_eq!(fs::read(&apart).unwrap(), fs::read(&files.cert).unwrap());
    assert!(!apart.with_extension("key").exists());
    let other = Depot::create(&depot.directory.join("other"), "shop").unwrap();
    let why = other.renew(&[files.cert]).unwrap_err();
    assert!(why.0.contains("\"bank\"") && why.0.contains("\"shop\""), "{why}");
}

#[test]
fn an_authority_is_replaced_step_by_step() {
    let (_directory, mut depot) = depot();
    let (n1, n2) = (depot.node("n1").unwrap(), depot.node("n2").unwrap());
    let old = depot.authority.key_pem();
    depot.rotate().unwrap();
    let mut depot = reload(&depot);
    assert_ne!(depot.authority.key_pem(), old);
    assert_eq!(certificates(&depot.ca()).unwrap().len(), 2);
    n1.check().expect("the old one is believed still");
    let n3 = depot.node("n3").unwrap();
    n3.check().expect("so is the new one");
    let why = depot.retire().unwrap_err();
    assert!(why.0.contains("node-n1.pem") && why.0.contains("tls renew"), "{why}");
    assert_eq!(depot.renew(&[]).unwrap().len(), 3);
    let stranger = Depot::create(&depot.directory.join("other"), "bank").unwrap();
    let mixed = Files { ca: stranger.ca(), ..n1.clone() };
    assert!(mixed.check().unwrap_err().0.contains("not believed by those who believe"));
    depot.retire().unwrap();
    assert_eq!(certificates(&depot.ca()).unwrap().len(), 1);
    for files in [n1, n2, n3] {
        files.check().expect("of the new one");
    }
    assert_eq!(reload(&depot).cluster(), "bank");
}

#[test]
fn a_replacement_that_stops_anywhere_can_go_on() {
    let (_directory, depot) = depot();
    let next = depot.authority.successor().unwrap();
    replace(&depot.path(CA_KEY_NEXT), next.key_pem().as_bytes(), Access::Secret).unwrap();
    assert_eq!(reload(&depot).authority.key_pem(), depot.authority.key_pem(), "nothing is replaced yet");
    replace(&depot.ca(), next.trusted().as_bytes(), Access::Public).unwrap();
    assert_eq!(reload(&depot).authority.key_pem(), next.key_pem());
    assert!(!depot.path(CA_KEY_NEXT).exists());
    assert_eq!(reload(&depot).authority.key_pem(), next.key_pem());
}

#[test]
fn what_is_no_authority_says_so() {
    let (directory, depot) = depot();
    let why = Depot::load(directory.path()).unwrap_err();
    assert!(why.0.contains("graft tls init"), "{why}");
    let files = depot.node("n1").unwrap();
    fs::copy(&files.cert, depot.ca()).unwrap();
    assert!(Depot::load(&depot.directory).unwrap_err().0.contains("not that of an authority"));
    fs::write(depot.ca(), depot.authority.trusted()).unwrap();
    fs::copy(&files.key, depot.path(CA_KEY)).unwrap();
    assert!(Depot::load(&depot.directory).unwrap_err().0.contains("not that of the first certificate"));
    fs::write(depot.path(CA_KEY), "nonsense").unwrap();
    let why = Depot::load(&depot.directory).unwrap_err().0;
    assert!(why.contains("ca.key") && why.contains("PEM") && !why.contains("nonsense"), "{why}");
    assert!(Depot::create(&directory.path().join("x"), "Not A Name").is_err());
}

#[test]
fn a_certificate_that_somebody_else_made_is_not_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::create(&directory.path().join("tls"), "bank").unwrap();
    let other = Depot::create(&directory.path().join("other"), "bank").unwrap();
    let forged = other.client("web", Role::Operator).unwrap().cert;
    let why = depot.renew(std::slice::from_ref(&forged)).unwrap_err();
    assert!(why.0.contains("neither this authority nor the one before made it"), "{why}");
}
