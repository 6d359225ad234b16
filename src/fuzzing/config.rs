//! What people write: `graft.toml`, settings in the environment and on the command line, addresses, ids, identities.

use graft::infrastructure::grpc::is_address;
use graft::infrastructure::tls::date;
use graft::infrastructure::{setting_of_text, settings_of_file};
use graft_domain::NodeId;
use graft_services::identity::Identity;

use crate::input::Input;
use crate::samples::Sample;

const FILE: u8 = 0;
const SETTING: u8 = 1;
const ADDRESS: u8 = 2;
const ID: u8 = 3;
const IDENTITY: u8 = 4;
const DATE: u8 = 5;
const KINDS: u8 = 6;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.u8() % KINDS;
    if kind == DATE {
        assert!(!date(i64::from_le_bytes(input.u64().to_le_bytes())).is_empty());
        return;
    }
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    match kind {
        FILE => match settings_of_file(text) {
            Ok(settings) => assert_eq!(settings_of_file(text).as_ref().map(|again| &again.0), Ok(&settings.0)),
            Err(why) => assert!(why.starts_with("graft.toml: "), "it does not say where: {why}"),
        },
        SETTING => {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            if let Err(why) = setting_of_text(key, value) {
                assert!(why.contains("there is no setting"), "{why}");
            }
        }
        ADDRESS => {
            if is_address(text) {
                let (host, port) = text.rsplit_once(':').unwrap_or_default();
                assert!(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
            }
        }
        ID => {
            if let Ok(id) = NodeId::new(text) {
                assert_eq!((id.as_str(), id.to_string()), (text, text.to_owned()));
            }
        }
        _ => {
            if let Ok(identity) = Identity::parse(text) {
                assert_eq!(identity.to_string(), text, "an identity is written in one way");
            }
        }
    }
}

pub(crate) fn samples() -> Vec<Sample> {
    let of = |name: &str, kind: u8, text: &str| Sample::new(name, [&[kind][..], text.as_bytes()].concat());
    let whole = "id = \"n1\"\naddress = \"127.0.0.1:7001\"\ndata_dir = 'data'\nmachine = \"bank:Bank\"\n\
                 cluster = [\"127.0.0.1:7001\", \"[::1]:7002\"]\ninsecure = true # here\nelection_timeout = \"1s\"\n\
                 inflight_max = 500\nheartbeat = 0.03\nsnapshot_every_bytes = 64_000\n";
    vec![
        of("file", FILE, whole),
        of("unknown-key", FILE, "election_timout = \"1s\"\n"),
        of("wrong-type", FILE, "id = 5\n[cluster]\na = {b = 1979-05-27T07:32:00Z}\n"),
        of("setting", SETTING, "inflight_max=500"),
        of("setting-text", SETTING, "heartbeat=20ms"),
        of("setting-cluster", SETTING, "cluster=a:1, b:2"),
        of("address", ADDRESS, "localhost:7001"),
        of("address-v6", ADDRESS, "[fe80::1]:7001"),
        of("id", ID, "node-1_a.b:c"),
        of("node", IDENTITY, "spiffe://prod.eu/node/n1"),
        of("no-node", IDENTITY, "spiffe://Prod/node/n1"),
        of("client", IDENTITY, "spiffe://prod.eu/client/shop@x?role=writer"),
        Sample::new("date", [&[DATE][..], &1_790_000_000_i64.to_le_bytes()].concat()),
    ]
}
