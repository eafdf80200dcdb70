use super::*;
use crate::ledger::verdict::{Judged, Missing};

const NOW: UnixMicros = UnixMicros(1_767_225_600_000_000);

fn answer() -> GatewayAnswer {
    let verdict =
        Verdict { received: 100, stored: 90, dead_lettered: 7, missing: 3, ..Verdict::default() };
    GatewayAnswer {
        gateway: "plant-7".into(),
        status_at: Some(NOW.0 - 90_000_000),
        pending: 4,
        epochs: vec![EpochAnswer {
            epoch: 255,
            range: 0..100,
            judged: Judged { verdict, missing: vec![Missing { range: 5..8, numbers: 3 }] },
            is_declared: true,
            ..EpochAnswer::default()
        }],
        noticed: vec![(255, 5..8, NOW.0 - 1_000_000)],
        ..GatewayAnswer::default()
    }
}

#[test]
fn missing_numbers_are_named_and_silence_is_said() {
    let answer = Answer::of(&Question::default(), vec![answer()], NOW, 60_000);
    assert_eq!((answer.total.received, answer.total.missing), (100, 3));
    let text = answer.to_text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0].split_whitespace().next(), Some("gateway"));
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>(),
        ["plant-7", "100", "90", "0", "7", "0", "0", "3", "0"]
    );
    assert_eq!(
        lines[3],
        "MISSING: plant-7/00000000000000ff/5..8 (3 numbers, noticed 2025-12-31T23:59:59Z)"
    );
    assert_eq!(
        lines[4],
        "not proven: plant-7: silent since 2025-12-31T23:58:30Z: what it received after that \
         is not known"
    );
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["gateways"][0]["missing"], 3);
    assert_eq!(json["gateways"][0]["missing_ranges"][0]["from_seq"], 5);
}

#[test]
fn what_can_not_be_vouched_for_is_said() {
    let mut one = answer();
    one.status_at = Some(NOW.0);
    one.damaged_more = 2;
    one.epochs[0].is_gone = true;
    let undeclared = EpochAnswer { epoch: 7, ..EpochAnswer::default() };
    one.epochs.extend(vec![undeclared; 7]);
    let answer = Answer::of(&Question::default(), vec![one], NOW, 60_000);
    let said = &answer.gateways[0].unproven;
    assert!(said[0].contains("no status ever declared") && said[0].contains("and 2 more"));
    assert!(said[1].contains("no longer has it") && said[2].contains("2 more numbers"));
    let never = GatewayAnswer { gateway: "g".into(), ..GatewayAnswer::default() };
    let answer = Answer::of(&Question::default(), vec![never], NOW, 60_000);
    assert!(answer.gateways[0].unproven[0].contains("never sent a status"));
}
