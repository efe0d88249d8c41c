//! Compiled Policies and Tools, shared between the snapshots of an Org tree by digest of their specs.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use polity_api::{
    duration,
    policy::{Effect, PolicyRule, PolicySpec},
};

use serde::Serialize;

use crate::{
    Problem, ToolFacts, canon,
    cel::{
        check,
        program::{self, Parsed, Program},
        ty::Ty,
    },
    obligations::{self, CompiledObligation},
    rewrite::CompiledPatch,
    tool::CompiledTool,
};

/// Most digests that are remembered; objects that are gone are forgotten with all others when it is reached.
const MAX_DIGESTS: usize = 50_000;

/// Most Tools whose check against one Policy is remembered beyond a snapshot.
const MAX_PAIRS: usize = 1024;

/// A Policy that was compiled, or why it could not be.
#[derive(Debug, Default)]
pub struct CompiledPolicy {
    /// Its rules; empty when it is broken.
    pub rules: Vec<CompiledRule>,
    /// What it demands of results; empty when it is broken.
    pub obligations: Vec<CompiledObligation>,
    /// What is wrong with it; then it denies whatever it selects.
    pub problems: Vec<Problem>,
    /// Specs of rules that name `args`, checked against a Tool when the two first meet: digest of the Tool → the first problem.
    typed: RwLock<HashMap<String, Option<Problem>>>,
}

/// A rule that was compiled.
#[derive(Debug)]
pub struct CompiledRule {
    /// The expression.
    pub program: Program,
    /// What it changes in the input, with effect Rewrite.
    pub patches: Vec<CompiledPatch>,
    /// The expression as parsed, for the check against a Tool.
    parsed: Option<Parsed>,
    /// Set when it has panicked; it denies until its Policy changes.
    quarantined: AtomicBool,
}

impl CompiledRule {
    /// Whether it is about the arguments, so that each Tool must have what it names.
    #[must_use]
    pub fn names_args(&self) -> bool {
        self.program.uses_args || !self.patches.is_empty()
    }

    /// Whether it has panicked before.
    #[must_use]
    pub fn quarantined(&self) -> bool {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// Takes it out of use.
    pub fn quarantine(&self) {
        self.quarantined.store(true, Ordering::Relaxed);
    }
}

impl CompiledPolicy {
    /// Compiles the rules of a Policy. Never fails: a broken one becomes a denial.
    #[must_use]
    pub fn new(spec: &PolicySpec) -> Self {
        let mut out = Self::default();
        for (at, rule) in spec.rules.iter().enumerate() {
            if spec.rules.iter().take(at).any(|r| r.name == rule.name) {
                out.problems.push(Problem::rule(rule, "another rule of the Policy has this name"));
            }
            out.problems.extend(shape(rule));
            match compile(rule) {
                Ok(rule) => out.rules.push(rule),
                Err(problems) => out.problems.extend(problems),
            }
        }
        match obligations::compile(spec) {
            Ok(compiled) => out.obligations = compiled,
            Err(problems) => out.problems.extend(problems),
        }
        if spec.rules.is_empty() && spec.obligations.is_empty() {
            out.problems.push(Problem::whole("the Policy has no rules and no obligations"));
        }
        if !out.problems.is_empty() {
            out.rules.clear();
            out.obligations.clear();
        }
        out
    }

    /// Whether one of its rules rewrites the input.
    #[must_use]
    pub fn rewrites(&self) -> bool {
        self.rules.iter().any(|r| !r.patches.is_empty())
    }

    /// Checks the rules that name `args` against a Tool; the first problem, remembered.
    #[must_use]
    pub fn typed(&self, spec: &PolicySpec, tool: &ToolFacts, compiled: &CompiledTool) -> Option<Problem> {
        if !self.rules.iter().any(CompiledRule::names_args) && self.obligations.is_empty() {
            return None;
        }
        if let Some(known) = self.typed.read().unwrap_or_else(PoisonError::into_inner).get(&tool.digest) {
            return known.clone();
        }
        let found = self.check_typed(spec, tool, compiled.args.as_ref(), &compiled.result).into_iter().next();
        let mut typed = self.typed.write().unwrap_or_else(PoisonError::into_inner);
        // Tools that are edited for days must not fill the memory of a Policy that stays
        if typed.len() >= MAX_PAIRS {
            typed.clear();
        }
        typed.insert(tool.digest.clone(), found.clone());
        found
    }

    /// Every problem of the rules with the arguments of a Tool, and of the obligations with its result.
    #[must_use]
    pub fn check_typed(&self, spec: &PolicySpec, tool: &ToolFacts, args: Option<&Ty>, result: &Ty) -> Vec<Problem> {
        let pairs = self.rules.iter().zip(&spec.rules).filter(|(compiled, _)| compiled.names_args());
        pairs
            .flat_map(|(compiled, rule)| {
                let Some(args) = args else {
                    return vec![Problem::rule(rule, &format!("Tool {} has no input schema, so rules cannot name its args", tool.name))];
                };
                let expression = compiled.parsed.iter().flat_map(|parsed| check::check(parsed, args)).map(|f| Problem::at(rule, f));
                let patches = compiled.patches.iter().filter_map(|p| p.fits(args).err()).map(|e| Problem::rule(rule, &e));
                expression.chain(patches).collect()
            })
            .chain(self.obligations.iter().flat_map(|o| o.problems(args, result)))
            .collect()
    }

    /// A Policy whose one rule panics when it is evaluated.
    #[cfg(test)]
    pub fn panicking() -> Self {
        use crate::cel::code::Unsupported;
        let program = Program {
            code: Err(Unsupported("nothing")),
            expr: ::cel::IdedExpr::default(),
            patterns: Arc::default(),
            cost: 1,
            uses_args: false,
            uses_roles: false,
        };
        Self {
            rules: vec![CompiledRule { program, patches: Vec::new(), parsed: None, quarantined: AtomicBool::new(false) }],
            ..Self::default()
        }
    }
}

/// What is wrong with a rule besides its expression. The CRD says the same; this is for objects that came past it, and offline.
fn shape(rule: &PolicyRule) -> Option<Problem> {
    let message = match (rule.effect, &rule.approval) {
        (Effect::Rewrite, _) if rule.rewrite.is_empty() => "effect Rewrite needs rewrite",
        (Effect::Deny | Effect::RequireApproval, _) if !rule.rewrite.is_empty() => "rewrite belongs to effect Rewrite",
        (Effect::Deny | Effect::Rewrite, None) => return None,
        (Effect::Deny | Effect::Rewrite, Some(_)) => "approval belongs to effect RequireApproval",
        (Effect::RequireApproval, None) => "effect RequireApproval needs approval",
        (Effect::RequireApproval, Some(a)) => {
            if [a.role.is_some(), a.group.is_some(), a.superior].into_iter().filter(|named| *named).count() != 1 {
                "approval names exactly one of role, group, superior"
            } else if a.count < 1 {
                "approval.count is at least 1"
            } else if duration::seconds(&a.expires_after).is_none() {
                "approval.expiresAfter is not a duration such as 24h"
            } else {
                return None;
            }
        }
    };
    Some(Problem::rule(rule, message))
}

fn compile(rule: &PolicyRule) -> Result<CompiledRule, Vec<Problem>> {
    let parse = || program::parse(&rule.expression).map_err(|f| vec![Problem::at(rule, f)]);
    let parsed = parse()?;
    // with arguments of any shape: what is wrong here is wrong for every Tool
    let faults = check::check(&parsed, &Ty::Dyn);
    if !faults.is_empty() {
        return Err(faults.into_iter().map(|f| Problem::at(rule, f)).collect());
    }
    let program = program::finish(parsed).map_err(|e| vec![Problem::rule(rule, &e)])?;
    let parsed = if program.uses_args { Some(parse()?) } else { None };
    let patches: Result<Vec<_>, String> = rule.rewrite.iter().map(CompiledPatch::new).collect();
    let patches = patches.map_err(|e| vec![Problem::rule(rule, &e)])?;
    Ok(CompiledRule { program, patches, parsed, quarantined: AtomicBool::new(false) })
}

/// Compiled Policies and Tools by digest of their spec. What no snapshot holds any more is dropped at the next build that adds something.
#[derive(Default)]
pub struct CompileCache {
    policies: Mutex<HashMap<String, Arc<CompiledPolicy>>>,
    tools: Mutex<HashMap<String, Arc<CompiledTool>>>,
    /// Uid of an object → its resourceVersion and the digest of its spec then.
    digests: Mutex<HashMap<String, (String, String)>>,
}

impl fmt::Debug for CompileCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompileCache").finish_non_exhaustive()
    }
}

impl CompileCache {
    /// Digest of the spec of a stored object, computed once per version of it. Without uid and version (offline) it is computed each time.
    pub(crate) fn digest<T: Serialize>(&self, uid: Option<&str>, version: Option<&str>, spec: &T) -> String {
        let (Some(uid), Some(version)) = (uid, version) else { return canon::digest(spec) };
        let lock = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, digest)) = lock().get(uid).filter(|(v, _)| v == version) {
            return digest.clone();
        }
        let digest = canon::digest(spec);
        let mut known = lock();
        if known.len() >= MAX_DIGESTS {
            known.clear();
        }
        known.insert(uid.to_owned(), (version.to_owned(), digest.clone()));
        digest
    }

    /// The compiled form of a Policy.
    pub(crate) fn policy(&self, digest: &str, spec: &PolicySpec) -> Arc<CompiledPolicy> {
        get(&self.policies, digest, || CompiledPolicy::new(spec))
    }

    /// The compiled form of a Tool. Keyed with its name, which messages carry.
    pub(crate) fn tool(&self, tool: &ToolFacts) -> Arc<CompiledTool> {
        get(&self.tools, &format!("{}/{}", tool.name, tool.digest), || CompiledTool::new(tool))
    }
}

/// Compiles outside of the lock: two at once may do the same work, and the first one stays.
fn get<T>(map: &Mutex<HashMap<String, Arc<T>>>, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
    if let Some(have) = map.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
        return Arc::clone(have);
    }
    let made = Arc::new(make());
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    // more than twice what is in use: a Policy that is edited for days must not fill the memory
    if map.len() >= 64 && map.len() >= 2 * map.values().filter(|v| Arc::strong_count(v) > 1).count() {
        map.retain(|_, v| Arc::strong_count(v) > 1);
    }
    Arc::clone(map.entry(key.to_owned()).or_insert(made))
}
