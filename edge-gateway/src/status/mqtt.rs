//! Events by MQTT, on the status page: whether the facility's broker is there, and what to do if
//! it is not.

use std::time::Duration;

use serde_json::{Value, json};

use super::advice::{Advice, Level, duration};
use super::board::Board;
use crate::listen::mqtt::{MqttState, Standing};

/// A broker that is back before that needs nobody's attention.
const PATIENCE: Duration = Duration::from_secs(15);

/// Adds the section `mqtt`, and what there is to say about it.
pub fn show(board: &Board, state: MqttState) {
    let read = state.clone();
    board.add("mqtt", move || section(read.broker(), &read.standing()));
    board.advise(move || judge(state.broker(), &state.standing()));
}

fn section(broker: &str, standing: &Standing) -> Value {
    let state = match standing {
        Standing { is_connected: true, .. } => "connected",
        Standing { last_failure: None, .. } => "connecting",
        _ => "not connected",
    };
    json!({
        "state": state,
        "state_age_s": standing.lasts.as_secs(),
        "broker": broker,
        "messages_total": standing.messages,
        "acknowledged_total": standing.acknowledged,
        "unacknowledged": standing.unacknowledged,
        "is_held": standing.is_held,
        "complaint": standing.last_failure.as_ref().filter(|_| !standing.is_connected),
    })
}

fn judge(broker: &str, standing: &Standing) -> Option<Advice> {
    if standing.is_held {
        return Some(Advice::new(
            Level::Warn,
            "MQTT messages wait at their broker, because the spool takes nothing.",
            "See what is said about the spool and the disk. It goes on by itself.",
        ));
    }
    if standing.is_connected || standing.lasts < PATIENCE {
        return None;
    }
    let since = duration(standing.lasts.as_secs());
    let why = standing.last_failure.as_deref().unwrap_or("no answer yet");
    Some(Advice::new(
        Level::Warn,
        format!("No events by MQTT for {since}: {why}."),
        format!(
            "Check the broker {broker} and the way there; `edge-gateway check` says more. It keeps \
             messages for this gateway as long as it has room."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing {
            is_connected: true,
            last_failure: Some("the broker closed the connection".into()),
            lasts: PATIENCE * 4,
            is_held: false,
            messages: 9,
            acknowledged: 7,
            unacknowledged: 2,
        }
    }

    #[test]
    fn a_broker_that_is_away_is_told_after_a_while() {
        assert_eq!(judge("mqtt://b", &standing()), None);
        let away = Standing { is_connected: false, ..standing() };
        let advice = judge("mqtt://b", &away).unwrap();
        assert_eq!(advice.level, Level::Warn);
        let found = "No events by MQTT for 1 min: the broker closed the connection.";
        assert_eq!(advice.found, found);
        assert!(advice.todo.contains("mqtt://b"));
        assert_eq!(judge("mqtt://b", &Standing { lasts: PATIENCE / 2, ..away }), None);
        let held = judge("mqtt://b", &Standing { is_held: true, ..standing() }).unwrap();
        assert!(held.found.contains("the spool takes nothing"));
    }

    #[test]
    fn the_section_says_what_went_wrong_only_while_it_is_wrong() {
        let section = |is_connected| section("b", &Standing { is_connected, ..standing() });
        assert_eq!(section(true)["complaint"], Value::Null);
        assert_eq!(section(true)["state"], "connected");
        assert_eq!(section(false)["complaint"], "the broker closed the connection");
        assert_eq!(section(false)["state"], "not connected");
    }
}
