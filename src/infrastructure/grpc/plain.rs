//! Texts of others, as they may be logged and shown: whoever is not known yet must not write lines of a log, or move
//! the cursor of whoever reads it.

/// The text with what is not to be seen spelled out, and no more than so many bytes of it.
pub(super) fn plain(text: &str, bytes_max: usize) -> String {
    let mut all = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let before = all.len();
        if is_odd(character) {
            all.extend(character.escape_default());
        } else {
            all.push(character);
        }
        if all.len() > bytes_max {
            all.truncate(before);
            break;
        }
    }
    all
}

/// Whether something in it would have to be spelled out.
pub(super) fn has_odd(text: &str) -> bool {
    text.chars().any(is_odd)
}

/// Controls, ends of lines, and what changes the direction of writing.
fn is_odd(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_to_be_seen_is_spelled_out() {
        assert_eq!(plain("10.0.0.1:7000, été", 100), "10.0.0.1:7000, été");
        assert_eq!(plain("a\nWARN b\x1b[2J\u{9b}\u{202e}", 100), "a\\nWARN b\\u{1b}[2J\\u{9b}\\u{202e}");
        assert!(has_odd("a\r") && has_odd("\u{2028}") && !has_odd("é 東"));
    }

    #[test]
    fn it_is_cut_where_a_character_ends() {
        assert_eq!(
            (plain("éé", 3).as_str(), plain("ab\n", 3).as_str(), plain("ab\n", 4).as_str()),
            ("é", "ab", "ab\\n")
        );
    }
}
