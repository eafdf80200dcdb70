//! Random bodies: admission never panics, and what it accepts is a piece of the body, unchanged.
//! `PENSTOCK_TEST_SEED` replays a failure.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const ROUNDS: usize = 20_000;

fn seeded() -> StdRng {
    let seed = std::env::var("PENSTOCK_TEST_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse::<u64>().unwrap());
    println!("PENSTOCK_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Changes a few places of a body in ways that JSON parsers trip over.
fn mutate(random: &mut StdRng, body: &mut Vec<u8>) {
    const PIECES: [&[u8]; 22] = [
        b"\"",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"1e999",
        b"-",
        b"0",
        b".",
        b"null",
        b"\xff",
        b"\xc3\xa9",
        b"\n",
        b" ",
        b"\"metrics\":{}",
        b"\"device_id\":",
        b"\0",
    ];
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=body.len());
        let to = (at + random.random_range(0..8)).min(body.len());
        match random.random_range(0..4) {
            0 => drop(body.drain(at..to)),
            1 => {
                let copy = body[at..to].to_vec();
                body.splice(at..at, copy);
            }
            2 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                body.splice(at..at, piece.iter().copied());
            }
            _ => {
                if let Some(byte) = body.get_mut(at) {
                    *byte = random.random();
                }
            }
        }
    }
}

#[test]
fn mutated_bodies_are_never_accepted_altered() {
    let mut random = seeded();
    let mut accepted = 0;
    for _ in 0..ROUNDS {
        let count = random.random_range(0..4);
        let ndjson: bool = random.random();
        let text = if ndjson {
            events(count).join("\n")
        } else {
            format!("[{}]", events(count).join(","))
        };
        let mut body = text.into_bytes();
        mutate(&mut random, &mut body);
        let body = Bytes::from(body);
        let content_type = if ndjson { NDJSON } else { JSON };
        let Ok(admission) = admit(content_type, body.clone()) else { continue };
        accepted += admission.accepted();
        let mut last_end = body.as_ptr();
        for entry in &admission.entries {
            let payload = match entry {
                Entry::Event(event) => &event.payload,
                Entry::DeadLetter(letter) => &letter.payload,
            };
            let range = payload.as_ptr_range();
            assert!(range.start >= last_end && range.end <= body.as_ptr_range().end);
            last_end = range.end;
        }
    }
    assert!(accepted > ROUNDS / 4, "only {accepted} accepted: the mutations tell nothing");
}

#[test]
fn random_bytes_never_panic() {
    let mut random = seeded();
    let codings = [None, Some("gzip"), Some("zstd")];
    for round in 0..ROUNDS {
        let length = random.random_range(0..64);
        let mut body: Vec<u8> = (0..length).map(|_| random.random()).collect();
        match round % 8 {
            0 => body.splice(0..0, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0]).for_each(drop),
            1 => body.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]).for_each(drop),
            _ => {}
        }
        let content_type = [JSON, NDJSON][round % 2];
        let content_encoding = codings[random.random_range(0..codings.len())];
        let request = Request { content_encoding, ..request(content_type, body) };
        if let Ok(admission) = admitter().admit(request) {
            assert_eq!(admission.accepted(), 0);
        }
    }
}
