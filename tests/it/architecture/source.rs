//! A text with its comments and literals told apart from its code, so that no rule is fooled by either.

use std::ops::Range;

pub(super) struct Source {
    /// From the root of the checkout, with slashes.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with every comment and literal turned to blanks; offsets and lines stay.
    pub(super) code: String,
    /// All of it is test code, whoever declares it.
    pub(super) is_test: bool,
    pub(super) comments: Vec<Range<usize>>,
    pub(super) literals: Vec<Range<usize>>,
    tests: Vec<Range<usize>>,
}

/// One word or sign of Rust code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token<'a> {
    pub(super) offset: usize,
    /// An identifier, `::`, or one other character.
    pub(super) text: &'a str,
}

/// A path as it is written, groups unfolded: `use a::{b, c::*}` is `a::b` and `a::c::*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named<'a> {
    pub(super) offset: usize,
    pub(super) segments: Vec<&'a str>,
}

enum Blank {
    Comment(usize),
    Literal(usize),
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let python = matches!(path.rsplit_once('.'), Some((_, "py" | "pyi")));
        let next = if python { python_blank } else { rust_blank };
        let (bytes, mut code) = (text.as_bytes(), text.as_bytes().to_vec());
        let (mut comments, mut literals, mut at) = (Vec::new(), Vec::new(), 0);
        while at < bytes.len() {
            let (ranges, end) = match next(bytes, at) {
                Some(Blank::Comment(end)) => (&mut comments, end),
                Some(Blank::Literal(end)) => (&mut literals, end),
                None => {
                    at += 1;
                    continue;
                }
            };
            ranges.push(at..end);
            code[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
            at = end;
        }
        let code = String::from_utf8(code).expect("comments and literals begin and end at whole characters");
        let tests = if python { Vec::new() } else { test_items(&code) };
        let is_test = path.starts_with("tests/") || path.starts_with("benches/") || code.contains("#![cfg(test)]");
        Self { path: path.to_owned(), text: text.to_owned(), code, is_test, comments, literals, tests }
    }

    /// Counted from 1.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    /// Whether the code there exists only in tests.
    pub(super) fn in_tests(&self, offset: usize) -> bool {
        self.is_test || self.tests.iter().any(|r| r.contains(&offset))
    }

    /// The paths, without `.rs`, of modules that are declared here for tests only and written elsewhere.
    pub(super) fn external_test_modules(&self) -> Vec<String> {
        let Some((directory, file)) = self.path.rsplit_once('/') else { return Vec::new() };
        let inside = match file {
            "lib.rs" | "main.rs" | "mod.rs" => directory.to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        let declared = |range: &Range<usize>| {
            let item = tokens(&self.code[range.clone()]);
            let at = item.iter().position(|t| t.text == "mod")?;
            let (name, end) = (item.get(at + 1)?, item.get(at + 2)?);
            let elsewhere =
                self.text[range.clone()].split_once("#[path = \"").and_then(|(_, rest)| rest.split_once(".rs\""));
            let place =
                elsewhere.map_or_else(|| format!("{inside}/{}", name.text), |(path, _)| format!("{directory}/{path}"));
            (end.text == ";").then_some(place)
        };
        self.tests.iter().filter_map(declared).collect()
    }

    /// Every path that the code names, a lone identifier being the shortest.
    pub(super) fn names(&self) -> Vec<Named<'_>> {
        let tokens = tokens(&self.code);
        let (mut names, mut at) = (Vec::new(), 0);
        while at < tokens.len() {
            at = if is_word(tokens[at].text) { name(&tokens, at, &[], &mut names) } else { at + 1 };
        }
        names
    }
}

pub(super) fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

pub(super) fn tokens(code: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(first) = code[at..].chars().next() {
        let rest = &code[at..];
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let length = if part(first) {
            rest.find(|c| !part(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            tokens.push(Token { offset: at, text: &rest[..length] });
        }
        at += length;
    }
    tokens
}

/// The token after the bracket that closes the one at `open`; the end of the code if none does.
pub(super) fn after_closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Reads the path that begins at `at` and answers where reading goes on.
fn name<'a>(tokens: &[Token<'a>], at: usize, before: &[&'a str], names: &mut Vec<Named<'a>>) -> usize {
    let mut segments = before.to_vec();
    segments.push(tokens[at].text);
    let text_at = |at: usize| tokens.get(at).map_or("", |t| t.text);
    if text_at(at + 1) == "::" && is_word(text_at(at + 2)) {
        return name(tokens, at + 2, &segments, names);
    }
    if text_at(at + 1) == "::" && text_at(at + 2) == "{" {
        let end = after_closing(tokens, at + 2);
        let mut inside = at + 3;
        while inside + 1 < end {
            inside = match text_at(inside) {
                "as" => inside + 2,
                word if is_word(word) || word == "*" => name(tokens, inside, &segments, names),
                _ => inside + 1,
            };
        }
        return end;
    }
    let offset = tokens[at].offset;
    if text_at(at + 1) == "::" && text_at(at + 2) == "*" {
        segments.push("*");
        names.push(Named { offset, segments });
        return at + 3;
    }
    names.push(Named { offset, segments });
    at + 1
}

/// What `#[cfg(test)]` and `#[test]` stand before, attribute included.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let tokens = tokens(code);
    let texts: Vec<&str> = tokens.iter().map(|t| t.text).collect();
    let marks = |at: usize| {
        texts[at..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"])
            || texts[at..].starts_with(&["#", "[", "test", "]"])
    };
    let offset_of = |at: usize| tokens.get(at).map_or(code.len(), |t| t.offset);
    (0..tokens.len()).filter(|at| marks(*at)).map(|at| offset_of(at)..offset_of(item_end(&tokens, at))).collect()
}

/// The token after the item whose first attribute is at `at`: after its block, or after its semicolon.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|t| t.text == "#") {
        at = after_closing(tokens, at + 1);
    }
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => return after_closing(tokens, at),
            ";" => return at + 1,
            "(" | "[" => at = after_closing(tokens, at),
            _ => at += 1,
        }
    }
    tokens.len()
}

/// The end of the comment or literal that begins at `at`, if one does.
fn rust_blank(bytes: &[u8], at: usize) -> Option<Blank> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(Blank::Comment(line_end(bytes, at)));
    }
    if rest.starts_with(b"/*") {
        return Some(Blank::Comment(block_comment_end(bytes, at)));
    }
    match rest[0] {
        b'"' => Some(Blank::Literal(quoted_end(bytes, at + 1, b"\""))),
        b'\'' => character_end(bytes, at).map(Blank::Literal),
        b'r' | b'b' | b'c' if at == 0 || !is_word_byte(bytes[at - 1]) => raw_end(bytes, at).map(Blank::Literal),
        _ => None,
    }
}

fn is_word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || !b.is_ascii()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

/// Rust's block comments nest.
fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if bytes[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// After the closing quote; a backslash takes the next byte with it.
fn quoted_end(bytes: &[u8], mut at: usize, quote: &[u8]) -> usize {
    while at < bytes.len() {
        if bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at..].starts_with(quote) {
            return at + quote.len();
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// A character, or none if the quote begins a lifetime or a label.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at + 1)? {
        b'\\' => Some(quoted_end(bytes, at + 1, b"'")),
        first => {
            let length = first.leading_ones().max(1) as usize;
            (bytes.get(at + 1 + length) == Some(&b'\'')).then_some(at + 2 + length)
        }
    }
}

/// `r"…"`, `r#"…"#`, `br"…"`, `cr#"…"#`.
fn raw_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut next = if bytes[at] == b'r' { at } else { at + 1 };
    if bytes.get(next) != Some(&b'r') {
        return None;
    }
    next += 1;
    let hashes = bytes[next..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(next + hashes) != Some(&b'"') {
        return None;
    }
    let closing = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let body = next + hashes + 1;
    let found = bytes[body..].windows(closing.len()).position(|w| w == closing);
    Some(found.map_or(bytes.len(), |n| body + n + closing.len()))
}

fn python_blank(bytes: &[u8], at: usize) -> Option<Blank> {
    let quote = &bytes[at..=at];
    match quote {
        b"#" => Some(Blank::Comment(line_end(bytes, at))),
        b"\"" | b"'" => {
            let triple = quote.repeat(3);
            let quote = if bytes[at..].starts_with(&triple) { triple } else { quote.to_vec() };
            Some(Blank::Literal(quoted_end(bytes, at + quote.len(), &quote)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(path: &str, text: &str) -> String {
        Source::new(path, text).code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rust_comments_and_literals_are_blank() {
        let cases = [
            ("a // b\nc", "a c"),
            ("a /* b /* c */ d */ e", "a e"),
            (r#"a "b \" c" d"#, "a d"),
            ("a r#\"b \" c\"# d", "a d"),
            ("a br\"\\\" d", "a d"),
            (r"a '\'' b '{' c b'\\' d", "a b c b d"),
            ("fn f<'a>(x: &'a str) -> 'é' {}", "fn f<'a>(x: &'a str) -> {}"),
            ("r#type r", "r#type r"),
            ("\"// no comment\" a", "a"),
        ];
        for (text, code) in cases {
            assert_eq!(words("x.rs", text), code, "{text}");
        }
    }

    #[test]
    fn python_comments_and_literals_are_blank() {
        let cases =
            [("a # b\nc", "a c"), ("a '#' b", "a b"), ("a '''b\n\"'\nc''' d", "a d"), (r"a '\'' b", "a b"), ("''", "")];
        for (text, code) in cases {
            assert_eq!(words("x.py", text), code, "{text}");
        }
    }

    #[test]
    fn offsets_and_lines_stay() {
        let source = Source::new("x.rs", "/* é\n */ a \"\n\" b");
        assert_eq!(source.code.len(), source.text.len());
        assert_eq!(source.line_of(source.code.find('a').expect("an a")), 2);
        assert_eq!(source.line_of(source.code.find('b').expect("a b")), 3);
    }

    #[test]
    fn test_code_is_known() {
        let text = "fn a() { b(); }\n#[cfg(test)]\n#[rustfmt::skip]\nmod tests { fn c() {} }\nfn d() {}\n#[test]\nfn e() { f(); }\n#[cfg(test)]\nuse g::{h, i};\nconst J: u8 = 0;";
        let source = Source::new("src/x.rs", text);
        let tests = |word: &str| source.in_tests(text.find(word).expect("a word of the text"));
        assert_eq!(["a()", "c()", "d()", "f()", "h,", "J"].map(tests), [false, true, false, true, true, false]);
        assert!(Source::new("tests/it/x.rs", "fn a() {}").in_tests(0));
    }

    #[test]
    fn paths_are_unfolded() {
        let source = Source::new("x.rs", "use a::{self, b::{c, d as e}, f::*};\nfn g() { h::i::<J>(); ::k::l(); }");
        let names: Vec<String> = source.names().iter().map(|n| n.segments.join("::")).collect();
        assert_eq!(names[1..5], ["a::self", "a::b::c", "a::b::d", "a::f::*"]);
        for name in ["h::i", "J", "k::l"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
    }
}
