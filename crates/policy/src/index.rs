//! Which Policies can select a call, before any expression runs: by Tool and place once, then by the caller's Agent, Roles, job space, groups and the verb.
//! It only narrows: what it gives is still matched in full.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::OnceLock,
};

use polity_api::policy::Match;

use crate::{Key, Problem, cel::code::Code, compile::CompiledRule, decide::Granted, grant::Action, snapshot::PolicyInForce};

/// Policies that may select one Tool, by what of the call they ask for.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    always: Vec<u32>,
    agents: HashMap<String, Vec<u32>>,
    roles: HashMap<Key, Vec<u32>>,
    job_spaces: HashMap<String, Vec<u32>>,
    groups: HashMap<String, Vec<u32>>,
    verbs: HashMap<String, Vec<u32>>,
    /// Places in the snapshot of those that rewrite.
    pub rewriting: Vec<usize>,
    /// Some of them count calls, or read what was counted.
    pub counts: bool,
    /// Number of expressions that more than one rule has.
    pub twins: usize,
    /// Number of parts of expressions that more than one rule has.
    pub shared: usize,
}

/// A Policy that may select the Tool.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its place in the snapshot.
    policy: usize,
    /// What is wrong with its rules for this Tool, found when the two first meet.
    pub typed: OnceLock<Option<Problem>>,
    /// For each rule: the number of its expression, if other rules have the same and it means the same in each.
    pub twins: Box<[Option<u32>]>,
    /// For each rule and each part of it that may be shared: its number, if other rules have it. Empty for a rule that shares nothing.
    pub shared: Box<[Box<[Option<u32>]>]>,
}

impl Index {
    /// Builds it from those Policies of a snapshot that may select the Tool.
    pub fn new<'a>(policies: impl Iterator<Item = (usize, &'a PolicyInForce)>) -> Self {
        let mut index = Self::default();
        let mut chosen: Vec<&PolicyInForce> = Vec::new();
        for (place, policy) in policies {
            // more than 4 billion Policies are beyond what a cluster stores
            let Ok(at) = u32::try_from(index.entries.len()) else { break };
            index.file(at, policy);
            index.counts |= policy.compiled.counts();
            if policy.compiled.rewrites() {
                index.rewriting.push(place);
            }
            index.entries.push(Entry { policy: place, typed: OnceLock::new(), twins: Box::default(), shared: Box::default() });
            chosen.push(policy);
        }
        index.find_twins(&chosen);
        index.find_shared(&chosen);
        index
    }

    /// Files a Policy under the one field that narrows most.
    fn file(&mut self, at: u32, policy: &PolicyInForce) {
        static NONE: Match = Match {
            orgs: Vec::new(),
            units: Vec::new(),
            roles: Vec::new(),
            groups: Vec::new(),
            agents: Vec::new(),
            tools: Vec::new(),
            risk: Vec::new(),
            verbs: Vec::new(),
            job_spaces: Vec::new(),
        };
        let m = policy.policy.spec.matches.as_ref().unwrap_or(&NONE);
        let mut under = |map: fn(&mut Self) -> &mut HashMap<String, Vec<u32>>, names: &[String]| {
            for name in names {
                map(self).entry(name.clone()).or_default().push(at);
            }
        };
        if !m.agents.is_empty() {
            under(|i| &mut i.agents, &m.agents);
        } else if !m.roles.is_empty() {
            for role in &m.roles {
                self.roles.entry((policy.namespace.clone(), role.clone())).or_default().push(at);
            }
        } else if !m.job_spaces.is_empty() {
            under(|i| &mut i.job_spaces, &m.job_spaces);
        } else if !m.groups.is_empty() {
            under(|i| &mut i.groups, &m.groups);
        } else if !m.verbs.is_empty() {
            under(|i| &mut i.verbs, &m.verbs);
        } else {
            self.always.push(at);
        }
    }

    /// Numbers the expressions that several rules have. Those that read `roles` or `counters` mean something else in each Org or Policy.
    fn find_twins(&mut self, policies: &[&PolicyInForce]) {
        let rules = |p: &PolicyInForce| p.compiled.rules.len().min(p.policy.spec.rules.len());
        let text = |p: &'_ PolicyInForce, r: usize| {
            p.compiled.rules.get(r).filter(|c| !c.program.uses_roles && c.program.reads.counters.is_empty())?;
            Some(p.policy.spec.rules.get(r)?.expression.trim().to_owned())
        };
        let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for policy in policies {
            for expression in (0..rules(policy)).filter_map(|r| text(policy, r)) {
                counts.entry(expression).or_default().0 += 1;
            }
        }
        counts.retain(|_, (count, _)| *count > 1);
        for (number, (_, twin)) in (0..).zip(counts.values_mut()) {
            *twin = number;
        }
        self.twins = counts.len();
        for (entry, policy) in self.entries.iter_mut().zip(policies) {
            entry.twins = (0..rules(policy)).map(|r| text(policy, r).and_then(|e| counts.get(&e)).map(|(_, twin)| *twin)).collect();
        }
    }

    /// Numbers the parts that several rules have. Rules that have the whole expression in common are evaluated once anyway and count once.
    fn find_shared(&mut self, policies: &[&PolicyInForce]) {
        fn parts(rule: &CompiledRule) -> &[String] {
            rule.program.code.as_ref().map(Code::shared).unwrap_or_default()
        }
        let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        let mut twins = BTreeSet::new();
        for (entry, policy) in self.entries.iter().zip(policies) {
            for (at, rule) in policy.compiled.rules.iter().enumerate() {
                let twin = entry.twins.get(at).copied().flatten();
                if twin.is_none_or(|twin| twins.insert(twin)) {
                    parts(rule).iter().for_each(|part| counts.entry(part).or_default().0 += 1);
                }
            }
        }
        counts.retain(|_, (count, _)| *count > 1);
        for (number, (_, place)) in (0..).zip(counts.values_mut()) {
            *place = number;
        }
        self.shared = counts.len();
        for (entry, policy) in self.entries.iter_mut().zip(policies) {
            let numbers = |rule: &CompiledRule| -> Box<[Option<u32>]> {
                let numbers: Vec<_> = parts(rule).iter().map(|part| counts.get(part.as_str()).map(|(_, place)| *place)).collect();
                if numbers.iter().any(Option::is_some) { numbers.into() } else { Box::default() }
            };
            entry.shared = policy.compiled.rules.iter().map(numbers).collect();
        }
    }

    /// Policies that may select the call, in the order of the snapshot, by place and entry.
    pub fn candidates<'i>(&'i self, action: &Action<'_>, g: &Granted<'_>) -> Vec<(usize, &'i Entry)> {
        let mut found: Vec<u32> = self.always.clone();
        let mut under = |list: Option<&Vec<u32>>| found.extend(list.into_iter().flatten());
        under(self.agents.get(action.agent));
        under(self.verbs.get(action.verb));
        under(action.job_space.and_then(|j| self.job_spaces.get(j)));
        if !self.roles.is_empty() {
            g.held.iter().for_each(|(key, _)| under(self.roles.get(*key)));
        }
        if !self.groups.is_empty() {
            action.groups.iter().for_each(|group| under(self.groups.get(group)));
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().filter_map(|at| self.entries.get(at as usize)).map(|entry| (entry.policy, entry)).collect()
    }
}
