//! The files of this checkout.

use std::fs;
use std::path::Path;

use super::source::Source;

/// What a build, an editor or a package manager puts there.
const NOT_OURS: &[&str] = &["target", "dist", "node_modules", "__pycache__"];
/// Hidden directories that are read all the same.
const HIDDEN_OURS: &[&str] = &[".ci", ".github"];
/// What people write. Everything else (pictures, wheels, lock files) is not read.
const TEXTS: &[&str] = &["rs", "py", "pyi", "md", "toml", "yml", "yaml", "sh", "proto", "txt", "ipynb", "html", "js"];
const TEXTS_WITHOUT_EXTENSION: &[&str] = &["Makefile", "run"];

pub(super) struct Tree {
    rust: Vec<Source>,
    python: Vec<Source>,
    /// Every text, whatever it is written in, by path.
    texts: Vec<(String, String)>,
}

impl Tree {
    pub(super) fn read() -> Self {
        let mut texts = Vec::new();
        collect(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut texts);
        texts.sort();
        let mut rust = sources(&texts, &["rs"]);
        mark_test_modules(&mut rust);
        Self { rust, python: sources(&texts, &["py", "pyi"]), texts }
    }

    /// One file that is there; a missing one fails the test.
    pub(super) fn file(path: &str) -> String {
        let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::read_to_string(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()))
    }

    pub(super) fn manifest(directory: &str) -> String {
        Self::file(&format!("{directory}/Cargo.toml"))
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.rust.iter()
    }

    pub(super) fn rust_under(&self, prefix: &str) -> impl Iterator<Item = &Source> {
        self.rust.iter().filter(move |s| s.path.starts_with(prefix))
    }

    pub(super) fn python(&self) -> impl Iterator<Item = &Source> {
        self.python.iter()
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

fn collect(directory: &Path, prefix: &str, texts: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        let name = entry.file_name().to_string_lossy().into_owned();
        // A link is not followed: what it points to is read where it is, or is not ours.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            let hidden = name.starts_with('.') && !HIDDEN_OURS.contains(&name.as_str());
            if !hidden && !NOT_OURS.contains(&name.as_str()) {
                collect(&entry.path(), &format!("{prefix}{name}/"), texts);
            }
        } else if kind.is_file() && is_text(&name) {
            // A file that goes away while it is read, or is not UTF-8, holds no rule of ours.
            if let Ok(text) = fs::read_to_string(entry.path()) {
                texts.push((format!("{prefix}{name}"), text));
            }
        }
    }
}

fn is_text(name: &str) -> bool {
    match name.rsplit_once('.') {
        Some((_, extension)) => TEXTS.contains(&extension),
        None => TEXTS_WITHOUT_EXTENSION.contains(&name),
    }
}

fn sources(texts: &[(String, String)], extensions: &[&str]) -> Vec<Source> {
    let wanted = |path: &str| path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension));
    texts.iter().filter(|(path, _)| wanted(path)).map(|(path, text)| Source::new(path, text)).collect()
}

/// `#[cfg(test)] mod name;` makes a test of another file, and of all that lies below it.
fn mark_test_modules(sources: &mut [Source]) {
    let modules: Vec<String> = sources.iter().flat_map(Source::external_test_modules).collect();
    for source in sources {
        let is_it = |m: &String| source.path == format!("{m}.rs") || source.path.starts_with(&format!("{m}/"));
        if modules.iter().any(is_it) {
            source.is_test = true;
        }
    }
}

#[test]
fn a_test_module_in_its_own_file_is_a_test() {
    let mut sources = vec![
        Source::new("src/a/mod.rs", "#[cfg(test)]\nmod tests;\nmod other;"),
        Source::new("src/a/tests.rs", ""),
        Source::new("src/a/tests/more.rs", ""),
        Source::new("src/a/other.rs", "#[cfg(test)] mod inner;"),
        Source::new("src/a/other/inner.rs", ""),
        Source::new("src/b/far.rs", "#[cfg(test)]\n#[path = \"tests/away.rs\"]\nmod tests;"),
        Source::new("src/b/tests/away.rs", ""),
    ];
    mark_test_modules(&mut sources);
    assert_eq!(sources.iter().map(|s| s.is_test).collect::<Vec<_>>(), [false, true, true, false, true, false, true]);
}
