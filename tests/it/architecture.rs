//! The rules of the house that neither a type nor a crate can keep, held against every file of the tree.
//!
//! Each rule is a function over texts, and beside each stand the examples that it was seen to refuse. Names below say
//! what holds; `docs/ARCHITECTURE.md` and `docs/STYLE.md` say why.

mod layers;
mod manners;
mod size;
mod source;
mod tree;

use std::fmt;

use tree::Tree;

/// A rule that is broken, and where.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl Violation {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Fails with every violation there is, not just the first.
#[track_caller]
fn none(violations: impl IntoIterator<Item = Violation>) {
    let mut lines: Vec<String> = violations.into_iter().map(|v| v.to_string()).collect();
    lines.sort();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn the_tree_is_read() {
    let tree = Tree::read();
    for path in ["src/domain/lib.rs", "src/services/lib.rs", "src/lib.rs", "tests/it/architecture.rs"] {
        assert!(tree.rust().any(|s| s.path == path), "{path} was not read: the rules below would hold of nothing");
    }
    assert!(tree.texts().any(|(path, _)| path == "Makefile"));
}

#[test]
fn the_domain_depends_on_bytes_only() {
    let manifest = Tree::manifest("src/domain");
    none(layers::dependencies_within("src/domain/Cargo.toml", &manifest, layers::DOMAIN_MAY_USE));
}

#[test]
fn the_domain_has_no_std() {
    let tree = Tree::read();
    let domain: Vec<_> = tree.rust_under("src/domain/").collect();
    none(layers::declares_no_std(&domain));
    none(domain.iter().flat_map(|s| layers::names_no_std(s)));
}

#[test]
fn the_services_depend_on_the_domain_only() {
    let manifest = Tree::manifest("src/services");
    none(layers::dependencies_within("src/services/Cargo.toml", &manifest, layers::SERVICES_MAY_USE));
}

#[test]
fn the_services_do_no_io_and_know_no_clock_and_no_luck() {
    none(Tree::read().rust_under("src/services/").flat_map(layers::is_deterministic));
}

#[test]
fn the_store_depends_on_the_inner_layers_only() {
    let manifest = Tree::manifest("src/infrastructure/store");
    none(layers::dependencies_within("src/infrastructure/store/Cargo.toml", &manifest, layers::STORE_MAY_USE));
}

#[test]
fn nothing_of_the_store_but_os_files_touches_the_world() {
    let tree = Tree::read();
    let store = tree.rust_under("src/infrastructure/store/").filter(|s| !s.path.ends_with("/os.rs"));
    none(store.flat_map(layers::is_deterministic));
}

#[test]
fn the_simulator_has_no_luck_of_its_own() {
    let manifest = Tree::manifest("src/simulation");
    none(layers::dependencies_within("src/simulation/Cargo.toml", &manifest, layers::SIMULATION_MAY_USE));
    let tree = Tree::read();
    let worlds = tree.rust_under("src/simulation/").filter(|s| !s.path.ends_with("/main.rs"));
    none(worlds.flat_map(layers::is_deterministic));
}

#[test]
fn inputs_that_are_tried_repeat_themselves() {
    none(Tree::read().rust_under("src/fuzzing/").flat_map(layers::is_deterministic));
}

#[test]
fn the_search_knows_nothing_but_the_core() {
    let manifest = Tree::manifest("src/exhaustive");
    none(layers::dependencies_within("src/exhaustive/Cargo.toml", &manifest, layers::EXHAUSTIVE_MAY_USE));
}

#[test]
fn adapters_do_not_know_one_another() {
    let tree = Tree::read();
    let rooms = layers::rooms(tree.rust_under("src/infrastructure/").map(|s| s.path.as_str()));
    none(tree.rust_under("src/infrastructure/").flat_map(|s| layers::stays_in_its_room(s, &rooms)));
}

#[test]
fn a_foreign_crate_stays_in_its_room() {
    none(Tree::read().rust_under("src/").flat_map(layers::keeps_foreign_crates_apart));
}

#[test]
fn every_dependency_comes_from_crates_io() {
    for path in ["Cargo.lock", "fuzz/Cargo.lock"] {
        none(layers::locked_to_crates_io(path, &Tree::file(path)));
    }
}

#[test]
fn no_file_is_longer_than_a_sitting() {
    let tree = Tree::read();
    none(tree.rust().chain(tree.python()).filter_map(|s| size::file_length(&s.path, &s.text)));
}

#[test]
fn no_function_is_longer_than_a_screen() {
    let tree = Tree::read();
    let rust = tree.rust().flat_map(size::rust_functions);
    none(rust.chain(tree.python().flat_map(size::python_functions)));
}

#[test]
fn what_may_panic_says_why_it_cannot() {
    none(Tree::read().rust().flat_map(manners::panics_have_reasons));
}

#[test]
fn unsafe_code_is_where_it_is_listed() {
    let tree = Tree::read();
    let sources: Vec<_> = tree.rust().collect();
    none(manners::unsafe_is_listed(&sources, manners::UNSAFE_ALLOWED));
}

#[test]
fn the_lints_of_the_services_are_those_of_the_house_and_more() {
    let path = "src/services/clippy.toml";
    none(manners::repeats(path, &Tree::file(path), &Tree::file("clippy.toml")));
}

#[test]
fn no_path_of_somebodys_machine() {
    none(Tree::read().texts().flat_map(|(path, text)| manners::private_paths(path, text)));
}

#[test]
fn every_scenario_has_its_tests() {
    let (tree, path) = (Tree::read(), "docs/scenarios.md");
    let text = Tree::file(path);
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| S")).collect();
    assert_eq!(rows.len(), 51, "the list of known bugs has 51");
    let exists = |name: &str| {
        let story = format!("src/domain/scenarios/{name}.txt");
        let declared = format!("fn {name}()");
        tree.texts().any(|(path, _)| path == story) || tree.rust().any(|source| source.code.contains(&declared))
    };
    for row in rows {
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let missing: Vec<_> = names.iter().filter(|name| !exists(name)).collect();
        assert!(!names.is_empty() && missing.is_empty(), "{row}: {missing:?} is not there");
    }
}
