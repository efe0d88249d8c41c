//! Controller of Tasks, so far: says that a Task was seen, and whether it is canceled. Dispatch reads the Task itself.

use std::sync::Arc;

use kube::Api;
use polity_api::reasons;

use crate::{
    context::Context,
    engine::Key,
    requeue::Outcome,
    status::{StatusError, Writer, undecodable, write},
};

/// Brings the status of one Task up to date.
///
/// # Errors
/// The status was not written; it is tried again.
pub async fn reconcile(ctx: Arc<Context>, key: Key) -> Result<Outcome, StatusError> {
    let Some(task) = ctx.cluster.tasks.get(&key.0, &key.1) else {
        return undecodable(&ctx.client, &ctx.cluster.tasks, &key, ctx.now()).await;
    };
    let mut status = task.status.clone().unwrap_or_default();
    let generation = task.metadata.generation.unwrap_or_default();
    status.observed_generation = generation;
    let mut writer = Writer { conditions: &mut status.conditions, generation, now: ctx.now() };
    if task.spec.cancel {
        writer.summary(false, true, reasons::TASK_CANCELED, "Canceled: its calls that have not begun never will.");
    } else if ctx.cluster.org_of(&key.0).is_none() {
        writer.summary(false, false, reasons::ORG_NOT_READY, "This namespace belongs to no Org yet.");
    } else {
        writer.summary(true, false, reasons::OPEN, "Calls may name this Task.");
    }
    write(&Api::namespaced(ctx.client.clone(), &key.0), &ctx.cluster.tasks, task.as_ref(), &status).await?;
    Ok(Outcome::Settled)
}
