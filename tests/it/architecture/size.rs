//! One concept a file, one screen a function.

use super::Violation;
use super::source::{Source, Token, after_closing, is_word, tokens};

pub(super) const FILE_LINES_MAX: usize = 600;
pub(super) const FUNCTION_LINES_MAX: usize = 70;

pub(super) fn file_length(path: &str, text: &str) -> Option<Violation> {
    let lines = text.lines().count();
    let what = || format!("{lines} lines, and {FILE_LINES_MAX} are the most: it holds more than one concept");
    (lines > FILE_LINES_MAX).then(|| Violation::new(path, lines, what()))
}

/// Every function, its signature and its closing brace included.
pub(super) fn rust_functions(source: &Source) -> Vec<Violation> {
    let tokens = tokens(&source.code);
    let functions = (0..tokens.len()).filter(|at| tokens[*at].text == "fn");
    let measured = functions.filter_map(|at| {
        let name = tokens.get(at + 1).filter(|t| is_word(t.text))?;
        let end = body_end(&tokens, at)?;
        let first = source.line_of(tokens[at].offset);
        too_long(source, name.text, first, source.line_of(tokens[end - 1].offset))
    });
    measured.collect()
}

/// The token after the body of the function whose `fn` is at `at`; none if it has no body.
fn body_end(tokens: &[Token<'_>], mut at: usize) -> Option<usize> {
    loop {
        match tokens.get(at)?.text {
            "{" => return Some(after_closing(tokens, at)),
            ";" => return None,
            "(" | "[" => at = after_closing(tokens, at),
            _ => at += 1,
        }
    }
}

fn too_long(source: &Source, name: &str, first: usize, last: usize) -> Option<Violation> {
    let lines = last + 1 - first;
    let what = || format!("{name} has {lines} lines, and {FUNCTION_LINES_MAX} are the most: name its parts");
    (lines > FUNCTION_LINES_MAX).then(|| Violation::new(&source.path, first, what()))
}

/// Every `def`, from its signature to the last line that is indented below it.
pub(super) fn python_functions(source: &Source) -> Vec<Violation> {
    let lines = python_lines(source);
    let functions = lines.iter().enumerate().filter_map(|(at, line)| Some((at, line, defined(line.code)?)));
    let measured = functions.filter_map(|(at, def, name)| {
        let body =
            lines[at + 1..].iter().take_while(|l| l.indent.is_none_or(|indent| indent > def.indent.unwrap_or(0)));
        let last = body.filter(|l| !l.is_empty).last().map_or(def.number, |l| l.number);
        too_long(source, name, def.number, last)
    });
    measured.collect()
}

struct PythonLine<'a> {
    number: usize,
    code: &'a str,
    /// None for a line that says nothing about blocks: blank, a comment, or the inside of a bracket or a literal.
    indent: Option<usize>,
    /// Blank or a comment: it does not lengthen what comes before it.
    is_empty: bool,
}

fn python_lines(source: &Source) -> Vec<PythonLine<'_>> {
    let (mut lines, mut offset, mut depth) = (Vec::new(), 0, 0_usize);
    for (number, (text, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        let inside = depth > 0 || source.literals.iter().any(|r| r.start < offset && offset < r.end);
        let indent = text.len() - text.trim_start().len();
        let is_comment = source.comments.iter().any(|r| r.start == offset + indent);
        let is_empty = !inside && (text.trim().is_empty() || is_comment);
        let says_nothing = inside || is_empty;
        lines.push(PythonLine { number: number + 1, code, indent: (!says_nothing).then_some(indent), is_empty });
        depth += code.matches(['(', '[', '{']).count();
        depth = depth.saturating_sub(code.matches([')', ']', '}']).count());
        offset += text.len() + 1;
    }
    lines
}

fn defined(code: &str) -> Option<&str> {
    let code = code.trim_start();
    let after = code.strip_prefix("async ").unwrap_or(code).trim_start().strip_prefix("def ")?;
    after.split('(').next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(violations: &[Violation]) -> Vec<(usize, String)> {
        let name = |v: &Violation| v.what.split_once(" lines").map(|(name, _)| name.to_owned());
        violations.iter().map(|v| (v.line, name(v).expect("the words of a long function"))).collect()
    }

    #[test]
    fn a_long_file_is_seen() {
        assert_eq!(file_length("x.rs", &"\n".repeat(FILE_LINES_MAX)), None);
        assert_eq!(file_length("x.rs", &"\n".repeat(FILE_LINES_MAX + 1)).map(|v| v.line), Some(FILE_LINES_MAX + 1));
    }

    /// A function of so many lines whose braces are hard to count.
    fn rust(lines: usize) -> Source {
        let tricks = ["let a = \"}\";", "// }", "let b = '}';", "let c = r#\"}\"}\"#;", "/* } /* } */ } */"];
        let body = tricks.iter().cycle().take(lines - 3).copied().collect::<Vec<_>>().join("\n");
        let text =
            format!("trait T {{\n fn no_body(&self) -> [u8; 3];\n}}\nfn f(g: fn(u8),\n) -> u8 {{\n{body}\n}}\n\n");
        Source::new("x.rs", &text)
    }

    #[test]
    fn a_long_rust_function_is_seen() {
        assert_eq!(named(&rust_functions(&rust(FUNCTION_LINES_MAX))), []);
        assert_eq!(named(&rust_functions(&rust(FUNCTION_LINES_MAX + 1))), [(4, "f has 71".to_owned())]);
    }

    /// A method of so many lines whose end is hard to find, and what comes after it.
    fn python(lines: usize) -> Source {
        let tricks =
            ["        x = 1", "", "# a comment", "        y = (", "1,", "        )", "        z = '''", "w", "'''"];
        let body = tricks.iter().cycle().take(lines - 3).copied().collect::<Vec<_>>().join("\n");
        let text =
            format!("class C:\n    async def f(\n        self,\n    ) -> None:\n{body}\n\n# not its own\n    g = 1\n");
        Source::new("x.py", &text)
    }

    #[test]
    fn a_long_python_function_is_seen() {
        // Of 70 lines, 67 make the body: seven rounds of the tricks and four lines more; of 72, six more.
        assert_eq!(named(&python_functions(&python(FUNCTION_LINES_MAX - 1))), []);
        assert_eq!(named(&python_functions(&python(FUNCTION_LINES_MAX + 2))), [(2, "f has 72".to_owned())]);
    }

    #[test]
    fn a_python_function_ends_where_its_block_does() {
        let text = format!("def f():\n    return 1\n{}", "x = 1\n".repeat(100));
        assert_eq!(named(&python_functions(&Source::new("x.py", &text))), []);
        let text = format!("def f():\n    def g():\n        pass\n{}", "    x = 1\n".repeat(100));
        assert_eq!(named(&python_functions(&Source::new("x.py", &text))), [(1, "f has 103".to_owned())]);
    }
}
