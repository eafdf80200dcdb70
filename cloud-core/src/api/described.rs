//! What is read or written by hand, only to be described: the names that parameters take, the
//! events of a stream, a replay.
#![allow(dead_code, reason = "the schemas of what is read and written by hand")]

use serde::Deserialize;
use utoipa::ToSchema;

/// What a resolution is called.
#[derive(ToSchema)]
pub(super) enum Resolution {
    #[schema(rename = "1m")]
    Minute,
    #[schema(rename = "1h")]
    Hour,
    #[schema(rename = "1d")]
    Day,
    #[schema(rename = "auto")]
    Auto,
}

/// What a statistic is called.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Stat {
    Count,
    Avg,
    Min,
    Max,
    P50,
    P95,
    Sum,
}

/// An event of a stream.
#[derive(ToSchema)]
pub(super) struct LiveEvent {
    event: LiveEventName,
    /// LivePoints as JSON; a ping has no series.
    #[schema(content_media_type = "application/json")]
    data: String,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum LiveEventName {
    /// The last five minutes; what was before is over.
    Snapshot,
    Points,
    Ping,
}

/// How devices become one line.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Aggregate {
    Avg,
}

/// What has become of a letter.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DeadLetterState {
    Open,
    Replayed,
    Resolved,
}

/// What is to be replayed: ids, or a filter with a limit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayRequest {
    /// As in the list; or else `filter`.
    #[schema(nullable = false, min_items = 1, max_items = 10000)]
    ids: Option<Vec<String>>,
    /// As the parameters of the list; {} for all open letters.
    #[schema(nullable = false)]
    filter: Option<ReplayFilter>,
    #[schema(nullable = false, minimum = 1, maximum = 10000)]
    limit: Option<u32>,
    cursor: Option<String>,
    /// Only decides.
    #[schema(nullable = false)]
    dry_run: Option<bool>,
}

/// Which letters are to be replayed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReplayFilter {
    #[schema(nullable = false)]
    reason: Option<String>,
    #[schema(nullable = false)]
    stage: Option<String>,
    #[schema(nullable = false)]
    gateway: Option<String>,
    #[schema(nullable = false)]
    fleet: Option<String>,
    #[schema(nullable = false)]
    device: Option<String>,
    /// `open` when it is left out.
    #[schema(nullable = false)]
    state: Option<DeadLetterState>,
    /// By the time that the bus got it.
    #[schema(nullable = false, format = DateTime)]
    from: Option<String>,
    #[schema(nullable = false, format = DateTime)]
    to: Option<String>,
}
