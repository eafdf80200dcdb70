//! Bodies as a whole: layouts, limits, encodings, and each kind of bad input.

use std::io::Write;

use super::*;

fn payloads(admission: &Admission) -> Vec<Bytes> {
    let payload = |entry: &Entry| match entry {
        Entry::Event(event) => event.payload.clone(),
        Entry::DeadLetter(letter) => letter.payload.clone(),
    };
    admission.entries.iter().map(payload).collect()
}

#[test]
fn one_event_an_array_and_lines_give_the_exact_bytes() {
    let spaced = format!("\r\n\t {} \n", event(1));
    assert_eq!(payloads(&admit(JSON, spaced).unwrap()), [event(1)]);
    let array = format!(" [ {} ,\n{}\t] ", event(1), event(2));
    assert_eq!(payloads(&admit(JSON, array).unwrap()), [event(1), event(2)]);
    let lines = format!("\n{}\r\n\r\n  {}\t\n{}", event(1), event(2), event(3));
    assert_eq!(payloads(&admit(NDJSON, lines).unwrap()), [event(1), event(2), event(3)]);
}

#[test]
fn payloads_are_not_copied() {
    let body = Bytes::from(format!("[{},{}]", event(1), event(2)));
    let range = body.as_ptr_range();
    for payload in payloads(&admit(JSON, body).unwrap()) {
        assert!(range.contains(&payload.as_ptr()));
    }
}

#[test]
fn nothing_in_the_body_is_refused() {
    for (content_type, body) in [
        (JSON, ""),
        (JSON, " \n"),
        (JSON, "[]"),
        (JSON, " [ \n] "),
        (NDJSON, ""),
        (NDJSON, "\n\r\n \n"),
    ] {
        assert_eq!(admit(content_type, body), Err(Refusal::Empty), "{body:?}");
    }
}

#[test]
fn a_hundred_events_are_taken_and_one_more_is_not() {
    let array = |count| format!("[{}]", events(count).join(","));
    assert_eq!(admit(JSON, array(100)).unwrap().accepted(), 100);
    assert_eq!(admit(JSON, array(101)), Err(Refusal::TooManyEvents));
    assert_eq!(admit(NDJSON, events(100).join("\n")).unwrap().accepted(), 100);
    assert_eq!(admit(NDJSON, events(101).join("\n")), Err(Refusal::TooManyEvents));
    // Broken lines count as well.
    assert_eq!(admit(NDJSON, "x\n".repeat(101)), Err(Refusal::TooManyEvents));
}

#[test]
fn a_body_of_two_mebibytes_is_refused() {
    let body = vec![b' '; 2 << 20];
    assert_eq!(admit(JSON, body), Err(Refusal::BodyTooLarge));
    let mut most = event(1).into_bytes();
    most.resize(BODY_BYTES_MAX, b' ');
    assert_eq!(admit(JSON, most).unwrap().accepted(), 1);
}

#[test]
fn an_event_over_its_limit_is_rejected_alone() {
    let padded = |bytes: usize| {
        let event = with("}}", &format!("}},\"diagnostics\":{{\"pad\":\"{}\"}}}}", "P"));
        event.replacen('P', &"p".repeat(bytes + 1 - event.len()), 1)
    };
    assert_eq!(padded(EVENT_BYTES_MAX).len(), EVENT_BYTES_MAX);
    let bodies = [event(2), padded(EVENT_BYTES_MAX), padded(EVENT_BYTES_MAX + 1), event(3)];
    let admission = admit(JSON, format!("[{}]", bodies.join(","))).unwrap();
    assert_eq!(reasons(&admission), [None, None, Some(Reason::TooLarge), None]);
    assert_eq!(payloads(&admission), bodies);
    let rejection = admission.outcomes[2].rejection().unwrap();
    assert_eq!(rejection.errors[0].got, format!("{} bytes", EVENT_BYTES_MAX + 1));
    assert_eq!(rejection.event_id.as_deref(), Some("018f3c2a-7b1e-7c3d-9a4f-000000000001"));
    let scalar = format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX));
    assert_eq!(reasons(&admit(JSON, scalar).unwrap()), [Some(Reason::TooLarge)]);
}

#[test]
fn content_types() {
    for good in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"; x=y",
        "application/json;",
    ] {
        assert_eq!(admit(good, event(1)).unwrap().accepted(), 1, "{good}");
    }
    for bad in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "application/json; charset",
        "application/jsonx",
        "",
    ] {
        assert_eq!(admit(bad, event(1)), Err(Refusal::MediaType(bad.to_owned())));
    }
    let missing = Request { content_type: None, ..request(JSON, event(1)) };
    assert_eq!(admitter().admit(missing), Err(Refusal::MediaType(String::new())));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn encoded(coding: &str, body: Vec<u8>) -> Result<Admission, Refusal> {
    let admission =
        admitter().admit(Request { content_encoding: Some(coding), ..request(JSON, body) })?;
    check(&admission);
    Ok(admission)
}

#[test]
fn compressed_bodies_give_the_bytes_before_compression() {
    let body = format!("[{}]", events(100).join(","));
    for (coding, bytes) in [
        ("gzip", gzip(body.as_bytes())),
        ("x-gzip", [gzip(&body.as_bytes()[..500]), gzip(&body.as_bytes()[500..])].concat()),
        ("ZSTD", zstd(body.as_bytes())),
        ("zstd", [zstd(&body.as_bytes()[..500]), zstd(&body.as_bytes()[500..])].concat()),
        ("identity", body.clone().into_bytes()),
    ] {
        let admission = encoded(coding, bytes).unwrap();
        assert_eq!(payloads(&admission), events(100), "{coding}");
    }
    for coding in ["br", "gzip, gzip", "deflate"] {
        let refused = encoded(coding, gzip(body.as_bytes()));
        assert_eq!(refused, Err(Refusal::Encoding(coding.to_owned())));
    }
}

#[test]
fn compressed_bombs_are_refused_at_the_bound() {
    let bomb = vec![b' '; 512 << 20];
    let (gzip, zstd) = (gzip(&bomb), zstd(&bomb));
    drop(bomb);
    assert!(gzip.len() < BODY_BYTES_MAX && zstd.len() < BODY_BYTES_MAX);
    assert_eq!(encoded("gzip", gzip), Err(Refusal::BodyTooLarge));
    assert_eq!(encoded("zstd", zstd), Err(Refusal::BodyTooLarge));
    // A frame that asks for a window of 128 MiB is refused before it is given one.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(event(1).as_bytes()).unwrap();
    let frame = encoder.finish().unwrap();
    assert_eq!(reasons(&encoded("zstd", frame).unwrap()), [Some(Reason::UndecodableBody)]);
}

#[test]
fn a_damaged_encoding_is_one_dead_letter_with_the_bytes_as_sent() {
    let body = event(1);
    for (coding, whole) in [("gzip", gzip(body.as_bytes())), ("zstd", zstd(body.as_bytes()))] {
        let cut = whole[..whole.len() - 5].to_vec();
        for bytes in [cut, body.clone().into_bytes()] {
            let admission = encoded(coding, bytes.clone()).unwrap();
            assert!(admission.unreadable);
            assert_eq!(reasons(&admission), [Some(Reason::UndecodableBody)]);
            assert_eq!(payloads(&admission), [bytes]);
        }
    }
}

#[test]
fn broken_json_in_an_array_is_the_whole_body_with_index_and_offset() {
    let body = format!("[{},{},{{\"event_id\": nope}},{}]", event(0), event(1), event(3));
    let admission = admit(JSON, body.clone()).unwrap();
    assert!(admission.unreadable);
    assert_eq!(admission.accepted(), 0);
    assert_eq!(payloads(&admission), [body.as_str()]);
    assert_eq!(admission.outcomes[0].index, 2);
    let rejection = admission.outcomes[0].rejection().unwrap();
    assert_eq!(rejection.reason, Reason::MalformedJson);
    assert_eq!(rejection.errors[0].offset, body.find("nope"));
    assert_eq!(rejection.errors[0].rule, "json");
    for (broken, index) in [
        (format!("[{}", event(0)), 1),
        (format!("[{},]", event(0)), 1),
        (format!("[{} {}]", event(0), event(1)), 1),
        (format!("{} {}", event(0), event(1)), 1),
        (format!("[{}]]", event(0)), 1),
        (format!("\u{feff}{}", event(0)), 0),
        (event(0)[..100].to_owned(), 0),
    ] {
        let admission = admit(JSON, broken.clone()).unwrap();
        assert!(admission.unreadable, "{broken}");
        assert_eq!(admission.outcomes[0].index, index, "{broken}");
        assert_eq!(payloads(&admission), [broken]);
    }
}

#[test]
fn a_broken_line_concerns_itself_only() {
    let mut body = Vec::new();
    let lines: [&[u8]; 7] = [
        event(0).leak().as_bytes(),
        b"{\"event_id\":",
        b"{\"device_id\":\"\xff\"}",
        b"[1]",
        format!("{}{}", event(4), event(4)).leak().as_bytes(),
        b"null",
        event(6).leak().as_bytes(),
    ];
    for line in lines {
        body.extend_from_slice(line);
        body.push(b'\n');
    }
    let admission = admit(NDJSON, body.clone()).unwrap();
    let malformed = Some(Reason::MalformedJson);
    let no_object = Some(Reason::NotAnObject);
    let expected = [None, malformed, malformed, no_object, malformed, no_object, None];
    assert_eq!(reasons(&admission), expected);
    assert_eq!(payloads(&admission), lines);
    let offset = |index: usize| admission.outcomes[index].rejection().unwrap().errors[0].offset;
    assert_eq!(offset(1), Some(event(0).len() + 1 + lines[1].len()));
    assert_eq!(offset(2), body.iter().position(|byte| *byte == 0xff));
}

#[test]
fn invalid_utf8_in_an_array_names_the_event_and_the_byte() {
    let mut body = format!("[{},{}]", event(0), with("press-1", "press-!")).into_bytes();
    let at = body.iter().rposition(|byte| *byte == b'!').unwrap();
    body[at] = 0xc3;
    let admission = admit(JSON, body).unwrap();
    assert_eq!(admission.outcomes[0].index, 1);
    let rejection = admission.outcomes[0].rejection().unwrap();
    assert_eq!(rejection.reason, Reason::MalformedJson);
    assert_eq!((rejection.errors[0].rule.as_str(), rejection.errors[0].offset), ("utf8", Some(at)));
}

#[test]
fn elements_that_are_no_objects_are_rejected_one_by_one() {
    let body = format!("[1, {}, \"x\", null, [{{}}], true]", event(1));
    let admission = admit(JSON, body).unwrap();
    let no = Some(Reason::NotAnObject);
    assert_eq!(reasons(&admission), [no, None, no, no, no, no]);
}

#[test]
fn what_is_no_json_number_or_not_finite() {
    for literal in ["NaN", "Infinity", "-Infinity", "+1", "01", ".5", "1.", "1e", "0x10", "--1"] {
        let rejection = rejection(with("61.5", literal));
        assert_eq!(rejection.reason, Reason::MalformedJson, "{literal}");
    }
    for literal in ["1e999", "-1e999", "1e309", &"9".repeat(400)] {
        let rejection = rejection(with("61.5", literal));
        assert_eq!(rejection.reason, Reason::NumberOutOfRange, "{literal}");
        assert_eq!(rejection.errors[0].pointer, "/metrics/cpu_temp");
    }
    for literal in ["0", "-0", "1e2", "1E-400", "6.15e+1", "-40", "150", "150.0"] {
        assert_eq!(admit(JSON, with("61.5", literal)).unwrap().accepted(), 1, "{literal}");
    }
    for literal in ["150.00000000000003", "-40.1", "1e3"] {
        assert_eq!(rejection(with("61.5", literal)).reason, Reason::SchemaViolation, "{literal}");
    }
}

#[test]
fn duplicate_names_are_refused_where_the_pipeline_reads() {
    for (from, to, pointer) in [
        (r#""device_id""#, r#""device_id":"other","device_id""#, "/device_id"),
        (r#""device_id""#, r#""devic\u0065_id":"other","device_id""#, "/device_id"),
        (r#""metrics""#, r#""metrics":{},"metrics""#, "/metrics"),
        (r#""metrics""#, r#""a/b~":1,"a/b~":1,"metrics""#, "/a~1b~0"),
        (r#""cpu_temp""#, r#""cpu_temp":1,"cpu_temp""#, "/metrics/cpu_temp"),
        (r#""metrics":{"#, r#""m\u0065trics":{"cpu_temp":1,"#, "/metrics/cpu_temp"),
    ] {
        let rejection = rejection(with(from, to));
        assert_eq!(rejection.reason, Reason::DuplicateKey, "{to}");
        assert_eq!(rejection.errors[0].pointer, pointer, "{to}");
    }
    // Many names, sorted instead of compared.
    let names: String = (0..50).map(|n| format!("\"x{n}\":1,")).collect();
    assert_eq!(
        admit(JSON, with("\"device_id\"", &format!("{names}\"device_id\""))).unwrap().accepted(),
        1
    );
    let twice = rejection(with("\"device_id\"", &format!("{names}\"x7\":2,\"device_id\"")));
    assert_eq!((twice.reason, twice.errors[0].pointer.as_str()), (Reason::DuplicateKey, "/x7"));
    // Free-form objects may repeat names.
    let free =
        with("}}", "}},\"diagnostics\":{\"a\":1,\"a\":{\"b\":1,\"b\":2}}}".trim_start_matches('}'));
    assert_eq!(admit(JSON, free.replacen("23.9", "23.9}", 1)).unwrap().accepted(), 1);
}

#[test]
fn nesting_to_the_limit_is_taken_and_deeper_is_rejected_without_recursion() {
    let nested = |levels: usize| {
        let value = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        with("\"metrics\"", &format!("\"x\":{value},\"metrics\""))
    };
    // The event itself is the first level.
    assert_eq!(admit(JSON, nested(63)).unwrap().accepted(), 1);
    assert_eq!(rejection(nested(64)).reason, Reason::TooDeep);
    assert_eq!(rejection(nested(30_000)).reason, Reason::TooDeep);
    assert_eq!(rejection(nested(400_000)).reason, Reason::TooLarge);
    // Its neighbours are not harmed.
    let admission = admit(JSON, format!("[{},{}]", nested(64), event(2))).unwrap();
    assert_eq!(reasons(&admission), [Some(Reason::TooDeep), None]);
    let rejection = rejection(vec![b'['; 1 << 20]);
    assert_eq!(rejection.reason, Reason::MalformedJson);
}

#[test]
fn lone_surrogates_are_rejected_and_pairs_are_not() {
    for text in [r"\ud83d", r"\ude00", r"\ud83dx", r"\ud83d\n", r"\ud83d\ud83d", r"\uDE00\uD83D"] {
        let rejection =
            rejection(with("}}", &format!("}},\"diagnostics\":{{\"d\":\"{text}\"}}}}")));
        assert_eq!(rejection.reason, Reason::LoneSurrogate, "{text}");
        assert_eq!(rejection.errors[0].pointer, "/diagnostics/d", "{text}");
    }
    for text in [r"\ud83d\ude00", r"\u0041\u00e9\u20ac", r#"\"\\\/\b\f\n\r\t"#] {
        let event = with("}}", &format!("}},\"diagnostics\":{{\"d\":\"{text}\"}}}}"));
        assert_eq!(admit(JSON, event).unwrap().accepted(), 1, "{text}");
    }
}
