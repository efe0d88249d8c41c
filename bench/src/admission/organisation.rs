//! The organisation that the admission bench decides for, and the same rules for a rival: `policies` tools, each with one Policy
//! that allows transfers up to 50, and an agent that may use them all. The review asks for the first tool.

use std::fmt::Write as _;

use polity_policy::World;
use serde_json::{Value, json};

/// Namespace of the Org.
pub const NAMESPACE: &str = "acme";
/// Username of the agent.
pub const AGENT: &str = "system:serviceaccount:acme:polity-agent-payer";

/// As core would have put it in force.
pub fn world(policies: usize) -> World {
    World::from_objects(stored(policies))
}

/// The objects as the API server has them.
pub fn stored(policies: usize) -> Vec<Value> {
    stored_as(NAMESPACE, policies)
}

/// The same under another name of Org and namespace.
pub fn stored_as(org: &str, policies: usize) -> Vec<Value> {
    let object = |kind: &str, name: &str, spec: Value| object(org, kind, name, spec);
    let namespace = json!({"name": org, "uid": format!("Namespace-{org}"), "created": true});
    let mut role = object("Role", "payer", json!({"grants": [{"tools": ["transfer-*"]}], "assignment": {"agents": ["payer"]}}));
    role["status"] = json!({"observedGeneration": 1, "conditions": [], "holders": [{"agent": "payer", "source": "Assignment", "since": "2026-11-21T12:00:00Z"}]});
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": org, "uid": format!("Namespace-{org}"), "labels": {"polity.dev/org": org}}}),
        json!({
            "apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": org, "uid": format!("Org-{org}"), "generation": 1}, "spec": {},
            "status": {"observedGeneration": 1, "conditions": [], "namespace": namespace},
        }),
        object("Agent", "payer", json!({"type": "System", "usernames": [AGENT.replace(NAMESPACE, org)]})),
        role,
    ];
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["to", "amount", "currency"],
        "properties": {
            "to": {"type": "string", "maxLength": 64}, "amount": {"type": "integer"}, "currency": {"type": "string", "enum": ["USD", "EUR"]},
            "memo": {"type": "string", "maxLength": 4096},
        },
    });
    for n in 0..policies {
        let runtime = json!({"container": {"image": "registry.example/transfer:1", "command": ["/transfer"]}});
        objects.push(object("Tool", &tool(n), json!({"inputSchema": schema, "runtime": runtime})));
        objects.push(policy_of(org, n, 50));
    }
    objects
}

/// The Policy of a tool, with another limit.
pub fn policy(n: usize, most: i64) -> Value {
    policy_of(NAMESPACE, n, most)
}

fn policy_of(org: &str, n: usize, most: i64) -> Value {
    let rule =
        json!({"name": "limit", "expression": format!("args.amount <= {most}"), "effect": "Deny", "message": "Transfers end at 50."});
    object(org, "Policy", &format!("limit-{n}"), json!({"match": {"tools": [tool(n)]}, "rules": [rule]}))
}

fn object(org: &str, kind: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "namespace": org, "uid": format!("{kind}-{org}-{name}"), "generation": 1});
    let mut object = json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": metadata});
    object["spec"] = spec;
    object
}

/// The same rules for OPA's `POST /` (document `system.main`), in the form that its index serves best: equality on the tool.
pub fn rego(policies: usize) -> String {
    let mut text = String::from(
        "package system\n\nmain := {\"apiVersion\": \"admission.k8s.io/v1\", \"kind\": \"AdmissionReview\", \"response\": response}\n\n\
         response := {\"uid\": input.request.uid, \"allowed\": true} if count(deny) == 0\n\n\
         response := {\"uid\": input.request.uid, \"allowed\": false, \"status\": {\"message\": concat(\"; \", deny)}} if count(deny) > 0\n",
    );
    for n in 0..policies {
        let _infallible = write!(
            text,
            "\ndeny contains \"Transfers end at 50.\" if {{\n\tinput.request.object.spec.tool.name == \"{}\"\n\tinput.request.object.spec.input.amount > 50\n}}\n",
            tool(n)
        );
    }
    text
}

/// The same rules for Gatekeeper: one template in CEL, and a constraint of it for each tool.
pub fn constraints(policies: usize) -> Value {
    let holds = "object.spec.tool.name != variables.params.tool || object.spec.input.amount <= variables.params.most";
    let source = json!({"validations": [{"expression": holds, "message": "Transfers end at 50."}]});
    let schema = json!({"type": "object", "properties": {"tool": {"type": "string"}, "most": {"type": "integer"}}});
    let template = json!({
        "apiVersion": "templates.gatekeeper.sh/v1", "kind": "ConstraintTemplate", "metadata": {"name": "transferlimit"},
        "spec": {
            "crd": {"spec": {"names": {"kind": "TransferLimit"}, "validation": {"openAPIV3Schema": schema}}},
            "targets": [{"target": "admission.k8s.gatekeeper.sh", "code": [{"engine": "K8sNativeValidation", "source": source}]}],
        },
    });
    let constraint = |n| {
        json!({
            "apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "TransferLimit", "metadata": {"name": format!("limit-{n}")},
            "spec": {"match": {"kinds": [{"apiGroups": ["polity.dev"], "kinds": ["ToolCall"]}]}, "parameters": {"tool": tool(n), "most": 50}},
        })
    };
    std::iter::once(template).chain((0..policies).map(constraint)).collect()
}

/// A review of a create, of about 2 KiB as the API server sends it.
pub fn review(amount: i64) -> String {
    let managed = json!([{
        "manager": "payer", "operation": "Update", "apiVersion": "polity.dev/v1alpha1", "time": "2026-11-21T12:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {".": {}, "f:input": {".": {}, "f:amount": {}, "f:currency": {}, "f:memo": {}, "f:to": {}}, "f:tool": {".": {}, "f:name": {}}}},
    }]);
    let object = json!({
        "apiVersion": "polity.dev/v1alpha1", "kind": "ToolCall",
        "metadata": {"name": "pay-1", "namespace": NAMESPACE, "uid": "c5e1a8f0-33f8-4a8c-9a43-0c6de1c3ad0f", "generation": 1, "creationTimestamp": "2026-11-21T12:00:00Z", "managedFields": managed},
        "spec": {
            "tool": {"name": tool(0)},
            "input": {"to": "SUPPLIER-7", "amount": amount, "currency": "USD", "memo": "invoice 2026-1187, net 30, ".repeat(24)},
            "caller": {"username": AGENT, "uid": "2f8d6a4e-0a0c-4e2b-8a39-5f2c9b2e7d11", "groups": ["system:serviceaccounts", "system:serviceaccounts:acme", "system:authenticated"]},
            "trace": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        },
    });
    let gvk = json!({"group": "polity.dev", "version": "v1alpha1", "kind": "ToolCall"});
    let gvr = json!({"group": "polity.dev", "version": "v1alpha1", "resource": "toolcalls"});
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": gvk, "resource": gvr, "requestKind": gvk, "requestResource": gvr,
            "name": "pay-1", "namespace": NAMESPACE, "operation": "CREATE",
            "userInfo": {"username": AGENT, "uid": "2f8d6a4e-0a0c-4e2b-8a39-5f2c9b2e7d11", "groups": ["system:serviceaccounts", "system:serviceaccounts:acme", "system:authenticated"]},
            "object": object, "oldObject": null, "dryRun": false, "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
    .to_string()
}

/// Name of a tool.
pub fn tool(n: usize) -> String {
    format!("transfer-{n}")
}
