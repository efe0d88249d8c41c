//! Pages of an Org's chain for the edge, which asks only for those who may see it. Reads; waits for new records if told to.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use polity_runtime::internal::{MAX_WAIT_SECONDS, RecordsRequest};

use super::{Internal, answer};

/// `POST records/{orgUid}`: the next page, at once or when there is something in it.
pub(super) async fn page(State(state): State<Arc<Internal>>, Path(org): Path<String>, Json(request): Json<RecordsRequest>) -> Response {
    let ledger = &state.runner.gate.ledger;
    let longest = Duration::from_secs(request.wait.min(MAX_WAIT_SECONDS));
    if !longest.is_zero() {
        ledger.grown(&org, request.after, longest).await;
    }
    answer(ledger.page(&org, request.after, request.limit, request.filter, request.roots).await)
}
