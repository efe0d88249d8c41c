//! The main job, shown on the example organisation: who there is, and an agent's three calls.
//!
//! Everything printed is read from the cluster. The decision on the Approval is made by impersonation, with
//! the rights of the person and not with those of the cluster's admin. Without a real node the agent's program runs as a process of
//! the host, with a token of its account that is bound to its simulated Pod; its calls take the same way from there on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cluster::{Cluster, process};
use crate::run;
use crate::up::heading;
use crate::wait::{Look, until};

const NAMESPACE: &str = "acme-finance";
const AGENT: &str = "scripted-payer";
const PERSON: &str = "alice@acme.example";

fn get(cluster: &Cluster, arguments: &[&str]) -> Result<Vec<Value>> {
    let text = run::output(cluster.kubectl().arg("get").args(arguments).args(["-o", "json"]))?;
    let list: Value = serde_json::from_str(&text).context("objects as JSON")?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The Org tree, each with its namespace, quota and workers.
pub fn tree(cluster: &Cluster) -> Result<()> {
    heading("Organisations");
    let orgs = get(cluster, &["orgs.polity.dev"])?;
    let agents = get(cluster, &["agents.polity.dev", "--all-namespaces"])?;
    let roots = orgs.iter().filter(|org| text(org, "/spec/parentRef/name").is_empty());
    for root in roots {
        branch(cluster, &orgs, &agents, root, 0)?;
    }
    Ok(())
}

fn branch(cluster: &Cluster, orgs: &[Value], agents: &[Value], org: &Value, depth: usize) -> Result<()> {
    let name = text(org, "/metadata/name");
    let namespace = Some(text(org, "/spec/namespace")).filter(|n| !n.is_empty()).unwrap_or(name);
    let indent = "    ".repeat(depth);
    println!("{indent}{name}  namespace {namespace}");
    for quota in get(cluster, &["resourcequota", "--namespace", namespace])? {
        let hard = quota.pointer("/status/hard").and_then(Value::as_object).cloned().unwrap_or_default();
        let used = |key: &str| quota.pointer("/status/used").and_then(|used| used[key].as_str()).unwrap_or("0").to_owned();
        let parts: Vec<String> = hard.iter().map(|(key, limit)| format!("{key} {}/{}", used(key), limit.as_str().unwrap_or("-"))).collect();
        println!("{indent}  quota    {}", parts.join(", "));
    }
    for agent in agents.iter().filter(|agent| text(agent, "/metadata/namespace") == namespace) {
        println!("{indent}  {:<8} {}", text(agent, "/spec/type").to_lowercase(), text(agent, "/metadata/name"));
    }
    let children = orgs.iter().filter(|child| text(child, "/spec/parentRef/name") == name);
    for child in children {
        branch(cluster, orgs, agents, child, depth + 1)?;
    }
    Ok(())
}

/// The agent's calls: allowed, denied, and approved by a person.
pub fn calls(cluster: &Cluster, cli: &Path) -> Result<()> {
    heading(&format!("An agent's three calls (agent {AGENT} of {NAMESPACE}, a script)"));
    let log = told(|| agent_log(cluster))?;
    expect(&log, 1, &["Succeeded"])?;
    expect(&log, 2, &["Denied"])?;
    expect(&log, 3, &["WaitingApproval", "Succeeded"])?;
    approved(cluster, cli, &log, &|| agent_log(cluster), "Succeeded")
}

/// The same without containers: allowed calls are refused for want of a node that could run them, the denied one is denied by its
/// rule before, and the one that needs approval asks for it.
pub fn calls_without_pods(cluster: &Cluster, built: &Path, gateway: &str) -> Result<()> {
    heading(&format!(
        "An agent's three calls (agent {AGENT} of {NAMESPACE}, a script; its Pod is simulated, its program is a process here)"
    ));
    agent(cluster, built, gateway)?;
    let own = || {
        let log = fs::read_to_string(process::log_file(cluster.dir(), PLAYED)).unwrap_or_default();
        // Of this start, and not of an earlier one.
        log.rsplit_once("SCRIPTED AGENT (").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
    };
    let log = told(own)?;
    expect(&log, 1, &["Denied reason=NoPodRuntime"])?;
    expect(&log, 2, &["Denied rule=acme/forbidden/no-sanctioned-accounts reason=PolicyDenied"])?;
    expect(&log, 3, &["WaitingApproval", "Denied reason=NoPodRuntime"])?;
    approved(cluster, &built.join(crate::product::CLI), &log, &own, "Denied reason=NoPodRuntime")
}

/// Name of the agent's program among the processes of the cluster.
const PLAYED: &str = "scripted-agent";

/// Starts the program of the agent's manifest, as its Pod would.
fn agent(cluster: &Cluster, built: &Path, gateway: &str) -> Result<()> {
    process::stop(cluster.dir(), PLAYED, Duration::from_secs(5))?;
    let pods = get(cluster, &["pods", "--namespace", NAMESPACE])?;
    let of_agent = |pod: &&Value| text(pod, "/metadata/ownerReferences/0/name") == AGENT && text(pod, "/status/phase") == "Running";
    let pod = pods.iter().find(of_agent).context("the agent has no Pod that is said to run")?;
    let (name, uid, account) = (text(pod, "/metadata/name"), text(pod, "/metadata/uid"), text(pod, "/spec/serviceAccountName"));
    let mut token = cluster.kubectl();
    token.args(["create", "token", account, "--namespace", NAMESPACE, "--audience=polity", "--duration=1h", "--bound-object-kind=Pod"]);
    let token = run::output(token.args(["--bound-object-name", name, "--bound-object-uid", uid]))?;
    let ca = run::output(cluster.kubectl().args([
        "get",
        "configmap",
        "polity-ca",
        "--namespace",
        NAMESPACE,
        "-o",
        r"jsonpath={.data.ca\.crt}",
    ]))?;
    let (token_file, ca_file) = (cluster.dir().join("config/agent.token"), cluster.dir().join("config/agent-ca.crt"));
    process::secret(&token_file, &token)?;
    fs::write(&ca_file, ca)?;
    let agents = get(cluster, &["agents.polity.dev", "--namespace", NAMESPACE])?;
    let manifest = agents.iter().find(|agent| text(agent, "/metadata/name") == AGENT).context("the agent is gone")?;
    let arguments = manifest.pointer("/spec/command").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut command = Command::new(built.join("polity-worker"));
    command.args(arguments.iter().skip(1).filter_map(Value::as_str)).arg("--once");
    command.env("POLITY_URL", format!("{gateway}/v1/orgs/{NAMESPACE}")).env("POLITY_TOKEN_FILE", token_file).env("POLITY_CA_FILE", ca_file);
    process::start(cluster.dir(), PLAYED, command, false)
}

/// Waits until the log tells an outcome of each call.
fn told(read: impl Fn() -> String) -> Result<String> {
    until(Duration::from_secs(120), "the agent's three calls", || {
        let log = read();
        let told = (1..=3).all(|n| log.lines().any(|line| outcome(line, n).is_some()));
        Ok(if told { Look::Done(log) } else { Look::NotYet(format!("its log so far:\n{log}")) })
    })
}

/// Has a person approve the third call, unless that was done before, and shows how it ends.
fn approved(cluster: &Cluster, cli: &Path, log: &str, read: &dyn Fn() -> String, wanted: &str) -> Result<()> {
    if !waits(log) {
        println!("\n(A person approved the third call before.)");
        return Ok(());
    }
    let approval = pending(cluster)?;
    println!("\n$ kubectl polity approve {approval} -n {NAMESPACE} --reason \"The invoice is right.\"");
    approve(cluster, cli, &approval)?;
    let log = until(Duration::from_secs(90), "the approved call's end", || {
        let log = read();
        Ok(if waits(&log) { Look::NotYet("it still waits".to_owned()) } else { Look::Done(log) })
    })?;
    expect(&log, 3, &[wanted])
}

/// Prints the last outcome of the n-th call, and fails when it is none of those it should be.
fn expect(log: &str, n: usize, words: &[&str]) -> Result<()> {
    let line = outcome_of(log, n).unwrap_or_default();
    println!("  {line}");
    if !words.iter().any(|word| line.contains(&format!(": {word}"))) {
        bail!("call {n} should have ended {}", words.join(" or "));
    }
    Ok(())
}

fn waits(log: &str) -> bool {
    outcome_of(log, 3).is_some_and(|line| line.contains(": WaitingApproval"))
}

/// The log of the agent's Pod, empty while there is none.
fn agent_log(cluster: &Cluster) -> String {
    let pods = get(cluster, &["pods", "--namespace", NAMESPACE]).unwrap_or_default();
    let of_agent = |pod: &&Value| text(pod, "/metadata/ownerReferences/0/name") == AGENT && text(pod, "/status/phase") == "Running";
    let Some(pod) = pods.iter().find(of_agent) else { return String::new() };
    run::attempt(cluster.kubectl().args(["logs", "--namespace", NAMESPACE, text(pod, "/metadata/name")])).unwrap_or_default()
}

/// The line, if it tells an outcome of the n-th call.
fn outcome(line: &str, n: usize) -> Option<&str> {
    let outcomes = [": Succeeded", ": WaitingApproval", ": Denied", ": Failed", ": Unknown"];
    (line.starts_with(&format!("CALL {n} ")) && outcomes.iter().any(|word| line.contains(word))).then_some(line)
}

/// The last outcome of the n-th call.
fn outcome_of(log: &str, n: usize) -> Option<String> {
    log.lines().rev().find_map(|line| outcome(line, n)).map(ToOwned::to_owned)
}

fn pending(cluster: &Cluster) -> Result<String> {
    until(Duration::from_secs(30), "the Approval", || {
        let approvals = get(cluster, &["approvals.polity.dev", "--namespace", NAMESPACE])?;
        let found = approvals.iter().find(|approval| text(approval, "/status/phase") == "Pending");
        Ok(found.map_or_else(|| Look::NotYet("none is Pending".to_owned()), |a| Look::Done(text(a, "/metadata/name").to_owned())))
    })
}

/// Decides as the person would, with the command line for people and that person's rights.
fn approve(cluster: &Cluster, cli: &Path, approval: &str) -> Result<()> {
    let mut kubeconfig: Value = serde_json::from_slice(&fs::read(cluster.kubeconfig())?).context("read the kubeconfig")?;
    let user = kubeconfig.pointer_mut("/users/0/user").and_then(Value::as_object_mut).context("the kubeconfig has no user")?;
    user.insert("as".to_owned(), json!(PERSON));
    user.insert("as-groups".to_owned(), json!(["system:authenticated"]));
    let own = cluster.dir().join("config/person.kubeconfig");
    fs::write(&own, kubeconfig.to_string())?;
    let mut command = Command::new(cli);
    command.env("KUBECONFIG", own).args(["approve", approval, "--namespace", NAMESPACE, "--reason", "The invoice is right."]);
    run::check(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_outcome_of_a_call_counts() {
        let log = "CALL 3 pay amount=200: trying again: connection refused\n\
                   CALL 3 pay amount=200: WaitingApproval approval=a-1\n\
                   CALL 3 pay amount=200: Succeeded {\"ok\":true}\n";
        assert_eq!(outcome_of(log, 3).as_deref(), Some("CALL 3 pay amount=200: Succeeded {\"ok\":true}"));
        assert_eq!(outcome_of(log, 1), None);
        assert!(!waits(log));
        assert!(expect(log, 3, &["Succeeded"]).is_ok());
        assert!(expect(log, 3, &["Denied"]).is_err());
    }
}
