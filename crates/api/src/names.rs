//! Names that more than one part must agree on: labels, finalizer, accounts, audiences, webhooks.
//! Labels are for selection and for people; none is an authority in a decision.

/// Namespace that the chart is installed into, unless `POLITY_NAMESPACE` says otherwise.
pub const SYSTEM_NAMESPACE: &str = "polity-system";
/// Field manager and ServiceAccount name of core.
pub const CORE: &str = "polity-core";
/// Field manager and ServiceAccount name of the edge.
pub const EDGE: &str = "polity-edge";
/// The only finalizer, on Org.
pub const FINALIZER: &str = "polity.dev/org";
/// Audience of the tokens with which agents and tool Pods speak to the edge.
pub const AUDIENCE: &str = "polity";

/// On a Namespace: consent to be adopted by the Org of that name. On children: the Org that owns them.
pub const LABEL_ORG: &str = "polity.dev/org";
/// On children: kind of the object of ours that they were made for.
pub const LABEL_KIND: &str = "polity.dev/kind";
/// On children: name of the object of ours that they were made for.
pub const LABEL_NAME: &str = "polity.dev/name";
/// `app.kubernetes.io/managed-by`.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of the managed-by label.
pub const MANAGED_BY: &str = "polity";
/// On worker Pods: digest of the template that they were made from.
pub const LABEL_TEMPLATE: &str = "polity.dev/template";

/// ServiceAccount that tool Pods of an Org run under; it has no rights.
pub const TOOL_ACCOUNT: &str = "polity-tool";
/// Prefix of the ServiceAccount of an AI Agent: `polity-agent-NAME`.
pub const AGENT_ACCOUNT_PREFIX: &str = "polity-agent-";
/// ConfigMap in each Org namespace that holds the edge's CA certificate (`ca.crt`).
pub const CA_CONFIGMAP: &str = "polity-ca";
/// ResourceQuota, LimitRange and NetworkPolicies of an Org carry this name (with a suffix where there are several).
pub const ORG_OBJECT: &str = "polity";
/// Prefix of RoleBindings for members: `polity-member-ROLE`.
pub const MEMBER_BINDING_PREFIX: &str = "polity-member-";

/// Mutating webhook configuration.
pub const MUTATING_WEBHOOK: &str = "polity";
/// Validating webhook configuration.
pub const VALIDATING_WEBHOOK: &str = "polity";
/// ValidatingAdmissionPolicy that guards `spec.caller` (and its binding of the same name).
pub const GUARD_CALLER: &str = "polity-caller";
/// ValidatingAdmissionPolicy that guards status writes (and its binding of the same name).
pub const GUARD_STATUS: &str = "polity-status";
/// ValidatingAdmissionPolicy that guards `parentRef`, protected Policies, deletion protection and who creates Approvals.
pub const GUARD_GOVERN: &str = "polity-govern";
/// Every guard that dispatch insists on.
pub const GUARDS: [&str; 3] = [GUARD_CALLER, GUARD_STATUS, GUARD_GOVERN];

/// Lease of core.
pub const LEASE: &str = "polity-core";
/// Secret with the CA certificate and key, read by core and edge.
pub const CA_SECRET: &str = "polity-ca";
/// Secret with the edge's serving and client certificate, written by core.
pub const EDGE_TLS_SECRET: &str = "polity-edge-tls";

/// How an admission warning begins that says whom a call will wait for; `kubectl polity can-i` reads it.
pub const WAITS_FOR: &str = "waits for approval by ";
/// Largest inline input of a ToolCall, in bytes of its canonical text.
pub const MAX_INLINE_INPUT: usize = 32 * 1024;
/// Largest result kept inline, in bytes of its canonical text.
pub const MAX_INLINE_RESULT: usize = 16 * 1024;
/// Largest body a shim may post, in bytes.
pub const MAX_RESULT: usize = 1024 * 1024;
/// Bytes of stderr kept of a tool's run.
pub const MAX_STDERR_TAIL: usize = 64 * 1024;

/// Namespaces no Org may use, whatever consents.
#[must_use]
pub fn reserved_namespace(name: &str, system: &str) -> bool {
    name.starts_with("kube-") || name == "default" || name == system
}

/// `polity-agent-NAME`, the account of an AI Agent.
#[must_use]
pub fn agent_account(agent: &str) -> String {
    format!("{AGENT_ACCOUNT_PREFIX}{agent}")
}

/// Username of a ServiceAccount as the API server gives it.
#[must_use]
pub fn service_account_username(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}
