//! Memory that a log is read into, and stays in. A system that gives out memory in pages of 4096 bytes takes longer over a
//! page than over copying a file's bytes into it: where it can, it is asked for large ones.

use std::io;

use bytes::Bytes;

/// So much memory, filled by `fill`, which is given zeros.
pub(super) fn filled(bytes: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Bytes> {
    #[cfg(target_os = "linux")]
    if bytes >= large::PAGE_BYTES {
        return large::filled(bytes, fill);
    }
    let mut memory = vec![0; bytes];
    fill(&mut memory)?;
    Ok(Bytes::from(memory))
}

#[cfg(target_os = "linux")]
mod large {
    use std::io;

    use bytes::Bytes;
    use memmap2::{Advice, MmapMut};

    /// Of a large page where it is smallest. Where it is larger, small ones come.
    pub(super) const PAGE_BYTES: usize = 2 << 20;

    pub(super) fn filled(bytes: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Bytes> {
        // A large page begins at a multiple of its size. What is not touched costs no memory.
        let room = bytes.checked_add(2 * PAGE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut map = MmapMut::map_anon(room)?;
        let begin = map.as_ptr().align_offset(PAGE_BYTES);
        // The last one as well if half of it is used. A system that has none gives small ones, and many at once take it less
        // time than one after the other; one that knows neither gives them as they are touched.
        let _ = map.advise_range(Advice::HugePage, begin, (bytes + PAGE_BYTES / 2) / PAGE_BYTES * PAGE_BYTES);
        let _ = map.advise_range(Advice::PopulateWrite, begin, bytes);
        fill(&mut map[begin..begin + bytes])?;
        Ok(Bytes::from_owner(map).slice(begin..begin + bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 2 << 20;

    #[test]
    fn it_is_zeros_before_and_as_filled_afterwards() {
        for bytes in [0, 1, LARGE - 1, LARGE, LARGE + 1, 2 * LARGE - 1, 2 * LARGE + LARGE / 2] {
            let memory = filled(bytes, |zeros| {
                assert!(zeros.len() == bytes && zeros.iter().all(|byte| *byte == 0), "{bytes}");
                zeros.fill(7);
                Ok(())
            });
            let memory = memory.expect("there is enough");
            assert!(memory.len() == bytes && memory.iter().all(|byte| *byte == 7), "{bytes}");
        }
    }

    #[test]
    fn an_error_of_who_fills_it_is_the_answer() {
        for bytes in [1, LARGE] {
            let failed = filled(bytes, |_| Err(io::ErrorKind::UnexpectedEof.into()));
            assert_eq!(failed.map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
        }
    }

    #[test]
    fn more_than_there_can_be_is_an_error() {
        let refused = filled(usize::MAX / 2, |_| Ok(())).map_err(|error| error.kind());
        assert!(!cfg!(target_os = "linux") || refused.is_err());
    }
}
