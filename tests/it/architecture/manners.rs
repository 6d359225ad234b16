//! What a reader may rely on in every line.

use super::Violation;
use super::source::{Source, tokens};

/// Files that may hold `unsafe`, each for a reason that stands at its head.
pub(super) const UNSAFE_ALLOWED: &[&str] = &[];

const PANICKING: &[&str] = &["unwrap", "unwrap_err", "expect", "expect_err"];

/// Roots that are the same on every machine of a kind, and the placeholders of examples.
const PUBLIC_ROOTS: &[&str] = &["bin", "dev", "etc", "nonexistent", "opt", "path", "proc", "run", "sys", "usr", "var"];

/// `unwrap` and `expect` outside of tests carry a comment on their line: why they cannot fail.
pub(super) fn panics_have_reasons(source: &Source) -> Vec<Violation> {
    let tokens = tokens(&source.code);
    let calls = tokens.windows(2).filter(|pair| {
        let [before, name] = pair else { return false };
        matches!(before.text, "." | "::") && PANICKING.contains(&name.text) && !source.in_tests(name.offset)
    });
    let refused = calls.filter_map(|pair| {
        let (name, line) = (pair[1].text, source.line_of(pair[1].offset));
        let what = format!("{name} without a comment on the line that says why it cannot fail");
        (!has_reason(source, line)).then(|| Violation::new(&source.path, line, what))
    });
    refused.collect()
}

fn has_reason(source: &Source, line: usize) -> bool {
    let on_line = source.comments.iter().filter(|r| source.line_of(r.start) == line);
    on_line.map(|r| &source.text[r.clone()]).any(|comment| comment.split_whitespace().count() > 2)
}

/// `unsafe` is written in listed files only, and no file is listed in vain.
pub(super) fn unsafe_is_listed(sources: &[&Source], allowed: &[&str]) -> Vec<Violation> {
    let first_unsafe = |source: &Source| tokens(&source.code).iter().find(|t| t.text == "unsafe").map(|t| t.offset);
    let mut violations = Vec::new();
    for source in sources {
        match (first_unsafe(source), allowed.contains(&source.path.as_str())) {
            (Some(at), false) => {
                violations.push(Violation::new(&source.path, source.line_of(at), "unsafe in a file not listed for it"));
            }
            (None, true) => violations.push(Violation::new(&source.path, 1, "listed for unsafe and has none")),
            _ => {}
        }
    }
    let missing = allowed.iter().filter(|path| sources.iter().all(|s| s.path != **path));
    violations.extend(missing.map(|path| Violation::new(path, 1, "listed for unsafe and not there")));
    violations
}

/// A configuration that hides another says all that the other says.
pub(super) fn repeats(path: &str, inner: &str, outer: &str) -> Vec<Violation> {
    let settings = outer.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let missing = settings.filter(|setting| !inner.lines().any(|line| line == *setting));
    missing.map(|setting| Violation::new(path, 1, format!("lacks `{setting}` of the file that it hides"))).collect()
}

/// An absolute path belongs to every machine, or it is somebody's own.
pub(super) fn private_paths(path: &str, text: &str) -> Vec<Violation> {
    let refused = |(line, text): (usize, &str)| {
        let private = text.match_indices('/').find_map(|(at, _)| private_path(text, at))?;
        Some(Violation::new(path, line + 1, format!("{private} is a path of one machine only")))
    };
    text.lines().enumerate().filter_map(refused).collect()
}

/// The two first segments of the absolute path that begins at `at`, if there is one with a root of its own.
fn private_path(text: &str, at: usize) -> Option<String> {
    let begins = text[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || "\"'`(=:,[".contains(c));
    let mut segments = text[at + 1..].split('/');
    let (root, below) = (segments.next()?, segments.next()?);
    let is_root = !root.is_empty() && root.chars().all(|c| c.is_ascii_lowercase());
    let goes_on = below.starts_with(|c: char| c.is_alphanumeric() || "._{$<-".contains(c));
    (begins && is_root && goes_on && !PUBLIC_ROOTS.contains(&root)).then(|| format!("/{root}/…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(violations: &[Violation]) -> Vec<usize> {
        violations.iter().map(|v| v.line).collect()
    }

    #[test]
    fn an_unwrap_without_a_reason_is_seen() {
        let text = "fn a() { b().unwrap(); }\nfn c() { d().unwrap(); } // d holds what a put there\n\
            fn e() { f\n.expect(\"http://x y z\"); }\n// before the line, which does not count\n\
            fn g() { h().unwrap_err() } //\nfn i() { j().map(Option::unwrap) }\n#[expect(dead_code)]\n\
            fn k() { l().unwrap_or(0); m.expect; }\n#[cfg(test)]\nmod tests { fn n() { o().unwrap() } }";
        assert_eq!(lines(&panics_have_reasons(&Source::new("src/x.rs", text))), [1, 4, 6, 7, 9]);
        assert!(panics_have_reasons(&Source::new("tests/it/x.rs", text)).is_empty());
    }

    #[test]
    fn unsafe_in_an_unlisted_file_is_seen() {
        let with = Source::new("src/a.rs", "fn f() {}\nunsafe fn g() {}");
        let without = Source::new("src/b.rs", "#![forbid(unsafe_code)] // unsafe\nfn h() { \"unsafe\" }");
        assert_eq!(lines(&unsafe_is_listed(&[&with, &without], &[])), [2]);
        assert!(unsafe_is_listed(&[&with, &without], &["src/a.rs"]).is_empty());
        let paths: Vec<String> = unsafe_is_listed(&[&with, &without], &["src/a.rs", "src/b.rs", "src/c.rs"])
            .into_iter()
            .map(|v| v.path)
            .collect();
        assert_eq!(paths, ["src/b.rs", "src/c.rs"]);
    }

    #[test]
    fn a_setting_that_gets_lost_is_seen() {
        let outer = "# why\nlines = 70\nsize = 200\n";
        assert!(repeats("clippy.toml", "lines = 70\nmore = 1\nsize = 200\n", outer).is_empty());
        assert_eq!(lines(&repeats("clippy.toml", "lines = 70\nsize = 20\n", outer)), [1]);
    }

    #[test]
    fn a_path_of_one_machine_is_seen() {
        let home = |below: &str| ["/home", below].join("/");
        let bad =
            [home("ann/x"), format!("`{}`", home("ann")), format!("cd {}", home("$USER")), format!("a={}", home(".x"))];
        for bad in bad {
            assert_eq!(lines(&private_paths("x.md", &format!("fine\n{bad}\n"))), [2], "{bad}");
        }
        let fine = "and/or http://a.b/c/d /dev/null /usr/lib/x /var/lib/graft a /b c // d/e /// f/g \"/graft.v1.Peer/Stream\" ../h/i ./j/k </a/b> m /n";
        assert!(private_paths("x.md", fine).is_empty());
    }
}
