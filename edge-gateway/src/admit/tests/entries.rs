//! What the entries of a body carry.

use super::*;

#[test]
fn entries_carry_fleet_schema_time_and_trace() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let body = format!("[{},{}]", event(1), with("61.5", "900"));
    let request = Request { traceparent: Some(trace.clone()), ..request(JSON, body) };
    let admission = admitter().admit(request).unwrap();
    let (Entry::Event(event), Entry::DeadLetter(letter)) =
        (&admission.entries[0], &admission.entries[1])
    else {
        panic!("{admission:?}");
    };
    assert_eq!((event.fleet.as_ref(), event.schema_version), ("plant-7", 1));
    assert_eq!((event.received_at, event.traceparent.as_ref()), (RECEIVED_AT, Some(&trace)));
    assert_eq!((letter.fleet.as_ref(), letter.schema_version), ("plant-7", Some(1)));
    assert_eq!((letter.first_seen, letter.traceparent.as_ref()), (RECEIVED_AT, Some(&trace)));
    assert_eq!(letter.device_id.as_deref(), Some("press-1"));
}
