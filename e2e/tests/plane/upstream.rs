//! Tools of others' MCP servers: the official Python and TypeScript servers as the command line and our client see them, and what the API server, core
//! and the edge make of a pin. Calls through an edge to a server in a Pod are tested on a node.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use polity_api::Tool;
use polity_e2e::{apply, apply_as, clients, org_name, parts::Polity, until};
use polity_upstream::client::{Conversation, Endpoint};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::{
    fixtures::{self, SOON},
    help,
};

/// A server that is there until this is dropped.
struct Server {
    _child: Child,
    url: String,
}

/// Starts one on a free port of loopback, and waits until it listens.
async fn start(mut command: tokio::process::Command) -> Result<Server> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let command = command.arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.kill_on_drop(true).spawn().context("cannot start the server")?;
    until(Duration::from_secs(60), "the server listens", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|e| e.to_string())
    })
    .await?;
    Ok(Server { _child: child, url: format!("http://127.0.0.1:{port}/mcp") })
}

/// `kubectl polity tool pin`: whether it ended well, and what it printed.
fn pin(args: &[&str]) -> Result<(bool, String)> {
    let cli = std::env::var_os("POLITY_E2E_CLI").context("POLITY_E2E_CLI is not set: run `cargo xtask test`")?;
    let output = Command::new(cli).args(["tool", "pin"]).args(args).output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

fn tool(namespace: &str, name: &str, mcp: &Value) -> Value {
    let schema =
        json!({"type": "object", "required": ["cents"], "properties": {"account": {"type": "string"}, "cents": {"type": "integer"}}});
    json!({
        "apiVersion": "polity.dev/v1alpha1", "kind": "Tool", "metadata": {"name": name, "namespace": namespace},
        "spec": {"inputSchema": schema, "runtime": {"mcp": mcp}},
    })
}

/// What the command line says of a Tool at this server.
fn observed(polity: &Polity, server: &Server, name: &str) -> Result<Value> {
    let file = polity.dir.join(format!("{name}-{}.json", uuid::Uuid::new_v4()));
    std::fs::write(&file, tool("x", name, &json!({"url": server.url, "tool": name})).to_string())?;
    let (same, text) = pin(&["-f", file.to_str().context("path")?, "-o", "json"])?;
    ensure!(!same, "an unpinned Tool cannot be the same: {text}");
    let told: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    // Pinned as it says, it is the same.
    let pinned = told["patch"]["spec"]["runtime"]["mcp"].clone();
    let mut whole = json!({"url": server.url, "tool": name});
    whole.as_object_mut().context("object")?.extend(pinned.as_object().context("patch")?.clone());
    std::fs::write(&file, tool("x", name, &whole).to_string())?;
    let (same, text) = pin(&["-f", file.to_str().context("path")?])?;
    ensure!(same && text.contains("the same"), "{text}");
    Ok(told)
}

/// The official servers of two languages list what is pinned, with the same digest each time, and answer our client's calls.
pub async fn servers_of_others(polity: &Polity) -> Result<()> {
    let (python, modules) = tokio::task::spawn_blocking(|| anyhow::Ok((clients::python()?, clients::typescript()?))).await??;
    let mut command = tokio::process::Command::new(python);
    command.arg(clients::scripts().join("python/server.py"));
    let python = start(command).await.context("Python")?;
    let mut command = tokio::process::Command::new(clients::node(&modules)?);
    command.arg(clients::scripts().join("typescript/server.mjs")).env("POLITY_MODULES", &modules);
    let typescript = start(command).await.context("TypeScript")?;

    for (server, arguments) in [(&python, json!({"account": "a", "cents": 5})), (&typescript, json!({"cents": 5}))] {
        let told = observed(polity, server, "book")?;
        ensure!(told["suspicions"] == json!([]) && told["observed"] == observed(polity, server, "book")?["observed"], "{told}");
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let endpoint = Endpoint { client, url: server.url.parse::<url::Url>()?, headers: http::HeaderMap::new() };
        let mut conversation = Conversation::open(endpoint).await?;
        let result = conversation.call("book", arguments.as_object().context("arguments")?, None, "").await?;
        ensure!(result["structuredContent"] == json!({"booked": 5}) && result["isError"] != true, "{result}");
        conversation.farewell().end().await;
    }
    let told = observed(polity, &python, "report")?;
    let suspicions = told["suspicions"].to_string();
    ensure!(suspicions.contains("U+200B") && suspicions.contains("HTML comment"), "{told}");
    ensure!(told["differences"].to_string().contains("requires \\\"month\\\""), "{told}");
    let (_, text) = pin(&["-f", "/nonexistent"])?;
    ensure!(text.contains("/nonexistent"), "{text}");
    Ok(())
}

/// A client that writes as core does: the test stands in for core where an edge would have told it of a drift.
async fn as_core(polity: &Polity) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(polity.dir.join("core.kubeconfig"))?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?)
}

/// What is not pinned, wrongly pinned, out of reach or in quarantine is denied with its reason before anything begins; what looks suspicious is said.
pub async fn only_what_is_pinned(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("upstream");
    let uid = fixtures::organisation(&admin, &org).await?;
    help::patch(&admin, "Role", Some(&org), "payer", json!({"spec": {"grants": [{"tools": ["pay", "book", "b00k"]}]}})).await??;
    let robot = help::robot(polity, &org).await?;
    let definition = |description: &str| {
        let listed = json!({"name": "book", "description": description, "inputSchema": {"type": "object", "required": ["cents"]}});
        polity_upstream::Definition::of(&listed)
    };
    let mcp = |pinned: Option<&polity_upstream::Definition>| {
        // In the cluster's own range: an edge refuses to connect.
        let mut mcp = json!({"url": "http://10.213.7.9/mcp", "tool": "book"});
        if let Some(pinned) = pinned {
            (mcp["digest"], mcp["definition"]) = (json!(pinned.digest()), json!(pinned.text()));
        }
        mcp
    };
    let call = json!({"tool": "book", "input": {"cents": 5}, "waitSeconds": 0});
    let denied = |reason: &'static str| {
        let (robot, org, call) = (&robot, &org, &call);
        async move {
            until(SOON, &format!("calls are denied {reason}"), || async {
                let (code, body) = robot.call(org, call.clone()).await.map_err(|e| e.to_string())?;
                if code == 403 && body["reason"] == reason { Ok(body) } else { Err(format!("{code} {body}")) }
            })
            .await
        }
    };

    apply(&admin, &tool(&org, "book", &mcp(None)).to_string()).await?;
    let told = help::condition(&admin, "Tool", Some(&org), "book", "Stalled", "ToolNotReady").await?;
    ensure!(told.contains("kubectl polity tool pin"), "{told}");
    denied("ToolNotReady").await?;

    let good = definition("Books.")?;
    let mut wrong = mcp(Some(&good));
    wrong["digest"] = json!("0".repeat(64));
    let refused = apply_as(&admin, &tool(&org, "book", &wrong).to_string()).await?.err().context("a wrong digest was accepted")?;
    ensure!(refused.to_string().contains("not that of the pinned definition"), "{refused}");
    let mut half = mcp(Some(&good));
    half.as_object_mut().context("object")?.remove("definition");
    let refused = apply_as(&admin, &tool(&org, "half", &half).to_string()).await?.err().context("half a pin was accepted")?;
    ensure!(refused.to_string().contains("pinned together"), "{refused}");

    apply(&admin, &tool(&org, "book", &mcp(Some(&good))).to_string()).await?;
    help::condition(&admin, "Tool", Some(&org), "book", "Ready", "Usable").await?;
    let body = denied("EgressRefused").await?;
    let id = body["id"].as_str().context("id of the denial")?;
    ensure!(help::kinds(&help::lines(polity, &uid, Some(id))?) == ["decision"], "the denial is not recorded, or something began");

    // Who may change a Tool may see what its server lists, through the edge, and is told why it cannot be seen.
    apply(&admin, &format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: author, namespace: {org}}}\n")).await?;
    let spec = TokenRequestSpec { audiences: vec!["polity".to_owned()], expiration_seconds: Some(600), ..TokenRequestSpec::default() };
    let token = polity.cluster.token(&org, "author", spec).await?;
    let ask = || async {
        let url = format!("{}/v1/orgs/{org}/tools/book/definition", polity.gateway());
        let answer = polity_e2e::shim::client()?.get(url).bearer_auth(&token).send().await?;
        Ok::<_, anyhow::Error>((answer.status().as_u16(), answer.json::<Value>().await?))
    };
    let (code, body) = ask().await?;
    ensure!(code == 403 && body["reason"] == "NotPermitted", "{code} {body}");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "author", "namespace": org},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "polity-org-engineer"},
        "subjects": [{"kind": "ServiceAccount", "name": "author", "namespace": org}],
    });
    apply(&admin, &binding.to_string()).await?;
    until(SOON, "the author is told", || async {
        let (code, body) = ask().await.map_err(|e| e.to_string())?;
        if code == 502 && body["reason"] == "EgressRefused" { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await?;

    // The server has changed the description: in quarantine until the pin is changed, and only then.
    let other = definition("Books. <!-- and more -->")?;
    let core: Api<Tool> = Api::namespaced(as_core(polity).await?, &org);
    let drift = json!({"pinned": good.digest(), "observed": other.digest(), "changed": ["description"], "at": "2026-11-21T00:00:00Z"});
    core.patch_status("book", &PatchParams::default(), &Patch::Merge(json!({"status": {"drift": drift}}))).await?;
    let told = help::condition(&admin, "Tool", Some(&org), "book", "Stalled", "ToolDrifted").await?;
    ensure!(told.contains("changed: description") && told.contains("tool pin"), "{told}");
    let body = denied("ToolDrifted").await?;
    ensure!(body["hint"].as_str().is_some_and(|h| h.contains("kubectl polity tool pin")), "{body}");
    let mut stored = help::small();
    (stored.spec.tool.name, stored.spec.input) = ("book".to_owned(), json!({"cents": 5}).as_object().cloned());
    help::refused(help::bot(polity, &org).await?.create(&PostParams::default(), &stored).await, 403, &["ToolDrifted"])?;
    help::patch(&admin, "Tool", Some(&org), "book", json!({"spec": {"description": "Books."}})).await??;
    denied("ToolDrifted").await?;
    apply(&admin, &tool(&org, "book", &mcp(Some(&other))).to_string()).await?;
    help::condition(&admin, "Tool", Some(&org), "book", "Ready", "Usable").await?;
    denied("EgressRefused").await?;
    let told = help::condition(&admin, "Tool", Some(&org), "book", "Flagged", "LooksSuspicious").await?;
    ensure!(told.contains("HTML comment"), "{told}");
    ensure!(Api::<Tool>::namespaced(admin.clone(), &org).get("book").await?.status.and_then(|s| s.drift).is_none(), "an old drift is kept");

    // A name that looks like another's is said of both.
    apply(&admin, &tool(&org, "b00k", &mcp(Some(&good))).to_string()).await?;
    let told = help::condition(&admin, "Tool", Some(&org), "b00k", "Flagged", "LooksSuspicious").await?;
    ensure!(told.contains("\"book\""), "{told}");
    until(SOON, "the first one says so too", || async {
        let told = help::condition(&admin, "Tool", Some(&org), "book", "Flagged", "LooksSuspicious").await.map_err(|e| e.to_string())?;
        if told.contains("\"b00k\"") { Ok(()) } else { Err(told) }
    })
    .await?;
    let begins = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin" && l.to_string().contains("book")).count();
    ensure!(begins == 0, "{begins} calls of it have begun");
    Ok(())
}
