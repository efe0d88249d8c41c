//! The variables of rules: their types for the checker and their values for one decision, side by side so that they stay the same.

use std::sync::Arc;

use crate::{
    Key, Request, Snapshot,
    cel::{
        code::{Slots, val::Val},
        ty::Ty,
        value,
    },
    decide::Granted,
    snapshot::{PolicyInForce, RoleInForce},
};

/// Every variable but `args` with its type.
#[must_use]
pub fn types() -> Vec<(&'static str, Ty)> {
    let strings = || Ty::list(Ty::STRING);
    vec![
        ("org", Ty::object("org", [("name", Ty::STRING, true), ("path", strings(), true), ("namespace", Ty::STRING, true)])),
        (
            "agent",
            Ty::object(
                "agent",
                [
                    ("name", Ty::STRING, true),
                    ("namespace", Ty::STRING, true),
                    ("type", Ty::Str(Some(Arc::new(["AI", "Human", "System"].map(str::to_owned).to_vec()))), true),
                ],
            ),
        ),
        (
            "caller",
            Ty::object(
                "caller",
                [
                    ("username", Ty::STRING, true),
                    ("groups", strings(), true),
                    ("chain", strings(), true),
                    ("uid", Ty::STRING, false),
                    ("podName", Ty::STRING, false),
                    ("podUid", Ty::STRING, false),
                    ("via", Ty::STRING, false),
                ],
            ),
        ),
        ("roles", strings()),
        (
            "tool",
            Ty::object(
                "tool",
                [
                    ("name", Ty::STRING, true),
                    ("org", Ty::STRING, true),
                    ("namespace", Ty::STRING, true),
                    ("risk", strings(), true),
                    ("idempotent", Ty::Bool, true),
                    ("priceUSD", Ty::Int, true),
                ],
            ),
        ),
        ("task", Ty::object("task", [("name", Ty::STRING, false), ("uid", Ty::STRING, false), ("jobSpace", Ty::STRING, false)])),
        (
            "request",
            Ty::object(
                "request",
                [("verb", Ty::STRING, true), ("id", Ty::STRING, false), ("context", Ty::STRING, false), ("jobSpace", Ty::STRING, false)],
            ),
        ),
        ("now", Ty::Timestamp),
    ]
}

/// The variables of a decision, but for `roles`, which depends on the Policy. Nothing is copied.
///
/// # Errors
/// The time is outside of what rules can read.
pub(crate) fn slots<'a>(s: &'a Snapshot, request: &Request<'a>, g: &'a Granted<'_>) -> Result<Slots<'a>, String> {
    let mut slots = Slots::default();
    let tool = &*g.tool.facts;
    let (caller, task) = (request.caller, request.task);
    let text = |s: &'a str| Some(Val::Str(s));
    slots.fill([
        text(&s.org),
        Some(Val::Strings(&s.path)),
        text(&s.namespace),
        text(&g.agent.name),
        text(&g.agent.namespace),
        text(&g.agent.kind),
        text(&caller.username),
        Some(Val::Strings(&caller.groups)),
        Some(Val::Strings(&caller.chain)),
        caller.uid.as_deref().and_then(text),
        caller.pod_name.as_deref().and_then(text),
        caller.pod_uid.as_deref().and_then(text),
        caller.via.as_deref().and_then(text),
        text(&tool.name),
        text(&tool.org),
        text(&tool.namespace),
        Some(Val::Strings(&tool.spec.risk)),
        Some(Val::Bool(tool.spec.idempotent)),
        Some(Val::Int(tool.micro_usd)),
        task.and_then(|t| text(&t.name)),
        task.and_then(|t| text(&t.uid)),
        task.and_then(|t| t.job_space.as_deref()).and_then(text),
        text(request.verb),
        text(request.id).filter(|_| !request.id.is_empty()),
        request.context.and_then(text),
        g.job_space.and_then(text),
    ]);
    slots.set_now(value::timestamp(request.now).ok_or_else(|| format!("{} is outside of what rules can read", request.now))?);
    if let Some(ty) = &g.tool.compiled.args {
        slots.set_args(request.args, ty);
    }
    Ok(slots)
}

/// `roles` for a Policy: names of the caller's Roles in the Org that wrote it, and `org/name` for the others.
pub(crate) fn roles<'a>(g: &'a Granted<'_>, policy: &PolicyInForce) -> Vec<Val<'a>> {
    let name = |((namespace, name), role): &(&'a Key, &RoleInForce)| {
        if *namespace == policy.namespace { Val::Str(name) } else { Val::Text(format!("{}/{name}", role.org).into()) }
    };
    g.held.iter().map(name).collect()
}

/// Whether the caller holds a Role of a namespace.
pub(crate) fn holds(g: &Granted<'_>, namespace: &str, role: &str) -> bool {
    g.held.iter().any(|((ns, name), _)| ns == namespace && name == role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::code::FIELDS;

    #[test]
    fn every_declared_field_has_its_slot_and_no_other() {
        let mut declared = Vec::new();
        for (variable, ty) in types() {
            if let Ty::Object(object) = ty {
                declared.extend(object.fields.keys().map(|field| (variable.to_owned(), field.clone())));
            }
        }
        let mut slots: Vec<_> = FIELDS.iter().map(|(v, f)| ((*v).to_owned(), (*f).to_owned())).collect();
        declared.sort();
        slots.sort();
        assert_eq!(declared, slots);
    }
}
