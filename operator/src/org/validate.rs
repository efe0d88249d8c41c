//! What of an Org's spec can be carried out, and why not the rest. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use polity_api::{
    names,
    org::{MemberKind, MemberRole},
    reasons,
};
use polity_plan::{quota::Amounts, tree::Broken};

use super::dereference::{Facts, asks};
use crate::cluster::controller_uid;

/// Why a stage is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Reason of the condition.
    pub reason: &'static str,
    /// Message of the condition.
    pub message: String,
    /// Only a change by somebody helps.
    pub stalled: bool,
}

impl Stop {
    fn stalled(reason: &'static str, message: String) -> Self {
        Self { reason, message, stalled: true }
    }
    fn waiting(reason: &'static str, message: String) -> Self {
        Self { reason, message, stalled: false }
    }
}

/// What is to become of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Make it.
    Create,
    /// Core made it, with this uid.
    Own(String),
    /// It consents to this Org, with this uid.
    Adopted(String),
}

/// Subjects of one member role.
pub type Members = BTreeMap<MemberRole, BTreeSet<(MemberKind, String)>>;

/// A spec that was checked.
pub struct Checked {
    /// Ancestry.
    pub ancestry: Result<(), Stop>,
    /// Namespace.
    pub namespace: Result<Plan, Stop>,
    /// What it asks of quota.
    pub asks: Result<Amounts, Stop>,
    /// Who may do what.
    pub members: Members,
    /// Members that are refused.
    pub refused: Option<Stop>,
}

/// Checks.
pub fn validate(facts: &Facts) -> Checked {
    let (members, refused) = members(facts);
    Checked {
        ancestry: facts.path.as_ref().map(|_| ()).map_err(ancestry),
        namespace: namespace(facts),
        asks: asks(&facts.org).map_err(|e| Stop::stalled(reasons::QUOTA_INVALID, e)),
        members,
        refused,
    }
}

fn ancestry(broken: &Broken) -> Stop {
    let message = format!("Calls are denied and nothing is provisioned: {broken}.");
    match broken {
        Broken::Missing { .. } | Broken::Deleting(_) => Stop::waiting(reasons::ANCESTRY_BROKEN, message),
        Broken::Cycle(_) | Broken::TooDeep => Stop::stalled(reasons::ANCESTRY_BROKEN, message),
    }
}

fn namespace(facts: &Facts) -> Result<Plan, Stop> {
    let (org, name) = (facts.org.name_any(), facts.org.wanted_namespace());
    let refuse = |why: String| Stop::stalled(reasons::NAMESPACE_NOT_CONSENTING, why);
    if names::reserved_namespace(name, &facts.system) {
        return Err(refuse(format!("Namespace {name} is reserved; no Org may use it.")));
    }
    if let Some(rival) = &facts.rival {
        return Err(refuse(format!(
            "Namespace {name} is used by Org {rival}; an Org needs one of its own (spec.namespace is immutable: delete and create)."
        )));
    }
    let Some(namespace) = &facts.namespace else { return Ok(Plan::Create) };
    if namespace.metadata.deletion_timestamp.is_some() {
        return Err(Stop::waiting(
            reasons::NAMESPACE_TERMINATING,
            format!("Namespace {name} is being deleted; it is made anew when it is gone."),
        ));
    }
    let uid = namespace.metadata.uid.clone().unwrap_or_default();
    let consent = namespace.labels().get(names::LABEL_ORG);
    if controller_uid(namespace.as_ref()) == facts.org.metadata.uid.as_deref() && consent.is_none_or(|c| *c == org) {
        return Ok(Plan::Own(uid));
    }
    if consent != Some(&org) {
        let says = consent.map_or("has no label polity.dev/org".to_owned(), |c| format!("is labelled polity.dev/org={c}"));
        return Err(refuse(format!(
            "Namespace {name} exists and {says}. To give it to this Org: kubectl label namespace {name} polity.dev/org={org}"
        )));
    }
    Ok(Plan::Adopted(uid))
}

fn members(facts: &Facts) -> (Members, Option<Stop>) {
    let (mut members, mut refused) = (Members::new(), BTreeSet::new());
    for member in &facts.org.spec.members {
        if member.name.starts_with("system:") {
            refused.insert(member.name.clone());
        } else {
            members.entry(member.role).or_default().insert((member.kind, member.name.clone()));
        }
    }
    let list = refused.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let stop = (!refused.is_empty())
        .then(|| Stop::stalled(reasons::MEMBER_REFUSED, format!("Names starting with system: cannot be members: {list}.")));
    (members, stop)
}
