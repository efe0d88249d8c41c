//! What a snapshot tells others than `decide`: names, Tools, who holds which Role, who is whose superior.

use std::sync::Arc;

use jiff::Timestamp;
use polity_api::role::{Export, RoleRef};

use crate::{
    AgentFacts, BudgetLimit, Key, Snapshot, ToolFacts, grant,
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

    /// Policies whose match selects a Tool here whoever calls it.
    pub(crate) fn policies_for<'a>(&'a self, tool: &'a ToolInForce) -> impl Iterator<Item = &'a PolicyInForce> {
        let may = |p: &PolicyInForce| grant::selects_place(p.policy.spec.matches.as_ref(), &tool.facts, &self.org, &self.path);
        let found = tool.selecting.get_or_init(|| self.policies.iter().enumerate().filter(|(_, p)| may(p)).map(|(i, _)| i).collect());
        found.iter().filter_map(|i| self.policies.get(*i))
    }

    /// Roles in force that a user holds, as `namespace/name`.
    #[must_use]
    pub fn roles_of(&self, username: &str) -> Vec<String> {
        let Some(agent) = self.agent_by_username(username) else { return Vec::new() };
        self.held(&agent, None).filter(|(_, r)| r.usable).map(|(key, _)| full(key)).collect()
    }

    /// Roles of the chain that an Agent holds at a time (None: those listed).
    pub(crate) fn held(&self, agent: &AgentFacts, now: Option<Timestamp>) -> impl Iterator<Item = (&Key, &RoleInForce)> {
        // a Role's holders are Agents of its own namespace
        let (namespace, name) = (agent.namespace.clone(), agent.name.clone());
        self.roles.iter().filter(move |((ns, _), role)| *ns == namespace && role.holders(now).any(|h| h == name))
    }

    /// Holders of a Role of the Org or of one above; without `org` the own Org's. Only Agents that exist. Whether a rule may name the Role was judged when
    /// it was decided: a rule of an Org above names Roles of that Org, exported or not.
    #[must_use]
    pub fn holders(&self, role: &RoleRef) -> Vec<AgentFacts> {
        self.holders_of(role.org.as_deref().unwrap_or(&self.org), &role.name)
    }

    /// Whether an Org of the chain exports a Role of this name.
    pub(crate) fn exports(&self, org: &str, name: &str) -> bool {
        self.roles.iter().any(|((_, n), r)| n == name && r.org == org && r.role.spec.export == Some(Export::Descendants))
    }

    fn holders_of(&self, org: &str, name: &str) -> Vec<AgentFacts> {
        let found = self.roles.iter().find(|((_, n), r)| n == name && r.org == org);
        let Some(((namespace, _), role)) = found else { return Vec::new() };
        role.holders(None).filter_map(|name| self.agents.get(&(namespace.clone(), name.to_owned())).cloned()).collect()
    }

    /// Holders of the Roles that the Agent's Roles report to, without the Agent itself.
    #[must_use]
    pub fn superiors(&self, agent: &AgentFacts) -> Vec<AgentFacts> {
        let mut out: Vec<AgentFacts> = Vec::new();
        for (_, role) in self.held(agent, None) {
            let Some(to) = &role.role.spec.reports_to else { continue };
            let org = to.org.as_deref().unwrap_or(&role.org);
            if org != role.org && !self.exports(org, &to.name) {
                continue;
            }
            for superior in self.holders_of(org, &to.name) {
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

    /// A username that is this Agent's alone; an Agent of the own namespace goes first.
    pub(crate) fn username_of(&self, agent: &str) -> Option<&str> {
        let mut found: Vec<_> = self.users.iter().filter(|(_, claims)| matches!(claims.as_slice(), [one] if one.name == agent)).collect();
        found.sort_by_key(|(_, claims)| claims.first().is_none_or(|a| a.namespace != self.namespace));
        found.first().map(|(username, _)| username.as_str())
    }
}
