//! Stamps who settles an unknown outcome, and when. Whether he may is for `/validate`.

use jiff::Timestamp;
use polity_api::{ToolCall, reasons};

use super::{set, stamp_time};
use crate::{
    outcome::{Op, Refusal},
    review::Request,
};

pub(super) fn update(request: &Request<'_>, now: Timestamp) -> Result<Vec<Op>, Refusal> {
    let (Ok(new), Ok(old)) = (request.new_object::<ToolCall>(), request.stored::<ToolCall>()) else { return Ok(Vec::new()) };
    let Some(resolution) = new.spec.resolution.filter(|_| old.spec.resolution.is_none()) else { return Ok(Vec::new()) };
    let by = request.username().to_owned();
    if resolution.by.as_ref().is_some_and(|written| *written != by) {
        let message = format!("spec.resolution.by names {:?}, but the request comes from {by:?}", resolution.by.unwrap_or_default());
        return Err(Refusal::forbidden(reasons::CALLER_NOT_STAMPED, message).hint("leave by and at out; Polity stamps them"));
    }
    let mut patch = Vec::new();
    set(&mut patch, "/spec/resolution/by".to_owned(), resolution.by.as_ref(), &by);
    set(&mut patch, "/spec/resolution/at".to_owned(), resolution.at.as_ref(), &stamp_time(resolution.at.as_ref(), now));
    Ok(patch)
}
