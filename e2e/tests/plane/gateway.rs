//! How an AI agent acts: `POST /v1/orgs/{org}/calls` with the token of its worker Pod.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use polity_api::ToolCall;
use polity_e2e::{apply, org_name, parts::Polity, shim, until};
use serde_json::{Value, json};

use crate::{
    fixtures::{self, SOON},
    help,
};

fn pay(amount: i64, to: &str) -> Value {
    json!({"tool": "pay", "input": {"amount": amount, "to": to}, "waitSeconds": 0})
}

/// One call runs and gives its result, one is denied with rule, reason and hint, one fails, one waits for a person and then runs.
pub async fn an_agent_acts(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("robot");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;

    let (code, begun) = robot.call(&org, pay(20, "ann")).await?;
    ensure!(code == 202 && begun["phase"] == "Running", "{code} {begun}");
    let id = begun["id"].as_str().context("id")?;
    let input = shim::play(polity, &org, id, 0, r#"{"receipt": "r-1"}"#).await?;
    ensure!(input == json!({"amount": 20, "to": "ann"}), "{input}");
    let (code, ended) = robot.read(&org, id, SOON).await?;
    ensure!(code == 200 && ended["phase"] == "Succeeded" && ended["result"]["output"] == json!({"receipt": "r-1"}), "{code} {ended}");
    ensure!(
        Api::<ToolCall>::namespaced(admin.clone(), &org).list(&ListParams::default()).await?.items.is_empty(),
        "a call without approval became an object"
    );
    let lines = help::lines(polity, &uid, Some(id))?;
    ensure!(help::kinds(&lines) == ["begin", "settle"], "{lines:?}");
    ensure!(lines[0].to_string().contains(&robot.pod.uid().unwrap_or_default()), "the record does not name the worker: {}", lines[0]);

    let (code, denied) = robot.call(&org, pay(20, "mallory")).await?;
    let rules = json!([format!("{org}/limits/not-mallory")]);
    ensure!(
        code == 403 && denied["reason"] == "PolicyDenied" && denied["rules"] == rules && denied["hint"] == "pay somebody else",
        "{code} {denied}"
    );
    let record = denied["id"].as_str().context("id of the denial")?;
    ensure!(help::kinds(&help::lines(polity, &uid, Some(record))?) == ["decision"], "the denial is not recorded");

    let (_, begun) = robot.call(&org, pay(21, "ann")).await?;
    let id = begun["id"].as_str().context("id")?;
    shim::play(polity, &org, id, 3, "").await?;
    let (code, failed) = robot.read(&org, id, SOON).await?;
    ensure!(
        code == 200 && failed["phase"] == "Failed" && failed["reason"] == "ToolFailed" && failed["result"]["code"] == 3,
        "{code} {failed}"
    );

    let (code, waits) = robot.call(&org, pay(200, "ann")).await?;
    ensure!(code == 202 && waits["phase"] == "WaitingApproval", "{code} {waits}");
    let (id, approval) = (waits["id"].as_str().context("id")?, waits["approval"].as_str().context("approval")?);
    help::decides(polity, &org, approval, &format!("boss@{org}"), "Approve").await??;
    shim::play(polity, &org, id, 0, r#"{"receipt": "r-2"}"#).await?;
    let (code, ended) = robot.read(&org, id, SOON).await?;
    ensure!(code == 200 && ended["phase"] == "Succeeded" && ended["result"]["output"]["receipt"] == "r-2", "{code} {ended}");
    Ok(())
}

/// Results that are no JSON, too large, or not what the output schema says fail the call with their own reason.
pub async fn results_that_do_not_fit(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("results");
    fixtures::organisation(&admin, &org).await?;
    help::patch(&admin, "Tool", Some(&org), "pay", json!({"spec": {"outputSchema": {"type": "object", "required": ["receipt"]}}}))
        .await??;
    let robot = help::robot(polity, &org).await?;
    let large = json!({"receipt": "x".repeat(20 * 1024)}).to_string();
    for (stdout, reason) in [("no json", "InvalidResult"), (r#"{"other": 1}"#, "InvalidResult"), (large.as_str(), "ResultTooLarge")] {
        let (_, begun) = robot.call(&org, pay(20, "ann")).await?;
        let id = begun["id"].as_str().with_context(|| begun.to_string())?;
        shim::play(polity, &org, id, 0, stdout).await?;
        let (code, ended) = robot.read(&org, id, SOON).await?;
        ensure!(code == 200 && ended["phase"] == "Failed" && ended["reason"] == reason, "{reason}: {code} {ended}");
    }
    Ok(())
}

/// Only a live token of audience `polity` of an Agent of that very Org acts; a Pod gets only its own call's input.
pub async fn tokens_of_others_are_refused(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (org, other) = (org_name("tokens"), org_name("stranger"));
    fixtures::organisation(&admin, &org).await?;
    fixtures::organisation(&admin, &other).await?;
    let robot = help::robot(polity, &org).await?;
    let stranger = help::robot(polity, &other).await?;

    for token in [None, Some("nonsense"), Some("a.b.c")] {
        let (code, body) = robot.call_with(&org, pay(20, "ann"), token).await?;
        ensure!(code == 401 && body["reason"] == "Unauthenticated", "{token:?}: {code} {body}");
    }
    let wrong = help::token(polity, &org, "polity-agent-robot", &robot.pod, "https://kubernetes.default.svc").await?;
    let (code, body) = robot.call_with(&org, pay(20, "ann"), Some(&wrong)).await?;
    ensure!(code == 401, "another audience: {code} {body}");
    let (code, body) = robot.call_with(&org, pay(20, "ann"), Some(&stranger.token)).await?;
    ensure!(code == 403 && body["reason"] == "UnknownCaller", "another Org's agent: {code} {body}");

    // The input of a run belongs to its Pod: neither the agent nor the Pod of another run gets it.
    let (_, one) = robot.call(&org, pay(20, "ann")).await?;
    let (_, two) = robot.call(&org, pay(21, "ann")).await?;
    let (one, two) = (one["id"].as_str().context("id")?, two["id"].as_str().context("id")?);
    let pods: Api<Pod> = Api::namespaced(admin.clone(), &org);
    let pod = pods.get(&format!("call-{two}")).await?;
    let foreign = shim::pod_token(polity, &org, &pod.name_any(), pod.uid().context("uid")?).await?;
    let http = shim::client()?;
    for token in [&foreign, &robot.token] {
        let answer = http.get(format!("{}/shim/v1/runs/{one}/input", polity.gateway())).bearer_auth(token).send().await?;
        ensure!(answer.status() == 403 || answer.status() == 404, "{}", answer.status());
        let body = json!({"exitCode": 0, "stdout": "{}", "stderrTail": ""});
        let answer = http.post(format!("{}/shim/v1/runs/{one}/result", polity.gateway())).bearer_auth(token).json(&body).send().await?;
        ensure!(answer.status() == 403 || answer.status() == 404, "{}", answer.status());
    }
    let (code, body) = robot.read(&org, one, Duration::ZERO).await?;
    ensure!(code == 202 && body["phase"] == "Running", "{code} {body}");
    let (code, body) = stranger.read(&org, one, Duration::ZERO).await?;
    ensure!(code == 404, "a stranger reads a call: {code} {body}");
    let (code, body) = stranger.cancel(&org, one).await?;
    ensure!(code == 404, "a stranger cancels a call: {code} {body}");

    // The token dies with its Pod.
    let fresh = help::token(polity, &org, "polity-agent-robot", &robot.pod, "polity").await?;
    pods.delete(&robot.pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    until(SOON, "the Pod is gone", || async {
        let gone = pods.get_opt(&robot.pod.name_any()).await.map_err(|e| e.to_string())?.is_none_or(|p| p.uid() != robot.pod.uid());
        if gone { Ok(()) } else { Err("there".to_owned()) }
    })
    .await?;
    // The API server itself keeps a positive answer for a few seconds.
    until(SOON, "a token of a Pod that is gone is refused", || async {
        let token = fresh.to_string();
        let (code, body) = robot.call_with(&org, pay(20, "mallory"), Some(&token)).await.map_err(|e| e.to_string())?;
        if code == 401 { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await
}

/// Racing requests with one idempotency key run once; the same again gets the outcome; another body is refused.
pub async fn an_idempotency_key_runs_once(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("once");
    let uid = fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let keyed =
        |amount: i64| json!({"tool": "pay", "input": {"amount": amount, "to": "ann"}, "idempotencyKey": "invoice-7", "waitSeconds": 0});
    let racing = join_all((0..10).map(|_| robot.call(&org, keyed(20)))).await;
    let mut ids: Vec<String> = Vec::new();
    for answer in racing {
        let (code, body) = answer?;
        ensure!(code == 202 && body["phase"] == "Running", "{code} {body}");
        ids.push(body["id"].as_str().context("id")?.to_owned());
    }
    ids.dedup();
    ensure!(ids.len() == 1, "several runs: {ids:?}");
    let (code, body) = robot.call(&org, keyed(21)).await?;
    ensure!(code == 409 && body["reason"] == "IdempotencyKeyReused", "{code} {body}");
    shim::play(polity, &org, &ids[0], 0, r#"{"receipt": "r-7"}"#).await?;
    let (code, body) = robot.call(&org, keyed(20)).await?;
    ensure!(code == 200 && body["result"]["output"]["receipt"] == "r-7" && body["id"] == ids[0].as_str(), "{code} {body}");
    let begins = help::lines(polity, &uid, None)?.iter().filter(|l| l["kind"] == "begin").count();
    ensure!(begins == 1, "{begins} begins");
    // Nothing is left of the others.
    let pods = Api::<Pod>::namespaced(admin, &org);
    until(SOON, "no Pod of a call is left", || async {
        let list = pods.list(&ListParams::default().labels("polity.dev/kind=ToolCall")).await.map_err(|e| e.to_string())?;
        if list.items.is_empty() { Ok(()) } else { Err(format!("{:?}", list.iter().map(ResourceExt::name_any).collect::<Vec<_>>())) }
    })
    .await
}

/// Where an http tool may never connect: refused when it is written, or, where only the run can tell, when it runs; the record says not done.
pub async fn egress_is_refused(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("egress");
    let uid = fixtures::organisation(&admin, &org).await?;
    let tool = |name: &str, url: &str| {
        format!(
            "{{apiVersion: polity.dev/v1alpha1, kind: Tool, metadata: {{name: {name}, namespace: {org}}}, spec: {{runtime: {{http: {{url: '{url}'}}}}}}}}"
        )
    };
    for url in [
        "http://127.0.0.1:6443/",
        "https://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://user@203.0.113.1/",
        "ftp://203.0.113.1/",
    ] {
        let answer = polity_e2e::apply_as(&admin, &tool("bad", url)).await?;
        help::refused(answer, 422, &[]).with_context(|| url.to_owned())?;
    }
    help::patch(&admin, "Role", Some(&org), "payer", json!({"spec": {"grants": [{"tools": ["pay", "http-*"]}]}})).await??;
    let robot = help::robot(polity, &org).await?;
    for (name, url) in
        [("http-service", "http://10.213.0.1/"), ("http-pod", "https://10.214.3.4:8443/"), ("http-name", "http://localhost:8080/")]
    {
        if let Err(refused) = polity_e2e::apply_as(&admin, &tool(name, url)).await? {
            ensure!(refused.to_string().contains("EgressRefused"), "{url}: {refused}");
            continue;
        }
        let ended = until(SOON, &format!("an answer about {url}"), || async {
            let (code, body) = robot.call(&org, json!({"tool": name, "waitSeconds": 20})).await.map_err(|e| e.to_string())?;
            if code == 200 { Ok(body) } else { Err(format!("{code} {body}")) }
        })
        .await?;
        ensure!(ended["phase"] == "Failed" && ended["reason"] == "EgressRefused", "{url}: {ended}");
        let lines = help::lines(polity, &uid, ended["id"].as_str())?;
        ensure!(help::kinds(&lines) == ["begin", "settle"] && lines[1]["outcome"] == "NotDone", "{url}: {lines:?}");
    }
    Ok(())
}

/// What is no proper request is told so, and the gateway goes on.
pub async fn malformed_requests_are_told(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("malformed");
    fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let deep = format!(r#"{{"tool":"pay","input":{{"x":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
    let deeper = format!(r#"{{"tool":"pay","input":{{"x":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let large = json!({"tool": "pay", "input": {"amount": 1, "to": "x".repeat(900_000)}}).to_string();
    let larger = json!({"tool": "pay", "input": {"amount": 1, "to": "x".repeat(1_100_000)}}).to_string();
    let json_type = "application/json";
    for (kind, body, wanted) in [
        (json_type, deep, 400),
        (json_type, deeper, 400),
        (json_type, larger, 413),
        (json_type, "{".to_owned(), 400),
        (json_type, r#"{"tool":"pay","imput":{}}"#.to_owned(), 400),
        (json_type, r#"{"tool":"pay","input":[]}"#.to_owned(), 400),
        ("text/plain", pay(20, "ann").to_string(), 415),
    ] {
        let head: String = body.chars().take(60).collect();
        let (code, answer) = robot.raw(&org, kind, body.into_bytes()).await?;
        ensure!(code == wanted, "{head}: {code} {answer}");
    }
    let (code, answer) = robot.raw(&org, json_type, large.into_bytes()).await?;
    ensure!(
        (code == 403 || code == 413) && (answer["reason"] == "InputTooLarge" || answer["reason"] == "InvalidArguments"),
        "{code} {answer}"
    );
    for (input, why) in [
        (json!({"amount": "20", "to": "ann"}), "amount"),
        (json!({"amount": 0, "to": "ann"}), "amount"),
        (json!({"to": "ann"}), "amount"),
        (json!({"amount": 1, "to": "ann", "cc": "x"}), "cc"),
    ] {
        let (code, answer) = robot.call(&org, json!({"tool": "pay", "input": input})).await?;
        ensure!(code == 403 && answer["reason"] == "InvalidArguments" && answer.to_string().contains(why), "{code} {answer}");
    }
    let (code, answer) = robot.call(&org, json!({"tool": "pai", "input": {}})).await?;
    ensure!(
        code == 403 && answer["reason"] == "ToolNotFound" && answer["hint"].as_str().is_some_and(|h| h.contains("pay")),
        "{code} {answer}"
    );
    let (code, answer) = robot.call("no-such-org", pay(20, "ann")).await?;
    ensure!(code >= 400 && !answer["reason"].as_str().unwrap_or_default().is_empty(), "{code} {answer}");
    let (code, answer) = robot.call(&org, pay(20, "ann")).await?;
    ensure!(code == 202, "{code} {answer}");
    // A run without an object is stopped by its id: its Pod never started here, so nothing was done.
    let (code, answer) = robot.cancel(&org, answer["id"].as_str().context("id")?).await?;
    ensure!(code == 200 && answer["phase"] == "Canceled" && answer["reason"] == "Canceled", "{code} {answer}");
    apply(&admin, &format!("{{apiVersion: polity.dev/v1alpha1, kind: Tool, metadata: {{name: free, namespace: {org}}}, spec: {{runtime: {{container: {{image: x, command: [x]}}}}}}}}")).await?;
    until(SOON, "the new Tool is known and not granted", || async {
        let (code, answer) = robot.call(&org, json!({"tool": "free", "input": {}})).await.map_err(|e| e.to_string())?;
        if code == 403 && answer["reason"] == "NotGranted" { Ok(()) } else { Err(format!("{code} {answer}")) }
    })
    .await
}
