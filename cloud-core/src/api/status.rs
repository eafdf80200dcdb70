//! `GET /v1/status`: how far the raw writer has come, and what is stored.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::raw::ROLE;

/// How far the raw writer has come, and what is stored.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    positions: Vec<Position>,
    files_published: i64,
    rows_published: i64,
    bytes_published: i64,
    as_of: i64,
}

#[derive(Serialize, ToSchema)]
struct Position {
    topic: String,
    partition: i32,
    next_offset: i64,
}

/// How far the raw writer has come, and what is stored.
#[utoipa::path(get, path = "/v1/status", tag = "operations", responses((status = 200, body = Status),
    (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn get(State(api): State<Api>) -> Result<Json<Status>, Problem> {
    // Positions first: what they promise is in the totals read after them.
    let positions = api.catalog.positions().of_role(ROLE).await?;
    let totals = api.catalog.totals().await?;
    let position = |p: crate::store::positions::Position| Position {
        topic: p.topic,
        partition: p.partition,
        next_offset: p.next_offset,
    };
    Ok(Json(Status {
        positions: positions.into_iter().map(position).collect(),
        files_published: totals.files,
        rows_published: totals.rows,
        bytes_published: totals.bytes,
        as_of: totals.as_of,
    }))
}
