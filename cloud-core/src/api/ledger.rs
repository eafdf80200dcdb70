//! `GET /v1/ledger[?gateway=][&from=][&to=]`: what became of what gateways received, ever or in
//! [`from`, `to`), with missing ranges by name. `cloud-core ledger` says the same.

use axum::Json;
use axum::extract::{Query, State};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;

use super::Api;
use super::problem::Problem;
use crate::ledger::answer::{Answer, ask};
use crate::store::ledger::{LedgerStore, Question};

const KNOWN: [&str; 3] = ["gateway", "from", "to"];

/// What became of what gateways received.
#[utoipa::path(get, path = "/v1/ledger", tag = "operations", params(
    ("gateway" = Option<String>, Query, description = "only this one"),
    ("from" = Option<String>, Query, format = DateTime, description = "RFC 3339, included"),
    ("to" = Option<String>, Query, format = DateTime, description = "RFC 3339, not included")),
    responses((status = 200, body = Answer), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 429, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn get(
    State(api): State<Api>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<Answer>, Problem> {
    let question = parse(&parameters).map_err(Problem::bad_request)?;
    let _slot = api.slots.take().await?;
    let store = LedgerStore::new(api.catalog.pool().clone());
    let asked = ask(&store, &question, SystemClock.now(), api.silent_after_ms);
    let answered = tokio::time::timeout(api.timeout, asked).await;
    let answer = answered.map_err(|_| Problem::timeout())?.map_err(|error| {
        tracing::error!(error = format!("{error:#}"), "the ledger can't be read");
        Problem::unavailable("the ledger can't be read at the moment")
    })?;
    Ok(Json(answer))
}

/// Reads a question, and collects everything that is wrong with it.
pub(crate) fn parse(parameters: &[(String, String)]) -> Result<Question, Vec<String>> {
    let mut problems = Vec::new();
    let mut question = Question::default();
    for (number, (name, value)) in parameters.iter().enumerate() {
        if parameters[..number].iter().any(|(other, _)| other == name) {
            problems.push(format!("{name}: given more than once"));
        }
        if value.contains('\0') {
            problems.push(format!("{name}: must not contain NUL"));
        }
        let mut time = || match UnixMicros::parse_rfc3339(value) {
            Ok(time) => Some(time.0),
            Err(error) => {
                problems.push(format!(
                    "{name}: not an RFC 3339 time ({error}); e.g. {name}=2026-01-31T08:00:00Z, \
                     and a + of an offset is written %2B"
                ));
                None
            }
        };
        match name.as_str() {
            "gateway" if value.is_empty() => problems.push("gateway: is empty".into()),
            "gateway" => question.gateway = Some(value.clone()),
            "from" => question.from = time(),
            "to" => question.to = time(),
            _ => problems.push(format!("{name}: unknown; known are {}", KNOWN.join(", "))),
        }
    }
    if let (Some(from), Some(to)) = (question.from, question.to)
        && from >= to
    {
        problems.push("from: must be before to, which is not included".into());
    }
    if problems.is_empty() { Ok(question) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<Question, Vec<String>> {
        let owned: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        parse(&owned)
    }

    #[test]
    fn everything_is_optional_and_mistakes_are_reported_together() {
        assert_eq!(parsed(&[]), Ok(Question::default()));
        let question = parsed(&[("gateway", "g"), ("from", "1970-01-01T00:00:01Z")]).unwrap();
        assert_eq!((question.gateway.as_deref(), question.from), (Some("g"), Some(1_000_000)));
        let bad = [("gateway", ""), ("from", "x"), ("too", "y"), ("to", "z"), ("to", "z")];
        assert_eq!(parsed(&bad).unwrap_err().len(), 6);
        assert!(parsed(&[("gateway", "a\0")]).unwrap_err()[0].contains("NUL"));
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        assert!(parsed(&[("from", late), ("to", early)]).unwrap_err()[0].contains("before"));
    }
}
