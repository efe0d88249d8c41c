//! The command line against a live cluster, as people run it: what it answers, as JSON, and the code that it ends with.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use polity_e2e::{apply, org_name, parts::Polity, until};
use serde_json::{Value, json};

use crate::{
    fixtures::{self, SOON},
    help, records,
};

/// The command line in somebody's name.
struct Cli {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Cli {
    /// With this person's rights, or admin's.
    fn of(polity: &Polity, person: Option<&str>) -> Result<Self> {
        let program = std::env::var_os("POLITY_E2E_CLI").context("POLITY_E2E_CLI is not set: run `cargo xtask test`")?.into();
        let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(polity.cluster.kubeconfig())?)?;
        if let Some(person) = person {
            let user = kubeconfig.pointer_mut("/users/0/user").and_then(Value::as_object_mut).context("the kubeconfig has no user")?;
            user.insert("as".to_owned(), json!(person));
            user.insert("as-groups".to_owned(), json!(["system:authenticated"]));
        }
        let own = polity.dir.join(format!("cli-{}.kubeconfig", person.unwrap_or("admin")));
        std::fs::write(&own, kubeconfig.to_string())?;
        Ok(Self { program, kubeconfig: own })
    }

    /// Runs it; gives the code that it ended with, and its output with errors behind.
    async fn run(&self, args: &[&str]) -> Result<(i32, String)> {
        let mut command = Command::new(&self.program);
        command.args(args).env("KUBECONFIG", &self.kubeconfig);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code().context("ended by a signal")?, text))
    }

    /// Runs it; what it says is one JSON document.
    async fn json(&self, args: &[&str]) -> Result<(i32, Value)> {
        let (code, text) = self.run(&[args, &["-o", "json"]].concat()).await?;
        let first = text.lines().next().unwrap_or_default();
        let told = serde_json::from_str(&text).or_else(|_| serde_json::from_str(first)).with_context(|| format!("{code}: {text}"))?;
        Ok((code, told))
    }
}

/// `explain` decides from the definitions on the cluster exactly what the cluster decides, and on the same view of it.
pub async fn explains_what_the_cluster_decides(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let (parent, org) = (org_name("above"), org_name("below"));
    fixtures::organisation(&admin, &parent).await?;
    fixtures::unit(&admin, &org, &parent).await?;
    // A rule of the Org above binds below.
    let rule = format!(
        "
apiVersion: polity.dev/v1alpha1
kind: Policy
metadata: {{name: above, namespace: {parent}}}
spec:
  rules:
  - {{name: most, expression: args.amount <= 400, effect: Deny, message: never above 400, hint: ask for at most 400}}
"
    );
    apply(&admin, &rule).await?;
    let robot = help::robot(polity, &org).await?;
    let cli = Cli::of(polity, None)?;
    let explain = |input: &'static str| {
        let (cli, org) = (&cli, &org);
        async move { cli.json(&["explain", "pay", "-n", org, "--agent", "robot", "--input", input]).await }
    };
    let evaluated = |amount: i64, to: &'static str| {
        let url = format!("{}/v1/orgs/{org}/evaluate", polity.gateway());
        let (token, body) = (&robot.token, json!({"tool": "pay", "input": {"amount": amount, "to": to}}));
        async move {
            Ok::<Value, anyhow::Error>(polity_e2e::shim::client()?.post(url).bearer_auth(token).json(&body).send().await?.json().await?)
        }
    };
    for (input, amount, to, code, verdict, reason) in [
        (r#"{"amount": 20, "to": "ann"}"#, 20, "ann", 0, "Allow", ""),
        (r#"{"amount": 200, "to": "ann"}"#, 200, "ann", 0, "RequireApproval", "ApprovalRequired"),
        (r#"{"amount": 20, "to": "mallory"}"#, 20, "mallory", 1, "Deny", "PolicyDenied"),
        (r#"{"amount": 401, "to": "ann"}"#, 401, "ann", 1, "Deny", "PolicyDenied"),
        (r#"{"amount": "20", "to": "ann"}"#, 0, "ann", 1, "Deny", "InvalidArguments"),
    ] {
        until(SOON, &format!("both say the same of {input}"), || async {
            let (ended, told) = explain(input).await.map_err(|e| format!("{e:#}"))?;
            let decided = evaluated(amount, to).await.map_err(|e| format!("{e:#}"))?;
            // The edge may not have seen the newest definition yet.
            let same = told["snapshot"] == decided["snapshot"] && told["verdict"] == decided["verdict"];
            if ended == code && told["verdict"] == verdict && told["reason"] == reason && same {
                Ok(())
            } else {
                Err(format!("{ended} {told} {decided}"))
            }
        })
        .await?;
    }
    let (_, told) = explain(r#"{"amount": 401, "to": "ann"}"#).await?;
    let above = told["tried"].as_array().into_iter().flatten().find(|t| t["rule"] == format!("{parent}/above/most")).cloned();
    let above = above.with_context(|| format!("the rule of the Org above was not tried: {told}"))?;
    ensure!(above["result"] == "Fails" && above["wouldPass"].as_str().is_some_and(|text| text.contains("400")), "{above}");

    // It has its user's rights and no more, and a part of the rules is no answer.
    let (code, text) = Cli::of(polity, Some(&format!("nobody@{org}")))?.run(&["explain", "pay", "-n", &org, "--agent", "robot"]).await?;
    ensure!(code == 1 && text.contains(&format!("cannot read Namespace {org}")), "{code} {text}");
    for (args, said) in [
        (vec!["explain", "pay", "-n", "default", "--agent", "robot"], "is no Org's"),
        (vec!["explain", "pay", "-n", "no-such-namespace", "--agent", "robot"], "there is no Namespace"),
        (vec!["explain", "pay", "--org", "no-such-org", "--agent", "robot"], "there is no Org"),
        (vec!["explain", "pay", "-n", &org, "--agent", "nobody"], "nobody"),
    ] {
        let (code, text) = cli.run(&args).await?;
        ensure!(code == 1 && text.contains(said), "{args:?}: {code} {text}");
    }
    ensure!(cli.run(&["explain", "pay", "-n", &org]).await?.0 == 2, "who calls is not said");
    Ok(())
}

/// `can-i`, `call`, `approvals`, `approve`, `tree` and `audit`, each with what it says and how it ends.
pub async fn answers_and_ends_as_documented(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("people");
    let uid = fixtures::organisation(&admin, &org).await?;
    let (bot, boss) = (Cli::of(polity, Some(&format!("bot@{org}")))?, Cli::of(polity, Some(&format!("boss@{org}")))?);
    help::may(&admin, &format!("bot@{org}"), &org, "create", "toolcalls").await?;
    help::may(&admin, &format!("boss@{org}"), &org, "patch", "approvals").await?;
    help::takes(&help::bot(polity, &org).await?, &help::small()).await?;

    let allowed = r#"{"amount": 20, "to": "ann"}"#;
    let (asks, denied) = (r#"{"amount": 200, "to": "ann"}"#, r#"{"amount": 20, "to": "mallory"}"#);
    for (input, code, verdict) in [(allowed, 0, "Allow"), (asks, 0, "RequireApproval"), (denied, 1, "Deny")] {
        let (ended, told) = bot.json(&["can-i", "pay", "-n", &org, "--input", input]).await?;
        ensure!(ended == code && told["verdict"] == verdict, "{input}: {ended} {told}");
    }
    ensure!(bot.run(&["can-i", "pay", "-n", &org, "--agent", "bot"]).await?.0 == 2, "offline options without files");
    let (code, told) = bot.json(&["call", "pay", "-n", &org, "--input", denied]).await?;
    ensure!(code == 1 && told["reason"] == "PolicyDenied", "{code} {told}");
    ensure!(bot.json(&["approvals", "-n", &org]).await?.1["items"] == json!([]), "something waits already");

    let (code, made) = bot.json(&["call", "pay", "-n", &org, "--input", asks]).await?;
    ensure!(code == 0, "{code} {made}");
    let approval = until(SOON, "the Approval is listed", || async {
        let (code, told) = boss.json(&["approvals", "-n", &org]).await.map_err(|e| format!("{e:#}"))?;
        let name = told["items"][0]["metadata"]["name"].as_str().map(str::to_owned);
        name.filter(|_| code == 0).ok_or_else(|| format!("{code} {told}"))
    })
    .await?;
    let (code, text) = boss.run(&["approve", &approval, "-n", &org, "--deny", "--reason", "not this month"]).await?;
    ensure!(code == 0 && text.contains(&format!("denied by boss@{org}")), "{code} {text}");
    let (code, text) = boss.run(&["approve", &approval, "-n", &org]).await?;
    ensure!(code == 1 && text.contains("already"), "{code} {text}");
    ensure!(boss.run(&["approve", "nope", "-n", &org]).await?.0 == 1);

    let (code, text) = Cli::of(polity, None)?.run(&["tree", &org]).await?;
    ensure!(code == 0 && text.lines().any(|l| l.starts_with(&org) && l.contains("True")), "{code} {text}");
    ensure!(Cli::of(polity, None)?.run(&["tree", "no-such-org"]).await?.0 == 1);
    audited(polity, &org, &uid).await
}

async fn audited(polity: &Polity, org: &str, uid: &str) -> Result<()> {
    let auditor = records::auditor(polity, org).await?;
    let audit = |args: &'static [&'static str]| {
        let command = records::command(polity, org, &auditor, args);
        async move {
            let mut command = command?;
            let output = tokio::task::spawn_blocking(move || command.output()).await??;
            Ok::<_, anyhow::Error>((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
        }
    };
    let denials = until(SOON, "the auditor reads the denial of the person", || async {
        let (code, text) = audit(&["query", "--kind", "decision", "--verdict", "Deny"]).await.map_err(|e| format!("{e:#}"))?;
        if code == Some(0) && text.lines().count() > 0 { Ok(text) } else { Err(format!("{code:?} {text}")) }
    })
    .await?;
    for line in denials.lines() {
        let record: Value = serde_json::from_str(line)?;
        ensure!(record["kind"] == "decision" && record["verdict"]["effect"] == "Deny", "{line}");
    }
    let (code, text) = audit(&["verify", "-o", "json"]).await?;
    let told: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(code == Some(0) && told["whole"] == true && told["verified"]["orgUid"] == uid, "{code:?} {told}");
    let (code, text) = audit(&["verify", "-o", "json", "--org-uid", "another"]).await?;
    ensure!(code == Some(1) && serde_json::from_str::<Value>(&text)?["whole"] == false, "{code:?} {text}");
    let (code, text) = audit(&["export"]).await?;
    ensure!(code == Some(0) && text.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()), "{code:?} {text}");
    // An export of which a byte was changed.
    let file = polity.dir.join(format!("{org}.ndjson"));
    std::fs::write(&file, text.replacen("\"Deny\"", "\"Dent\"", 1))?;
    let mut command = Command::new(std::env::var_os("POLITY_E2E_CLI").context("POLITY_E2E_CLI")?);
    command.args(["audit", "verify", "-o", "json"]).arg(&file);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let told: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.code() == Some(1) && told["whole"] == false && told["broken"]["seq"].is_i64(), "{told}");
    Ok(())
}
