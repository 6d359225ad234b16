//! The words of a command, read one by one. A script that cannot be read ends the test and says where.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::{EntryId, Index, NodeId};

pub(super) struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

/// Messages on a link: which way, which kind, how many.
pub(super) struct Selection {
    pub(super) from: Option<NodeId>,
    pub(super) to: Option<NodeId>,
    pub(super) kind: Option<String>,
    pub(super) count: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { words: text.split_whitespace().collect(), at: 0 }
    }

    pub(super) fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    /// Takes the next word if it is this one.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        self.at += usize::from(is);
        is
    }

    pub(super) fn word(&mut self) -> &'a str {
        self.next().unwrap_or_else(|| panic!("a word is missing at the end of {:?}", self.words))
    }

    pub(super) fn id(&mut self) -> NodeId {
        node(self.word())
    }

    /// Names up to the end or to one of these words.
    pub(super) fn ids_until(&mut self, ends: &[&str]) -> Vec<NodeId> {
        let mut ids = Vec::new();
        while let Some(word) = self.peek().filter(|word| !ends.contains(word)) {
            ids.push(node(word));
            self.at += 1;
        }
        ids
    }

    /// `n1->n2`.
    pub(super) fn link(&mut self) -> (NodeId, NodeId) {
        let link = self.word();
        let (from, to) = link.split_once("->").unwrap_or_else(|| panic!("{link} is not a link such as n1->n2"));
        (node(from), node(to))
    }

    pub(super) fn number(&mut self) -> u64 {
        number(self.word())
    }

    pub(super) fn count_or(&mut self, other: usize) -> usize {
        self.next().map_or(other, |word| usize::try_from(number(word)).expect("a small number"))
    }

    pub(super) fn duration(&mut self) -> Duration {
        let word = self.word();
        match (word.strip_suffix("ms"), word.strip_suffix('s')) {
            (Some(millis), _) => Duration::from_millis(number(millis)),
            (None, Some(seconds)) => Duration::from_secs(number(seconds)),
            _ => panic!("{word} is not a duration such as 20ms or 3s"),
        }
    }

    /// `n1->n2`, where `*` is anybody, then perhaps a kind of message, then perhaps how many.
    pub(super) fn selection(&mut self) -> Selection {
        let link = self.word();
        let Some((from, to)) = link.split_once("->") else { panic!("{link} is not a link such as n1->n2") };
        let end = |text: &str| if text == "*" { None } else { Some(node(text)) };
        let kind = self.peek().filter(|word| word.parse::<usize>().is_err()).map(ToString::to_string);
        self.at += usize::from(kind.is_some());
        Selection { from: end(from), to: end(to), kind, count: self.count_or(usize::MAX) }
    }

    pub(super) fn done(&mut self) {
        if let Some(word) = self.peek() {
            panic!("what is {word} doing in {:?}?", self.words);
        }
    }
}

pub(super) fn node(text: &str) -> NodeId {
    NodeId::new(text).unwrap_or_else(|bad| panic!("{text}: {bad}"))
}

pub(super) fn number(text: &str) -> u64 {
    text.trim_start_matches(['#', 'r', 't']).parse().unwrap_or_else(|_| panic!("{text} is not a number"))
}

/// `2/5`: the entry of term 2 at index 5.
pub(super) fn entry_id(text: &str) -> EntryId {
    let Some((term, index)) = text.split_once('/') else { panic!("{text} is not an entry such as 2/5") };
    EntryId::new(number(term), number(index))
}

impl Words<'_> {
    pub(super) fn index(&mut self) -> Index {
        Index(self.number())
    }
}
