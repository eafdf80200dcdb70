//! The tape against `serde_json::Value`: what is JSON, what it says, and the schemas' verdict.
//! `PENSTOCK_TEST_SEED` replays a failure.

use jsonschema::json::Node;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::*;
use crate::schema::SchemaSet;

const ROUNDS: usize = 20_000;

fn seeded() -> StdRng {
    let seed = std::env::var("PENSTOCK_TEST_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse::<u64>().unwrap());
    println!("PENSTOCK_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn pick(random: &mut StdRng, from: &[&'static str]) -> &'static str {
    from[random.random_range(0..from.len())]
}

/// Random JSON text, with everything that the grammar allows.
fn json(random: &mut StdRng, depth: usize, out: &mut String) {
    let kinds = if depth == 0 { 6 } else { 8 };
    match random.random_range(0..kinds) {
        0 => out.push_str(pick(random, &["null", "true", "false"])),
        1 | 2 => number(random, out),
        3..=5 => string(random, out),
        6 => list(random, '[', ']', out, |random, out| json(random, depth - 1, out)),
        _ => list(random, '{', '}', out, |random, out| {
            string(random, out);
            out.push_str(pick(random, &[":", " :", ": \n", "\t:\r"]));
            json(random, depth - 1, out);
        }),
    }
}

fn list(
    random: &mut StdRng,
    open: char,
    close: char,
    out: &mut String,
    mut item: impl FnMut(&mut StdRng, &mut String),
) {
    out.push(open);
    let count = random.random_range(0..4);
    for index in 0..count {
        out.push_str(pick(random, &["", "", " ", "\n\t"]));
        item(random, out);
        if index + 1 < count {
            out.push_str(pick(random, &[",", " , "]));
        }
    }
    out.push_str(pick(random, &["", "  "]));
    out.push(close);
}

fn number(random: &mut StdRng, out: &mut String) {
    match random.random_range(0..6) {
        0 => out.push_str(&random.random_range(-200i32..400).to_string()),
        1 => out.push_str(&random.random::<i64>().to_string()),
        2 => out.push_str(&random.random::<u64>().to_string()),
        3 => out.push_str(&format!("{:.3}", random.random_range(-300.0..300.0))),
        4 => out.push_str(&format!("{:e}", f64::from_bits(random.random()))),
        _ => out.push_str(pick(
            random,
            &[
                "-0",
                "0.0",
                "-0.0",
                "1e5",
                "1E+2",
                "150.0",
                "1e-400",
                "9007199254740993",
                "18446744073709551616",
                "-9223372036854775809",
                "123456789012345678",
            ],
        )),
    }
}

fn string(random: &mut StdRng, out: &mut String) {
    const PIECES: [&str; 20] = [
        "a",
        "cpu_temp",
        "metrics",
        "device_id",
        "é",
        "😀",
        "\\n",
        "\\\"",
        "\\\\",
        "\\/",
        "\\u0041",
        "\\u00e9",
        "\\ud83d\\ude00",
        "\\uD83D\\uDE00",
        "~",
        "/",
        " ",
        "\\b\\f\\r\\t",
        "\u{7f}",
        "0123456789",
    ];
    out.push('"');
    for _ in 0..random.random_range(0..4) {
        out.push_str(pick(random, &PIECES));
    }
    out.push('"');
}

fn mutate(random: &mut StdRng, text: &mut String) {
    const PIECES: [&str; 24] = [
        "\"", "\\", "\\u12", "{", "}", "[", "]", ",", ":", "0", "01", ".", "e", "-", "nul", " ",
        "\u{1}", "NaN", "+", "é", "\\x", "//", "'", "\u{feff}",
    ];
    for _ in 0..random.random_range(1..3) {
        let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        if boundaries.is_empty() {
            return;
        }
        let at = boundaries[random.random_range(0..boundaries.len())];
        if random.random() {
            text.insert_str(at, pick(random, &PIECES));
        } else {
            text.remove(at);
        }
    }
}

/// The tape's value of a whole text, as `serde_json` would read it.
fn read(tape: &mut Tape, text: &str) -> Result<(Value, Vec<Problem>), SyntaxError> {
    let start = skip_whitespace(text.as_bytes(), 0);
    let parsed = tape.parse(text, start, usize::MAX / 2)?;
    let end = skip_whitespace(text.as_bytes(), parsed.end);
    if end < text.len() {
        return Err(SyntaxError { offset: end, expected: "the end" });
    }
    Ok((parsed.root().to_value().into_owned(), parsed.problems.to_vec()))
}

/// `serde_json` without its feature `float_roundtrip` may miss a float by the last digits.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || (a - b).abs() <= a.abs() * 1e-15 || (a - b).abs() < 1e-300
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        (one, other) => one == other,
    }
}

#[test]
fn it_reads_what_serde_json_reads_and_refuses_what_it_refuses() {
    let mut random = seeded();
    let mut tape = Tape::new();
    let (mut valid, mut invalid) = (0, 0);
    for round in 0..ROUNDS {
        let mut text = String::new();
        json(&mut random, 4, &mut text);
        if round % 2 == 1 {
            mutate(&mut random, &mut text);
        }
        match (read(&mut tape, &text), serde_json::from_str::<Value>(&text)) {
            (Ok((ours, problems)), Ok(theirs)) => {
                valid += 1;
                assert!(same(&ours, &theirs), "{text}\n{ours}\n{theirs}");
                let duplicates = |p: &Problem| p.kind == ProblemKind::DuplicateKey;
                assert!(problems.iter().all(duplicates), "{text}\n{problems:?}");
            }
            (Err(_), Err(_)) => invalid += 1,
            // What it refuses beyond the grammar is a problem here.
            (Ok((_, problems)), Err(_)) => assert!(
                problems.iter().any(|p| matches!(
                    p.kind,
                    ProblemKind::NumberOutOfRange | ProblemKind::LoneSurrogate
                )),
                "{text}"
            ),
            (Err(error), Ok(_)) => panic!("{text}: {error}"),
        }
    }
    assert!(valid > ROUNDS / 2 && invalid > ROUNDS / 8, "{valid} valid, {invalid} invalid");
}

/// A valid event, or one in which some things are replaced.
fn event(random: &mut StdRng) -> String {
    let mut text = r#"{"event_id":"018f3c2a-7b1e-7c3d-9a4f-000000000001","device_id":"press-1","device_firmware_version":"1.4.2","timestamp":"2026-01-15T08:30:00Z","metrics":{"cpu_temp":61.5,"vibration_rms":2.31,"supply_voltage":23.9,"humidity":41},"diagnostics":{"a":1}}"#.to_owned();
    for _ in 0..random.random_range(0..3) {
        let places = [
            "61.5",
            "2.31",
            "23.9",
            "\"press-1\"",
            "\"metrics\"",
            "\"cpu_temp\"",
            "\"humidity\"",
            "{\"a\":1}",
            "\"1.4.2\"",
            "41",
            "\"device_id\"",
        ];
        let mut value = String::new();
        let place = pick(random, &places);
        match random.random_range(0..4) {
            0 => string(random, &mut value),
            1 => number(random, &mut value),
            2 => value.push_str(pick(
                random,
                &[
                    "-40",
                    "-40.1",
                    "150",
                    "150.5",
                    "1000",
                    "1000.5",
                    "\"\"",
                    "null",
                    "\"p\\u0031\"",
                    "\"-x\"",
                    "\"cpu_t\\u0065mp\"",
                    "\"a b\"",
                    "\"m\\u00e9\"",
                ],
            )),
            _ => json(random, 2, &mut value),
        }
        text = text.replacen(place, &value, 1);
    }
    text
}

#[test]
fn the_schemas_give_the_verdict_that_they_give_on_a_document() {
    let mut random = seeded();
    let set = SchemaSet::baked().unwrap();
    let plain: Vec<_> =
        set.schemas().iter().map(|s| jsonschema::validator_for(s.document()).unwrap()).collect();
    let mut tape = Tape::new();
    let mut verdicts = [0; 2];
    for _ in 0..ROUNDS {
        let text = event(&mut random);
        let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
        let parsed = tape.parse(&text, 0, 1 << 20).unwrap();
        if !parsed.problems.is_empty() {
            continue;
        }
        for (schema, plain) in set.schemas().iter().zip(&plain) {
            let verdict = schema.validator().is_valid(parsed.root());
            assert_eq!(verdict, plain.is_valid(&value), "v{}: {text}", schema.version());
            verdicts[usize::from(verdict)] += 1;
            let errors = |errors: &mut dyn Iterator<Item = String>| {
                let mut errors: Vec<_> = errors.collect();
                errors.sort_unstable();
                errors
            };
            let show = |e: jsonschema::ValidationError<'_>| {
                format!("{} {} {e}", e.instance_path(), e.kind().keyword())
            };
            let ours = errors(&mut schema.validator().iter_errors(parsed.root()).map(show));
            let theirs = errors(&mut plain.iter_errors(&value).map(show));
            assert_eq!(ours, theirs, "v{}: {text}", schema.version());
        }
    }
    assert!(verdicts.iter().all(|count| *count > ROUNDS / 8), "{verdicts:?}");
}

#[test]
fn numbers_are_rounded_correctly() {
    let mut random = seeded();
    let mut tape = Tape::new();
    for _ in 0..ROUNDS {
        let mut text = String::new();
        number(&mut random, &mut text);
        let value: f64 = text.parse().unwrap();
        let parsed = tape.parse(&text, 0, 100).unwrap();
        if value.is_finite() {
            let ours = f64::from_bits(parsed.root().slot().data);
            assert_eq!(ours.to_bits(), value.to_bits(), "{text}");
        } else {
            assert_eq!(parsed.problems[0].kind, ProblemKind::NumberOutOfRange, "{text}");
        }
    }
}

#[test]
fn syntax_errors_say_where_and_what() {
    let mut tape = Tape::new();
    for (text, offset, expected) in [
        ("", 0, "a value"),
        ("{", 1, "a name in quotes or '}'"),
        ("{,", 1, "a name in quotes or '}'"),
        ("{\"a\"", 4, "':'"),
        ("{\"a\":1,}", 7, "a name in quotes"),
        ("{\"a\":1]", 6, "',' or '}'"),
        ("[1}", 2, "',' or ']'"),
        ("[1,]", 3, "a value"),
        ("[,1]", 1, "a value"),
        ("\"abc", 4, "the closing '\"' of a string"),
        ("\"a\nb\"", 2, "an escape instead of a control character"),
        ("\"a\\q\"", 2, "an escape such as \\n or \\u0041"),
        ("\"\\u12g4\"", 1, "four hexadecimal digits after \\u"),
        ("-", 1, "a digit"),
        ("1.x", 2, "a digit"),
        ("1e+", 3, "a digit"),
        ("tru", 0, "a value"),
    ] {
        let error = tape.parse(text, 0, 100).unwrap_err();
        assert_eq!((error.offset, error.expected), (offset, expected), "{text}");
    }
}

#[test]
fn a_value_over_its_limit_is_read_to_its_end_and_keeps_what_came_before() {
    let mut tape = Tape::new();
    let text = r#"{"a":"x","b":{"c":[1,2,{"d":"long enough"}]},"e":1} rest"#;
    for limit in 0..text.len() {
        let parsed = tape.parse(text, 0, limit).unwrap();
        assert_eq!(&text[parsed.end..], " rest");
        let too_large = parsed.problems.iter().any(|p| p.kind == ProblemKind::TooLarge);
        assert_eq!(too_large, limit < parsed.end);
        // Whatever there is can be walked through.
        let _ = parsed.root().to_value();
        let a = parsed.root().member("a").and_then(|node| node.as_text());
        assert_eq!(a.is_some(), limit >= r#"{"a":"x"#.len(), "{limit}");
    }
}

#[test]
fn slots_of_a_large_value_are_given_back() {
    let mut tape = Tape::new();
    let large = format!("[{}0]", "0,".repeat(100_000));
    tape.parse(&large, 0, usize::MAX / 2).unwrap();
    assert!(tape.slots.capacity() > SLOTS_KEPT_MAX);
    tape.parse("{}", 0, 2).unwrap();
    assert!(tape.slots.capacity() <= SLOTS_KEPT_MAX);
}
