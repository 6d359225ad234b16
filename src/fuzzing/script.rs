//! A data directory in few bytes. Random bytes do not get past a checksum, so the input says what is under the checksums and
//! they are made here, from `docs/wal-format.md` and `docs/snapshot-format.md`, with no code of the store. Whatever it says
//! can also be left unsealed, or be put down as it is.
//!
//! A script is a list of parts, each begun by a byte that says which. A part of a file goes behind what that file has.

use std::path::{Path, PathBuf};

use crate::input::{Input, put_block};
use crate::memory::Memory;

/// Begins the segment of a number; then its header from byte 16 on, as a block.
const SEGMENT: u8 = 0;
/// A batch: its number, how its seal is broken (0: it is good), its records.
const BATCH: u8 = 1;
/// Bytes as they are.
const RAW: u8 = 2;
/// So many zeros.
const ZEROS: u8 = 3;
/// The identity: all that follows its preamble, as a block.
const IDENTITY: u8 = 4;
/// A snapshot: term and index in its name, its metadata, its state, how its seals are broken.
const SNAPSHOT: u8 = 5;
/// Begins another file of the snapshots' directory, which is then as it is.
const BARE_SNAPSHOT: u8 = 6;
const KINDS: u8 = 7;

const SEGMENT_HEADER_BYTES: usize = 4096;
const BATCH_HEADER_BYTES: usize = 24;
/// All that one script may put down.
const BYTES_MAX: usize = 1 << 20;

/// Where everything is.
pub(crate) fn directory() -> PathBuf {
    PathBuf::from("data")
}

pub(crate) fn snapshot_path(index: u64, term: u64) -> PathBuf {
    directory().join("snapshots").join(format!("snapshot-{index:010}-{term:010}"))
}

/// Makes the directory that a script describes.
pub(crate) fn build(script: &[u8]) -> Memory {
    let files = Memory::default();
    let mut input = Input::new(script);
    let mut file: Option<(PathBuf, Vec<u8>, u32)> = None;
    let mut total = 0;
    let keep = |file: &mut Option<(PathBuf, Vec<u8>, u32)>| {
        if let Some((path, bytes, _)) = file.take() {
            files.put(&path, bytes);
        }
    };
    while !input.is_empty() && total < BYTES_MAX {
        let kind = input.u8() % KINDS;
        let before = file.as_ref().map_or(0, |(_, bytes, _)| bytes.len());
        match kind {
            SEGMENT => {
                keep(&mut file);
                let path = directory().join(format!("log-{:010}", input.u64()));
                let (header, seed) = sealed_page(*b"GRAFTLOG", input.block());
                file = Some((path, header, seed));
            }
            BARE_SNAPSHOT => {
                keep(&mut file);
                let (term, index) = (input.u64(), input.u64());
                file = Some((snapshot_path(index, term), Vec::new(), 0));
            }
            IDENTITY => files.put(&directory().join("identity"), identity(input.block())),
            SNAPSHOT => {
                let (term, index) = (input.u64(), input.u64());
                files.put(&snapshot_path(index, term), snapshot(input.block(), input.block(), input.u8()));
            }
            part => {
                let Some((_, bytes, seed)) = &mut file else { continue };
                match part {
                    BATCH => put_batch(bytes, *seed, input.u64(), u32::from(input.u8()), input.block()),
                    RAW => bytes.extend_from_slice(input.block()),
                    _ => bytes.resize(bytes.len() + usize::from(input.u16()), 0),
                }
            }
        }
        total += file.as_ref().map_or(0, |(_, bytes, _)| bytes.len()).saturating_sub(before) + 1;
    }
    keep(&mut file);
    files
}

/// The snapshot file that a script of one part describes.
pub(crate) fn snapshot(meta: &[u8], state: &[u8], broken: u8) -> Vec<u8> {
    let mut out = preamble(*b"GRAFTSNP");
    out.extend_from_slice(&length(meta));
    out.extend_from_slice(meta);
    let seed = crc32c::crc32c(&out) ^ u32::from(broken & 1);
    out.extend_from_slice(&seed.to_le_bytes());
    if !state.is_empty() {
        put_frame(&mut out, seed, length(state), state, u32::from(broken & 2));
    }
    let running = crc32c::crc32c_append(seed, state) ^ u32::from(broken & 4);
    let end = [&(state.len() as u64).to_le_bytes()[..], &running.to_le_bytes()].concat();
    put_frame(&mut out, seed, [0; 4], &end, u32::from(broken & 8));
    out
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

fn put_frame(out: &mut Vec<u8>, seed: u32, length: [u8; 4], data: &[u8], broken: u32) {
    let place = (out.len() as u64).to_le_bytes();
    let crc = [&place[..], &length, data].iter().fold(seed, |crc, part| crc32c::crc32c_append(crc, part));
    out.extend_from_slice(&length);
    out.extend_from_slice(&(crc ^ broken).to_le_bytes());
    out.extend_from_slice(data);
}

fn preamble(magic: [u8; 8]) -> Vec<u8> {
    let mut out = [&magic[..], &1_u32.to_le_bytes()].concat();
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn sealed_page(magic: [u8; 8], body: &[u8]) -> (Vec<u8>, u32) {
    let mut out = preamble(magic);
    out.extend_from_slice(body);
    out.resize(SEGMENT_HEADER_BYTES - 4, 0);
    let seed = crc32c::crc32c(&out);
    out.extend_from_slice(&seed.to_le_bytes());
    (out, seed)
}

fn identity(body: &[u8]) -> Vec<u8> {
    let mut out = preamble(*b"GRAFT-ID");
    out.extend_from_slice(body);
    out.resize(112, 0);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn put_batch(file: &mut Vec<u8>, seed: u32, number: u64, broken: u32, records: &[u8]) {
    let place = (file.len() as u64).to_le_bytes();
    let rest =
        [&number.to_le_bytes()[..], &length(records), &crc32c::crc32c_append(seed, records).to_le_bytes()].concat();
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &place), &rest) ^ broken;
    file.extend_from_slice(b"GBAT");
    file.extend_from_slice(&crc.to_le_bytes());
    file.extend_from_slice(&rest);
    file.extend_from_slice(records);
    file.resize(file.len().next_multiple_of(8), 0);
}

/// The script of a directory that the store made: the reverse of [`build`].
pub(crate) fn describe(files: &Memory) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, bytes) in files.all() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name == "identity" && bytes.len() == 116 {
            out.push(IDENTITY);
            put_block(&mut out, &bytes[16..112]);
        } else if let Some(number) = name.strip_prefix("log-").and_then(|number| number.parse::<u64>().ok()) {
            out.push(SEGMENT);
            out.extend_from_slice(&number.to_le_bytes());
            put_block(&mut out, &bytes[16..160]);
            describe_batches(&mut out, &bytes);
        } else if let Some((index, term)) = name_of_snapshot(&path) {
            describe_snapshot(&mut out, (term, index), &bytes);
        }
    }
    out
}

fn name_of_snapshot(path: &Path) -> Option<(u64, u64)> {
    let name = path.file_name()?.to_str()?.strip_prefix("snapshot-")?;
    let (index, term) = name.split_once('-')?;
    Some((index.parse().ok()?, term.parse().ok()?))
}

fn describe_batches(out: &mut Vec<u8>, file: &[u8]) {
    let mut at = SEGMENT_HEADER_BYTES;
    while file.len() >= at + BATCH_HEADER_BYTES && file[at..].starts_with(b"GBAT") {
        let mut head = Input::new(&file[at + 8..]);
        let (number, length) = (head.u64(), usize::from(head.u16()));
        let end = at + BATCH_HEADER_BYTES + length;
        out.push(BATCH);
        out.extend_from_slice(&number.to_le_bytes());
        out.push(0);
        put_block(out, &file[at + BATCH_HEADER_BYTES..end]);
        at = end.next_multiple_of(8);
    }
    out.push(ZEROS);
    out.extend_from_slice(&u16::try_from(file.len() - at).unwrap_or(u16::MAX).to_le_bytes());
}

/// Of one that has a single frame at the most.
fn describe_snapshot(out: &mut Vec<u8>, (term, index): (u64, u64), file: &[u8]) {
    let meta = usize::from(Input::new(&file[16..]).u16());
    let frames = &file[24 + meta..file.len() - 20];
    out.push(SNAPSHOT);
    out.extend_from_slice(&term.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    put_block(out, &file[20..20 + meta]);
    put_block(out, frames.get(8..).unwrap_or_default());
    out.push(0);
}
