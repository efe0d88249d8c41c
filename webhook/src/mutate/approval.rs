//! Stamps a person's own new entry in an Approval with time and groups. Whether the person counts is for `/validate`.

use jiff::Timestamp;
use polity_api::{Approval, reasons};

use super::{set, stamp_time};
use crate::{
    outcome::{Op, Refusal},
    review::Request,
};

pub(super) fn update(request: &Request<'_>, now: Timestamp) -> Result<Vec<Op>, Refusal> {
    let (Ok(new), Ok(old)) = (request.new_object::<Approval>(), request.stored::<Approval>()) else { return Ok(Vec::new()) };
    let mut patch = Vec::new();
    for (index, entry) in new.spec.decisions.iter().enumerate() {
        if old.spec.decisions.iter().any(|o| o.by == entry.by) {
            continue;
        }
        if entry.by != request.username() {
            let message =
                format!("the new entry in spec.decisions is by {:?}, but the request comes from {:?}", entry.by, request.username());
            return Err(Refusal::forbidden(reasons::CALLER_NOT_STAMPED, message).hint("add only your own entry, with by = your username"));
        }
        let groups = request.user_info.groups.clone().unwrap_or_default();
        let path = |field: &str| format!("/spec/decisions/{index}/{field}");
        set(&mut patch, path("at"), entry.at.as_ref(), &stamp_time(entry.at.as_ref(), now));
        set(&mut patch, path("groups"), Some(&entry.groups), &groups);
    }
    Ok(patch)
}
