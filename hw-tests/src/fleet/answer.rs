//! What an HTTP answer of the gateway says about each event of a batch.

use std::time::Duration;

use serde::Deserialize;

use crate::oracle::record::Told;

/// An answer, as a device understands it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Every event's fate, in the order of the batch.
    Resolved(Vec<Told>),
    /// The same bytes again, later.
    TryAgain {
        /// What `Retry-After` asked for.
        after: Option<Duration>,
    },
    /// Nothing that the contract knows for such a request.
    Unexpected(String),
}

#[derive(Deserialize)]
struct Summary {
    accepted: Option<usize>,
    rejected: Option<usize>,
    #[serde(default)]
    events: Vec<EventStatus>,
}

#[derive(Deserialize)]
struct EventStatus {
    index: usize,
    status: u16,
    #[serde(default)]
    errors: Vec<Violation>,
}

#[derive(Deserialize)]
struct Violation {
    pointer: String,
    rule: String,
}

/// Reads the answer to a batch of `events` events.
pub(crate) fn read(
    status: u16,
    retry_after: Option<&str>,
    body: &[u8],
    events: usize,
    whole_body_broken: bool,
) -> Answer {
    let unexpected = |why: &str| {
        let shown = String::from_utf8_lossy(&body[..body.len().min(400)]);
        Answer::Unexpected(format!("{status}: {why}: {shown}"))
    };
    match status {
        429 | 500..=599 => {
            let seconds = retry_after.and_then(|text| text.trim().parse().ok());
            if status == 429 && seconds.is_none() {
                return unexpected("429 without whole seconds in Retry-After");
            }
            Answer::TryAgain { after: seconds.map(Duration::from_secs) }
        }
        400 if whole_body_broken => {
            Answer::Resolved(vec![Told::Rejected("(the body) not JSON".into())])
        }
        202 | 207 | 400 => {
            let Ok(summary) = serde_json::from_slice::<Summary>(body) else {
                return unexpected("no readable JSON");
            };
            if status == 202 {
                return if summary.accepted == Some(events) {
                    Answer::Resolved(vec![Told::Accepted; events])
                } else {
                    unexpected("another number of accepted events than were sent")
                };
            }
            match per_event(&summary, events) {
                Some(told) if status == 207 && !counts_agree(&summary, &told) => {
                    unexpected("the counts disagree with the events")
                }
                Some(told) if status == 400 && told.contains(&Told::Accepted) => {
                    unexpected("400 with an accepted event")
                }
                Some(told) => Answer::Resolved(told),
                None => unexpected("not one status for each event"),
            }
        }
        _ => unexpected("not an answer to such a batch"),
    }
}

fn per_event(summary: &Summary, events: usize) -> Option<Vec<Told>> {
    let mut told = vec![None; events];
    for event in &summary.events {
        let slot = told.get_mut(event.index)?;
        let is = match (event.status, event.errors.first()) {
            (202, None) => Told::Accepted,
            (400, Some(first)) => Told::Rejected(format!("{} {}", first.pointer, first.rule)),
            _ => return None,
        };
        if slot.replace(is).is_some() {
            return None;
        }
    }
    told.into_iter().collect()
}

fn counts_agree(summary: &Summary, told: &[Told]) -> bool {
    let accepted = told.iter().filter(|told| **told == Told::Accepted).count();
    summary.accepted == Some(accepted) && summary.rejected == Some(told.len() - accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(status: u16, body: &str, events: usize) -> Answer {
        read(status, None, body.as_bytes(), events, false)
    }

    const ONE_OF_TWO: &str = r#"{"accepted":1,"rejected":1,"events":[
        {"index":1,"event_id":null,"status":400,"errors":[{"pointer":"/metrics/cpu_temp",
         "rule":"maximum","expected":"at most 150","got":"900"}]},
        {"index":0,"event_id":"x","status":202}]}"#;

    #[test]
    fn each_event_gets_its_own_fate_whatever_the_order() {
        let told = vec![Told::Accepted, Told::Rejected("/metrics/cpu_temp maximum".into())];
        assert_eq!(resolved(207, ONE_OF_TWO, 2), Answer::Resolved(told));
        let all = Answer::Resolved(vec![Told::Accepted; 3]);
        assert_eq!(resolved(202, r#"{"accepted":3}"#, 3), all);
    }

    #[test]
    fn an_answer_that_leaves_an_event_open_is_not_believed() {
        for (status, body, events) in [
            (202, r#"{"accepted":2}"#, 3),
            (202, "", 1),
            (207, ONE_OF_TWO, 3),
            (207, ONE_OF_TWO, 1),
            (400, ONE_OF_TWO, 2),
            (400, r#"{"title":"no"}"#, 1),
            (204, "", 1),
            (413, "{}", 1),
        ] {
            let answer = resolved(status, body, events);
            assert!(matches!(answer, Answer::Unexpected(_)), "{status} {body}: {answer:?}");
        }
    }

    #[test]
    fn pressure_says_when_to_come_back() {
        let after = |status, header| read(status, header, b"", 1, false);
        let seconds = |n| Answer::TryAgain { after: Some(Duration::from_secs(n)) };
        assert_eq!(after(429, Some("7")), seconds(7));
        assert_eq!(after(503, Some("2")), seconds(2));
        assert_eq!(after(503, None), Answer::TryAgain { after: None });
        assert!(matches!(after(429, None), Answer::Unexpected(_)));
        assert!(matches!(after(429, Some("soon")), Answer::Unexpected(_)));
    }
}
