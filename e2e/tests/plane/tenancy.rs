//! Orgs beside and above each other: nothing of one is another's, parents bind children, nobody is robbed of a namespace.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    core::v1::{Namespace, ResourceQuota},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use polity_api::{Org, ToolCall, toolcall::Phase};
use polity_e2e::{apply, apply_as, org_name, parts::Polity, until};
use serde_json::{Value, json};

use crate::{
    calls::{call, phase},
    fixtures::{self, SOON},
    help,
};

/// An Org of one document.
fn org(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Org", "metadata": {"name": name}, "spec": spec}).to_string()
}

async fn label(client: &Client, namespace: &str, value: Value) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let patch = json!({"metadata": {"labels": {"polity.dev/org": value}}});
    namespaces.patch(namespace, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// An agent of Org A has nothing in Org B: no right without membership, no say with it, no Tool of B from A, no voice in B's Approvals.
pub async fn an_agent_of_another_org_is_refused(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (a, b) = (org_name("ours"), org_name("theirs"));
    fixtures::organisation(&admin, &a).await?;
    fixtures::organisation(&admin, &b).await?;
    let user = format!("bot@{a}");
    let there: Api<ToolCall> = help::of(polity, &user, &b).await?;
    help::refused(there.create(&PostParams::default(), &help::small()).await, 403, &["cannot create resource"])?;

    let mut foreign = help::small();
    foreign.spec.tool.org = Some(b.clone());
    let own = help::bot(polity, &a).await?;
    help::takes(&own, &help::small()).await?;
    help::refused(own.create(&PostParams::default(), &foreign).await, 403, &["ToolNotFound", &b])?;

    // As a member of B he has Kubernetes rights there, but is no Agent of B: he may neither call nor approve.
    let members = json!([
        {"kind": "User", "name": format!("bot@{b}"), "role": "engineer"},
        {"kind": "User", "name": format!("boss@{b}"), "role": "approver"},
        {"kind": "User", "name": user, "role": "admin"},
    ]);
    help::patch(&admin, "Org", None, &b, json!({"spec": {"members": members}})).await??;
    until(SOON, "he is a member", || async {
        match help::tried(&there, &help::small()).await {
            Err(kube::Error::Api(s)) if s.message.contains("UnknownCaller") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let (name, _) = help::made(&help::bot(polity, &b).await?, &call(200, "ann")).await?;
    let waiting = phase(&admin, &b, &name, Phase::WaitingApproval).await?;
    let approval = waiting.status.and_then(|s| s.approval).context("approval")?;
    help::refused(help::decides(polity, &b, &approval, &user, "Approve").await?, 403, &["NotAnApprover"])?;
    help::refused(help::decides(polity, &b, &approval, &user, "Deny").await?, 403, &["NotAnApprover"])?;
    phase(&admin, &b, &name, Phase::WaitingApproval).await?;
    Ok(())
}

/// A parent's Policy binds the child, which cannot loosen it; an exported Tool of the parent is usable below, another is not.
pub async fn a_parent_binds_its_child(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let parent = org_name("parent");
    let below = format!("{parent}-below");
    fixtures::organisation(&admin, &parent).await?;
    fixtures::unit(&admin, &below, &parent).await?;
    let bot = help::bot(polity, &below).await?;
    help::takes(&bot, &call(40, "ann")).await?;

    // The parent forbids above 30. The child's own rule allows to 50, and a rule that always holds changes nothing.
    let rule = |namespace: &str, name: &str, expression: &str| {
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Policy", "metadata": {"name": name, "namespace": namespace},
               "spec": {"match": {"tools": ["pay"]}, "rules": [{"name": "limit", "expression": expression, "effect": "Deny", "message": "at most 30 in this house"}]}})
        .to_string()
    };
    apply(&admin, &rule(&parent, "house", "args.amount <= 30")).await?;
    apply(&admin, &rule(&below, "loose", "true")).await?;
    help::refuses(&bot, &call(40, "ann"), &format!("{parent}/house/limit")).await?;
    help::refused(
        bot.create(&PostParams::default(), &call(40, "ann")).await,
        403,
        &["PolicyDenied", "at most 30 in this house", &format!("{parent}/house/limit")],
    )?;
    help::takes(&bot, &call(30, "ann")).await?;
    // A policy of the child does not bind the parent.
    apply(&admin, &rule(&below, "strict", "args.amount <= 1")).await?;
    help::refuses(&bot, &call(30, "ann"), &format!("{below}/strict/limit")).await?;
    let above = help::bot(polity, &parent).await?;
    help::takes(&above, &call(30, "ann")).await?;

    let of_parent = |tool: &str| {
        let mut call = call(1, "ann");
        call.spec.tool.name = tool.to_owned();
        call.spec.tool.org = Some(parent.clone());
        call
    };
    for (name, export) in [("shared", Some("Descendants")), ("private", None)] {
        let mut spec = json!({"runtime": {"container": {"image": "docker.io/polity/polity:dev", "command": ["/pay"]}}});
        if let Some(export) = export {
            spec["export"] = json!(export);
        }
        let metadata = json!({"name": name, "namespace": parent});
        let tool = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Tool", "metadata": metadata, "spec": spec});
        apply(&admin, &tool.to_string()).await?;
    }
    help::patch(&admin, "Role", Some(&below), "payer", json!({"spec": {"grants": [{"tools": ["pay", "shared", "private"]}]}})).await??;
    help::takes(&bot, &of_parent("shared")).await?;
    help::refused(bot.create(&PostParams::default(), &of_parent("private")).await, 403, &["ToolNotFound"])?;
    let (name, _) = help::made(&bot, &of_parent("shared")).await?;
    phase(&admin, &below, &name, Phase::Running).await?;
    help::patch(&admin, "Tool", Some(&parent), "shared", json!({"spec": {"export": null}})).await??;
    help::refuses(&bot, &of_parent("shared"), "ToolNotFound").await
}

/// A child that asks for more than its parent has left is told so and gets nothing of it; it is granted when there is enough.
pub async fn a_child_cannot_have_more_than_its_parent(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let parent = org_name("rich");
    let (one, two) = (format!("{parent}-one"), format!("{parent}-two"));
    let pods = |n: &str| json!({"hard": {"pods": n}});
    apply(&admin, &org(&parent, &json!({"quota": pods("10")}))).await?;
    fixtures::ready(&admin, &parent).await?;
    apply(&admin, &org(&one, &json!({"parentRef": {"name": parent}, "quota": pods("6")}))).await?;
    fixtures::ready(&admin, &one).await?;
    apply(&admin, &org(&two, &json!({"parentRef": {"name": parent}, "quota": pods("6")}))).await?;
    let message = help::condition(&admin, "Org", None, &two, "QuotaReady", "QuotaUnavailable").await?;
    ensure!(message.contains('6') && message.contains('4') && message.contains("pods"), "{message}");
    help::condition(&admin, "Org", None, &two, "Ready", "QuotaUnavailable").await?;
    let hard = |org: String| {
        let admin = admin.clone();
        async move {
            let quota = Api::<ResourceQuota>::namespaced(admin, &org).list(&ListParams::default()).await?;
            let sum: i64 =
                quota.iter().filter_map(|q| q.spec.as_ref()?.hard.as_ref()?.get("pods")?.0.parse::<i64>().ok()).min().unwrap_or(i64::MAX);
            anyhow::Ok(sum)
        }
    };
    ensure!(
        (hard(parent.clone()).await?, hard(one.clone()).await?, hard(two.clone()).await?) == (4, 6, 0),
        "{} {} {}",
        hard(parent.clone()).await?,
        hard(one.clone()).await?,
        hard(two.clone()).await?
    );
    help::patch(&admin, "Org", None, &parent, json!({"spec": {"quota": pods("14")}})).await??;
    fixtures::ready(&admin, &two).await?;
    until(SOON, "2 are left for the parent", || async {
        let now = (hard(parent.clone()).await.map_err(|e| e.to_string())?, hard(two.clone()).await.map_err(|e| e.to_string())?);
        if now == (2, 6) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await
}

/// An Org never moves; one with Orgs below waits with its deletion and names them, takes no calls, and goes after them.
pub async fn parents_stay_and_go_last(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let parent = org_name("tree");
    let (below, other) = (format!("{parent}-leaf"), format!("{parent}-other"));
    fixtures::organisation(&admin, &parent).await?;
    apply(&admin, &org(&other, &json!({}))).await?;
    fixtures::unit(&admin, &below, &parent).await?;
    for spec in [json!({"parentRef": {"name": other}}), json!({"parentRef": null})] {
        help::refused(help::patch(&admin, "Org", None, &below, json!({"spec": spec})).await?, 422, &["an Org never moves"])?;
    }
    help::refused(
        help::patch(&admin, "Org", None, &other, json!({"spec": {"parentRef": {"name": parent}}})).await?,
        422,
        &["an Org never moves"],
    )?;
    help::refused(
        help::patch(&admin, "Org", None, &other, json!({"spec": {"namespace": "elsewhere"}})).await?,
        422,
        &["namespace is immutable"],
    )?;

    let bot = help::bot(polity, &below).await?;
    help::takes(&bot, &help::small()).await?;
    let orgs: Api<Org> = Api::all(admin.clone());
    orgs.delete(&parent, &DeleteParams::default()).await?;
    let message = help::condition(&admin, "Org", None, &parent, "Ready", "ChildrenExist").await?;
    ensure!(message.contains(&below), "{message}");
    help::refuses(&bot, &help::small(), "AncestryBroken").await?;
    help::refuses(&help::bot(polity, &parent).await?, &help::small(), "OrgDeleting").await?;
    orgs.delete(&below, &DeleteParams::default()).await?;
    for name in [&below, &parent] {
        gone(&admin, name).await?;
    }
    Ok(())
}

/// Waits until an Org and its namespace are gone.
pub async fn gone(client: &Client, name: &str) -> Result<()> {
    let (orgs, namespaces): (Api<Org>, Api<Namespace>) = (Api::all(client.clone()), Api::all(client.clone()));
    until(SOON * 2, &format!("Org {name} and its namespace are gone"), || async {
        let org = orgs.get_opt(name).await.map_err(|e| e.to_string())?;
        let namespace = namespaces.get_opt(name).await.map_err(|e| e.to_string())?;
        if org.is_none() && namespace.is_none() {
            Ok(())
        } else {
            Err(format!("{:?} {:?}", org.map(|o| o.status), namespace.map(|n| n.status)))
        }
    })
    .await
}

/// Somebody's namespace is used only with his consent; withdrawn, calls are denied; deleted, the Org leaves it as it was.
pub async fn somebodys_namespace_needs_consent(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let name = org_name("guest");
    apply(&admin, &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await?;
    apply(&admin, &format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: theirs, namespace: {name}}}, data: {{a: b}}}}")).await?;
    let members = json!([{"kind": "User", "name": format!("bot@{name}"), "role": "engineer"}]);
    apply(&admin, &org(&name, &json!({"members": members}))).await?;
    let message = help::condition(&admin, "Org", None, &name, "NamespaceReady", "NamespaceNotConsenting").await?;
    ensure!(message.contains(&format!("kubectl label namespace {name} polity.dev/org={name}")), "{message}");
    let empty = Api::<NetworkPolicy>::namespaced(admin.clone(), &name).list(&ListParams::default()).await?.items.is_empty();
    ensure!(empty, "something was put into it");
    label(&admin, &name, json!("another")).await?;
    help::condition(&admin, "Org", None, &name, "Ready", "NamespaceNotConsenting").await?;

    label(&admin, &name, json!(name)).await?;
    fixtures::organisation(&admin, &name).await?;
    let adopted = fixtures::ready(&admin, &name).await?.status.and_then(|s| s.namespace).context("namespace")?;
    ensure!(!adopted.created, "{adopted:?}");
    let bot = help::bot(polity, &name).await?;
    help::takes(&bot, &help::small()).await?;
    let (waiting, _) = help::made(&bot, &call(200, "ann")).await?;
    let approval = phase(&admin, &name, &waiting, Phase::WaitingApproval).await?.status.and_then(|s| s.approval).context("approval")?;

    label(&admin, &name, Value::Null).await?;
    help::refuses(&bot, &help::small(), "NamespaceNotConsenting").await?;
    help::condition(&admin, "Org", None, &name, "Ready", "NamespaceNotConsenting").await?;
    // What waited when consent was withdrawn does not run after it either, whoever approves.
    if help::decides(polity, &name, &approval, &format!("boss@{name}"), "Approve").await?.is_ok() {
        help::one_of(&admin, &name, &waiting, &[Phase::Denied]).await?;
    }
    label(&admin, &name, json!(name)).await?;
    help::takes(&bot, &help::small()).await?;

    Api::<Org>::all(admin.clone()).delete(&name, &DeleteParams::default()).await?;
    let orgs: Api<Org> = Api::all(admin.clone());
    until(SOON * 4, "the Org is gone", || async {
        let org = orgs.get_opt(&name).await.map_err(|e| e.to_string())?;
        org.map_or(Ok(()), |o| Err(format!("{:?}", o.status)))
    })
    .await?;
    let namespace = Api::<Namespace>::all(admin.clone()).get(&name).await?;
    ensure!(namespace.metadata.deletion_timestamp.is_none(), "an adopted namespace was deleted");
    let left = Api::<NetworkPolicy>::namespaced(admin.clone(), &name).list(&ListParams::default()).await?;
    ensure!(left.items.is_empty(), "left behind: {:?}", left.iter().map(ResourceExt::name_any).collect::<Vec<_>>());
    let theirs = Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(admin, &name).get("theirs").await?;
    ensure!(theirs.data.is_some_and(|d| d.get("a").is_some_and(|v| v == "b")), "theirs was touched");
    Ok(())
}

/// System namespaces, Polity's own, and one in which another Org lives are refused; so is a name that is none.
pub async fn reserved_namespaces_are_refused(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let name = org_name("squat");
    for namespace in ["kube-system", "kube-public", "kube-whatever", "default", "polity-system"] {
        let answer = apply_as(&admin, &org(&name, &json!({"namespace": namespace}))).await?;
        help::refused(answer, 422, &["NamespaceRefused", namespace])?;
    }
    help::refused(apply_as(&admin, &org("default", &json!({}))).await?, 422, &["NamespaceRefused"])?;
    apply(&admin, &org(&name, &json!({}))).await?;
    fixtures::ready(&admin, &name).await?;
    let second = format!("{name}-too");
    help::refused(apply_as(&admin, &org(&second, &json!({"namespace": name}))).await?, 422, &["NamespaceRefused", &name])?;
    help::refused(
        apply_as(&admin, &org(&second, &json!({"members": [{"kind": "Group", "name": "system:masters", "role": "admin"}]}))).await?,
        422,
        &["system:masters"],
    )?;
    help::refused(apply_as(&admin, &org(&second, &json!({"parentRef": {"name": second}}))).await?, 422, &["AncestryBroken"])?;
    Ok(())
}

/// Who may create Orgs needs the verb `subdivide` on an Org to put one below it.
pub async fn a_unit_needs_the_verb_subdivide(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let parent = org_name("divided");
    let user = format!("founder@{parent}");
    apply(&admin, &org(&parent, &json!({}))).await?;
    let rights = |rules: Value| {
        let role =
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": parent}, "rules": rules});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": parent},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": parent},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
        format!("{role}\n---\n{binding}")
    };
    let make = json!({"apiGroups": ["polity.dev"], "resources": ["orgs"], "verbs": ["create", "patch", "get"]});
    apply(&admin, &rights(json!([make]))).await?;
    let founder = polity.cluster.user(&user, &[]).await?;
    let (alone, unit) = (format!("{parent}-alone"), format!("{parent}-unit"));
    until(SOON, "his rights are in force", || async {
        apply_as(&founder, &org(&alone, &json!({}))).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    })
    .await?;
    let below = org(&unit, &json!({"parentRef": {"name": parent}}));
    help::refused(apply_as(&founder, &below).await?, 403, &["subdivide"])?;
    apply(
        &admin,
        &rights(json!([make, {"apiGroups": ["polity.dev"], "resources": ["orgs"], "resourceNames": [parent], "verbs": ["subdivide"]}])),
    )
    .await?;
    until(SOON, "he may subdivide", || async { apply_as(&founder, &below).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string()) })
        .await?;
    help::refused(apply_as(&founder, &org(&format!("{unit}-2"), &json!({"parentRef": {"name": alone}}))).await?, 403, &["subdivide"])?;
    fixtures::ready(&admin, &unit).await?;
    for (kind, name) in [("clusterrolebinding", &parent), ("clusterrole", &parent)] {
        polity.cluster.run("kubectl", &["delete", kind, name])?;
    }
    Ok(())
}

/// A username is one Agent's in a tree, and of another tree's as well; a name of the system is nobody's person.
pub async fn a_username_belongs_to_one_agent_of_a_tree(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (parent, other) = (org_name("names"), org_name("elsewhere"));
    let below = format!("{parent}-kid");
    for name in [&parent, &other] {
        fixtures::organisation(&admin, name).await?;
    }
    fixtures::unit(&admin, &below, &parent).await?;
    help::takes(&help::bot(polity, &parent).await?, &help::small()).await?;
    help::takes(&help::bot(polity, &below).await?, &help::small()).await?;
    let agent = |namespace: &str, kind: &str, username: &str| {
        json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "twin", "namespace": namespace}, "spec": {"type": kind, "usernames": [username]}})
            .to_string()
    };
    let taken = format!("bot@{parent}");
    for namespace in [&parent, &below] {
        let answer = apply_as(&admin, &agent(namespace, "System", &taken)).await?;
        help::refused(answer, 422, &["UsernameTaken", &taken]).with_context(|| namespace.clone())?;
    }
    let robot = format!("system:serviceaccount:{parent}:polity-agent-robot");
    help::refused(apply_as(&admin, &agent(&parent, "Human", &robot)).await?, 422, &["never counts as human"])?;
    apply(&admin, &agent(&other, "System", &taken)).await?;
    help::takes(&help::bot(polity, &parent).await?, &help::small()).await
}

/// A namespace that is deleted under its Org is made anew; what was in it is gone, and calls are denied until there is something again.
pub async fn a_deleted_namespace_is_made_anew(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let name = org_name("anew");
    fixtures::organisation(&admin, &name).await?;
    let bot = help::bot(polity, &name).await?;
    help::takes(&bot, &help::small()).await?;
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    let before = namespaces.get(&name).await?.uid();
    namespaces.delete(&name, &DeleteParams::default()).await?;
    until(SOON * 2, "another namespace of that name", || async {
        let now = namespaces.get_opt(&name).await.map_err(|e| e.to_string())?;
        let fresh = now.as_ref().is_some_and(|n| n.uid() != before && n.metadata.deletion_timestamp.is_none());
        if fresh { Ok(()) } else { Err(format!("{:?}", now.map(|n| n.status))) }
    })
    .await?;
    let org = fixtures::ready(&admin, &name).await?;
    let now = namespaces.get(&name).await?.uid();
    ensure!(org.status.and_then(|s| s.namespace).map(|n| n.uid) == now);
    fixtures::organisation(&admin, &name).await?;
    help::takes(&bot, &help::small()).await
}
