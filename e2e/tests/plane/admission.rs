//! What the API server refuses on Polity's word, and on its own when Polity is away: forged callers and statuses, rules that cannot be right,
//! inputs out of bounds, protected Policies.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use polity_api::{Caller, Policy, ToolCall, toolcall::Phase};
use polity_e2e::{apply, apply_as, manifests, org_name, parts::Polity, until};
use serde_json::{Value, json};

use crate::{
    calls::{call, phase},
    fixtures::{self, SOON},
    help,
};

/// A Policy of one rule with effect Deny.
pub fn policy(namespace: &str, name: &str, expression: &str) -> String {
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": name, "namespace": namespace},
           "spec": {"match": {"tools": ["pay"]}, "rules": [{"name": "rule", "expression": expression, "effect": "Deny"}]}})
    .to_string()
}

/// Nobody acts in another's name, not even a cluster admin: not as caller of a call, not in an Approval, not later.
pub async fn forged_callers_are_refused(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("forged");
    fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let boss = format!("boss@{org}");
    let forged = |caller: Caller| {
        let mut forged = help::small();
        forged.spec.caller = Some(caller);
        forged
    };
    let master: Api<ToolCall> = Api::namespaced(admin.clone(), &org);
    for caller in [
        Caller { username: boss.clone(), ..Caller::default() },
        Caller { username: boss.clone(), via: Some("system:serviceaccount:polity-system:polity-edge".to_owned()), ..Caller::default() },
        Caller { username: format!("bot@{org}"), groups: vec!["finance".to_owned()], ..Caller::default() },
        Caller {
            username: format!("bot@{org}"),
            groups: vec!["system:authenticated".to_owned()],
            via: Some("x".to_owned()),
            ..Caller::default()
        },
        Caller {
            username: format!("bot@{org}"),
            groups: vec!["system:authenticated".to_owned()],
            pod_uid: Some("x".to_owned()),
            ..Caller::default()
        },
        Caller {
            username: format!("bot@{org}"),
            groups: vec!["system:authenticated".to_owned()],
            chain: vec![boss.clone()],
            ..Caller::default()
        },
    ] {
        let shown = format!("{caller:?}");
        for api in [&calls, &master] {
            let answer = api.create(&PostParams::default(), &forged(caller.clone())).await;
            // A stamp over it is as good as a refusal, if it tells who really asked.
            match answer {
                Err(kube::Error::Api(status)) => ensure!(status.code == 403, "{shown}: {status:?}"),
                Ok(made) => {
                    let found = made.spec.caller.context("caller")?;
                    ensure!(
                        found.username == format!("bot@{org}")
                            && found.via.is_none()
                            && found.chain.is_empty()
                            && found.pod_uid.is_none()
                            && !found.groups.contains(&"finance".to_owned()),
                        "{shown}: {found:?}"
                    );
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let (name, _) = help::made(&calls, &call(200, "ann")).await?;
    let waiting = phase(&admin, &org, &name, Phase::WaitingApproval).await?;
    help::refused(
        help::patch(&admin, "ToolCall", Some(&org), &name, json!({"spec": {"caller": {"username": boss}}})).await?,
        422,
        &["caller is immutable"],
    )?;
    help::refused(
        help::patch(&admin, "ToolCall", Some(&org), &name, json!({"spec": {"input": {"amount": 1}}})).await?,
        422,
        &["input is immutable"],
    )?;
    let approval = waiting.status.and_then(|s| s.approval).context("approval")?;
    // Somebody else's entry, also with stamps that look right.
    let other: Api<DynamicObject> = Api::namespaced_with(
        polity.cluster.user(&format!("other@{org}"), &[]).await?,
        &org,
        &kube::core::ApiResource::erase::<polity_api::Approval>(&()),
    );
    for entry in [
        json!({"by": boss, "decision": "Approve"}),
        json!({"by": boss, "decision": "Approve", "at": "2026-11-21T00:00:00Z", "groups": ["system:authenticated"]}),
    ] {
        let answer = other.patch(&approval, &PatchParams::default(), &Patch::Merge(json!({"spec": {"decisions": [entry]}}))).await;
        help::refused(answer, 403, &["own entry"])?;
    }
    let widened = json!({"spec": {"requirements": [{"rule": "x/y/z", "count": 1, "humansOnly": false, "group": "system:authenticated"}]}});
    help::refused(help::patch(&admin, "Approval", Some(&org), &approval, widened).await?, 422, &["only decisions"])?;
    phase(&admin, &org, &name, Phase::WaitingApproval).await?;
    Ok(())
}

/// Decisions read status, so nobody but Polity writes it; and nobody but Polity makes an Approval.
pub async fn forged_status_is_refused(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("status");
    fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let (name, _) = help::made(&calls, &call(200, "ann")).await?;
    let approval = phase(&admin, &org, &name, Phase::WaitingApproval).await?.status.and_then(|s| s.approval).context("approval")?;
    let holder = json!([{"agent": "boss", "source": "Assignment", "since": "2026-01-01T00:00:00Z"}]);
    let stranger = polity.cluster.user(&format!("admin@{org}"), &["system:masters"]).await?;
    for client in [&admin, &stranger] {
        for (kind, namespace, name, status) in [
            ("Org", None, org.as_str(), json!({"namespace": {"name": "default", "uid": "x", "created": false}})),
            ("Role", Some(org.as_str()), "payer", json!({"holders": holder})),
            ("Agent", Some(&org), "bot", json!({"usernames": ["x"]})),
            ("Tool", Some(&org), "pay", json!({"digest": "x"})),
            ("Policy", Some(&org), "limits", json!({"rules": 0})),
            ("ToolCall", Some(&org), name.as_str(), json!({"phase": "Succeeded"})),
            ("Approval", Some(&org), approval.as_str(), json!({"phase": "Approved"})),
        ] {
            let api = manifests::api_of(
                client,
                &json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"namespace": namespace}}),
            )?;
            let answer = api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await;
            help::refused(answer, 403, &["only Polity writes the status"]).with_context(|| kind.to_owned())?;
        }
    }
    let found = Api::<polity_api::Approval>::namespaced(admin.clone(), &org).get(&approval).await?;
    let mut copy = polity_api::Approval::new("forged", found.spec);
    copy.metadata.namespace = Some(org.clone());
    let answer = Api::<polity_api::Approval>::namespaced(admin.clone(), &org).create(&PostParams::default(), &copy).await;
    help::refused(answer, 403, &["only Polity makes Approvals"])?;
    // A status that comes with a create is dropped by the API server.
    let mut early = help::small();
    early.status = Some(polity_api::ToolCallStatus { phase: Some(Phase::Succeeded), ..Default::default() });
    let made = calls.create(&PostParams::default(), &early).await?;
    ensure!(made.status.is_none_or(|s| s.phase.is_none_or(|p| p == Phase::Pending)), "a status came in with the create");
    Ok(())
}

/// A rule that can never be right is refused with line, column, the name that was meant, and what there is; under `has()` too.
pub async fn a_typo_in_a_rule_is_named(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("typo");
    fixtures::organisation(&admin, &org).await?;
    help::takes(&help::bot(polity, &org).await?, &help::small()).await?;
    for (expression, parts) in [
        ("args.amuont <= 50", vec!["PolicyInvalid", "line 1", "column 6", "amuont", "amount"]),
        ("!has(args.amuont) || args.amount <= 50", vec!["PolicyInvalid", "column 11", "amuont", "amount"]),
        ("args.amount <= 50 &&\n  agnet.name == 'bot'", vec!["PolicyInvalid", "line 2", "column 3", "agnet", "agent"]),
        ("agent.nmae == 'bot'", vec!["PolicyInvalid", "nmae", "name"]),
        ("args.amount <= '50'", vec!["PolicyInvalid", "line 1"]),
        ("args.amount", vec!["PolicyInvalid", "bool"]),
        ("args.amount <=", vec!["PolicyInvalid", "line 1"]),
        ("args.to.startWith('a')", vec!["PolicyInvalid", "startWith", "startsWith"]),
        ("args['amuont'] == 1", vec!["PolicyInvalid", "amuont", "amount"]),
    ] {
        let answer = apply_as(&admin, &policy(&org, "typo", expression)).await?;
        help::refused(answer, 422, &parts).with_context(|| expression.to_owned())?;
    }
    // Ahead of its Tools: what cannot be right is still refused, what may become right is not, and denies meanwhile.
    let early = |expression: &str| policy(&org, "early", expression).replace("\"pay\"", "\"later\"");
    help::refused(apply_as(&admin, &early("agnet.name == 'bot'")).await?, 422, &["agnet"])?;
    apply(&admin, &early("args.anything == 1")).await?;
    help::condition(&admin, "Policy", Some(&org), "early", "Ready", "ToolNotFound").await?;
    let later = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Tool", "metadata": {"name": "later", "namespace": org},
        "spec": {"inputSchema": {"type": "object", "properties": {"other": {"type": "integer"}}}, "runtime": {"container": {"image": "x", "command": ["x"]}}}});
    apply(&admin, &later.to_string()).await?;
    help::patch(&admin, "Role", Some(&org), "payer", json!({"spec": {"grants": [{"tools": ["pay", "later"]}]}})).await??;
    let mut ask = call(1, "ann");
    ask.spec.tool.name = "later".to_owned();
    ask.spec.input = None;
    help::refuses(&help::bot(polity, &org).await?, &ask, "PolicyNotTyped").await?;
    help::patch(
        &admin,
        "Policy",
        Some(&org),
        "early",
        json!({"spec": {"rules": [{"name": "rule", "expression": "!has(args.other) || args.other == 1", "effect": "Deny"}]}}),
    )
    .await??;
    help::takes(&help::bot(polity, &org).await?, &ask).await
}

/// A rule that would take for ever is refused, or denies in bounded time; other Orgs do not feel it.
pub async fn a_cel_bomb_is_bounded(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (org, other) = (org_name("bomb"), org_name("beside"));
    fixtures::organisation(&admin, &org).await?;
    fixtures::organisation(&admin, &other).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let list = format!("[{}]", (0..50).map(|i| i.to_string()).collect::<Vec<_>>().join(","));
    let loops = format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, {list}.all(e, a + b + c + d + e >= 0)))))");
    let nested = format!("{}true{}", "(".repeat(1900), ")".repeat(1900));
    let sums = format!("{} > 0", vec!["1"; 1900].join("+"));
    let doubled = "['aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'].map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).all(x, size(x) > 0)".to_owned();
    for (name, bomb) in [("loops", loops), ("nested", nested), ("sums", sums), ("doubled", doubled)] {
        let start = Instant::now();
        let answer = apply_as(&admin, &policy(&org, name, &bomb)).await?;
        if answer.is_err() {
            help::refused(answer, 422, &["PolicyInvalid"]).with_context(|| name.to_owned())?;
            ensure!(start.elapsed() < SOON / 4, "{name}: {:?}", start.elapsed());
            continue;
        }
        // `nested` and `sums` are large but harmless: they may pass. The others must deny, soon.
        if name == "loops" || name == "doubled" {
            help::refuses(&calls, &help::small(), "DecisionBudgetExceeded").await.with_context(|| name.to_owned())?;
        }
        let start = Instant::now();
        let _ = help::tried(&calls, &help::small()).await;
        ensure!(start.elapsed() < SOON / 10, "{name}: {:?}", start.elapsed());
        let start = Instant::now();
        help::takes(&help::bot(polity, &other).await?, &help::small()).await?;
        ensure!(start.elapsed() < SOON / 4, "{name}, another Org: {:?}", start.elapsed());
        Api::<Policy>::namespaced(admin.clone(), &org).delete(name, &DeleteParams::default()).await?;
        help::takes(&calls, &help::small()).await.with_context(|| format!("after {name}"))?;
    }
    Ok(())
}

/// Arguments outside of the schema, too large or too deep are refused with a reason, and the API server goes on.
pub async fn arguments_out_of_bounds(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("bounds");
    fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let with = |input: Value| {
        let mut call = help::small();
        call.spec.input = input.as_object().cloned();
        call
    };
    for (input, part) in [
        (json!({"amount": 0, "to": "ann"}), "amount"),
        (json!({"amount": "20", "to": "ann"}), "amount"),
        (json!({"amount": 20.5, "to": "ann"}), "amount"),
        (json!({"amount": 20}), "to"),
        (json!({"amount": 20, "to": "ann", "cc": "bob"}), "cc"),
        (json!({"amount": 20, "to": "x".repeat(65)}), "to"),
        (json!({"amount": 20, "to": null}), "to"),
        (json!({"amount": 9_223_372_036_854_775_807_u64, "to": ["ann"]}), "to"),
    ] {
        help::refused(calls.create(&PostParams::default(), &with(input.clone())).await, 403, &["InvalidArguments", part])
            .with_context(|| input.to_string())?;
    }
    // A free-form tool: size and depth are bounded whatever the schema says.
    let free = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Tool", "metadata": {"name": "free", "namespace": org},
        "spec": {"runtime": {"container": {"image": "x", "command": ["x"]}}}});
    apply(&admin, &free.to_string()).await?;
    help::patch(&admin, "Role", Some(&org), "payer", json!({"spec": {"grants": [{"tools": ["pay", "free"]}]}})).await??;
    let free = |input: Value| {
        let mut call = with(input);
        call.spec.tool.name = "free".to_owned();
        call
    };
    help::takes(&calls, &free(json!({"x": "y".repeat(30_000)}))).await?;
    for size in [40_000, 1_000_000] {
        let answer = calls.create(&PostParams::default(), &free(json!({"x": "y".repeat(size)}))).await;
        help::refused(answer, 403, &["InputTooLarge"]).with_context(|| format!("{size} bytes"))?;
    }
    let start = Instant::now();
    for depth in [100, 200, 5_000] {
        // Sent as text: a value of this depth is one that many libraries cannot even drop.
        let body = format!(
            r#"{{"apiVersion":"polity.dev/v1alpha1","kind":"ToolCall","metadata":{{"generateName":"deep-"}},"spec":{{"tool":{{"name":"free"}},"input":{{"x":{}{}}}}}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        );
        let client = polity.cluster.user(&format!("bot@{org}"), &[]).await?;
        let request = http_post(&format!("/apis/polity.dev/v1alpha1/namespaces/{org}/toolcalls"), body)?;
        let answer = client.request_text(request).await;
        ensure!(answer.is_err(), "{depth} levels were accepted");
    }
    ensure!(start.elapsed() < SOON, "deep JSON took {:?}", start.elapsed());
    let stored = Api::<ToolCall>::namespaced(admin, &org).list(&ListParams::default()).await?;
    ensure!(stored.items.is_empty(), "{} calls were stored", stored.items.len());
    help::takes(&calls, &help::small()).await
}

/// A POST of JSON as the Kubernetes client sends it.
pub fn http_post(path: &str, body: String) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::post(path).header("content-type", "application/json").body(body.into_bytes())?)
}

/// A dry run decides and leaves nothing: no object, no Pod, no record.
pub async fn a_dry_run_leaves_no_trace(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("dry");
    let uid = fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    let shown = help::tried(&calls, &help::small()).await?;
    ensure!(shown.spec.caller.is_some(), "not stamped");
    help::tried(&calls, &call(200, "ann")).await?;
    help::refused(help::tried(&calls, &call(20, "mallory")).await, 403, &["PolicyDenied"])?;
    help::refused(help::tried(&calls, &call(0, "ann")).await, 403, &["InvalidArguments"])?;
    // What is made after it comes after it in every queue: when its end is recorded, a trace of the dry runs would be there.
    let (name, id) = help::made(&calls, &help::small()).await?;
    phase(&admin, &org, &name, Phase::Running).await?;
    until(SOON, "the begin is recorded", || async {
        let lines = help::lines(polity, &uid, Some(&id)).map_err(|e| e.to_string())?;
        if lines.is_empty() { Err("nothing yet".to_owned()) } else { Ok(()) }
    })
    .await?;
    // A chain's first record and those of definitions are made when core comes to them, whoever asks for what.
    let of_its_own = |line: &Value| line["kind"] == "genesis" || line["kind"] == "definition";
    let lines: Vec<_> = help::lines(polity, &uid, None)?.into_iter().filter(|l| !of_its_own(l)).collect();
    ensure!(lines.len() == 1 && lines[0]["action"] == id.as_str(), "{lines:?}");
    let stored = Api::<ToolCall>::namespaced(admin, &org).list(&ListParams::default()).await?;
    ensure!(stored.items.len() == 1, "{} calls", stored.items.len());
    Ok(())
}

/// A denial at admission is recorded, best effort.
pub async fn an_early_denial_is_noted(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("noted");
    let uid = fixtures::organisation(&admin, &org).await?;
    let calls = help::bot(polity, &org).await?;
    help::takes(&calls, &help::small()).await?;
    help::refused(calls.create(&PostParams::default(), &call(20, "mallory")).await, 403, &["PolicyDenied"])?;
    until(SOON, "the denial is noted", || async {
        let lines = help::lines(polity, &uid, None).map_err(|e| e.to_string())?;
        let noted = lines.iter().any(|l| l.to_string().contains("not-mallory"));
        if noted { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await
}

/// A protected Policy is changed and deleted by holders of `govern` only; its labels are free; it goes with its namespace.
pub async fn a_protected_policy_holds(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("protected");
    fixtures::organisation(&admin, &org).await?;
    let (manager, director) = (format!("manager@{org}"), format!("director@{org}"));
    let members = json!([{"kind": "User", "name": manager, "role": "admin"}, {"kind": "User", "name": director, "role": "director"}]);
    help::patch(&admin, "Org", None, &org, json!({"spec": {"members": members}})).await??;
    let make = policy(&org, "house", "args.amount <= 40").replace("\"rules\"", "\"protected\":true,\"rules\"");
    let policies: Api<Policy> = help::of(polity, &manager, &org).await?;
    until(SOON, "the manager may write Policies", || async {
        let client = polity.cluster.user(&manager, &[]).await.map_err(|e| e.to_string())?;
        apply_as(&client, &make).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    })
    .await?;
    let merge = |patch: Value| Patch::Merge(patch);
    for change in [
        json!({"spec": {"protected": false}}),
        json!({"spec": {"mode": "Observe"}}),
        json!({"spec": {"rules": [{"name": "rule", "expression": "true", "effect": "Deny"}]}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-0000-0000-000000000000"}]}}),
    ] {
        help::refused(policies.patch("house", &PatchParams::default(), &merge(change.clone())).await, 403, &["govern"])
            .with_context(|| change.to_string())?;
    }
    help::refused(policies.delete("house", &DeleteParams::default()).await, 403, &["govern"])?;
    help::refused(
        policies.delete_collection(&DeleteParams::default(), &ListParams::default().fields("metadata.name=house")).await,
        403,
        &[],
    )?;
    policies.patch("house", &PatchParams::default(), &merge(json!({"metadata": {"labels": {"a": "b"}}}))).await?;
    let governed: Api<Policy> = help::of(polity, &director, &org).await?;
    governed.patch("house", &PatchParams::default(), &merge(json!({"spec": {"description": "by the director"}}))).await?;
    governed.delete("house", &DeleteParams::default()).await?;
    apply(&admin, &make).await?;
    Api::<polity_api::Org>::all(admin.clone()).delete(&org, &DeleteParams::default()).await?;
    crate::tenancy::gone(&admin, &org).await
}
