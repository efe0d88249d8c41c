//! The guards: ValidatingAdmissionPolicies that run inside the API server and hold also when our webhook is away. The chart's
//! files are printed from here, and dispatch compares what is installed with this, word for word. Nothing here asks a server.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchResources, NamedRuleWithOperations, RuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
        ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation, Variable,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use crate::{GROUP, names};

/// One policy with its binding of the same name.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// The policy.
    pub policy: ValidatingAdmissionPolicy,
    /// Its binding: to everything, with action Deny.
    pub binding: ValidatingAdmissionPolicyBinding,
}

/// Every guard, in the order of `names::GUARDS`, for an installation in the namespace `system`.
#[must_use]
pub fn guards(system: &str) -> [Guard; 3] {
    [caller(system), status(system), govern(system)]
}

/// `request.userInfo` is one of our two accounts.
fn ours(system: &str) -> Variable {
    let [core, edge] = [names::CORE, names::EDGE].map(|account| names::service_account_username(system, account));
    variable("ours", format!("request.userInfo.username in ['{core}', '{edge}']"))
}

/// Who asks is who the API server says: callers of ToolCalls and entries of Approvals.
fn caller(system: &str) -> Guard {
    let variables = vec![
        ours(system),
        variable("call", "request.resource.resource == 'toolcalls'"),
        variable("caller", "variables.call && has(object.spec.caller) ? object.spec.caller : null"),
        variable("groups", "has(request.userInfo.groups) ? request.userInfo.groups : []"),
        variable("extra", "has(request.userInfo.extra) ? request.userInfo.extra : {}"),
        // A call made by one of our accounts in its own name is like anybody's.
        variable("behalf", "variables.ours && variables.caller != null && variables.caller.username != request.userInfo.username"),
        variable(
            "before",
            "!variables.call && oldObject != null && has(oldObject.spec.decisions) ? oldObject.spec.decisions.map(d, d.by) : []",
        ),
    ];
    let validations = vec![
        forbidden("!variables.call || variables.caller != null", "spec.caller was not stamped: Polity's webhook did not see this request"),
        forbidden(
            "variables.caller == null || variables.behalf || variables.caller.username == request.userInfo.username",
            "spec.caller.username is not who asks; leave spec.caller out, Polity stamps it",
        ),
        forbidden(
            "variables.caller == null || variables.behalf || ((has(variables.caller.uid) ? variables.caller.uid : '') == \
             (has(request.userInfo.uid) ? request.userInfo.uid : '') && \
             (has(variables.caller.groups) ? variables.caller.groups : []) == variables.groups)",
            "spec.caller.uid or groups are not those of who asks; leave spec.caller out, Polity stamps it",
        ),
        forbidden(
            "variables.caller == null || variables.behalf || \
             ((!has(variables.caller.podName) || ('authentication.kubernetes.io/pod-name' in variables.extra && \
             variables.extra['authentication.kubernetes.io/pod-name'] == [variables.caller.podName])) && \
             (!has(variables.caller.podUid) || ('authentication.kubernetes.io/pod-uid' in variables.extra && \
             variables.extra['authentication.kubernetes.io/pod-uid'] == [variables.caller.podUid])))",
            "spec.caller names a Pod that is not the one that asks; leave spec.caller out, Polity stamps it",
        ),
        forbidden(
            "variables.caller == null || (variables.behalf ? has(variables.caller.via) && variables.caller.via == request.userInfo.username : \
             (!has(variables.caller.via) || (variables.ours && variables.caller.via == request.userInfo.username)) && \
             (!has(variables.caller.chain) || size(variables.caller.chain) == 0))",
            "spec.caller.via names the part of Polity that acts for the caller; only Polity sets via and chain",
        ),
        forbidden(
            "variables.call || !has(object.spec.decisions) || object.spec.decisions.all(d, d.by in variables.before || \
             (d.by == request.userInfo.username && has(d.at) && (has(d.groups) ? d.groups : []) == variables.groups))",
            "add only your own entry to spec.decisions, with by = your username; Polity stamps at and groups",
        ),
    ];
    let rules = vec![rule(&["CREATE"], &["toolcalls"], "Namespaced"), rule(&["CREATE", "UPDATE"], &["approvals"], "Namespaced")];
    guard(names::GUARD_CALLER, rules, variables, validations)
}

/// Decisions read status, so only Polity writes it.
fn status(system: &str) -> Guard {
    let validations = vec![forbidden("variables.ours", "only Polity writes the status of its kinds")];
    guard(names::GUARD_STATUS, vec![rule(&["CREATE", "UPDATE"], &["*/status"], "*")], vec![ours(system)], validations)
}

/// Rights that RBAC's verbs on whole objects cannot say.
fn govern(system: &str) -> Guard {
    let variables = vec![
        ours(system),
        variable("kind", "request.resource.resource"),
        // Those that delete what belongs to a namespace or an owner that is gone.
        variable(
            "collector",
            "request.userInfo.username in ['system:serviceaccount:kube-system:namespace-controller', \
             'system:serviceaccount:kube-system:generic-garbage-collector', 'system:kube-controller-manager']",
        ),
        variable(
            "protected",
            "variables.kind == 'policies' && oldObject != null && has(oldObject.spec.protected) && oldObject.spec.protected",
        ),
        // An owner reference is a way to have something deleted: it is governed like the spec.
        variable(
            "changes",
            "request.operation == 'DELETE' || (variables.protected && (object.spec != oldObject.spec || \
             (has(object.metadata.ownerReferences) ? object.metadata.ownerReferences : []) != \
             (has(oldObject.metadata.ownerReferences) ? oldObject.metadata.ownerReferences : [])))",
        ),
        variable("resolution", "variables.kind == 'toolcalls' && request.operation != 'DELETE' && has(object.spec.resolution)"),
        variable("resolved", "variables.kind == 'toolcalls' && oldObject != null && has(oldObject.spec.resolution)"),
    ];
    let validations = vec![
        forbidden(
            "variables.kind != 'orgs' || request.operation != 'CREATE' || !has(object.spec.parentRef) || \
             authorizer.group('polity.dev').resource('orgs').name(object.spec.parentRef.name).check('subdivide').allowed()",
            "spec.parentRef needs the verb subdivide on that Org (orgs.polity.dev)",
        ),
        forbidden(
            "variables.kind != 'orgs' || request.operation != 'DELETE' || !has(oldObject.spec.deletionProtection) || \
             !oldObject.spec.deletionProtection",
            "this Org has spec.deletionProtection; set it to false first",
        ),
        forbidden(
            "!variables.protected || !variables.changes || variables.collector || \
             authorizer.group('polity.dev').resource('policies').namespace(namespaceObject.metadata.name).check('govern').allowed()",
            "this Policy is protected: to change or delete it needs the verb govern on policies.polity.dev in its namespace",
        ),
        forbidden(
            "variables.kind != 'approvals' || request.operation != 'CREATE' || variables.ours",
            "only Polity makes Approvals: one for each call that must wait",
        ),
        forbidden(
            "!variables.resolution || (request.operation == 'UPDATE' && (variables.resolved || (has(object.spec.resolution.by) && \
             object.spec.resolution.by == request.userInfo.username && has(object.spec.resolution.at))))",
            "spec.resolution belongs to a call whose outcome is unknown, never to a new one, and Polity stamps by and at",
        ),
        forbidden(
            "!variables.resolution || variables.resolved || \
             authorizer.group('polity.dev').resource('toolcalls').namespace(namespaceObject.metadata.name).check('resolve').allowed()",
            "spec.resolution needs the verb resolve on toolcalls.polity.dev in this namespace",
        ),
    ];
    let rules = vec![
        rule(&["CREATE", "DELETE"], &["orgs"], "Cluster"),
        rule(&["UPDATE", "DELETE"], &["policies"], "Namespaced"),
        rule(&["CREATE"], &["approvals"], "Namespaced"),
        rule(&["CREATE", "UPDATE"], &["toolcalls"], "Namespaced"),
    ];
    guard(names::GUARD_GOVERN, rules, variables, validations)
}

fn variable(name: &str, expression: impl Into<String>) -> Variable {
    Variable { name: name.to_owned(), expression: expression.into() }
}

fn forbidden(expression: &str, message: &str) -> Validation {
    Validation {
        expression: expression.to_owned(),
        message: Some(message.to_owned()),
        reason: Some("Forbidden".to_owned()),
        message_expression: None,
    }
}

fn list(values: &[&str]) -> Option<Vec<String>> {
    Some(values.iter().map(|v| (*v).to_owned()).collect())
}

fn rule(operations: &[&str], resources: &[&str], scope: &str) -> NamedRuleWithOperations {
    NamedRuleWithOperations {
        api_groups: list(&[GROUP]),
        api_versions: list(&["*"]),
        operations: list(operations),
        resources: list(resources),
        resource_names: None,
        scope: Some(scope.to_owned()),
    }
}

/// Defaults of the API server are written out, so that what is read back is equal.
fn guard(name: &str, rules: Vec<NamedRuleWithOperations>, variables: Vec<Variable>, validations: Vec<Validation>) -> Guard {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "polity".to_owned())])),
        ..ObjectMeta::default()
    };
    let policy = ValidatingAdmissionPolicy {
        metadata: metadata.clone(),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".to_owned()),
            match_constraints: Some(MatchResources {
                match_policy: Some("Equivalent".to_owned()),
                namespace_selector: Some(LabelSelector::default()),
                object_selector: Some(LabelSelector::default()),
                resource_rules: Some(rules),
                exclude_resource_rules: None,
            }),
            variables: Some(variables),
            validations: Some(validations),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        ..ValidatingAdmissionPolicy::default()
    };
    let binding = ValidatingAdmissionPolicyBinding {
        metadata,
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(name.to_owned()),
            validation_actions: list(&["Deny"]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    };
    Guard { policy, binding }
}

/// The one condition of both webhooks: updates of metadata alone need no webhook.
pub const WEBHOOK_CONDITION: &str = "request.operation != 'UPDATE' || object.spec != oldObject.spec";
/// Name of the one webhook of the mutating configuration.
pub const MUTATE: &str = "mutate.polity.dev";
/// Name of the one webhook of the validating configuration.
pub const VALIDATE: &str = "validate.polity.dev";
/// Service that both call.
pub const WEBHOOK_SERVICE: &str = "polity-webhook";

/// What the mutating webhook must be asked about.
#[must_use]
pub fn mutate_rule() -> RuleWithOperations {
    webhook_rule(&["toolcalls", "approvals", "tasks"], "Namespaced")
}

/// What the validating webhook must be asked about.
#[must_use]
pub fn validate_rule() -> RuleWithOperations {
    webhook_rule(&["orgs", "roles", "policies", "agents", "tools", "toolcalls", "approvals", "tasks"], "*")
}

fn webhook_rule(resources: &[&str], scope: &str) -> RuleWithOperations {
    RuleWithOperations {
        api_groups: list(&[GROUP]),
        api_versions: list(&["*"]),
        operations: list(&["CREATE", "UPDATE"]),
        resources: list(resources),
        scope: Some(scope.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_dispatch_insists_on() {
        let found = guards("polity-system").map(|g| g.policy.metadata.name.unwrap());
        assert_eq!(found, names::GUARDS);
    }

    #[test]
    fn accounts_are_those_of_the_system_namespace() {
        for guard in guards("elsewhere") {
            let text = serde_json::to_string(&guard.policy).unwrap();
            assert!(text.contains("system:serviceaccount:elsewhere:polity-core"), "{text}");
            assert!(text.contains("system:serviceaccount:elsewhere:polity-edge"), "{text}");
        }
    }

    #[test]
    fn each_denies_and_fails_closed() {
        for guard in guards("polity-system") {
            let (policy, binding) = (guard.policy.spec.unwrap(), guard.binding.spec.unwrap());
            assert_eq!(policy.failure_policy.as_deref(), Some("Fail"));
            assert_eq!(policy.match_conditions, None);
            assert_eq!(binding.policy_name, guard.policy.metadata.name);
            assert_eq!(binding.validation_actions.unwrap(), ["Deny"]);
            assert_eq!(binding.match_resources, None);
            for validation in policy.validations.unwrap() {
                assert_eq!(validation.reason.as_deref(), Some("Forbidden"));
                assert!(validation.message.is_some_and(|m| m.len() < 200));
            }
        }
    }

    #[test]
    fn no_expression_asks_the_authorizer_more_than_twice() {
        for guard in guards("polity-system") {
            for validation in guard.policy.spec.unwrap().validations.unwrap() {
                assert!(validation.expression.matches("authorizer").count() <= 2, "{}", validation.expression);
            }
        }
    }
}
