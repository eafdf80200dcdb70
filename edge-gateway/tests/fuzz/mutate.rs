//! Changes of bytes that parsers trip over.

use rand::RngExt;
use rand::rngs::StdRng;

/// Changes at most.
const CHANGES_MAX: usize = 6;
/// A case does not grow beyond this.
const BYTES_MAX: usize = 64 << 10;

/// Numbers at the ends of their types.
const NUMBERS: [u32; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x0100_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// Changes some places of a case; `pieces` mean something to its parser, `other` is another case.
pub(crate) fn mutate(random: &mut StdRng, case: &mut Vec<u8>, pieces: &[&[u8]], other: &[u8]) {
    for _ in 0..random.random_range(1..=CHANGES_MAX) {
        change(random, case, pieces, other);
        case.truncate(BYTES_MAX);
    }
}

fn change(random: &mut StdRng, case: &mut Vec<u8>, pieces: &[&[u8]], other: &[u8]) {
    let at = random.random_range(0..=case.len());
    let longest = if random.random_bool(0.1) { 4_096 } else { 12 };
    let to = (at + random.random_range(0..longest)).min(case.len());
    let piece = pieces[random.random_range(0..pieces.len())];
    match random.random_range(0..11) {
        0 => drop(case.drain(at..to)),
        1 => {
            let copy = case[at..to].to_vec();
            case.splice(at..at, copy);
        }
        2 | 3 => drop(case.splice(at..at, piece.iter().copied())),
        4 => {
            let to = (at + piece.len()).min(case.len());
            case.splice(at..to, piece.iter().copied());
        }
        5 => {
            if let Some(byte) = case.get_mut(at) {
                *byte = random.random();
            }
        }
        6 => {
            if let Some(byte) = case.get_mut(at) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        7 => {
            let number = NUMBERS[random.random_range(0..NUMBERS.len())].to_le_bytes();
            let to = (at + number.len()).min(case.len());
            case.splice(at..to, number);
        }
        // The begin of one and the end of another.
        8 => {
            let from = random.random_range(0..=other.len());
            case.truncate(at);
            case.extend_from_slice(&other[from..]);
        }
        9 if random.random_bool(0.3) => case.truncate(at),
        // Much of the same: depth, length.
        10 if random.random_bool(0.1) => {
            let times = random.random_range(1..2_000);
            case.splice(at..at, piece.repeat(times));
        }
        _ => {}
    }
}
