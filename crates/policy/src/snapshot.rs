//! What is in force for one Org: pure data made from the `World`, from which `decide` answers. It opens no connection and reads no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use polity_api::{
    Policy, Role,
    agent::AgentType,
    money, names,
    org::{Durability, RecordInput},
    reasons,
    role::Export,
};

use crate::{
    AgentFacts, BudgetLimit, CompileCache, Key, ToolFacts, World, canon,
    chain::{Chain, Gate, Link},
    compile::CompiledPolicy,
    index::Index,
    past::HistoryRead,
    tool::{self, CompiledTool},
};

/// Everything in force for one Org, named by a digest.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(crate) org: String,
    pub(crate) org_uid: String,
    pub(crate) path: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) keep_input: bool,
    pub(crate) relaxed: bool,
    pub(crate) digest: String,
    pub(crate) budgets: Vec<BudgetLimit>,
    pub(crate) gates: Vec<Gate>,
    pub(crate) starts: Vec<(String, Timestamp)>,
    /// Username → the Agents that claim it; more than one is nobody.
    pub(crate) users: BTreeMap<String, Vec<AgentFacts>>,
    pub(crate) agents: BTreeMap<Key, AgentFacts>,
    /// Roles of the whole chain: those of ancestors that are not exported count for `match.roles` and `roles` only.
    pub(crate) roles: BTreeMap<Key, RoleInForce>,
    /// By Org and name.
    pub(crate) tools: BTreeMap<Key, ToolInForce>,
    pub(crate) policies: Vec<PolicyInForce>,
    /// What their rules read of the history.
    pub(crate) history_read: HistoryRead,
    /// Tools that are stored and cannot be decoded: Org and name → error.
    pub(crate) broken_tools: BTreeMap<Key, String>,
    /// Policies that are stored and cannot be decoded, as `namespace/name`, with the error.
    pub(crate) broken_policies: Vec<(String, String)>,
}

/// A Role of the chain.
#[derive(Debug)]
pub(crate) struct RoleInForce {
    pub org: String,
    pub role: Arc<Role>,
    /// Usable here: the own Org's, or exported.
    pub usable: bool,
}

/// A Tool visible here.
#[derive(Debug)]
pub(crate) struct ToolInForce {
    pub facts: Arc<ToolFacts>,
    pub compiled: Arc<CompiledTool>,
    /// Policies that may select it, found when it is first called.
    pub index: OnceLock<Index>,
}

/// A Policy that binds here.
#[derive(Debug)]
pub(crate) struct PolicyInForce {
    pub org: String,
    pub org_uid: String,
    pub namespace: String,
    pub name: String,
    pub policy: Arc<Policy>,
    /// Digest of its spec.
    pub digest: Arc<str>,
    pub compiled: Arc<CompiledPolicy>,
}

impl RoleInForce {
    /// Agents that hold it at a time, by name.
    pub fn holders(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        let holders = self.role.status.as_ref().map(|s| s.holders.as_slice()).unwrap_or_default();
        holders.iter().filter(move |h| h.until.as_ref().is_none_or(|until| until.0 > now)).map(|h| h.agent.as_str())
    }
}

impl Snapshot {
    /// Builds the view of an Org. Never fails: what is broken becomes a denial.
    #[must_use]
    pub fn build(world: &World, org: &str) -> Self {
        Self::build_with(world, org, &CompileCache::default())
    }

    /// `build`, sharing compiled Policies and schemas with other snapshots.
    #[must_use]
    pub fn build_with(world: &World, org: &str, cache: &CompileCache) -> Self {
        crate::cel::eval::prepare();
        let chain = Chain::resolve(world, org);
        let mut s = Self { org: org.to_owned(), ..Self::default() };
        s.path = chain.links.iter().map(|l| l.name.clone()).collect();
        if let Some(own) = chain.links.last().filter(|l| l.name == org) {
            s.org_uid = own.org.metadata.uid.clone().unwrap_or_default();
            s.namespace.clone_from(&own.namespace);
            s.keep_input = own.org.spec.record.as_ref().is_some_and(|r| r.input == RecordInput::Full);
            s.relaxed = own.org.spec.record.as_ref().is_some_and(|r| r.durability == Durability::Relaxed);
        }
        let mut force = BTreeSet::new();
        for link in &chain.links {
            s.take_budgets(link);
            let meta = &link.org.metadata;
            let digest = cache.digest(meta.uid.as_deref(), meta.resource_version.as_deref(), &link.org.spec);
            force.insert(format!("Org/{}/{digest}", uid(meta.uid.as_deref())));
            force.insert(format!("Namespace/{}/{}", link.name, link.namespace));
            if !link.namespace.is_empty() {
                s.take_agents(world, link, cache, &mut force);
                s.take_roles(world, link, cache, &mut force);
                s.take_tools(world, link, cache, &mut force);
                s.take_policies(world, link, cache, &mut force);
            }
        }
        s.gates = chain.gates;
        s.gates.sort_by_key(|g| rank(g.reason));
        s.starts = chain.starts;
        force.extend(s.gates.iter().map(|g| format!("Gate/{}/{}", g.reason, g.message)));
        s.digest = canon::digest(&force);
        s
    }

    fn take_budgets(&mut self, link: &Link) {
        for budget in &link.org.spec.budget {
            let limit = |unit, max| BudgetLimit {
                org: link.name.clone(),
                org_uid: link.org.metadata.uid.clone().unwrap_or_default(),
                window: polity_api::duration::seconds(&budget.window).unwrap_or_default(),
                unit,
                max,
            };
            if polity_api::duration::seconds(&budget.window).is_none() {
                self.gates.push(Gate {
                    reason: reasons::ORG_NOT_READY,
                    message: format!("budget of Org {}: {:?} is not a window", link.name, budget.window),
                });
                continue;
            }
            self.budgets.extend(budget.calls.map(|max| limit("calls", max)));
            match budget.usd.as_deref().map(money::parse_usd) {
                Some(Ok(max)) => self.budgets.push(limit("microUSD", max)),
                Some(Err(e)) => {
                    self.gates.push(Gate { reason: reasons::ORG_NOT_READY, message: format!("budget of Org {}: {e}", link.name) });
                }
                None => {}
            }
        }
    }

    fn take_agents(&mut self, world: &World, link: &Link, cache: &CompileCache, force: &mut BTreeSet<String>) {
        for ((namespace, name), agent) in within(&world.agents, &link.namespace) {
            if agent.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let digest = cache.digest(agent.metadata.uid.as_deref(), agent.metadata.resource_version.as_deref(), &agent.spec);
            force.insert(format!("Agent/{}/{digest}", uid(agent.metadata.uid.as_deref())));
            let facts = |kind: AgentType| AgentFacts { namespace: namespace.clone(), name: name.clone(), kind: kind.name().to_owned() };
            let usernames = if agent.spec.type_ == AgentType::AI {
                vec![names::service_account_username(namespace, &names::agent_account(name))]
            } else {
                agent.spec.usernames.clone().unwrap_or_default()
            };
            let mut human = false;
            for username in usernames {
                // what the API server names itself is a program, whoever claims it
                let kind = match agent.spec.type_ {
                    AgentType::Human if username.starts_with("system:") => AgentType::System,
                    other => other,
                };
                human |= kind == AgentType::Human;
                let claims = self.users.entry(username).or_default();
                if !claims.iter().any(|a| a.namespace == *namespace && a.name == *name) {
                    claims.push(facts(kind));
                }
            }
            let kind = if agent.spec.type_ == AgentType::Human && !human { AgentType::System } else { agent.spec.type_ };
            self.agents.insert((namespace.clone(), name.clone()), facts(kind));
        }
    }

    fn take_roles(&mut self, world: &World, link: &Link, cache: &CompileCache, force: &mut BTreeSet<String>) {
        for (key, role) in within(&world.roles, &link.namespace) {
            if role.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let usable = link.name == self.org || role.spec.export == Some(Export::Descendants);
            let digest = cache.digest(role.metadata.uid.as_deref(), role.metadata.resource_version.as_deref(), &role.spec);
            force.insert(format!("Role/{}/{digest}", uid(role.metadata.uid.as_deref())));
            for holder in role.status.iter().flat_map(|s| &s.holders) {
                let until = holder.until.as_ref().map(|t| t.0.to_string()).unwrap_or_default();
                force.insert(format!("Holder/{}/{}/{until}", uid(role.metadata.uid.as_deref()), holder.agent));
            }
            self.roles.insert(key.clone(), RoleInForce { org: link.name.clone(), role: Arc::clone(role), usable });
        }
    }

    fn take_tools(&mut self, world: &World, link: &Link, cache: &CompileCache, force: &mut BTreeSet<String>) {
        let own = link.name == self.org;
        for ((_, name), tool) in within(&world.tools, &link.namespace) {
            if tool.metadata.deletion_timestamp.is_some() || !(own || tool.spec.export == Some(Export::Descendants)) {
                continue;
            }
            let digest = cache.digest(tool.metadata.uid.as_deref(), tool.metadata.resource_version.as_deref(), &tool.spec);
            let facts = Arc::new(tool::facts_with(&link.org, tool, digest));
            force.insert(format!("Tool/{}/{}", facts.uid, facts.digest));
            if let Some(drift) = &facts.quarantined {
                force.insert(format!("Drift/{}/{drift}", facts.uid));
            }
            let compiled = cache.tool(&facts);
            self.tools.insert((link.name.clone(), name.clone()), ToolInForce { facts, compiled, index: OnceLock::new() });
        }
        for ((_, _, name), error) in broken(world, "Tool", &link.namespace) {
            force.insert(format!("BrokenTool/{}/{name}/{error}", link.name));
            self.broken_tools.insert((link.name.clone(), name.clone()), error.clone());
        }
    }

    fn take_policies(&mut self, world: &World, link: &Link, cache: &CompileCache, force: &mut BTreeSet<String>) {
        // a Policy that is being deleted binds until it is gone
        for ((namespace, name), policy) in within(&world.policies, &link.namespace) {
            let digest = cache.digest(policy.metadata.uid.as_deref(), policy.metadata.resource_version.as_deref(), &policy.spec);
            force.insert(format!("Policy/{}/{digest}", uid(policy.metadata.uid.as_deref())));
            let compiled = cache.policy(&digest, &policy.spec);
            let policy = Arc::clone(policy);
            compiled.rules.iter().for_each(|r| self.history_read.add(&r.program.reads));
            self.policies.push(PolicyInForce {
                org: link.name.clone(),
                org_uid: link.org.metadata.uid.clone().unwrap_or_default(),
                namespace: namespace.clone(),
                name: name.clone(),
                policy,
                digest: digest.into(),
                compiled,
            });
        }
        for ((_, namespace, name), error) in broken(world, "Policy", &link.namespace) {
            force.insert(format!("BrokenPolicy/{namespace}/{name}/{error}"));
            self.broken_policies.push((format!("{namespace}/{name}"), error.clone()));
        }
    }
}

/// `namespace/name`.
pub(crate) fn full(key: &Key) -> String {
    format!("{}/{}", key.0, key.1)
}

fn uid(uid: Option<&str>) -> &str {
    uid.unwrap_or_default()
}

/// Objects of a namespace.
fn within<'a, T>(map: &'a BTreeMap<Key, Arc<T>>, namespace: &'a str) -> impl Iterator<Item = (&'a Key, &'a Arc<T>)> {
    map.range((namespace.to_owned(), String::new())..).take_while(move |((ns, _), _)| ns == namespace)
}

/// Undecodable objects of a kind in a namespace.
fn broken<'a>(world: &'a World, kind: &'a str, namespace: &'a str) -> impl Iterator<Item = (&'a (String, String, String), &'a String)> {
    world.undecodable.iter().filter(move |((k, ns, _), _)| k == kind && ns == namespace)
}

/// Order in which gates are named when several are closed.
fn rank(reason: &str) -> usize {
    const ORDER: [&str; 5] = [
        reasons::ANCESTRY_BROKEN,
        reasons::ORG_DELETING,
        reasons::ORG_SUSPENDED,
        reasons::NAMESPACE_NOT_CONSENTING,
        reasons::ORG_NOT_READY,
    ];
    ORDER.iter().position(|r| *r == reason).unwrap_or(ORDER.len())
}
