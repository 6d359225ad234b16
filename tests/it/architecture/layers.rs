//! Who may know whom.

use std::collections::BTreeSet;

use super::Violation;
use super::source::{Named, Source};

pub(super) const DOMAIN_MAY_USE: &[&str] = &["bytes"];
pub(super) const SERVICES_MAY_USE: &[&str] = &["bytes", "graft-domain", "tracing"];
pub(super) const STORE_MAY_USE: &[&str] = &["bytes", "crc32c", "graft-domain", "graft-services"];
pub(super) const EXHAUSTIVE_MAY_USE: &[&str] = &["bytes", "graft-domain", "stateright"];
pub(super) const SIMULATION_MAY_USE: &[&str] = &["bytes", "graft-domain", "graft-services", "graft-store"];

/// Modules of `std` through which the world comes in.
const WORLD: &[&str] = &["env", "fs", "net", "os", "process", "thread", "time"];
/// Names that bring luck or a clock, wherever they come from. A map that hashes is iterated in an order of its own.
const UNREPEATABLE: &[&str] = &["HashMap", "HashSet", "RandomState", "SystemTime"];

/// Rooms of the infrastructure that put adapters together. They may name every other.
const WIRING: &[&str] = &["mod", "node", "runtime"];
/// Rooms where users come in. They may name the wiring, still no other adapter.
const DOORS: &[&str] = &["cli", "python"];

/// Crates that must not spread, and where alone each may be named.
const FOREIGN: &[(&str, &[&str])] = &[
    ("pyo3", &["src/infrastructure/python/", "src/infrastructure/python.rs", "src/lib.rs"]),
    ("tonic", &["src/infrastructure/grpc/"]),
    ("tonic_health", &["src/infrastructure/grpc/"]),
    ("tonic_prost", &["src/infrastructure/grpc/"]),
    ("tonic_reflection", &["src/infrastructure/grpc/"]),
    ("tonic_types", &["src/infrastructure/grpc/"]),
    ("prost", &["src/infrastructure/grpc/"]),
    ("http_body_util", &["src/infrastructure/metrics/"]),
    ("hyper", &["src/infrastructure/grpc/", "src/infrastructure/metrics/"]),
    ("hyper_util", &["src/infrastructure/grpc/", "src/infrastructure/metrics/"]),
    ("prometheus_client", &["src/infrastructure/metrics/"]),
    ("tonic_types", &["src/infrastructure/grpc/"]),
    ("tonic_health", &["src/infrastructure/grpc/"]),
    ("tonic_reflection", &["src/infrastructure/grpc/"]),
    ("clap", &["src/infrastructure/cli/"]),
    ("clap_complete", &["src/infrastructure/cli/"]),
    ("rmpv", &["src/infrastructure/cli/"]),
    ("serde_json", &["src/infrastructure/cli/"]),
    ("toml", &["src/infrastructure/cli/"]),
    ("clap_mangen", &["src/infrastructure/cli/"]),
    ("rustix", &["src/infrastructure/cli/", "src/infrastructure/grpc/", "src/infrastructure/runtime/"]),
    ("rcgen", &["src/infrastructure/tls/"]),
    ("rustls", &["src/infrastructure/tls/"]),
    ("tokio_rustls", &["src/infrastructure/tls/"]),
    ("x509_parser", &["src/infrastructure/tls/"]),
    // Who tries the store makes good checksums over bad bytes.
    ("crc32c", &["src/infrastructure/store/", "src/fuzzing/"]),
    ("stateright", &["src/exhaustive/"]),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A manifest names no other dependencies than these. What tests alone use is free.
pub(super) fn dependencies_within(path: &str, manifest: &str, allowed: &[&str]) -> Vec<Violation> {
    let refused = |(line, name): (usize, String)| {
        let what = format!("depends on {name}, and may on {} only", allowed.join(", "));
        (!allowed.contains(&name.as_str())).then(|| Violation::new(path, line, what))
    };
    dependencies(manifest).into_iter().filter_map(refused).collect()
}

/// The dependencies that a build needs, with their lines: `name = …` in a table of them, or a table of its own.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let (mut found, mut in_table, mut depth) = (Vec::new(), false, 0_usize);
    for (line, text) in manifest.lines().map(str::trim).enumerate() {
        if depth == 0 && text.starts_with('[') {
            let header = text.trim_matches(|c| "[] ".contains(c));
            let kinds = ["dependencies", "build-dependencies"];
            in_table = kinds.iter().any(|k| header == *k || header.ends_with(&format!(".{k}")));
            let own = kinds.iter().find_map(|k| header.split_once(&format!("{k}.")));
            if let Some((before, name)) = own.filter(|(before, _)| !before.ends_with("dev-")) {
                debug_assert!(before.is_empty() || before.ends_with('.'), "an unknown table: {header}");
                found.push((line + 1, unquoted(name)));
            }
            continue;
        }
        if in_table && depth == 0 && !text.is_empty() && !text.starts_with('#') {
            let key = text.split(['=', '.', ' ']).next().unwrap_or_default();
            found.push((line + 1, unquoted(key)));
        }
        depth += text.matches(['[', '{']).count();
        depth = depth.saturating_sub(text.matches([']', '}']).count());
    }
    found
}

fn unquoted(key: &str) -> String {
    key.trim_matches(['"', '\'']).to_owned()
}

/// `#![no_std]` without conditions stands in the root of the crate.
pub(super) fn declares_no_std(domain: &[&Source]) -> Option<Violation> {
    let root = domain.iter().find(|s| s.path.ends_with("/lib.rs"));
    match root {
        Some(root) if root.code.contains("#![no_std]") => None,
        Some(root) => Some(Violation::new(&root.path, 1, "the domain must be #![no_std]")),
        None => Some(Violation::new("src/domain/lib.rs", 1, "the domain has no root")),
    }
}

/// Nothing brings back by hand what `no_std` keeps out.
pub(super) fn names_no_std(source: &Source) -> Vec<Violation> {
    each_name(source, |segments| {
        (segments[0] == "std").then(|| format!("names {}; the domain has core and alloc only", segments.join("::")))
    })
}

/// The same events give the same effects: no IO, no clock, no threads, no luck.
pub(super) fn is_deterministic(source: &Source) -> Vec<Violation> {
    each_name(source, |segments| {
        let is_world = |module: &&str| *module == "*" || WORLD.contains(module);
        // A length of time is a number; only asking for the time is not.
        let is_length = segments == ["std", "time", "Duration"];
        let world = segments[0] == "std" && segments.get(1).is_none_or(is_world) && !is_length;
        let clock = segments.windows(2).any(|s| s == ["Instant", "now"]);
        if world || clock {
            let whole = segments.join("::");
            return Some(format!("names {whole}; what this layer knows of the world is told to it"));
        }
        let luck = segments.iter().find(|s| UNREPEATABLE.contains(s))?;
        Some(format!("names {luck}; this layer repeats itself exactly (use BTreeMap, BTreeSet)"))
    })
}

fn each_name(source: &Source, refuse: impl Fn(&[&str]) -> Option<String>) -> Vec<Violation> {
    let refused = |named: Named<'_>| {
        let what = refuse(&named.segments)?;
        (!source.in_tests(named.offset)).then(|| Violation::new(&source.path, source.line_of(named.offset), what))
    };
    source.names().into_iter().filter_map(refused).collect()
}

/// The rooms of the infrastructure: its files and directories.
pub(super) fn rooms<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    paths.filter_map(room).collect()
}

fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/infrastructure/")?;
    Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
}

/// An adapter names no other; wiring names all; a door names itself and the wiring. Tests are held to it as well.
pub(super) fn stays_in_its_room(source: &Source, rooms: &BTreeSet<&str>) -> Vec<Violation> {
    let Some(own) = room(&source.path).filter(|own| !WIRING.contains(own)) else { return Vec::new() };
    let refused = |named: Named<'_>| {
        let segments = absolute(&source.path, &named.segments)?;
        let below = segments.strip_prefix(&["infrastructure"]).unwrap_or(&segments);
        let whole = named.segments.join("::");
        let what = match below.first() {
            None | Some(&"*") if below.len() < segments.len() => {
                format!("names {whole} as a whole, and with it every adapter")
            }
            Some(other) if *other == own || !rooms.contains(other) => return None,
            Some(other) if WIRING.contains(other) && DOORS.contains(&own) => return None,
            Some(other) => format!("{own} names {whole}; {other} meets it in the runtime only"),
            None => return None,
        };
        Some(Violation::new(&source.path, source.line_of(named.offset), what))
    };
    source.names().into_iter().filter_map(refused).collect()
}

/// The path from the root of the crate, for one that begins with `crate`, `self` or `super`.
fn absolute<'a>(path: &'a str, segments: &[&'a str]) -> Option<Vec<&'a str>> {
    let file = path.strip_prefix("src/")?.trim_end_matches(".rs");
    let mut module: Vec<&str> = file.split('/').filter(|s| *s != "mod" && *s != "lib").collect();
    let mut rest = segments;
    match *rest.first()? {
        "crate" => (module, rest) = (Vec::new(), &rest[1..]),
        "self" => rest = &rest[1..],
        "super" => {}
        _ => return None,
    }
    while rest.first() == Some(&"super") {
        module.pop();
        rest = &rest[1..];
    }
    module.extend(rest);
    Some(module)
}

/// What binds us to a foreign crate stays where it can be replaced.
pub(super) fn keeps_foreign_crates_apart(source: &Source) -> Vec<Violation> {
    let refused = |named: Named<'_>| {
        let (name, homes) = FOREIGN.iter().find(|(name, _)| named.segments[0] == *name)?;
        let at_home = homes.iter().any(|home| source.path.starts_with(home));
        // A lone word may be anything; a path that begins with the crate's name, or a `use` of it, is the crate.
        let is_crate = named.segments.len() > 1 || source.code[..named.offset].trim_end().ends_with("use");
        let what = format!("names {name}, which is known in {} only", homes.join(", "));
        (is_crate && !at_home).then(|| Violation::new(&source.path, source.line_of(named.offset), what))
    };
    source.names().into_iter().filter_map(refused).collect()
}

/// Every locked package is from crates.io or from this tree.
pub(super) fn locked_to_crates_io(path: &str, lock: &str) -> Vec<Violation> {
    let refused = |(line, text): (usize, &str)| {
        let from = text.strip_prefix("source = ")?.trim_matches('"');
        (from != CRATES_IO).then(|| Violation::new(path, line + 1, format!("a package comes from {from}")))
    };
    lock.lines().enumerate().filter_map(refused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(violations: &[Violation]) -> Vec<usize> {
        violations.iter().map(|v| v.line).collect()
    }

    #[test]
    fn a_dependency_too_many_is_seen() {
        let manifest = "[package]\nname = 'x'\n[dependencies]\nbytes.workspace = true # shared\nrand = \"1\"\n\
            [dependencies.tokio]\nversion = \"1\"\nfeatures = [\n  \"net\",\n]\n[target.'cfg(unix)'.dependencies]\n\
            libc = { version = \"1\" }\n[build-dependencies]\ncc = '1'\n[dev-dependencies]\nproptest = '1'\n\
            [dev-dependencies.x]\nversion = '1'\n[lints]\nworkspace = true";
        let found = dependencies_within("Cargo.toml", manifest, DOMAIN_MAY_USE);
        assert_eq!(lines(&found), [5, 6, 12, 14]);
        assert_eq!(found[0].what, "depends on rand, and may on bytes only");
        assert!(
            lines(&dependencies_within("Cargo.toml", manifest, &["bytes", "rand", "tokio", "libc", "cc"])).is_empty()
        );
    }

    #[test]
    fn a_domain_with_std_is_seen() {
        let without = Source::new("src/domain/lib.rs", "// #![no_std]\nextern crate alloc;");
        assert!(declares_no_std(&[&without]).is_some());
        let conditional = Source::new("src/domain/lib.rs", "#![cfg_attr(not(test), no_std)]");
        assert!(declares_no_std(&[&conditional]).is_some());
        let with = Source::new("src/domain/lib.rs", "#![no_std]\n#[cfg(test)]\nextern crate std;\nuse core::fmt;");
        assert!(declares_no_std(&[&with]).is_none());
        assert!(declares_no_std(&[]).is_some());
        assert!(names_no_std(&with).is_empty());
        let by_hand = Source::new("src/domain/x.rs", "extern crate std;\nuse std::vec::Vec;");
        assert_eq!(lines(&names_no_std(&by_hand)), [1, 2]);
    }

    #[test]
    fn io_clock_and_luck_in_the_services_are_seen() {
        let text = "use std::{fmt, fs as f, sync::Arc};\nuse std::time::{Duration, Instant};\nuse hashbrown::HashMap;\n\
            fn a() { graft::Instant::now(); }\nfn b() { ::std::thread::spawn(c); }\nuse std::*;\n\
            // std::net\nfn d() -> &str { \"std::env\" }\n#[cfg(test)]\nmod tests { use std::process; }";
        assert_eq!(lines(&is_deterministic(&Source::new("src/services/x.rs", text))), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn an_adapter_that_knows_another_is_seen() {
        let rooms: BTreeSet<&str> = ["grpc", "mod", "python", "runtime", "store"].into();
        let within = |path: &str, text: &str| lines(&stays_in_its_room(&Source::new(path, text), &rooms));
        let text = "use crate::infrastructure::store::Wal;\nuse super::super::{store, grpc};\nuse super::peer;\n\
            use crate::store::Wal;\nuse crate::infrastructure::*;\nuse crate::infrastructure as i;\n\
            use self::convert::x;\nuse crate::infrastructure::runtime;\nfn f() { super::store::g() }\nuse store::h;";
        // From inside a file of a directory, `super` is the directory itself: line 9 names grpc::store.
        assert_eq!(within("src/infrastructure/grpc/client.rs", text), [1, 2, 4, 5, 6, 8]);
        assert_eq!(within("src/infrastructure/grpc/mod.rs", "use super::store::Wal;"), [1]);
        assert_eq!(within("src/infrastructure/python.rs", "use super::runtime::R;\nuse super::store::Wal;"), [2]);
        assert!(within("src/infrastructure/runtime/loop.rs", text).is_empty());
        assert!(within("src/infrastructure/mod.rs", "pub use store::Wal;").is_empty());
    }

    #[test]
    fn a_foreign_crate_that_spreads_is_seen() {
        let text = "use pyo3::prelude::*;\nuse tonic;\nfn f(tonic: u8) {}\nfn g() -> ::prost::Message {}";
        let found = |path| lines(&keeps_foreign_crates_apart(&Source::new(path, text)));
        assert_eq!(found("src/infrastructure/runtime.rs"), [1, 2, 4]);
        assert_eq!(found("src/infrastructure/grpc/peer.rs"), [1]);
        assert_eq!(found("src/infrastructure/python/node.rs"), [2, 4]);
    }

    #[test]
    fn a_package_from_elsewhere_is_seen() {
        let lock = format!("[[package]]\nsource = \"{CRATES_IO}\"\n\nsource = \"git+https://example.org/x\"\n");
        assert_eq!(lines(&locked_to_crates_io("Cargo.lock", &lock)), [4]);
    }
}
