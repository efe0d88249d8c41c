//! `decide`: gates, caller, Tool, Task, grant, rewrites of the arguments, their schema, then the Policies. It only ever narrows: without a grant nothing is allowed, and no later step
//! makes an earlier denial weaker.

use std::sync::Arc;

use polity_api::{names, reasons, role::Grant, toolcall::Rewritten};

use crate::{
    AgentFacts, Counting, Decision, Request, Snapshot, Trial, Verdict, canon,
    cel::meter::{Limits, Meter},
    explain,
    grant::{self, Action},
    rewrite::{self, Outcomes},
    rules,
    snapshot::{RoleInForce, ToolInForce, full},
    suggest,
};

/// What is known of a request after its caller, Tool and grant were found.
pub(crate) struct Granted<'a> {
    pub agent: AgentFacts,
    pub tool: &'a ToolInForce,
    /// Roles of the chain that the caller holds.
    pub held: Vec<(&'a crate::Key, &'a RoleInForce)>,
    pub job_space: Option<&'a str>,
}

/// A denial before any Policy was read.
struct No {
    reason: &'static str,
    message: String,
    hint: String,
}

fn no(reason: &'static str, message: impl Into<String>) -> No {
    No { reason, message: message.into(), hint: String::new() }
}

impl No {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl Snapshot {
    /// Decides one action. Pure but for a stopwatch; denies whatever is not granted.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        self.decide_with(request, Limits::default())
    }

    /// `decide` with a budget of one's own.
    pub(crate) fn decide_with(&self, request: &Request<'_>, limits: Limits) -> Decision {
        self.decide_and(request, limits, None)
    }

    /// `decide_with`, and looks at each rule by itself if somebody wants to know.
    pub(crate) fn decide_and(&self, request: &Request<'_>, limits: Limits, tried: Option<&mut Vec<Trial>>) -> Decision {
        let mut decision = self.blank();
        if let Err(no) = self.narrow(request, &mut decision, limits, tried) {
            decision.verdict = Verdict::Deny;
            decision.reason = no.reason;
            decision.message = no.message;
            decision.hint = no.hint;
        }
        decision
    }

    fn blank(&self) -> Decision {
        Decision {
            verdict: Verdict::Deny,
            reason: reasons::NOT_GRANTED,
            message: String::new(),
            hint: String::new(),
            rules: Vec::new(),
            advisory: Vec::new(),
            requirements: Vec::new(),
            expires_after: 0,
            snapshot: self.digest.clone(),
            agent: None,
            roles: Vec::new(),
            tool: None,
            rewritten: None,
            rewrites: Vec::new(),
            obligations: None,
            counting: Counting::default(),
            later: Vec::new(),
        }
    }

    fn narrow(&self, request: &Request<'_>, decision: &mut Decision, limits: Limits, tried: Option<&mut Vec<Trial>>) -> Result<(), No> {
        self.takes_calls(request)?;
        let agent = self.caller(request)?;
        let held: Vec<_> = self.held(&agent, request.now).collect();
        decision.agent = Some(agent.clone());
        decision.roles = held.iter().filter(|(_, r)| r.usable).map(|(key, _)| full(key)).collect();
        let tool = self.find_tool(request)?;
        decision.tool = Some(Arc::clone(&tool.facts));
        if let Some(why) = &tool.compiled.broken {
            return Err(no(reasons::TOOL_NOT_READY, format!("Tool {} is not usable: {why}", tool.facts.name)));
        }
        if let Some(why) = &tool.facts.quarantined {
            let no = no(reasons::TOOL_DRIFTED, format!("Tool {} is in quarantine: {why}", tool.facts.name));
            return Err(no.hint("somebody has to look at what changed and pin it, or not: `kubectl polity tool pin`".to_owned()));
        }
        bounds(request)?;
        if let Some(task) = request.task.filter(|t| t.cancel) {
            return Err(no(reasons::TASK_CANCELED, format!("Task {} is canceled", task.name)));
        }
        let job_space = request.task.map_or(request.job_space, |t| t.job_space.as_deref());
        let granted = Granted { agent, tool, held, job_space };
        let by = self.granting(request, &granted)?;
        let meter = Arc::new(Meter::new(limits));
        let rewrites = self.rewrite(request, &granted, decision, &meter)?;
        let request = &Request { args: rewrites.args.as_ref().unwrap_or(request.args), ..*request };
        let valid = bounds(request).and_then(|()| tool.compiled.validate(request.args).map_err(|e| no(reasons::INVALID_ARGUMENTS, e)));
        if let Err(invalid) = valid {
            decision.rewrites = rewrite::listed(rewrites.applied);
            return Err(No { message: after(&decision.rewrites, invalid.message), ..invalid });
        }
        rules::apply(self, request, &granted, decision, &meter);
        if let Some(tried) = tried {
            *tried = explain::trials(self, request, &granted, &rewrites);
        }
        decision.advisory.extend(rewrites.advisory);
        decision.advisory.sort_by(|a, b| a.rule.cmp(&b.rule));
        (decision.rewritten, decision.rewrites) = (rewrites.args, rewrite::listed(rewrites.applied));
        if decision.verdict == Verdict::Allow {
            decision.message = format!("granted by {}", by.join(", "));
            if !decision.rules.is_empty() {
                decision.message += &format!("; approved for {}", decision.rules.join(", "));
            }
        }
        Ok(())
    }

    /// Rewrites the input. An input that a rule cannot read because it is not what the schema says is refused for that.
    fn rewrite(&self, request: &Request<'_>, g: &Granted<'_>, decision: &mut Decision, meter: &Arc<Meter>) -> Result<Outcomes, No> {
        rewrite::run(self, request, g, meter).map_err(|broken| {
            if broken.reason == reasons::POLICY_ERROR
                && let Err(e) = g.tool.compiled.validate(request.args)
            {
                return no(reasons::INVALID_ARGUMENTS, e);
            }
            decision.rules = vec![broken.rule];
            no(broken.reason, broken.message).hint(broken.hint)
        })
    }

    /// Whether the Org takes calls at all.
    fn takes_calls(&self, request: &Request<'_>) -> Result<(), No> {
        if let Some(gate) = self.gates.first() {
            return Err(no(gate.reason, gate.message.clone()));
        }
        match self.starts.iter().find(|(_, start)| *start > request.now) {
            Some((org, start)) => Err(no(reasons::ORG_SUSPENDED, format!("Org {org} starts at {start}"))),
            None => Ok(()),
        }
    }

    fn caller(&self, request: &Request<'_>) -> Result<AgentFacts, No> {
        let username = &request.caller.username;
        match self.users.get(username).map(Vec::as_slice).unwrap_or_default() {
            [one] => Ok(one.clone()),
            [] => Err(no(reasons::UNKNOWN_CALLER, format!("{username:?} is no Agent of Org {}", self.org))
                .hint(format!("an Agent in namespace {} must name exactly this username", self.namespace))),
            several => {
                let names: Vec<_> = several.iter().map(|a| format!("{}/{}", a.namespace, a.name)).collect();
                Err(no(reasons::UNKNOWN_CALLER, format!("{username:?} is claimed by several Agents: {}", names.join(", ")))
                    .hint("a username belongs to one Agent of an Org tree; remove it from the others"))
            }
        }
    }

    fn find_tool(&self, request: &Request<'_>) -> Result<&ToolInForce, No> {
        if let Some(tool) = self.tool_in_force(request.tool, request.tool_org) {
            return Ok(tool);
        }
        let org = request.tool_org.unwrap_or(&self.org);
        if let Some(error) = self.broken_tools.get(&(org.to_owned(), request.tool.to_owned())) {
            return Err(no(reasons::TOOL_NOT_READY, format!("Tool {} is stored but cannot be decoded: {error}", request.tool)));
        }
        let there = self.tools.keys().filter(|(o, _)| o == org).map(|(_, name)| name.as_str());
        let elsewhere = self.tools.keys().find(|(o, name)| o != org && name == request.tool).map(|(o, _)| {
            format!("Org {o} exports a Tool of this name: name that Org too (spec.tool.org of a ToolCall, toolOrg of a request)")
        });
        let hint = elsewhere.unwrap_or_else(|| suggest::among("Tools", request.tool, there));
        let export = if org == self.org { "" } else { " that is exported to descendants" };
        Err(no(reasons::TOOL_NOT_FOUND, format!("Org {org} has no Tool {}{export}", request.tool)).hint(hint))
    }

    /// The Roles that grant the action; none: denied.
    fn granting(&self, request: &Request<'_>, g: &Granted<'_>) -> Result<Vec<String>, No> {
        let tool = &g.tool.facts;
        let covers = |grants: &[Grant]| grants.iter().any(|grant| grant::covers(grant, request.verb, tool));
        let task_space = request.task.and_then(|t| t.job_space.as_deref());
        let in_space = |space: &Option<String>| space.is_none() || space.as_deref() == task_space;
        let usable = || g.held.iter().filter(|(_, r)| r.usable);
        let by: Vec<String> =
            usable().filter(|(_, r)| covers(&r.role.spec.grants) && in_space(&r.role.spec.job_space)).map(|(key, _)| full(key)).collect();
        if !by.is_empty() {
            return Ok(by);
        }
        let who = format!("{}/{}", g.agent.namespace, g.agent.name);
        let held: Vec<String> = usable().map(|(key, _)| full(key)).collect();
        let holds = if held.is_empty() { "it holds no Role".to_owned() } else { format!("it holds {}", held.join(", ")) };
        let message = format!("no Role of Agent {who} grants {} on Tool {}; {holds}", request.verb, tool.name);
        let scoped =
            usable().find(|(_, r)| covers(&r.role.spec.grants)).and_then(|(key, r)| Some((full(key), r.role.spec.job_space.as_deref()?)));
        let hint = match scoped {
            Some((role, space)) => format!("{role} grants it only to calls for a Task of job space {space}"),
            None => {
                let grants: Vec<String> =
                    self.roles.iter().filter(|(_, r)| r.usable && covers(&r.role.spec.grants)).map(|(key, _)| full(key)).take(5).collect();
                if grants.is_empty() { "no Role of the Org grants it".to_owned() } else { format!("granted by {}", grants.join(", ")) }
            }
        };
        Err(no(reasons::NOT_GRANTED, message).hint(hint))
    }

    /// The action as a match sees it.
    pub(crate) fn action<'a>(&'a self, request: &'a Request<'_>, g: &'a Granted<'_>) -> Action<'a> {
        Action {
            verb: request.verb,
            org: &self.org,
            path: &self.path,
            tool: &g.tool.facts,
            agent: &g.agent.name,
            groups: &request.caller.groups,
            job_space: g.job_space,
        }
    }
}

/// What is wrong with arguments, with the rules that changed them before.
fn after(rewrites: &[Rewritten], problem: String) -> String {
    let rules: Vec<&str> = rewrites.iter().map(|r| r.rule.as_str()).collect();
    if rules.is_empty() { problem } else { format!("as rewritten by {}: {problem}", rules.join(", ")) }
}

/// Size and depth of the arguments.
fn bounds(request: &Request<'_>) -> Result<(), No> {
    if !canon::depth_within(request.args, canon::MAX_DEPTH) {
        return Err(no(reasons::INVALID_ARGUMENTS, format!("args are nested deeper than {} levels", canon::MAX_DEPTH)));
    }
    let size = canon::text_size(request.args);
    if size > names::MAX_INLINE_INPUT {
        return Err(no(reasons::INPUT_TOO_LARGE, format!("args have {size} bytes; at most {} are accepted", names::MAX_INLINE_INPUT)));
    }
    if !request.args.is_object() {
        return Err(no(reasons::INVALID_ARGUMENTS, "args must be a JSON object"));
    }
    Ok(())
}
