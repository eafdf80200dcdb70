//! What is answered to a message with rejected events: the body that HTTP would have answered, on
//! the error topic (docs/contracts/mqtt.md). Pure.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use serde_json::Value;

use crate::admit::{Admission, Refusal};
use crate::listen::answer::summary;
use crate::listen::problem::Problem;

/// The largest answer, in bytes, whatever the broker takes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The user property that has the status.
const STATUS_PROPERTY: &str = "penstock-status";

/// An answer, to be published.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) payload: Vec<u8>,
    pub(super) properties: PublishProperties,
}

/// The answer to `publish`, no larger than the broker takes; `None` if not even a short one fits.
pub(super) fn build(
    topic: &str,
    publish: &Publish,
    admission: &Admission,
    refusal: Option<&Refusal>,
    packet_bytes_max: usize,
) -> Option<Answer> {
    let answer = match refusal {
        Some(refusal) => Err(Problem::from(refusal.clone())),
        None => summary(admission),
    };
    let (status, content_type, mut body) = match answer {
        Ok((status, body)) => (status, "application/json", body),
        Err(problem) => (problem.kind.status(), "application/problem+json", problem.into_json()),
    };
    let bytes_max = packet_bytes_max.min(ANSWER_BYTES_MAX);
    let given = publish.properties.as_ref();
    let mut properties = PublishProperties {
        payload_format_indicator: Some(1),
        correlation_data: given.and_then(|given| given.correlation_data.clone()),
        user_properties: given.map(|given| given.user_properties.clone()).unwrap_or_default(),
        content_type: Some(content_type.to_owned()),
        ..PublishProperties::default()
    };
    properties.user_properties.push((STATUS_PROPERTY.to_owned(), status.as_str().to_owned()));
    let fits = |body: &Value, properties: &PublishProperties| {
        let payload = body.to_string().into_bytes();
        let packet = Publish::new(topic, QoS::AtLeastOnce, payload, Some(properties.clone()));
        // Its packet identifier is not counted while it has none.
        (packet.size() + 2 <= bytes_max).then(|| packet.payload.to_vec())
    };
    if let Some(payload) = fits(&body, &properties) {
        return Some(Answer { payload, properties });
    }
    // What went wrong first, and the rest stands in the dead letters.
    shorten(&mut body);
    if let Some(payload) = fits(&body, &properties) {
        return Some(Answer { payload, properties });
    }
    properties.user_properties.drain(..properties.user_properties.len() - 1);
    let payload = fits(&body, &properties)?;
    Some(Answer { payload, properties })
}

/// Leaves the first rejected event and its first error.
fn shorten(body: &mut Value) {
    let Some(events) = body.get_mut("events").and_then(Value::as_array_mut) else { return };
    events.retain(|event| event.get("errors").is_some());
    events.truncate(1);
    for event in events {
        if let Some(errors) = event.get_mut("errors").and_then(Value::as_array_mut) {
            errors.truncate(1);
        }
    }
    body["shortened"] = true.into();
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use penstock_common::admit::{FieldError, Reason, Rejection};

    use super::*;
    use crate::admit::{Outcome, Verdict};

    fn admission(rejected: usize, errors_each: usize) -> Admission {
        let accepted = Verdict::Accepted { event_id: uuid::Uuid::from_u128(7) };
        let error = || FieldError::new("/metrics/cpu_temp", "maximum", "at most 150", "900");
        let rejection = || Rejection {
            event_id: Some("x".into()),
            reason: Reason::SchemaViolation,
            errors: (0..errors_each).map(|_| error()).collect(),
        };
        let rejected = (0..rejected).map(|_| Verdict::Rejected(rejection()));
        let verdicts = [accepted].into_iter().chain(rejected).enumerate();
        let outcomes = verdicts.map(|(index, verdict)| Outcome { index, verdict }).collect();
        Admission { outcomes, ..Admission::default() }
    }

    fn publish(user_property_bytes: usize) -> Publish {
        let properties = PublishProperties {
            correlation_data: Some(Bytes::from_static(b"17")),
            user_properties: vec![("batch".into(), "b".repeat(user_property_bytes))],
            ..PublishProperties::default()
        };
        Publish::new("t", QoS::AtLeastOnce, "x", Some(properties))
    }

    fn read(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.payload).unwrap()
    }

    #[test]
    fn it_says_what_http_says_and_carries_what_the_message_carried() {
        let answer = build("e", &publish(3), &admission(1, 1), None, usize::MAX).unwrap();
        let body = read(&answer);
        assert_eq!(body["accepted"], 1);
        assert_eq!(body["events"][1]["errors"][0]["pointer"], "/metrics/cpu_temp");
        assert_eq!(answer.properties.correlation_data.as_deref(), Some(b"17".as_slice()));
        let user = &answer.properties.user_properties;
        assert_eq!(user[0], ("batch".into(), "bbb".into()));
        assert_eq!(user[1], ("penstock-status".into(), "207".into()));
        assert_eq!(answer.properties.content_type.as_deref(), Some("application/json"));

        let refusal = Refusal::TooManyEvents;
        let refused =
            build("e", &publish(3), &Admission::default(), Some(&refusal), 9_999).unwrap();
        assert_eq!(read(&refused)["type"], "urn:penstock:problem:too-many-events");
        let status = refused.properties.user_properties.last().unwrap();
        assert_eq!(status.1, "413");
    }

    #[test]
    fn one_that_is_too_large_for_the_broker_gets_shorter_or_is_none() {
        let admission = admission(99, 16);
        let answer = build("e", &publish(3), &admission, None, 2_000).unwrap();
        let body = read(&answer);
        assert_eq!((body["accepted"].clone(), body["rejected"].clone()), (1.into(), 99.into()));
        assert_eq!(body["events"].as_array().unwrap().len(), 1);
        assert_eq!(body["events"][0]["errors"].as_array().unwrap().len(), 1);
        assert_eq!(body["shortened"], true);
        assert_eq!(answer.properties.user_properties.len(), 2);

        let answer = build("e", &publish(3_000), &admission, None, 2_000).unwrap();
        assert_eq!(answer.properties.user_properties.len(), 1, "the status alone");
        assert_eq!(answer.properties.correlation_data.as_deref(), Some(b"17".as_slice()));
        assert!(build("e", &publish(3), &admission, None, 100).is_none());
        assert!(
            build("e", &publish(3), &admission, None, usize::MAX).unwrap().payload.len()
                < 256 << 10
        );
    }
}
