//! Inputs that are made of others, the same ones at every run.

use graft_domain::Random;

/// Bytes at which parsers err.
const TELLING: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xff, b'\n', b'"'];
/// More bytes than any sample has.
const BYTES_MAX: usize = 8 << 10;

pub(crate) struct Mutator(Random);

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// Something below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.0.next() % end as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.0.next().to_le_bytes()[0]
    }

    /// One of `all`, with a few changes, some of them from another.
    pub(crate) fn next(&mut self, all: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = all[self.below(all.len())].clone();
        for _ in 0..=self.below(6) {
            let other = &all[self.below(all.len())];
            self.change(&mut bytes, other);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let length = 1 + self.below(8);
        let end = (at + length).min(bytes.len());
        match self.below(8) {
            0 | 1 => bytes[at..end.min(at + 1)].iter_mut().for_each(|byte| *byte ^= 1 << (length % 8)),
            2 => bytes[at..end.min(at + 1)].iter_mut().for_each(|byte| *byte = TELLING[length % TELLING.len()]),
            3 => bytes[at..end.min(at + 1)].iter_mut().for_each(|byte| *byte = byte.wrapping_add(1)),
            4 => drop(bytes.splice(at..at, (0..length).map(|_| self.0.next().to_le_bytes()[0]))),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let from = self.below(other.len() + 1);
                let part = &other[from..(from + 4 * length).min(other.len())];
                drop(bytes.splice(at..end, part.iter().copied()));
            }
            _ => {
                let byte = self.byte();
                bytes[at..end].fill(byte);
            }
        }
    }
}
