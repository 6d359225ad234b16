//! Certificates and keys: as files of a user, and as whoever connects shows them before anybody has verified them.

use std::collections::BTreeMap;

use graft::infrastructure::tls::Authority;
use graft::infrastructure::tls::fuzzing::{certificates_of, identity_of, material_of};
use graft_services::identity::{Identity, Role};

use crate::input::{Input, put_block};
use crate::samples::Sample;

const DER: u8 = 0;
const PEM: u8 = 1;
const MATERIAL: u8 = 2;
const KINDS: u8 = 3;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() % KINDS {
        DER => shown(input.rest()),
        PEM => {
            for der in certificates_of(input.rest()).unwrap_or_default() {
                shown(&der);
            }
        }
        _ => {
            let seconds = u32::try_from(input.u64() & 0xffff_ffff).unwrap_or_default();
            match material_of(input.block(), input.block(), input.block(), seconds) {
                Ok(identity) => assert_eq!(Identity::parse(&identity.to_string()), Ok(identity)),
                Err(why) => assert!(why.contains("in memory"), "it does not say which: {why}"),
            }
        }
    }
}

/// Whose it is is in its one URI of the kind, or in the list that a user made.
fn shown(der: &[u8]) {
    let listed = Identity::client("listed", "other", Role::Reader);
    let names: BTreeMap<String, Identity> = listed.into_iter().map(|known| ("n1.example".to_owned(), known)).collect();
    let Ok((certificate, identity)) = identity_of(der, &names) else { return };
    let Ok(identity) = identity else { return };
    let said = certificate.uris.iter().any(|uri| *uri == identity.to_string());
    assert!(said || names.values().any(|known| *known == identity), "{identity} of {certificate:?}");
}

/// Made once: each time the keys are others.
pub(crate) fn samples() -> Vec<Sample> {
    // In memory, of good names: nothing is in the way.
    let Ok(authority) = Authority::new("prod") else { return Vec::new() };
    let (Ok(node), Ok(client)) = (authority.node("n1"), authority.client("shop", Role::Writer)) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (name, pem) in [("node", &node.cert), ("client", &client.cert), ("authority", &node.ca)] {
        for (number, der) in certificates_of(pem).unwrap_or_default().into_iter().enumerate() {
            all.push(Sample::new(&format!("{name}-{number}"), [&[DER][..], &der].concat()));
        }
        all.push(Sample::new(&format!("{name}-pem"), [&[PEM][..], pem].concat()));
    }
    let valid = certificates_of(&node.cert).unwrap_or_default();
    let since =
        valid.first().and_then(|der| identity_of(der, &BTreeMap::new()).ok()).map_or(0, |found| found.0.not_before);
    let mut material = vec![MATERIAL];
    material.extend_from_slice(&(since + 3600).to_le_bytes());
    for part in [&node.ca, &node.cert, &node.key] {
        put_block(&mut material, part);
    }
    all.push(Sample::new("material", material));
    all.into_iter().map(|sample| Sample { is_made_anew: true, ..sample }).collect()
}
