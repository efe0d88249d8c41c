//! Is admission enforced? Watches the guards and both webhook configurations and compares what is installed with what this
//! binary was built with, word for word. While one is missing, changed, or not confirmed by the API server, nothing may start.
//!
//! Never repairs: they belong to the chart (but for caBundle, which `ca_store` fills in).

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MutatingWebhookConfiguration, RuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
        ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::Client;
use polity_api::{
    guards::{self, Guard},
    names,
};
use tokio_util::sync::CancellationToken;

use crate::{snapshots::MAX_AGE, watch::Target, watched::Watched};

/// What is installed, and what should be.
pub struct Guards {
    system: String,
    expected: [Guard; 3],
    policies: Arc<Watched<ValidatingAdmissionPolicy>>,
    bindings: Arc<Watched<ValidatingAdmissionPolicyBinding>>,
    mutating: Arc<Watched<MutatingWebhookConfiguration>>,
    validating: Arc<Watched<ValidatingWebhookConfiguration>>,
    /// The last judgement on contents, and how many changes of each store it has seen.
    judged: ArcSwapOption<([u64; 4], Result<(), String>)>,
}

impl Guards {
    /// Starts to watch, until cancelled. `system` is the namespace of our two accounts.
    #[must_use]
    pub fn start(client: &Client, system: &str, cancel: &CancellationToken) -> Arc<Self> {
        let named = |name: &str| format!("metadata.name={name}");
        Arc::new(Self::over(
            system,
            Watched::start(client.clone(), Target::all(), cancel.clone()),
            Watched::start(client.clone(), Target::all(), cancel.clone()),
            Watched::start(client.clone(), Target::all().fields(&named(names::MUTATING_WEBHOOK)), cancel.clone()),
            Watched::start(client.clone(), Target::all().fields(&named(names::VALIDATING_WEBHOOK)), cancel.clone()),
        ))
    }

    fn over(
        system: &str,
        policies: Arc<Watched<ValidatingAdmissionPolicy>>,
        bindings: Arc<Watched<ValidatingAdmissionPolicyBinding>>,
        mutating: Arc<Watched<MutatingWebhookConfiguration>>,
        validating: Arc<Watched<ValidatingWebhookConfiguration>>,
    ) -> Self {
        let (system, expected) = (system.to_owned(), guards::guards(system));
        Self { system, expected, policies, bindings, mutating, validating, judged: ArcSwapOption::empty() }
    }

    /// Whether the API server has told what is installed, and has been heard of since. While it has not, nothing may start, but nothing is wrong either: a
    /// core that has just begun is not there yet.
    ///
    /// # Errors
    /// What is not known, for people.
    pub fn known(&self) -> Result<(), String> {
        let stale = |kind: &'static str| move |why: String| format!("{kind}: {why}");
        self.policies.fresh(MAX_AGE).map_err(stale("ValidatingAdmissionPolicies"))?;
        self.bindings.fresh(MAX_AGE).map_err(stale("ValidatingAdmissionPolicyBindings"))?;
        self.mutating.fresh(MAX_AGE).map_err(stale("MutatingWebhookConfiguration"))?;
        self.validating.fresh(MAX_AGE).map_err(stale("ValidatingWebhookConfiguration"))
    }

    /// Whether every guard and both webhooks are in place, and known to be.
    ///
    /// # Errors
    /// What is not, for people. The reason code is `AdmissionNotEnforced`.
    pub fn enforced(&self) -> Result<(), String> {
        self.known()?;
        self.judgement()
    }

    /// The judgement on contents, made anew only after a change.
    fn judgement(&self) -> Result<(), String> {
        let turns = [self.policies.turn(), self.bindings.turn(), self.mutating.turn(), self.validating.turn()];
        if let Some(judged) = self.judged.load().as_ref().filter(|judged| judged.0 == turns) {
            return judged.1.clone();
        }
        let judged = self.judge();
        if let Err(what) = &judged {
            tracing::error!(what, "admission is not enforced; no call starts");
        }
        self.judged.store(Some(Arc::new((turns, judged.clone()))));
        judged
    }

    fn judge(&self) -> Result<(), String> {
        for guard in &self.expected {
            let name = guard.policy.metadata.name.as_deref().unwrap_or_default();
            policy(name, self.policies.get("", name).as_deref(), guard)?;
            binding(name, self.bindings.get("", name).as_deref(), guard)?;
        }
        let config = self.mutating.get("", names::MUTATING_WEBHOOK).ok_or("MutatingWebhookConfiguration polity is missing")?;
        let hook = config.webhooks.iter().flatten().find(|hook| hook.name == guards::MUTATE);
        let hook = hook.ok_or_else(|| format!("webhook {} is missing", guards::MUTATE))?;
        self.hook(
            "/mutate",
            &guards::mutate_rule(),
            &Hook {
                name: &hook.name,
                failure_policy: hook.failure_policy.as_deref(),
                rules: hook.rules.as_deref(),
                conditions: hook.match_conditions.as_deref(),
                selectors: [hook.namespace_selector.as_ref(), hook.object_selector.as_ref()],
                client: &hook.client_config,
            },
        )?;
        let config = self.validating.get("", names::VALIDATING_WEBHOOK).ok_or("ValidatingWebhookConfiguration polity is missing")?;
        let hook = config.webhooks.iter().flatten().find(|hook| hook.name == guards::VALIDATE);
        let hook = hook.ok_or_else(|| format!("webhook {} is missing", guards::VALIDATE))?;
        self.hook(
            "/validate",
            &guards::validate_rule(),
            &Hook {
                name: &hook.name,
                failure_policy: hook.failure_policy.as_deref(),
                rules: hook.rules.as_deref(),
                conditions: hook.match_conditions.as_deref(),
                selectors: [hook.namespace_selector.as_ref(), hook.object_selector.as_ref()],
                client: &hook.client_config,
            },
        )
    }

    fn hook(&self, path: &str, rule: &RuleWithOperations, hook: &Hook<'_>) -> Result<(), String> {
        let changed = |what: &str| Err(format!("webhook {}: {what}", hook.name));
        if hook.failure_policy != Some("Fail") {
            return changed("failurePolicy is not Fail");
        }
        if !hook.rules.is_some_and(|rules| rules.contains(rule)) {
            return changed("its rules are not those of this version");
        }
        let one = |c: &[MatchCondition]| matches!(c, [only] if only.expression == guards::WEBHOOK_CONDITION);
        if !hook.conditions.is_none_or(|conditions| conditions.is_empty() || one(conditions)) {
            return changed("its matchConditions are not those of this version");
        }
        if hook.selectors.iter().flatten().any(|selector| **selector != LabelSelector::default()) {
            return changed("a selector leaves objects out");
        }
        let ours = match (&hook.client.service, &hook.client.url) {
            (Some(service), None) => {
                service.name == guards::WEBHOOK_SERVICE && service.namespace == self.system && service.path.as_deref() == Some(path)
            }
            (None, Some(url)) => url.starts_with("https://") && url.ends_with(path),
            _ => false,
        };
        if !ours {
            return changed("it calls somebody else");
        }
        if hook.client.ca_bundle.as_ref().is_none_or(|ca| ca.0.is_empty()) {
            return changed("caBundle is not filled in yet");
        }
        Ok(())
    }
}

/// What both kinds of webhook have.
struct Hook<'a> {
    name: &'a str,
    failure_policy: Option<&'a str>,
    rules: Option<&'a [RuleWithOperations]>,
    conditions: Option<&'a [MatchCondition]>,
    selectors: [Option<&'a LabelSelector>; 2],
    client: &'a WebhookClientConfig,
}

fn policy(name: &str, installed: Option<&ValidatingAdmissionPolicy>, guard: &Guard) -> Result<(), String> {
    let kind = "ValidatingAdmissionPolicy";
    let installed = installed.ok_or_else(|| format!("{kind} {name} is missing"))?;
    let (Some(found), Some(wanted)) = (&installed.spec, &guard.policy.spec) else { return Err(format!("{kind} {name} has no spec")) };
    let parts = [
        ("failurePolicy", found.failure_policy == wanted.failure_policy),
        ("matchConstraints", found.match_constraints == wanted.match_constraints),
        ("variables", found.variables == wanted.variables),
        ("validations", found.validations == wanted.validations),
        // What is left: matchConditions and paramKind, which ours do not have.
        ("spec", found == wanted),
    ];
    match parts.iter().find(|(_, same)| !same) {
        Some((part, _)) => Err(format!("{kind} {name}: {part} is not that of this version")),
        None => Ok(()),
    }
}

fn binding(name: &str, installed: Option<&ValidatingAdmissionPolicyBinding>, guard: &Guard) -> Result<(), String> {
    let kind = "ValidatingAdmissionPolicyBinding";
    let installed = installed.ok_or_else(|| format!("{kind} {name} is missing"))?;
    if installed.spec == guard.binding.spec { Ok(()) } else { Err(format!("{kind} {name} does not bind everything with action Deny")) }
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;
