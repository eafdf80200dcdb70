//! The fields, their errors, the flags.

use super::*;

#[test]
fn unknown_firmware_lists_what_is_known_and_still_checks_the_envelope() {
    let rejection = rejection(with("1.4.2", "7.0.0").replace("\"timestamp\"", "\"time\""));
    assert_eq!(rejection.reason, Reason::UnknownFirmware);
    assert_eq!(rejection.errors[0].pointer, "/device_firmware_version");
    assert!(rejection.errors[0].expected.contains("<2.0.0 (schema 1)"), "{rejection:?}");
    assert_eq!(rejection.errors[0].got, "\"7.0.0\"");
    assert_eq!(rejection.errors[1].pointer, "/timestamp");
    assert_eq!(rejection.event_id.as_deref(), Some("018f3c2a-7b1e-7c3d-9a4f-000000000001"));
}

#[test]
fn every_error_of_an_event_is_listed_up_to_the_limit() {
    let body = r#"{"event_id":7,"device_id":"","device_firmware_version":"1.0.0","metrics":{"cpu_temp":900,"vibration_rms":"x","a b":1}}"#;
    let rejection = rejection(body);
    let mut found: Vec<_> =
        rejection.errors.iter().map(|e| (e.pointer.as_str(), e.rule.as_str())).collect();
    found.sort_unstable();
    let expected = [
        ("/device_id", "pattern"),
        ("/event_id", "type"),
        ("/metrics/a b", "propertyNames"),
        ("/metrics/cpu_temp", "maximum"),
        ("/metrics/supply_voltage", "required"),
        ("/metrics/vibration_rms", "type"),
        ("/timestamp", "required"),
    ];
    assert_eq!(found, expected);
    let maximum = rejection.errors.iter().find(|e| e.rule == "maximum").unwrap();
    assert_eq!((maximum.expected.as_str(), maximum.got.as_str()), ("at most 150", "900"));
    let many: Vec<_> = (0..60).map(|n| format!("\"m{n}\":null")).collect();
    let many = with("\"cpu_temp\"", &format!("{},\"cpu_temp\"", many.join(",")));
    assert_eq!(super::rejection(many).errors.len(), ERRORS_MAX);
    let long = "k".repeat(10_000);
    let long =
        super::rejection(with("\"cpu_temp\"", &format!("\"{long}\":\"{long}\",\"cpu_temp\"")));
    for error in &long.errors {
        assert!(error.pointer.len() + error.expected.len() + error.got.len() < 600, "{error:?}");
    }
}

#[test]
fn timestamps() {
    let at = |text: &str| admit(with("2026-01-15T08:30:00Z", text));
    for good in [
        "2026-01-15T08:30:00.123456789Z",
        "2026-01-15t08:30:00z",
        "2026-01-15T10:30:00+02:00",
        "2026-01-15T08:30:00-00:00",
        "2016-12-31T23:59:60Z",
        "1970-01-01T00:00:00Z",
    ] {
        assert!(at(good).is_ok(), "{good}");
    }
    for bad in [
        "2026-01-15 08:30:00Z",
        "2026-01-15T08:30:00",
        "2026-01-15T08:30Z",
        "20260115T083000Z",
        "2026-02-30T00:00:00Z",
        "2026-01-15T24:00:00Z",
        "2026-01-15T08:30:00.Z",
        "2026-01-15T08:30:00+0200",
        "2026-01-15T08:30:00Z[Europe/Berlin]",
        "1969-12-31T23:59:59Z",
        "+002026-01-15T08:30:00Z",
        "1768465800",
        "",
    ] {
        assert_eq!(at(bad).unwrap_err().rejection.reason, Reason::SchemaViolation, "{bad}");
    }
}

#[test]
fn event_ids() {
    let id = "018f3c2a-7b1e-7c3d-9a4f-000000000001";
    for bad in [
        "00000000-0000-0000-0000-000000000000",
        "018f3c2a7b1e7c3d9a4f000000000001",
        "{018f3c2a-7b1e-7c3d-9a4f-000000000001}",
        "018f3c2a-7b1e-7c3d-9a4f-00000000000g",
        "018f3c2a-7b1e-7c3d-9a4f-00000000000é",
    ] {
        let rejection = rejection(with(id, bad));
        assert_eq!(rejection.errors[0].pointer, "/event_id", "{bad}");
        assert_eq!(rejection.event_id.as_deref(), Some(bad));
    }
    assert_eq!(admit(with(id, &id.to_uppercase())).unwrap().event_id.to_string(), id);
}

#[test]
fn flags_follow_the_clocks_and_the_schema() {
    let flags =
        |body: String, received_at| super::admit_at(body, received_at).expect("a good event").flags;
    let hour = 3_600_000_000;
    assert_eq!(flags(event(1), RECEIVED_AT), Flags::NONE);
    assert_eq!(flags(event(1), UnixMicros(RECEIVED_AT.0 + hour)), Flags::LATE);
    assert_eq!(flags(event(1), UnixMicros(RECEIVED_AT.0 - hour)), Flags::CLOCK_AHEAD);
    assert_eq!(flags(event(1), UnixMicros(hour)), Flags::CLOCK_UNSET);
    let field = with("\"metrics\"", "\"site\":null,\"metrics\"");
    assert_eq!(flags(field, RECEIVED_AT), Flags::UNKNOWN_FIELDS);
    // humidity is known from version 2 on.
    let metric = with("\"cpu_temp\"", "\"humidity\":4,\"cpu_temp\"");
    assert_eq!(flags(metric.clone(), RECEIVED_AT), Flags::UNKNOWN_FIELDS);
    assert_eq!(flags(metric.replace("1.4.2", "2.0.0"), RECEIVED_AT), Flags::NONE);
}
