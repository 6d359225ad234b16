//! How far a msgpack value may go, whoever made it: every replica, of whatever interpreter, must be able to read it.
//!
//! The limits are constants: interpreters differ in how deep a value they can read, and a value that some of the replicas can
//! read and others cannot would halt the others.

use std::fmt;

/// Arrays and maps within one another. The default snapshot keeps 150, of which what surrounds the value needs some.
const DEPTH_MAX: usize = 100;
/// The only extension that has a meaning of its own: a moment.
const TIMESTAMP: i8 = -1;

/// Why a value goes too far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    TooDeep,
    Extension(i8),
    Invalid { at: usize },
    Truncated,
    Trailing { bytes: usize },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => write!(f, "it is nested more than {DEPTH_MAX} deep"),
            Self::Extension(code) => write!(
                f,
                "it holds the msgpack extension {code}, which no replica could keep; only timestamps ({TIMESTAMP}) are taken"
            ),
            Self::Invalid { at } => write!(f, "it is no msgpack at byte {at}"),
            Self::Truncated => f.write_str("its msgpack ends too early"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow after its msgpack"),
        }
    }
}

/// Whether this is one whole value that every replica can read. `any_extension` if nobody is to keep it. Needs neither
/// recursion nor memory, and time by the length of the data alone.
pub(super) fn check(data: &[u8], any_extension: bool) -> Result<(), Trouble> {
    let mut scan = Scan { data, at: 0, any_extension };
    let mut missing = [0_u64; DEPTH_MAX];
    let mut depth = 0;
    loop {
        if let Some(items) = scan.item()? {
            *missing.get_mut(depth).ok_or(Trouble::TooDeep)? = items;
            depth += 1;
        }
        while depth > 0 && missing[depth - 1] == 0 {
            depth -= 1;
        }
        if depth == 0 {
            break;
        }
        missing[depth - 1] -= 1;
    }
    match data.len() - scan.at {
        0 => Ok(()),
        bytes => Err(Trouble::Trailing { bytes }),
    }
}

struct Scan<'a> {
    data: &'a [u8],
    /// Never beyond the end.
    at: usize,
    any_extension: bool,
}

impl Scan<'_> {
    /// Passes one value; of an array or a map the head alone, and says how many values are in it.
    fn item(&mut self) -> Result<Option<u64>, Trouble> {
        let at = self.at;
        let head = self.number(1)?;
        match head {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => {}
            0x80..=0x8f => return Ok(Some((head & 0x0f) * 2)),
            0x90..=0x9f => return Ok(Some(head & 0x0f)),
            0xa0..=0xbf => self.skip(head & 0x1f)?,
            0xc4..=0xc6 => self.counted(1 << (head - 0xc4))?,
            0xc7..=0xc9 => {
                let bytes = self.number(1 << (head - 0xc7))?;
                self.extension(bytes)?;
            }
            0xca => self.skip(4)?,
            0xcb => self.skip(8)?,
            0xcc..=0xcf => self.skip(1 << (head - 0xcc))?,
            0xd0..=0xd3 => self.skip(1 << (head - 0xd0))?,
            0xd4..=0xd8 => self.extension(1 << (head - 0xd4))?,
            0xd9..=0xdb => self.counted(1 << (head - 0xd9))?,
            0xdc | 0xdd => return Ok(Some(self.number(2 << (head - 0xdc))?)),
            0xde | 0xdf => return Ok(Some(self.number(2 << (head - 0xde))? * 2)),
            _ => return Err(Trouble::Invalid { at }),
        }
        Ok(None)
    }

    /// Text or bytes, whose length comes first, in so many bytes.
    fn counted(&mut self, width: usize) -> Result<(), Trouble> {
        let bytes = self.number(width)?;
        self.skip(bytes)
    }

    fn extension(&mut self, bytes: u64) -> Result<(), Trouble> {
        let code = self.take(1)?[0].cast_signed();
        if code != TIMESTAMP && !self.any_extension {
            return Err(Trouble::Extension(code));
        }
        self.skip(bytes)
    }

    /// The big-endian number in the next bytes, of which there are 4 at the most.
    fn number(&mut self, width: usize) -> Result<u64, Trouble> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Trouble> {
        self.take(usize::try_from(bytes).map_err(|_| Trouble::Truncated)?).map(drop)
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], Trouble> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.data.len()).ok_or(Trouble::Truncated)?;
        let taken = &self.data[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(head: &[u8], depth: usize) -> Vec<u8> {
        let mut data = head.repeat(depth);
        data.push(0xc0);
        data
    }

    #[test]
    fn one_whole_value_of_every_kind_passes() {
        let values: &[&[u8]] = &[
            b"\x00",
            b"\x7f",
            b"\xe0",
            b"\xff",
            b"\xc0",
            b"\xc2",
            b"\xc3",
            b"\x80",
            b"\x90",
            b"\xa0",
            b"\xa1x",
            b"\xbf0123456789012345678901234567890",
            b"\x81\x01\x02",
            b"\x92\x01\x02",
            b"\xc4\x01x",
            b"\xc5\0\x01x",
            b"\xc6\0\0\0\x01x",
            b"\xca0123",
            b"\xcb01234567",
            b"\xcc0",
            b"\xcd01",
            b"\xce0123",
            b"\xcf01234567",
            b"\xd00",
            b"\xd101",
            b"\xd20123",
            b"\xd301234567",
            b"\xd9\x01x",
            b"\xda\0\x01x",
            b"\xdb\0\0\0\x01x",
            b"\xdc\0\x01x",
            b"\xdd\0\0\0\x01x",
            b"\xde\0\x01xx",
            b"\xdf\0\0\0\x01xx",
            b"\xd6\xff0123",
            b"\xd7\xff01234567",
            b"\xc7\x0c\xff012345678901",
            b"\x91\x92\x80\x91\x90",
        ];
        for value in values {
            assert_eq!(check(value, false), Ok(()), "{value:x?}");
            for end in 0..value.len() {
                assert_eq!(check(&value[..end], false), Err(Trouble::Truncated), "{value:x?} up to {end}");
            }
            assert_eq!(check(&[value, &b"xy"[..]].concat(), false), Err(Trouble::Trailing { bytes: 2 }), "{value:x?}");
        }
    }

    #[test]
    fn a_value_nests_a_hundred_deep_and_no_deeper() {
        let heads: [&[u8]; 4] = [b"\x91", b"\x81\xc0", b"\xdd\0\0\0\x01", b"\xdf\0\0\0\x01\xc0"];
        for head in heads {
            assert_eq!(check(&nested(head, DEPTH_MAX), false), Ok(()), "{head:x?}");
            assert_eq!(check(&nested(head, DEPTH_MAX + 1), false), Err(Trouble::TooDeep), "{head:x?}");
            assert_eq!(check(&nested(head, 1_000_000), true), Err(Trouble::TooDeep), "{head:x?}");
        }
        // In the key of a map, too, and beside others that have ended.
        assert_eq!(check(&nested(b"\x81", 101), false), Err(Trouble::TooDeep));
        let deep = nested(b"\x91", DEPTH_MAX - 1);
        assert_eq!(check(&[b"\x93", &deep[..], &deep, &deep].concat(), false), Ok(()));
    }

    #[test]
    fn extensions_are_timestamps_or_of_no_concern() {
        let extensions: [&[u8]; 8] = [
            b"\xd4\x05x",
            b"\xd5\x0501",
            b"\xd6\x050123",
            b"\xd7\x0501234567",
            b"\xd8\x050123456789abcdef",
            b"\xc7\x01\x05x",
            b"\xc8\0\x01\x05x",
            b"\xc9\0\0\0\x01\x05x",
        ];
        for data in extensions {
            assert_eq!(check(data, false), Err(Trouble::Extension(5)), "{data:x?}");
            assert_eq!(check(&[b"\x91", data].concat(), true), Ok(()), "{data:x?}");
        }
    }

    #[test]
    fn a_claimed_length_costs_nothing() {
        let claims: [&[u8]; 5] = [
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\xff",
        ];
        for data in claims {
            assert_eq!(check(data, false), Err(Trouble::Truncated), "{data:x?}");
        }
        assert_eq!(check(b"", false), Err(Trouble::Truncated));
        assert_eq!(check(b"\x91\xc1", false), Err(Trouble::Invalid { at: 1 }));
    }
}
