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
    policy::{CountBy, Counter, Effect, PolicyRule, PolicySpec},
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
    past,
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
    /// What it counts; empty when it is broken.
    pub counters: Vec<CompiledCounter>,
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

/// A counter that was compiled.
#[derive(Debug)]
pub struct CompiledCounter {
    /// Its name.
    pub name: String,
    /// What a call adds; None: one.
    pub amount: Option<Program>,
    /// Calls that differ in one of these count apart; in order, each once.
    pub by: Vec<CountBy>,
    /// Length of its window in seconds; 0: it never resets.
    pub window: i64,
    /// The amount as parsed, for the check against a Tool.
    parsed: Option<Parsed>,
}

impl CompiledCounter {
    /// Whether its amount is about the arguments.
    #[must_use]
    pub fn names_args(&self) -> bool {
        self.parsed.is_some()
    }

    fn new(counter: &Counter) -> Result<Self, Vec<Problem>> {
        let whole = |message: &str| vec![Problem::counter(&counter.name, message)];
        let named = counter.name.starts_with(|c: char| c.is_ascii_lowercase()) && counter.name.chars().all(|c| c.is_ascii_alphanumeric());
        if !named {
            return Err(whole("its name is not one that rules can read: a small letter, then letters and digits"));
        }
        let mut by = counter.by.clone();
        by.sort_unstable();
        by.dedup();
        let window = match &counter.window {
            Some(text) => duration::seconds(text).ok_or_else(|| whole("window is not a duration such as 24h"))?,
            // each input would be kept for ever
            None if by.contains(&CountBy::Input) => return Err(whole("by Input needs a window")),
            None => 0,
        };
        let (mut amount, mut parsed) = (None, None);
        if let Some(text) = &counter.amount {
            let at = |f| Problem::counter_at(&counter.name, f);
            let parse = || program::parse(text).map_err(|f| vec![at(f)]);
            let first = parse()?;
            let faults = check::check_amount(&first, &Ty::Dyn);
            if !faults.is_empty() {
                return Err(faults.into_iter().map(at).collect());
            }
            let program = program::finish(first).map_err(|e| whole(&e))?;
            if program.uses_args {
                parsed = Some(parse()?);
            }
            amount = Some(program);
        }
        Ok(Self { name: counter.name.clone(), amount, by, window, parsed })
    }
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
        for (at, counter) in spec.counters.iter().enumerate() {
            if spec.counters.iter().take(at).any(|c| c.name == counter.name) {
                out.problems.push(Problem::counter(&counter.name, "another counter of the Policy has this name"));
            }
            match CompiledCounter::new(counter) {
                Ok(counter) => out.counters.push(counter),
                Err(problems) => out.problems.extend(problems),
            }
        }
        // names of those that are wrong are known all the same, so that each slip is told once
        let counters = counters_type(spec);
        for (at, rule) in spec.rules.iter().enumerate() {
            if spec.rules.iter().take(at).any(|r| r.name == rule.name) {
                out.problems.push(Problem::rule(rule, "another rule of the Policy has this name"));
            }
            out.problems.extend(shape(rule));
            match compile(rule, &counters) {
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
            out.counters.clear();
        }
        out
    }

    /// Whether one of its rules rewrites the input.
    #[must_use]
    pub fn rewrites(&self) -> bool {
        self.rules.iter().any(|r| !r.patches.is_empty())
    }

    /// Whether something of it is about the arguments.
    #[must_use]
    pub fn names_args(&self) -> bool {
        self.rules.iter().any(CompiledRule::names_args) || self.counters.iter().any(CompiledCounter::names_args)
    }

    /// Whether calls that it selects count somewhere, or its rules read what others have counted.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.counters.is_empty() || self.rules.iter().any(|r| r.program.reads.history())
    }

    /// Checks the rules that name `args` against a Tool; the first problem, remembered.
    #[must_use]
    pub fn typed(&self, spec: &PolicySpec, tool: &ToolFacts, compiled: &CompiledTool) -> Option<Problem> {
        if !self.names_args() && self.obligations.is_empty() {
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
        let counters = counters_type(spec);
        let amounts = self.counters.iter().filter(|c| c.names_args()).flat_map(|counter| {
            let Some(args) = args else {
                let message = format!("Tool {} has no input schema, so amounts cannot name its args", tool.name);
                return vec![Problem::counter(&counter.name, &message)];
            };
            let faults = counter.parsed.iter().flat_map(|parsed| check::check_amount(parsed, args));
            faults.map(|f| Problem::counter_at(&counter.name, f)).collect()
        });
        pairs
            .flat_map(|(compiled, rule)| {
                let Some(args) = args else {
                    return vec![Problem::rule(rule, &format!("Tool {} has no input schema, so rules cannot name its args", tool.name))];
                };
                let expression =
                    compiled.parsed.iter().flat_map(|parsed| check::check_rule(parsed, args, &counters)).map(|f| Problem::at(rule, f));
                let patches = compiled.patches.iter().filter_map(|p| p.fits(args).err()).map(|e| Problem::rule(rule, &e));
                expression.chain(patches).collect()
            })
            .chain(amounts)
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
            reads: past::Reads::default(),
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

/// Type of `counters` in the rules of a Policy.
fn counters_type(spec: &PolicySpec) -> Ty {
    past::counters_type(spec.counters.iter().map(|c| c.name.as_str()))
}

fn compile(rule: &PolicyRule, counters: &Ty) -> Result<CompiledRule, Vec<Problem>> {
    let parse = || program::parse(&rule.expression).map_err(|f| vec![Problem::at(rule, f)]);
    let parsed = parse()?;
    // with arguments of any shape: what is wrong here is wrong for every Tool
    let faults = check::check_rule(&parsed, &Ty::Dyn, counters);
    if !faults.is_empty() {
        return Err(faults.into_iter().map(|f| Problem::at(rule, f)).collect());
    }
    let program = program::finish(parsed).map_err(|e| vec![Problem::rule(rule, &e)])?;
    if rule.effect == Effect::Rewrite && program.reads.any() {
        return Err(vec![Problem::rule(
            rule,
            "a rule that rewrites cannot read counters or history: it must mean the same whenever it is applied",
        )]);
    }
    let parsed = if program.uses_args { Some(parse()?) } else { None };
    let patches: Result<Vec<_>, String> = rule.rewrite.iter().map(CompiledPatch::new).collect();
    let patches = patches.map_err(|e| vec![Problem::rule(rule, &e)])?;
    Ok(CompiledRule { program, patches, parsed, quarantined: AtomicBool::new(false) })
}

/// Compiled Policies and Tools by digest of their spec. What no snapshot holds any more is dropped once there is as much of it as is in use.
#[derive(Default)]
pub struct CompileCache {
    policies: Mutex<Kept<CompiledPolicy>>,
    tools: Mutex<Kept<CompiledTool>>,
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

/// What was compiled, by key.
struct Kept<T> {
    all: HashMap<String, Arc<T>>,
    /// With so many, what nobody uses is dropped: twice what was in use the last time, so that looking costs each addition the same, however many there are.
    sweep_at: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { all: HashMap::new(), sweep_at: FEWEST_SWEPT }
    }
}

/// Fewer are never looked through.
const FEWEST_SWEPT: usize = 64;

/// Compiles outside of the lock: two at once may do the same work, and the first one stays.
fn get<T>(kept: &Mutex<Kept<T>>, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
    if let Some(have) = kept.lock().unwrap_or_else(PoisonError::into_inner).all.get(key) {
        return Arc::clone(have);
    }
    let made = Arc::new(make());
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    // a Policy that is edited for days must not fill the memory
    if kept.all.len() >= kept.sweep_at {
        kept.all.retain(|_, v| Arc::strong_count(v) > 1);
        kept.sweep_at = FEWEST_SWEPT.max(2 * kept.all.len());
    }
    Arc::clone(kept.all.entry(key.to_owned()).or_insert(made))
}
