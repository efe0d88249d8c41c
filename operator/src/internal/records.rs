//! Pages of an Org's chain for the edge, which asks only for those who may see it. Reads; waits for new records if told to.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use polity_ledger::{Page, Refused};
use polity_runtime::internal::{MAX_WAIT_SECONDS, RecordsRequest};
use serde::Deserialize;

use super::{Internal, answer};

/// `POST records/{orgUid}`: the next page, at once or when there is something in it.
pub(super) async fn page(State(state): State<Arc<Internal>>, Path(org): Path<String>, Json(request): Json<RecordsRequest>) -> Response {
    let ledger = &state.runner.gate.ledger;
    let longest = Duration::from_secs(request.wait.min(MAX_WAIT_SECONDS));
    if !longest.is_zero() {
        ledger.grown(&org, request.after, longest).await;
    }
    let page = ledger.page(&org, request.after, request.limit, request.filter, request.roots).await;
    answer(page.and_then(|page| bounded(page, request.bytes)))
}

/// The page cut off behind the line that reaches so many bytes; the next page then comes after that line.
fn bounded(mut page: Page, most: usize) -> Result<Page, Refused> {
    #[derive(Deserialize)]
    struct Sequence {
        seq: i64,
    }
    let mut sum = 0;
    let fits = page.lines.iter().position(|line| {
        sum += line.len();
        most > 0 && sum >= most
    });
    if let Some(last) = fits.filter(|last| last + 1 < page.lines.len()) {
        page.lines.truncate(last + 1);
        let line = page.lines.last().map(String::as_str).unwrap_or_default();
        let read = serde_json::from_str::<Sequence>(line);
        page.next = read.map_err(|e| Refused::LedgerUnavailable { what: format!("a record without sequence: {e}") })?.seq;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_cut_where_it_gets_too_long() {
        let line = |seq: i64| format!(r#"{{"seq":{seq},"kind":"begin"}}"#);
        let page = || Page { lines: vec![line(4), line(6), line(7)], next: 9, head: 12, first: 1 };
        let cut = |most| bounded(page(), most).map(|p| (p.lines.len(), p.next)).unwrap();
        assert_eq!(cut(0), (3, 9));
        assert_eq!(cut(1), (1, 4), "one at least");
        assert_eq!(cut(line(4).len() + 1), (2, 6));
        assert_eq!(cut(1000), (3, 9));
        let odd = Page { lines: vec!["x".to_owned(), line(6)], ..page() };
        assert!(bounded(odd, 1).is_err(), "never a gap");
    }
}
