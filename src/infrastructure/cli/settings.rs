//! What is set where: in `graft.toml`, in the environment, on the command line; each of these goes before the one before it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use graft_domain::{ClusterId, NodeId};
use serde_json::{Value as Json, json};

use super::args::{Global, Start, cluster, seconds};
use super::failure::Failure;
use super::output::Out;
use super::talk::CALL_SECONDS;
use crate::infrastructure::runtime::NodeConfig;

/// The file that is read if there is no other word.
const FILE: &str = "graft.toml";

/// What can be set, and what it is.
const KEYS: &[(&str, &str)] = &[
    ("address", "where others reach the node, host:port"),
    ("batch_bytes_max", "bytes of one message of entries"),
    ("bind", "where the node listens, if that is elsewhere"),
    ("ca", "the authority to believe, a file"),
    ("cert", "the certificate to show, a file"),
    ("clients_max", "connections of clients to a node"),
    ("cluster", "addresses of members"),
    ("cluster_id", "the cluster that calls go to, and no other"),
    ("command_bytes_max", "bytes of a command"),
    ("data_dir", "where the node keeps its log and snapshots"),
    ("election_timeout", "silence after which members elect another leader"),
    ("heartbeat", "how often a leader is heard; about half as often while nothing is written"),
    ("id", "the node's name among the members"),
    ("inflight_max", "calls that wait on a node"),
    ("insecure", "whether to go beyond this machine in plain text"),
    ("key", "the certificate's key, a file"),
    ("log_bytes_max", "bytes of log in memory"),
    ("machine", "the class of the state machine"),
    ("metrics", "where metrics are read, host:port"),
    ("session_ttl", "how long a session lasts unused"),
    ("snapshot_bytes_per_second", "bytes of a snapshot that are sent in a second"),
    ("snapshot_every_bytes", "bytes of log after which a snapshot is taken"),
    ("snapshot_every_entries", "entries after which a snapshot is taken"),
    ("timeout", "how long a call waits"),
];
/// Those that say who the node is and where things are; all others are settings of `graft.Config`.
const PLACES: [&str; 12] = [
    "address",
    "bind",
    "ca",
    "cert",
    "cluster",
    "cluster_id",
    "data_dir",
    "id",
    "insecure",
    "key",
    "machine",
    "metrics",
];

/// The value of a setting of a node: text with a unit, or a number.
#[derive(Clone, PartialEq, Debug)]
pub enum Setting {
    Text(String),
    Whole(i64),
    Real(f64),
}

impl Setting {
    fn of(value: &Json) -> Self {
        match (value.as_i64(), value.as_f64()) {
            (Some(number), _) => Self::Whole(number),
            (None, Some(number)) => Self::Real(number),
            (None, None) => Self::Text(shown(value)),
        }
    }
}

/// Settings on the command line.
#[derive(Args, Clone, Debug, Default)]
pub struct Sets {
    /// A setting, such as `election_timeout=1s`; `graft config show --all` names them
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub(super) enum Config {
    /// Show every setting that is made
    Show {
        /// And where it is made
        #[arg(long)]
        origin: bool,
        /// Those that are not made, too, with their defaults
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        sets: Sets,
    },
    /// Say whether a node could start with these settings
    Check {
        #[command(flatten)]
        sets: Sets,
    },
}

/// What is said there; what is empty says nothing.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// What is set, and where.
#[derive(Debug, Default)]
pub(super) struct Settings(BTreeMap<&'static str, (Json, String)>);

impl Settings {
    /// Reads the file and the environment, and takes what is said on the command line.
    pub(super) fn read(file: Option<&Path>, sets: &Sets) -> Result<Self, Failure> {
        let mut settings = Self::default();
        let named = environment("GRAFT_CONFIG").map(PathBuf::from);
        settings.take_file(file.or(named.as_deref()))?;
        for (key, _) in KEYS {
            let name = format!("GRAFT_{}", key.to_uppercase());
            if let Some(text) = environment(&name) {
                settings
                    .0
                    .insert(key, (of_text(key, &text).map_err(|why| Failure::usage(format!("{name}: {why}")))?, name));
            }
        }
        for pair in &sets.set {
            let (key, text) =
                pair.split_once('=').ok_or_else(|| Failure::usage(format!("{pair:?} is no KEY=VALUE")))?;
            let key = known(key, "--set")?;
            let value = of_text(key, text).map_err(|why| Failure::usage(format!("--set: {why}")))?;
            settings.0.insert(key, (value, "--set".to_owned()));
        }
        Ok(settings)
    }

    fn take_file(&mut self, path: Option<&Path>) -> Result<(), Failure> {
        let place = path.unwrap_or_else(|| Path::new(FILE));
        let name = place.display().to_string();
        let text = match std::fs::read_to_string(place) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_none() => return Ok(()),
            Err(error) => return Err(Failure::usage(format!("{name} cannot be read: {error}"))),
        };
        self.take_text(&text, &name)
    }

    /// Takes what a file of this name says.
    fn take_text(&mut self, text: &str, name: &str) -> Result<(), Failure> {
        let table: toml::Table = text.parse().map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        for (key, value) in table {
            let key = known(&key, name)?;
            self.0.insert(key, (of_toml(key, value, name)?, name.to_owned()));
        }
        Ok(())
    }

    /// A flag that was given, before all else.
    fn put(&mut self, key: &'static str, flag: &str, value: Json) {
        self.0.insert(key, (value, flag.to_owned()));
    }

    fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).and_then(|(value, _)| value.as_str()).map(str::to_owned)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    fn cluster_id(&self) -> Result<Option<ClusterId>, Failure> {
        let Some((value, place)) = self.0.get("cluster_id") else { return Ok(None) };
        let bad = |why| Failure::usage(format!("{place}: cluster_id: {why}"));
        cluster(&shown(value)).map(Some).map_err(bad)
    }

    /// Seconds.
    fn timeout(&self) -> Result<Option<f64>, Failure> {
        let Some((value, place)) = self.0.get("timeout") else { return Ok(None) };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        seconds(&text).map(Some).map_err(|why| Failure::usage(format!("{place}: timeout={text}: {why}")))
    }

    fn is_insecure(&self) -> bool {
        self.0.get("insecure").is_some_and(|(value, _)| *value == Json::Bool(true))
    }

    fn cluster(&self) -> Vec<String> {
        match self.0.get("cluster") {
            Some((Json::Array(all), _)) => all.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
            Some((Json::String(text), _)) => addresses(text),
            _ => Vec::new(),
        }
    }

    /// What is no place: as `graft.Config` takes it.
    pub(super) fn tunables(&self) -> BTreeMap<String, Setting> {
        let tunable = |(key, (value, _)): (&&'static str, &(Json, String))| {
            (!PLACES.contains(key)).then(|| ((*key).to_owned(), Setting::of(value)))
        };
        self.0.iter().filter_map(tunable).collect()
    }
}

/// Fills in what flags and environment leave open of whom to speak to, and how.
pub(super) fn fill(global: &mut Global) -> Result<(), Failure> {
    let settings = Settings::read(global.config.as_deref(), &Sets::default())?;
    take_places(&settings, global)
}

/// What is said by a flag goes before what is set elsewhere, each for itself.
fn take_places(settings: &Settings, global: &mut Global) -> Result<(), Failure> {
    if global.cluster.is_empty() {
        global.cluster = settings.cluster();
    }
    if global.cluster_id.is_none() {
        global.cluster_id = settings.cluster_id()?;
    }
    let secrets = &mut global.secrets;
    secrets.ca = secrets.ca.take().or_else(|| settings.path("ca"));
    secrets.cert = secrets.cert.take().or_else(|| settings.path("cert"));
    secrets.key = secrets.key.take().or_else(|| settings.path("key"));
    let files = [("--ca", &secrets.ca), ("--cert", &secrets.cert), ("--key", &secrets.key)];
    let missing: Vec<&str> = files.iter().filter(|(_, path)| path.is_none()).map(|(name, _)| *name).collect();
    if missing.len() == 1 || missing.len() == 2 {
        return Err(Failure::usage(format!(
            "--ca, --cert and --key go together: give all three, or none (missing: {})",
            missing.join(", ")
        )));
    }
    secrets.insecure |= settings.is_insecure();
    if global.timeout.is_none() {
        global.timeout = settings.timeout()?;
    }
    Ok(())
}

/// Fills in what a node was not given on the command line.
pub(super) fn fill_start(start: &mut Start, mut global: Global) -> Result<(), Failure> {
    let settings = Settings::read(global.config.as_deref(), &start.sets)?;
    if global.cluster_id.is_some() {
        let why = "--cluster-id is for calls: a node belongs to the cluster that its data directory names, or founds or joins one";
        return Err(Failure::usage(why));
    }
    let timeout = global.timeout;
    take_places(&settings, &mut global)?;
    start.address = start.address.take().or_else(|| settings.text("address"));
    start.machine = start.machine.take().or_else(|| settings.text("machine"));
    start.id = start.id.take().or_else(|| settings.text("id"));
    start.bind = start.bind.take().or_else(|| settings.text("bind"));
    start.metrics = start.metrics.take().or_else(|| settings.text("metrics"));
    start.data_dir = start.data_dir.take().or_else(|| settings.path("data_dir"));
    start.settings = settings.tunables();
    start.settings.extend(timeout.map(|seconds| ("timeout".to_owned(), Setting::Text(format!("{seconds}s")))));
    start.cluster = global.cluster;
    start.tls = global.secrets.files();
    start.insecure = global.secrets.insecure;
    let missing = |what, how| Failure::usage(format!("{what}: give it as {how}, or set it in {FILE}"));
    if start.address.is_none() {
        return Err(missing("the node has no address", "the first argument"));
    }
    if start.machine.is_none() {
        return Err(missing("the node has no machine", "--machine"));
    }
    Ok(())
}

/// The settings that `graft config` speaks of, flags included.
pub(super) fn of_config(sets: &Sets, global: &Global) -> Result<Settings, Failure> {
    let mut settings = Settings::read(global.config.as_deref(), sets)?;
    let secrets = &global.secrets;
    if !global.cluster.is_empty() {
        settings.put("cluster", "--cluster", json!(global.cluster));
    }
    if let Some(id) = global.cluster_id {
        settings.put("cluster_id", "--cluster-id", json!(id.to_string()));
    }
    for (key, flag, path) in
        [("ca", "--ca", &secrets.ca), ("cert", "--cert", &secrets.cert), ("key", "--key", &secrets.key)]
    {
        if let Some(path) = path {
            settings.put(key, flag, json!(path.display().to_string()));
        }
    }
    if secrets.insecure {
        settings.put("insecure", "--insecure", json!(true));
    }
    Ok(settings)
}

pub(super) fn show(settings: &Settings, origin: bool, all: bool, out: &Out) -> Result<(), Failure> {
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    for (key, what) in KEYS {
        let (value, place) = match settings.0.get(key) {
            Some((value, place)) => (shown(value), place.as_str()),
            None if all => (default_of(key).unwrap_or_else(|| "-".to_owned()), "default"),
            None => continue,
        };
        let mut row = vec![(*key).to_owned(), value];
        if origin {
            row.push(place.to_owned());
        }
        row.push((*what).to_owned());
        rows.push(row);
        let value = settings.0.get(key).map_or_else(|| json!(default_of(key)), |(value, _)| value.clone());
        items.push(json!({ "key": key, "value": value, "origin": place }));
    }
    let heads: &[&str] = if origin { &["key", "value", "from", ""] } else { &["key", "value", ""] };
    out.table(heads, &rows, "config", json!({ "settings": items }), "settings")
}

/// What counts where nothing is set, with its unit, as it could be set; none for what has to be said.
fn default_of(key: &str) -> Option<String> {
    let config = NodeConfig::new(NodeId::new("n1").ok()?, "", "");
    Some(match key {
        "batch_bytes_max" => size(config.batch_bytes_max as u64),
        "clients_max" => config.clients_max.to_string(),
        "command_bytes_max" => size(config.command_bytes_max as u64),
        "election_timeout" => duration(config.election_timeout),
        "heartbeat" => duration(config.heartbeat),
        "inflight_max" => config.inflight_max.to_string(),
        "insecure" => config.insecure.to_string(),
        "log_bytes_max" => size(config.log_bytes_max as u64),
        "session_ttl" => duration(config.session_ttl),
        "snapshot_bytes_per_second" => size(config.snapshot_bytes_per_second),
        "snapshot_every_bytes" => size(config.snapshot_every_bytes as u64),
        "snapshot_every_entries" => config.snapshot_every_entries.to_string(),
        "timeout" => duration(Duration::from_secs_f64(CALL_SECONDS)),
        _ => return None,
    })
}

/// In the largest unit of which it is a whole number.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

fn duration(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [(3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let whole = units.iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The key of this name, or what it may have been meant to be.
fn known(key: &str, place: &str) -> Result<&'static str, Failure> {
    if let Some((known, _)) = KEYS.iter().find(|(known, _)| *known == key) {
        return Ok(known);
    }
    let near = KEYS.iter().map(|(known, _)| (distance(known, key), *known)).min();
    let hint = match near {
        Some((steps, near)) if steps <= key.len() / 2 => format!("did you mean {near}?"),
        _ => format!("there are {}", KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")),
    };
    Err(Failure::usage(format!("{place}: there is no setting {key:?}; {hint}")))
}

/// How many letters have to be put in, taken out or replaced (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (place, same) in other.iter().map(|found| *found == letter).enumerate() {
            let replaced = diagonal + usize::from(!same);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(row[place] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

fn addresses(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned).collect()
}

/// From the environment or the command line: numbers are numbers, all else is text.
fn of_text(key: &str, text: &str) -> Result<Json, String> {
    Ok(match key {
        "cluster" => json!(addresses(text)),
        "insecure" => match text.to_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => json!(true),
            "0" | "false" | "no" | "off" => json!(false),
            _ => return Err(format!("insecure={text:?} must be true or false")),
        },
        _ if PLACES.contains(&key) => json!(text),
        _ => text
            .parse::<u64>()
            .map(Json::from)
            .or_else(|_| text.parse::<f64>().map(Json::from))
            .unwrap_or_else(|_| json!(text)),
    })
}

fn of_toml(key: &str, value: toml::Value, place: &str) -> Result<Json, Failure> {
    let value = match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(number) => json!(number),
        toml::Value::Float(number) => json!(number),
        toml::Value::Boolean(yes) => json!(yes),
        toml::Value::Array(all) if key == "cluster" => {
            let all = all.into_iter().map(|item| of_toml("address", item, place)).collect::<Result<Vec<_>, _>>()?;
            json!(all)
        }
        other => {
            return Err(Failure::usage(format!("{place}: {key} cannot be a {}", other.type_str())));
        }
    };
    let is_right = match key {
        "insecure" => value.is_boolean(),
        "cluster" => value.is_string() || value.is_array(),
        _ if PLACES.contains(&key) => value.is_string(),
        _ => value.is_string() || value.is_number(),
    };
    let wanted = if key == "insecure" { "true or false" } else { "text in quotes" };
    if is_right { Ok(value) } else { Err(Failure::usage(format!("{place}: {key}={value} must be {wanted}"))) }
}

/// What a file with this text sets, addresses of members among it, and in words why it sets nothing.
#[cfg(feature = "fuzzing")]
pub fn settings_of_file(text: &str) -> Result<(Vec<String>, BTreeMap<String, Setting>), String> {
    let mut settings = Settings::default();
    settings.take_text(text, FILE).map_err(|failure| failure.what)?;
    Ok((settings.cluster(), settings.tunables()))
}

/// A setting as the environment or the command line has it.
#[cfg(feature = "fuzzing")]
pub fn setting_of_text(key: &str, text: &str) -> Result<Setting, String> {
    let key = known(key, "--set").map_err(|failure| failure.what)?;
    of_text(key, text).map(|value| Setting::of(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let why = |key: &str| known(key, "graft.toml").map(drop).unwrap_err().what;
        assert_eq!(
            why("election_timout"),
            "graft.toml: there is no setting \"election_timout\"; did you mean election_timeout?"
        );
        assert!(why("clutser").ends_with("did you mean cluster?"));
        assert!(why("xyz").contains("there are address, "));
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("a", "a")), (3, 3, 0));
    }

    #[test]
    fn flags_and_settings_complete_one_another_and_flags_go_before() {
        use clap::Parser as _;
        let parsed = |words: &[&str]| super::super::args::Arguments::parse_from(words).global;
        let set = |pairs: &[&str]| Sets { set: pairs.iter().map(ToString::to_string).collect() };
        let settings = Settings::read(None, &set(&["cert=b", "key=c", "cluster=m:1", "insecure=false"])).unwrap();
        let mut global = parsed(&["graft", "status", "--ca", "a"]);
        take_places(&settings, &mut global).unwrap();
        assert_eq!(global.secrets.files(), Some(("a".into(), "b".into(), "c".into())));
        assert_eq!((global.cluster, global.secrets.insecure), (vec!["m:1".to_owned()], false));
        let mut global = parsed(&["graft", "status", "-c", "x:1", "--ca", "a", "--cert", "y", "--key", "z"]);
        take_places(&settings, &mut global).unwrap();
        assert_eq!(global.secrets.files(), Some(("a".into(), "y".into(), "z".into())));
        assert_eq!(global.cluster, ["x:1"]);
        let lone = Settings::read(None, &set(&["key=c"])).unwrap();
        let why = take_places(&lone, &mut parsed(&["graft", "status"])).unwrap_err().what;
        assert!(why.contains("(missing: --ca, --cert)"), "{why}");
        for (said, seconds) in
            [("timeout=2", 2.0), ("timeout=1500ms", 1.5), ("timeout=2min", 120.0), ("timeout=1h", 3600.0)]
        {
            let mut global = parsed(&["graft", "status"]);
            take_places(&Settings::read(None, &set(&[said])).unwrap(), &mut global).unwrap();
            assert_eq!(global.timeout, Some(seconds));
            let mut global = parsed(&["graft", "status", "--timeout", "5"]);
            take_places(&Settings::read(None, &set(&[said])).unwrap(), &mut global).unwrap();
            assert_eq!(global.timeout, Some(5.0));
        }
        assert_eq!(
            Settings::read(None, &set(&["insecure=none"])).unwrap_err().what,
            "--set: insecure=\"none\" must be true or false"
        );
    }

    #[test]
    fn all_that_has_a_default_shows_it_with_its_unit() {
        let without: Vec<&str> = KEYS.iter().map(|(key, _)| *key).filter(|key| default_of(key).is_none()).collect();
        assert_eq!(without.len(), PLACES.len() - 1, "all but `insecure` have to be said: {without:?}");
        for (key, text) in [
            ("election_timeout", "300ms"),
            ("session_ttl", "1h"),
            ("timeout", "10s"),
            ("log_bytes_max", "1GiB"),
            ("batch_bytes_max", "1MiB"),
            ("clients_max", "4096"),
            ("insecure", "false"),
        ] {
            assert_eq!(default_of(key).as_deref(), Some(text), "{key}");
        }
        assert_eq!((size(1_500), duration(Duration::from_mins(90))), ("1500B".to_owned(), "90min".to_owned()));
    }

    #[test]
    fn keys_stand_in_order_and_places_are_keys() {
        assert!(KEYS.is_sorted());
        assert!(PLACES.iter().all(|place| KEYS.iter().any(|(key, _)| key == place)));
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let directory = std::env::temp_dir().join(format!("graft-settings-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("graft.toml");
        std::fs::write(&file, "election_timeout = \"1s\"\ncluster = [\"a:1\", \"b:2\"]\ninflight_max = 5\n").unwrap();
        let sets = Sets { set: vec!["inflight_max=7".to_owned(), "heartbeat=20ms".to_owned()] };
        let settings = Settings::read(Some(&file), &sets).unwrap();
        assert_eq!(settings.cluster(), ["a:1", "b:2"]);
        let tunables = settings.tunables();
        assert_eq!(tunables.get("inflight_max"), Some(&Setting::Whole(7)));
        assert_eq!(tunables.get("election_timeout"), Some(&Setting::Text("1s".to_owned())));
        assert_eq!(tunables.get("heartbeat"), Some(&Setting::Text("20ms".to_owned())));
        for (bad, words) in [("id = 5", "must be text"), ("insecure = \"yes\"", "true or false"), ("a = ", "TOML")] {
            std::fs::write(&file, bad).unwrap();
            let why = Settings::read(Some(&file), &Sets::default()).unwrap_err().what;
            assert!(why.contains(words), "{why}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
