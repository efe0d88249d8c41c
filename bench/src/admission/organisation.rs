//! The organisation that the admission bench decides for, and the same rules for a rival: `policies` tools, each with one Policy
//! that allows transfers up to 50, and an agent that may use them all. The review asks for the first tool.

use std::fmt::Write as _;

use polity_policy::World;
use serde_json::{Value, json};

/// Namespace of the Org.
pub const NAMESPACE: &str = "acme";
/// Username of the agent.
const AGENT: &str = "system:serviceaccount:acme:polity-agent-payer";

/// As core would have put it in force.
pub fn world(policies: usize) -> World {
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("{kind}-{name}"), "generation": 1}, "spec": spec});
    let mut objects = vec![
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": NAMESPACE, "uid": "Org-acme", "generation": 1}, "spec": {}}),
        object("Agent", "payer", json!({"type": "System", "usernames": [AGENT]})),
        object("Role", "payer", json!({"grants": [{"tools": ["transfer-*"]}], "assignment": {"agents": ["payer"]}})),
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
        let rule = json!({"name": "limit", "expression": "args.amount <= 50", "effect": "Deny", "message": "Transfers end at 50."});
        objects.push(object("Policy", &format!("limit-{n}"), json!({"match": {"tools": [tool(n)]}, "rules": [rule]})));
    }
    World::from_objects(objects)
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

fn tool(n: usize) -> String {
    format!("transfer-{n}")
}
