//! What is in force for one Org: pure data made from the `World`, from which `decide` answers.

use std::sync::Arc;

use polity_api::role::RoleRef;

use crate::{AgentFacts, BudgetLimit, CompileCache, Decision, Request, ToolFacts, Verdict, World};

/// Everything in force for one Org, named by a digest.
#[derive(Debug, Default)]
pub struct Snapshot {
    org: String,
    org_uid: String,
    path: Vec<String>,
    namespace: String,
    keep_input: bool,
    digest: String,
    budgets: Vec<BudgetLimit>,
}

impl Snapshot {
    /// Builds the view of an Org. Never fails: what is broken becomes a denial.
    #[must_use]
    pub fn build(world: &World, org: &str) -> Self {
        Self::build_with(world, org, &CompileCache::default())
    }

    /// `build`, sharing compiled Policies and schemas with other snapshots.
    #[must_use]
    pub fn build_with(_world: &World, org: &str, _cache: &CompileCache) -> Self {
        Self { org: org.to_owned(), ..Self::default() }
    }

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

    /// Budgets that calls are charged to: the own ones and every ancestor's.
    #[must_use]
    pub fn budgets(&self) -> &[BudgetLimit] {
        &self.budgets
    }

    /// A Tool visible from the Org: its own, or with `org` an ancestor's exported one.
    #[must_use]
    pub fn tool(&self, _name: &str, _org: Option<&str>) -> Option<Arc<ToolFacts>> {
        None
    }

    /// Roles in force that a user holds, as `namespace/name`.
    #[must_use]
    pub fn roles_of(&self, _username: &str) -> Vec<String> {
        Vec::new()
    }

    /// Holders of a Role in force; without `org` the own Org's.
    #[must_use]
    pub fn holders(&self, _role: &RoleRef) -> Vec<AgentFacts> {
        Vec::new()
    }

    /// Holders of the Roles that the Agent's Roles report to, without the Agent itself.
    #[must_use]
    pub fn superiors(&self, _agent: &AgentFacts) -> Vec<AgentFacts> {
        Vec::new()
    }

    /// The one Agent behind a username; None when there is none or more than one.
    #[must_use]
    pub fn agent_by_username(&self, _username: &str) -> Option<AgentFacts> {
        None
    }

    /// Decides one action. Pure; denies whatever is not granted.
    #[must_use]
    pub fn decide(&self, _request: &Request<'_>) -> Decision {
        Decision {
            verdict: Verdict::Deny,
            reason: polity_api::reasons::ORG_NOT_READY,
            message: "the Org takes no calls yet".to_owned(),
            hint: String::new(),
            rules: Vec::new(),
            advisory: Vec::new(),
            requirements: Vec::new(),
            expires_after: 0,
            snapshot: self.digest.clone(),
            agent: None,
            roles: Vec::new(),
            tool: None,
        }
    }
}
