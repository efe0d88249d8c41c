//! The variables of rules: their types for the checker and their values for one decision, side by side so that they stay the same.

use std::sync::Arc;

use cel::Value;

use crate::{
    Request, Snapshot,
    cel::{eval::Session, meter::Meter, ty::Ty, value},
    decide::Granted,
    snapshot::PolicyInForce,
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

/// A session with the variables of a decision, but for `roles`, which depends on the Policy.
///
/// # Errors
/// The evaluator refuses one of our functions, or the time is outside of what it can hold.
pub(crate) fn session(
    s: &Snapshot,
    request: &Request<'_>,
    g: &Granted<'_>,
    selecting: &[&PolicyInForce],
    meter: &Arc<Meter>,
) -> Result<Session, String> {
    let mut session = Session::new(Arc::clone(meter))?;
    if selecting.is_empty() {
        return Ok(session);
    }
    let tool = &g.tool.facts;
    session.set(
        "org",
        object([
            ("name", Some(value::string(&s.org))),
            ("path", Some(value::strings(&s.path))),
            ("namespace", Some(value::string(&s.namespace))),
        ]),
    );
    session.set(
        "agent",
        object([
            ("name", Some(value::string(&g.agent.name))),
            ("namespace", Some(value::string(&g.agent.namespace))),
            ("type", Some(value::string(&g.agent.kind))),
        ]),
    );
    let text = |s: Option<&str>| s.map(value::string);
    let caller = request.caller;
    session.set(
        "caller",
        object([
            ("username", Some(value::string(&caller.username))),
            ("groups", Some(value::strings(&caller.groups))),
            ("chain", Some(value::strings(&caller.chain))),
            ("uid", text(caller.uid.as_deref())),
            ("podName", text(caller.pod_name.as_deref())),
            ("podUid", text(caller.pod_uid.as_deref())),
            ("via", text(caller.via.as_deref())),
        ]),
    );
    session.set(
        "tool",
        object([
            ("name", Some(value::string(&tool.name))),
            ("org", Some(value::string(&tool.org))),
            ("namespace", Some(value::string(&tool.namespace))),
            ("risk", Some(value::strings(&tool.spec.risk))),
            ("idempotent", Some(Value::Bool(tool.spec.idempotent))),
            ("priceUSD", Some(Value::Int(tool.micro_usd))),
        ]),
    );
    let task = request.task;
    session.set(
        "task",
        object([
            ("name", text(task.map(|t| t.name.as_str()))),
            ("uid", text(task.map(|t| t.uid.as_str()))),
            ("jobSpace", text(task.and_then(|t| t.job_space.as_deref()))),
        ]),
    );
    session.set(
        "request",
        object([
            ("verb", Some(value::string(request.verb))),
            ("id", text(Some(request.id).filter(|id| !id.is_empty()))),
            ("context", text(request.context)),
            ("jobSpace", text(g.job_space)),
        ]),
    );
    session.set("now", value::timestamp(request.now).ok_or_else(|| format!("{} is outside of what rules can read", request.now))?);
    if let Some(ty) = &g.tool.compiled.args
        && selecting.iter().any(|p| p.compiled.rules.iter().any(|r| r.program.uses_args))
    {
        session.set("args", value::value(request.args, ty));
    }
    Ok(session)
}

fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    value::map(members.into_iter().filter_map(|(k, v)| Some((k, v?))))
}

/// `roles` for a Policy: names of the caller's Roles in the Org that wrote it, and `org/name` for the others.
pub(crate) fn roles(g: &Granted<'_>, policy: &PolicyInForce) -> Value {
    value::strings(
        g.held.iter().map(|((namespace, name), r)| if *namespace == policy.namespace { name.clone() } else { format!("{}/{name}", r.org) }),
    )
}

/// Names of the caller's Roles in a namespace.
pub(crate) fn held_in<'a>(g: &'a Granted<'_>, namespace: &str) -> Vec<&'a str> {
    g.held.iter().filter(|((ns, _), _)| ns == namespace).map(|((_, name), _)| name.as_str()).collect()
}
