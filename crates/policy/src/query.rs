//! What a snapshot tells others than `decide`: names, Tools, who holds which Role, who is whose superior.

use std::sync::Arc;

use jiff::Timestamp;
use polity_api::{
    reasons,
    role::{Export, RoleRef},
};

use crate::{
    AgentFacts, BudgetLimit, Key, Snapshot, ToolFacts, grant,
    index::Index,
    snapshot::{PolicyInForce, RoleInForce, ToolInForce, full},
};

impl Snapshot {
    /// Name of the Org.
    #[must_use]
    pub fn org(&self) -> &str {
        &self.org
    }

    /// Uid of the Org; empty when there is no such Org.
    #[must_use]
    pub fn org_uid(&self) -> &str {
        &self.org_uid
    }

    /// Names from the root Org down to this one.
    #[must_use]
    pub fn path(&self) -> &[String] {
        &self.path
    }

    /// Namespace in force; empty while there is none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether the Org's ledger keeps the text of inputs.
    #[must_use]
    pub fn keep_input(&self) -> bool {
        self.keep_input
    }

    /// Whether the Org's ledger may answer before the flush to disk.
    #[must_use]
    pub fn relaxed(&self) -> bool {
        self.relaxed
    }

    /// SHA-256 (hex) over the specs and role holders in force.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether the Org takes no calls at all, whoever asks for what: suspended, deleting, not consented to, ancestry broken.
    /// Its start time is judged by `decide`.
    ///
    /// # Errors
    /// The first reason, with its message.
    pub fn is_open(&self) -> Result<(), (&'static str, &str)> {
        self.gates.first().map_or(Ok(()), |gate| Err((gate.reason, gate.message.as_str())))
    }

    /// Budgets that calls are charged to: the own ones and every ancestor's.
    #[must_use]
    pub fn budgets(&self) -> &[BudgetLimit] {
        &self.budgets
    }

    /// A Tool visible from the Org: its own, or with `org` an ancestor's exported one.
    #[must_use]
    pub fn tool(&self, name: &str, org: Option<&str>) -> Option<Arc<ToolFacts>> {
        self.tool_in_force(name, org).map(|t| Arc::clone(&t.facts))
    }

    pub(crate) fn tool_in_force(&self, name: &str, org: Option<&str>) -> Option<&ToolInForce> {
        self.tools.get(&(org.unwrap_or(&self.org).to_owned(), name.to_owned()))
    }

    /// Tools that a user could use with a verb: those that a Role which he holds at that time grants, be it for Tasks of a job space only. What Policies
    /// say of them depends on the arguments and is not asked here; Tools that are not usable are left out. Ordered by Org and name.
    ///
    /// # Errors
    /// The reason and message with which `decide` denies every call of this user.
    pub fn reachable(&self, verb: &str, username: &str, now: Timestamp) -> Result<Vec<Arc<ToolFacts>>, (&'static str, String)> {
        self.is_open().map_err(|(reason, message)| (reason, message.to_owned()))?;
        if let Some((org, start)) = self.starts.iter().find(|(_, start)| *start > now) {
            return Err((reasons::ORG_SUSPENDED, format!("Org {org} starts at {start}")));
        }
        let agent = self.agent_by_username(username).ok_or_else(|| {
            (reasons::UNKNOWN_CALLER, format!("{username:?} is not the username of exactly one Agent of Org {}", self.org))
        })?;
        let grants: Vec<_> = self.held(&agent, now).filter(|(_, r)| r.usable).flat_map(|(_, r)| &r.role.spec.grants).collect();
        let usable = self.tools.values().filter(|t| t.compiled.broken.is_none() && t.facts.quarantined.is_none()).map(|t| &t.facts);
        Ok(usable.filter(|tool| grants.iter().any(|g| grant::covers(g, verb, tool))).cloned().collect())
    }

    /// The Policies whose match may select a Tool here, filed by what of a call they ask for.
    pub(crate) fn index_of<'a>(&self, tool: &'a ToolInForce) -> &'a Index {
        let may = |p: &PolicyInForce| grant::selects_place(p.policy.spec.matches.as_ref(), &tool.facts, &self.org, &self.path);
        tool.index.get_or_init(|| Index::new(self.policies.iter().enumerate().filter(|(_, p)| may(p))))
    }

    /// Whether a call of a Tool may count somewhere, or rules on it may read what others have counted: a Policy that may select it has counters or reads the
    /// history, a rule in force reads the number of calls or of those of this Tool, or its results carry labels. A Tool that is not known here does neither.
    #[must_use]
    pub fn may_count(&self, namespace: &str, name: &str) -> bool {
        let read = &self.history_read;
        self.tool_at(namespace, name).is_some_and(|tool| {
            read.calls || read.tools.contains(name) || !tool.facts.spec.output_labels.is_empty() || self.index_of(tool).counts
        })
    }

    /// The Org above by whose name a Tool of a namespace is called from here; None: it is the Org's own, or none.
    #[must_use]
    pub fn tool_org(&self, namespace: &str, name: &str) -> Option<&str> {
        self.tool_at(namespace, name).map(|t| t.facts.org.as_str()).filter(|org| *org != self.org)
    }

    fn tool_at(&self, namespace: &str, name: &str) -> Option<&ToolInForce> {
        let mut there = self.path.iter().rev().filter_map(|org| self.tools.get(&(org.clone(), name.to_owned())));
        there.find(|t| t.facts.namespace == namespace)
    }

    /// Policies that may select a Tool here and have rules that rewrite.
    pub(crate) fn rewriting<'a>(&'a self, tool: &'a ToolInForce) -> impl Iterator<Item = &'a PolicyInForce> {
        self.index_of(tool).rewriting.iter().filter_map(|place| self.policies.get(*place))
    }

    /// Roles in force that a user holds at a time, as `namespace/name`.
    #[must_use]
    pub fn roles_of(&self, username: &str, now: Timestamp) -> Vec<String> {
        let Some(agent) = self.agent_by_username(username) else { return Vec::new() };
        self.held(&agent, now).filter(|(_, r)| r.usable).map(|(key, _)| full(key)).collect()
    }

    /// Roles of the chain that an Agent holds at a time.
    pub(crate) fn held(&self, agent: &AgentFacts, now: Timestamp) -> impl Iterator<Item = (&Key, &RoleInForce)> {
        // a Role's holders are Agents of its own namespace
        let (namespace, name) = (agent.namespace.clone(), agent.name.clone());
        self.roles.iter().filter(move |((ns, _), role)| *ns == namespace && role.holders(now).any(|h| h == name))
    }

    /// Holders at a time of a Role of the Org or of one above; without `org` the own Org's. Only Agents that exist. Whether a rule may name the Role was judged when
    /// it was decided: a rule of an Org above names Roles of that Org, exported or not.
    #[must_use]
    pub fn holders(&self, role: &RoleRef, now: Timestamp) -> Vec<AgentFacts> {
        self.holders_of(role.org.as_deref().unwrap_or(&self.org), &role.name, now)
    }

    /// Whether an Org of the chain exports a Role of this name.
    pub(crate) fn exports(&self, org: &str, name: &str) -> bool {
        self.roles.iter().any(|((_, n), r)| n == name && r.org == org && r.role.spec.export == Some(Export::Descendants))
    }

    fn holders_of(&self, org: &str, name: &str, now: Timestamp) -> Vec<AgentFacts> {
        let found = self.roles.iter().find(|((_, n), r)| n == name && r.org == org);
        let Some(((namespace, _), role)) = found else { return Vec::new() };
        role.holders(now).filter_map(|name| self.agents.get(&(namespace.clone(), name.to_owned())).cloned()).collect()
    }

    /// Holders at a time of the Roles that the Agent's Roles of that time report to, without the Agent itself.
    #[must_use]
    pub fn superiors(&self, agent: &AgentFacts, now: Timestamp) -> Vec<AgentFacts> {
        let mut out: Vec<AgentFacts> = Vec::new();
        for (_, role) in self.held(agent, now) {
            let Some(to) = &role.role.spec.reports_to else { continue };
            let org = to.org.as_deref().unwrap_or(&role.org);
            if org != role.org && !self.exports(org, &to.name) {
                continue;
            }
            for superior in self.holders_of(org, &to.name, now) {
                if (superior.namespace != agent.namespace || superior.name != agent.name) && !out.contains(&superior) {
                    out.push(superior);
                }
            }
        }
        out
    }

    /// The one Agent behind a username; None when there is none or more than one. The kind is that of the username: what the API server names itself
    /// (`system:…`) is never human.
    #[must_use]
    pub fn agent_by_username(&self, username: &str) -> Option<AgentFacts> {
        match self.users.get(username)?.as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        }
    }

    /// Names of the Agents that have a username which is theirs alone.
    pub(crate) fn agents_with_usernames(&self) -> impl Iterator<Item = &str> {
        self.users.values().filter_map(|claims| match claims.as_slice() {
            [one] => Some(one.name.as_str()),
            _ => None,
        })
    }

    /// A username that is this Agent's alone; an Agent of the own namespace goes first.
    pub(crate) fn username_of(&self, agent: &str) -> Option<&str> {
        let mut found: Vec<_> = self.users.iter().filter(|(_, claims)| matches!(claims.as_slice(), [one] if one.name == agent)).collect();
        found.sort_by_key(|(_, claims)| claims.first().is_none_or(|a| a.namespace != self.namespace));
        found.first().map(|(username, _)| username.as_str())
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "JSON is written in place")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::World;

    fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
        let metadata = if namespace.is_empty() { json!({"name": name}) } else { json!({"name": name, "namespace": namespace}) };
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    }

    fn tool(namespace: &str, name: &str, more: Value) -> Value {
        let mut spec = json!({"runtime": {"container": {"image": "i", "command": ["c"]}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object("Tool", namespace, name, spec)
    }

    fn world(unit: Value) -> World {
        World::from_objects(vec![
            object("Org", "", "acme", json!({})),
            object("Org", "", "unit", unit),
            object("Agent", "unit", "bot", json!({"type": "AI", "image": "i", "command": ["c"]})),
            object("Role", "unit", "r", json!({"grants": [{"tools": ["a*"], "risk": ["money"]}], "assignment": {"agents": ["bot"]}})),
            object(
                "Role",
                "unit",
                "audits",
                json!({"grants": [{"tools": ["audit"]}], "jobSpace": "audit", "assignment": {"agents": ["bot"]}}),
            ),
            tool("unit", "a-own", json!({"risk": ["money"]})),
            tool("unit", "a-risky", json!({"risk": ["external"]})),
            tool("unit", "a-broken", json!({"inputSchema": {"type": 1}})),
            tool("unit", "audit", json!({})),
            tool("unit", "other", json!({})),
            tool("acme", "a-shared", json!({"export": "Descendants"})),
            tool("acme", "a-hidden", json!({})),
        ])
    }

    const BOT: &str = "system:serviceaccount:unit:polity-agent-bot";

    fn reachable(unit: Value, username: &str) -> Result<Vec<String>, &'static str> {
        let snapshot = Snapshot::build(&world(unit), "unit");
        let found = snapshot.reachable("tool.call", username, Timestamp::constant(1_767_268_800, 0)).map_err(|(reason, _)| reason)?;
        Ok(found.iter().map(|t| format!("{}/{}", t.org, t.name)).collect())
    }

    #[test]
    fn a_caller_reaches_what_its_roles_grant_and_what_is_usable() {
        let parent = json!({"parentRef": {"name": "acme"}});
        assert_eq!(reachable(parent.clone(), BOT).unwrap(), ["acme/a-shared", "unit/a-own", "unit/audit"]);
        assert_eq!(reachable(parent.clone(), "nobody"), Err(reasons::UNKNOWN_CALLER));
        let later = json!({"parentRef": {"name": "acme"}, "startAt": "2026-06-01T00:00:00Z"});
        assert_eq!(reachable(later, BOT), Err(reasons::ORG_SUSPENDED));
        let suspended = json!({"parentRef": {"name": "acme"}, "suspend": true});
        assert_eq!(reachable(suspended, BOT), Err(reasons::ORG_SUSPENDED));
        let snapshot = Snapshot::build(&world(parent), "unit");
        let now = Timestamp::constant(1_767_268_800, 0);
        assert!(snapshot.reachable("model.call", BOT, now).unwrap().is_empty(), "another verb");
    }
}
