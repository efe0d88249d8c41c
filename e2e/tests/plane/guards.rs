//! The three ValidatingAdmissionPolicies by themselves: Polity's parts are down and its webhooks are away, and still nobody is forged, no
//! status is written, and what needs a verb of its own needs it. A table of writes, each by somebody, allowed or forbidden.

use anyhow::{Context, Result, ensure};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use polity_e2e::{apply, chaos, manifests, org_name, parts::Polity, until};
use serde_json::{Value, json};

use crate::{badinput::reinstall, fixtures::SOON, help};

const EDGE: &str = "system:serviceaccount:polity-system:polity-edge";
const CORE: &str = "system:serviceaccount:polity-system:polity-core";
const GARBAGE: &str = "system:serviceaccount:kube-system:generic-garbage-collector";
const AT: &str = "2026-11-21T00:00:00Z";

/// Who writes what, and whether he may.
struct Table<'a> {
    polity: &'a Polity,
    namespace: String,
    cases: usize,
    wrong: Vec<String>,
}

impl Table<'_> {
    fn user(&self, name: &str) -> String {
        match name {
            "edge" => EDGE.to_owned(),
            "core" => CORE.to_owned(),
            "gc" => GARBAGE.to_owned(),
            name => format!("{name}@{}", self.namespace),
        }
    }

    async fn client(&self, name: &str) -> Result<Client> {
        if name == "admin" { self.polity.cluster.admin().await } else { self.polity.cluster.user(&self.user(name), &[]).await }
    }

    async fn api(&self, user: &str, kind: &str) -> Result<Api<DynamicObject>> {
        let namespace = (kind != "Org").then_some(&self.namespace);
        manifests::api_of(
            &self.client(user).await?,
            &json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"namespace": namespace}}),
        )
    }

    /// Notes a case that did not go as it must. A refusal must be the guards' or RBAC's (403), nothing else.
    fn judge<T>(&mut self, what: &str, may: bool, answer: &Result<T, kube::Error>) {
        self.cases += 1;
        match (may, answer) {
            (true, Ok(_)) => {}
            (false, Err(kube::Error::Api(status))) if status.code == 403 || status.code == 422 => {}
            (_, answer) => self.wrong.push(format!("{what}: {:?}", answer.as_ref().map(|_| ()))),
        }
    }

    async fn create(&mut self, user: &str, what: &str, object: Value, may: bool) -> Result<()> {
        let api = self.api(user, object["kind"].as_str().context("kind")?).await?;
        let answer = api.create(&PostParams::default(), &serde_json::from_value(object)?).await;
        self.judge(&format!("{user} creates: {what}"), may, &answer);
        Ok(())
    }

    async fn patch(&mut self, user: &str, kind: &str, name: &str, what: &str, patch: Value, may: bool) -> Result<()> {
        let answer = self.api(user, kind).await?.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        self.judge(&format!("{user} changes {kind} {name}: {what}"), may, &answer);
        Ok(())
    }

    async fn status(&mut self, user: &str, kind: &str, name: &str, may: bool) -> Result<()> {
        let status = if kind == "ToolCall" { json!({"phase": "Succeeded"}) } else { json!({"observedGeneration": 7}) };
        let patch = Patch::Merge(json!({"status": status}));
        let answer = self.api(user, kind).await?.patch_status(name, &PatchParams::default(), &patch).await;
        self.judge(&format!("{user} writes the status of {kind} {name}"), may, &answer);
        Ok(())
    }

    async fn delete(&mut self, user: &str, kind: &str, name: &str, may: bool) -> Result<()> {
        let answer = self.api(user, kind).await?.delete(name, &DeleteParams::default()).await;
        self.judge(&format!("{user} deletes {kind} {name}"), may, &answer);
        Ok(())
    }

    fn object(&self, kind: &str, name: &str, spec: &Value) -> Value {
        let metadata = if kind == "Org" { json!({"name": name}) } else { json!({"name": name, "namespace": self.namespace}) };
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    }

    fn call(&self, name: &str, caller: Value) -> Value {
        let mut spec = json!({"tool": {"name": "t"}});
        if !caller.is_null() {
            spec["caller"] = caller;
        }
        self.object("ToolCall", name, &spec)
    }

    /// A caller as the webhook would stamp this user, with something else about him.
    fn caller(&self, user: &str, other: &Value) -> Value {
        let mut caller = json!({"username": self.user(user), "groups": ["system:authenticated"]});
        if let (Some(caller), Some(other)) = (caller.as_object_mut(), other.as_object()) {
            caller.extend(other.clone());
        }
        caller
    }
}

/// The guards hold alone.
pub async fn hold_alone(polity: &mut Polity) -> Result<()> {
    chaos::mended(polity, |p| Box::pin(alone(p))).await
}

async fn alone(polity: &mut Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let namespace = org_name("alone");
    polity.edge.kill()?;
    polity.core.kill()?;
    for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"] {
        polity.cluster.run("kubectl", &["delete", kind, "polity"])?;
    }
    let mut table = Table { polity, namespace: namespace.clone(), cases: 0, wrong: Vec::new() };
    let result = async {
        people(&admin, &table).await?;
        calls(&mut table).await?;
        approvals(&mut table).await?;
        policies(&mut table).await?;
        orgs(&mut table).await
    };
    let result = result.await;
    let (cases, wrong) = (table.cases, table.wrong);
    for kind in ["clusterrolebinding", "clusterrole"] {
        for name in [&namespace, &format!("{namespace}-more")] {
            polity.cluster.run("kubectl", &["delete", kind, name, "--ignore-not-found"])?;
        }
    }
    polity.cluster.run("kubectl", &["delete", "namespace", &namespace, "--wait=false", "--ignore-not-found"])?;
    reinstall_later(polity).await?;
    result?;
    ensure!(cases > 45, "{cases} cases only");
    ensure!(wrong.is_empty(), "{} of {cases} went wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// Core must run for the webhooks to get their CA.
async fn reinstall_later(polity: &mut Polity) -> Result<()> {
    chaos::reborn(&polity.cluster, &mut polity.core, None).await?;
    polity.edge.start()?;
    polity.core.ready().await?;
    reinstall(polity).await?;
    polity.edge.ready().await
}

/// `alice` may write everything but what needs a verb of its own; `bob` has those verbs too.
async fn people(admin: &Client, table: &Table<'_>) -> Result<()> {
    let name = &table.namespace;
    let (alice, bob) = (table.user("alice"), table.user("bob"));
    let rules = format!(
        "
{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}
---
{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: {name}}}, rules: [{{apiGroups: [polity.dev], resources: ['*'], verbs: [get, list, create, update, patch, delete, deletecollection]}}]}}
---
{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: {name}-more}}, rules: [{{apiGroups: [polity.dev], resources: ['*'], verbs: [resolve, govern]}}, {{apiGroups: [polity.dev], resources: [orgs], resourceNames: [{name}-root], verbs: [subdivide]}}]}}
---
{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: {name}}}, roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}, subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {alice}}}, {{apiGroup: rbac.authorization.k8s.io, kind: User, name: {bob}}}]}}
---
{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: {name}-more}}, roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}-more}}, subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {bob}}}]}}
"
    );
    apply(admin, &rules).await?;
    help::may(admin, &alice, name, "create", "toolcalls").await?;
    help::may(admin, &bob, name, "resolve", "toolcalls").await?;
    // Deleted webhooks are still asked for a moment.
    let api = table.api("alice", "Policy").await?;
    let probe: DynamicObject = serde_json::from_value(table.object(
        "Policy",
        "probe",
        &json!({"rules": [{"name": "r", "expression": "true", "effect": "Deny"}]}),
    ))?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until(SOON, "the API server asks the webhooks no more", || async {
        api.create(&dry, &probe).await.map(drop).map_err(|e| e.to_string())
    })
    .await
}

async fn calls(table: &mut Table<'_>) -> Result<()> {
    let ours = |via: &str| json!({"via": via});
    for (user, name, what, caller, may) in [
        ("alice", "c1", "without caller", Value::Null, false),
        ("alice", "c2", "in her own name", table.caller("alice", &json!({})), true),
        ("alice", "c3", "in another's name", table.caller("bob", &json!({})), false),
        ("alice", "c3", "with a group that she is not in", table.caller("alice", &json!({"groups": ["system:masters"]})), false),
        ("alice", "c3", "without her groups", json!({"username": table.user("alice")}), false),
        ("alice", "c3", "with a uid", table.caller("alice", &json!({"uid": "x"})), false),
        ("alice", "c3", "via the edge", table.caller("alice", &ours(EDGE)), false),
        ("alice", "c3", "with a chain", table.caller("alice", &json!({"chain": ["x"]})), false),
        ("alice", "c3", "with a Pod", table.caller("alice", &json!({"podUid": "x"})), false),
        ("admin", "c3", "in another's name", table.caller("alice", &json!({})), false),
        ("edge", "c4", "for alice, via itself", table.caller("alice", &ours(EDGE)), true),
        ("edge", "c5", "for alice, without via", table.caller("alice", &json!({})), false),
        ("edge", "c5", "for alice, via core", table.caller("alice", &ours(CORE)), false),
        ("gc", "c5", "for alice, via itself", table.caller("alice", &ours(GARBAGE)), false),
    ] {
        let call = table.call(name, caller);
        table.create(user, &format!("a call {what}"), call, may).await?;
    }
    let resolution = |by: String| json!({"spec": {"resolution": {"outcome": "Done", "reason": "x", "by": by, "at": AT}}});
    let (alice, bob) = (table.user("alice"), table.user("bob"));
    let mut early = table.call("c6", table.caller("alice", &json!({})));
    early["spec"]["resolution"] = resolution(alice.clone())["spec"]["resolution"].clone();
    table.create("alice", "a call that is resolved from the start", early, false).await?;
    for (user, what, patch, may) in [
        ("alice", "cancel", json!({"spec": {"cancel": true}}), true),
        ("alice", "resolve without the verb", resolution(alice.clone()), false),
        ("bob", "resolve in another's name", resolution(alice), false),
        ("bob", "resolve", resolution(bob), true),
        ("alice", "label what is resolved", json!({"metadata": {"labels": {"a": "b"}}}), true),
    ] {
        table.patch(user, "ToolCall", "c2", what, patch, may).await?;
    }
    for (user, may) in [("alice", false), ("bob", false), ("admin", false), ("edge", true), ("core", true)] {
        table.status(user, "ToolCall", "c2", may).await?;
    }
    Ok(())
}

async fn approvals(table: &mut Table<'_>) -> Result<()> {
    let spec = json!({
        "action": {"verb": "tool.call", "target": {"kind": "Tool", "namespace": table.namespace, "name": "t", "digest": "d"}, "call": "c2", "callUid": "u"},
        "input": {}, "digest": {"digest": "d", "keyId": "k"}, "requester": {"username": "x"},
        "requirements": [{"rule": "r", "count": 1, "humansOnly": true}], "expiresAt": "2036-11-22T00:00:00Z"});
    let approval = table.object("Approval", "a1", &spec);
    table.create("alice", "an Approval", approval.clone(), false).await?;
    table.create("admin", "an Approval", approval.clone(), false).await?;
    table.create("core", "an Approval", approval, true).await?;
    let entry = |user: &str, groups: Value, at: Option<&str>| {
        let mut entry = json!({"by": user, "decision": "Approve", "groups": groups});
        if let Some(at) = at {
            entry["at"] = json!(at);
        }
        entry
    };
    let authenticated = json!(["system:authenticated"]);
    let (alice, bob) = (table.user("alice"), table.user("bob"));
    let own = entry(&alice, authenticated.clone(), Some(AT));
    let others = entry(&bob, authenticated.clone(), Some(AT));
    for (user, what, decisions, may) in [
        ("alice", "decide as bob", json!([others]), false),
        ("alice", "decide with a group that she is not in", json!([entry(&alice, json!(["finance"]), Some(AT))]), false),
        ("alice", "decide without a time", json!([entry(&alice, authenticated, None)]), false),
        ("admin", "decide as alice", json!([own]), false),
        ("alice", "decide", json!([own]), true),
        ("bob", "add his own", json!([own, others]), true),
    ] {
        table.patch(user, "Approval", "a1", what, json!({"spec": {"decisions": decisions}}), may).await?;
    }
    table.patch("alice", "Approval", "a1", "label it", json!({"metadata": {"labels": {"a": "b"}}}), true).await?;
    for (user, may) in [("alice", false), ("admin", false), ("core", true)] {
        table.status(user, "Approval", "a1", may).await?;
    }
    Ok(())
}

async fn policies(table: &mut Table<'_>) -> Result<()> {
    let policy = |table: &Table<'_>, name: &str, protected: bool| {
        let rule = json!({"name": "r", "expression": "true", "effect": "Deny"});
        table.object("Policy", name, &json!({"protected": protected, "rules": [rule]}))
    };
    let warn = || json!({"spec": {"mode": "Warn"}});
    let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]}});
    for (name, protected) in [("p1", true), ("p2", false), ("p3", true)] {
        let object = policy(table, name, protected);
        table.create("alice", &format!("a Policy, protected: {protected}"), object, true).await?;
    }
    table.patch("alice", "Policy", "p2", "its mode", warn(), true).await?;
    table.delete("alice", "Policy", "p2", true).await?;
    for (what, patch, may) in [
        ("its mode", warn(), false),
        ("its protection", json!({"spec": {"protected": false}}), false),
        ("its owner", owner, false),
        ("its labels", json!({"metadata": {"labels": {"a": "b"}}}), true),
    ] {
        table.patch("alice", "Policy", "p1", what, patch, may).await?;
    }
    table.delete("alice", "Policy", "p1", false).await?;
    let all = table.api("alice", "Policy").await?.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    table.judge("alice deletes all Policies", false, &all);
    table.status("alice", "Policy", "p1", false).await?;
    table.status("core", "Policy", "p1", true).await?;
    table.patch("bob", "Policy", "p1", "its mode", warn(), true).await?;
    table.delete("gc", "Policy", "p1", true).await?;
    table.delete("bob", "Policy", "p3", true).await
}

async fn orgs(table: &mut Table<'_>) -> Result<()> {
    let named = |table: &Table<'_>, name: &str| format!("{}-{name}", table.namespace);
    let (root, kid, safe) = (named(table, "root"), named(table, "kid"), named(table, "safe"));
    for (user, name, what, spec, may) in [
        ("alice", &root, "a root", json!({}), true),
        ("alice", &kid, "a unit, without the verb subdivide", json!({"parentRef": {"name": root}}), false),
        ("bob", &kid, "a unit of an Org that he may not divide", json!({"parentRef": {"name": safe}}), false),
        ("bob", &kid, "a unit", json!({"parentRef": {"name": root}}), true),
        ("alice", &safe, "one that nobody deletes", json!({"deletionProtection": true}), true),
    ] {
        let org = table.object("Org", name, &spec);
        table.create(user, what, org, may).await?;
    }
    table.status("alice", "Org", &root, false).await?;
    table.status("edge", "Org", &root, false).await?;
    table.status("core", "Org", &root, true).await?;
    table.delete("admin", "Org", &safe, false).await?;
    table.delete("gc", "Org", &safe, false).await?;
    table.patch("alice", "Org", &safe, "its protection", json!({"spec": {"deletionProtection": false}}), true).await?;
    for name in [&safe, &kid, &root] {
        table.delete("alice", "Org", name, true).await?;
    }
    Ok(())
}
