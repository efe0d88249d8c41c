//! The chart as a user meets it: lint, templates with default and with all values, values that it refuses, and what the rights that
//! it gives come to on a real API server.

use anyhow::{Result, ensure};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use polity_api::org::MemberRole;
use polity_e2e::{
    apply,
    cluster::{SYSTEM, repo},
    manifests::documents,
    org_name,
    parts::Polity,
    until,
};

/// Lint and templates; every object is one that the API server accepts.
pub async fn renders(polity: &Polity) -> Result<()> {
    let cluster = &polity.cluster;
    let chart = repo().join("charts/polity").display().to_string();
    let all = repo().join("charts/polity/ci/all-values.yaml").display().to_string();
    let postgres = repo().join("charts/polity/ci/postgres-values.yaml").display().to_string();
    for values in [vec![], vec!["--values", all.as_str()], vec!["--values", postgres.as_str()]] {
        cluster.run("helm", &[vec!["lint", "--strict", chart.as_str()], values.clone()].concat())?;
        let rendered =
            cluster.run("helm", &[vec!["template", "polity", chart.as_str(), "--namespace", SYSTEM], values.clone()].concat())?;
        ensure!(documents(&rendered)?.len() > 20, "{rendered}");
        // A ledger in Postgres needs no volume, and is the only one that is reached by the network.
        let there = |word: &str| rendered.contains(word);
        let by_postgres = !values.is_empty();
        ensure!(there("volumeClaimTemplates") != by_postgres && there("POLITY_LEDGER_POSTGRES_URL") == by_postgres, "{rendered}");
        ensure!(
            there("secretName: polity-postgres") == by_postgres && there("mountPath: /etc/polity/postgres-ca") == by_postgres,
            "{rendered}"
        );
        ensure!(there("{protocol: TCP, port: 5432}") == values.contains(&postgres.as_str()), "{rendered}");
        let file = polity.dir.join("rendered.yaml");
        std::fs::write(&file, rendered)?;
        let file = file.display().to_string();
        // A create that finds its name taken has been validated before.
        let Err(refused) = cluster.run("kubectl", &["create", "--dry-run=server", "--validate=strict", "-f", &file]) else { continue };
        let refused = refused.to_string();
        let worse: Vec<&str> = refused.lines().filter(|l| l.to_lowercase().contains("error") && !l.contains("(AlreadyExists)")).collect();
        ensure!(worse.is_empty() && refused.contains("(AlreadyExists)"), "{worse:#?}");
    }
    Ok(())
}

/// Values that must not get through.
pub async fn refuses_values(polity: &Polity) -> Result<()> {
    let chart = repo().join("charts/polity").display().to_string();
    for bad in [
        "core.replicas=2",
        "edge.replica=3",
        "webhook.url=http://edge:9443",
        "core.persistence.accessMode=ReadWriteMany",
        "core.postgres.url=mysql://polity@db/polity",
        "core.postgres.url=postgresql://polity:hunter2@db/polity",
        "core.postgres.url=postgresql://db/polity",
        "edge.url=polity.example.com",
        "edge.events.heartbeatSeconds=0",
        "edge.events.streams=0",
        "edge.oidcIssuers[0].issuerURL=http://id.example.com",
        "edge.oidcIssuers[0].audience=polity",
    ] {
        let out = polity.cluster.run("helm", &["template", "polity", &chart, "--set", bad]);
        ensure!(out.is_err(), "{bad} was accepted");
    }
    Ok(())
}

/// What each member may and may not do in the Org's namespace, as the API server's authorizer says.
pub async fn members_have_their_rights_and_no_more(polity: &Polity) -> Result<()> {
    let client = polity.cluster.admin().await?;
    let namespace = org_name("rights");
    let mut manifests = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}\n");
    for role in MemberRole::ALL.map(MemberRole::name) {
        manifests += &format!(
            "---\n{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: {role}, namespace: {namespace}}}, \
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: polity-org-{role}}}, \
             subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {role}}}]}}\n"
        );
    }
    apply(&client, &manifests).await?;
    let everyone = ["admin", "approver", "engineer", "growth", "viewer", "director", "auditor"];
    let none: &[&str] = &[];
    let wanted: &[(&str, &str, &str, &[&str])] = &[
        ("list", "polity.dev", "toolcalls", &everyone),
        ("list", "", "events", &everyone),
        ("list", "events.k8s.io", "events", &everyone),
        ("create", "events.k8s.io", "events", none),
        ("create", "polity.dev", "toolcalls", &["admin", "engineer", "growth"]),
        ("create", "polity.dev", "tools", &["admin", "engineer"]),
        ("create", "polity.dev", "roles", &["admin"]),
        ("patch", "polity.dev", "policies", &["admin", "director"]),
        ("govern", "polity.dev", "policies", &["director"]),
        ("resolve", "polity.dev", "toolcalls", &["director"]),
        ("patch", "polity.dev", "approvals", &["admin", "approver", "director"]),
        ("patch", "polity.dev", "agents/scale", &["admin"]),
        ("create", "polity.dev", "approvals", none),
        ("patch", "polity.dev", "toolcalls/status", none),
        ("patch", "polity.dev", "orgs", none),
        ("get", "", "secrets", none),
        ("create", "", "pods", none),
        ("create", "", "pods/exec", none),
        ("create", "", "serviceaccounts/token", none),
        ("create", "rbac.authorization.k8s.io", "rolebindings", none),
    ];
    for (verb, group, resource, who) in wanted {
        for user in everyone {
            let may = may(&client, user, &namespace, (verb, group, resource)).await?;
            if !may && who.contains(&user) {
                // The API server may not have seen the new binding yet.
                right(&client, user, &namespace, (verb, group, resource)).await?;
                continue;
            }
            ensure!(may == who.contains(&user), "{user} {verb} {resource}: {may}");
        }
    }
    Ok(())
}

/// Core's and edge's own accounts, where a slip would cost most.
pub async fn parts_have_no_more_than_they_use(polity: &Polity) -> Result<()> {
    let client = polity.cluster.admin().await?;
    for account in ["polity-core", "polity-edge"] {
        let user = format!("system:serviceaccount:{SYSTEM}:{account}");
        for (verb, group, resource) in [
            ("get", "", "secrets"),
            ("list", "", "secrets"),
            ("list", "", "configmaps"),
            ("create", "", "pods/exec"),
            ("create", "", "serviceaccounts/token"),
            ("bind", "rbac.authorization.k8s.io", "clusterroles"),
            ("escalate", "rbac.authorization.k8s.io", "clusterroles"),
            ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
            ("impersonate", "", "users"),
            ("patch", "polity.dev", "policies"),
            ("create", "polity.dev", "roles"),
        ] {
            ensure!(!may(&client, &user, "kube-system", (verb, group, resource)).await?, "{account} may {verb} {resource}");
        }
    }
    Ok(())
}

/// Waits until a user has this right.
async fn right(client: &Client, user: &str, namespace: &str, what: (&str, &str, &str)) -> Result<()> {
    until(crate::fixtures::SOON, &format!("{user} may {what:?}"), || async {
        if may(client, user, namespace, what).await.map_err(|e| format!("{e:#}"))? { Ok(()) } else { Err("no".to_owned()) }
    })
    .await
}

async fn may(client: &Client, user: &str, namespace: &str, (verb, group, resource): (&str, &str, &str)) -> Result<bool> {
    let (resource, subresource) = resource.split_once('/').map_or((resource, None), |(r, s)| (r, Some(s.to_owned())));
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                namespace: Some(namespace.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|s| s.allowed))
}
