//! The script: each call in turn, one line an outcome; a call that waits for people is waited for. Afterwards idle until asked to end, since
//! a worker that exits would be started again and play its script once more. It would then learn the recorded outcomes: the keys of its
//! calls are made of the Pod's uid and the place in the script.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    call::Call,
    client::{Client, Edge},
    identity, line,
};

/// Longest wait in one request; the next one goes on waiting.
const WAIT_SECONDS: u64 = 30;

/// What to do.
#[derive(clap::Args, Clone, Debug)]
pub struct Settings {
    /// A call, `TOOL {json}` or `ORG/TOOL {json}`. Give it several times.
    #[arg(long = "call", required = true)]
    pub calls: Vec<Call>,
    /// Uid of this worker's Pod; makes the calls' idempotency keys. Default: what the token says.
    #[arg(long, env = "POLITY_POD_UID")]
    pub pod_uid: Option<String>,
    /// End after the last call instead of staying idle.
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub edge: Edge,
}

/// Plays the script.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| anyhow::anyhow!("another TLS provider is installed"))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let pod_uid = match &settings.pod_uid {
        Some(uid) => uid.clone(),
        None => identity::pod_uid(&settings.edge.token_file)?,
    };
    tokio::select! {
        () = play(settings, &pod_uid) => {}
        _ = terminate.recv() => return Ok(()),
    }
    if !settings.once {
        println!("SCRIPTED AGENT idle: its script is over");
        terminate.recv().await;
    }
    Ok(())
}

async fn play(settings: &Settings, pod_uid: &str) {
    let mut client = Client::new(settings.edge.clone());
    println!("SCRIPTED AGENT (no model, plays a fixed script): {} calls", settings.calls.len());
    for (n, call) in settings.calls.iter().enumerate() {
        let head = format!("CALL {} {}", n + 1, line::call(&call.tool, &call.input));
        one(&mut client, call, &format!("{pod_uid}-{n}"), &head).await;
    }
}

/// Makes one call and follows it to its end.
async fn one(client: &mut Client, call: &Call, key: &str, head: &str) {
    let waiting = |why: &str| println!("{head}: trying again: {why}");
    let mut body = json!({"tool": call.tool, "input": call.input, "idempotencyKey": key, "waitSeconds": WAIT_SECONDS});
    if let (Some(org), Some(object)) = (&call.tool_org, body.as_object_mut()) {
        object.insert("toolOrg".to_owned(), Value::from(org.as_str()));
    }
    let (mut status, mut answer) = client.ask(Method::POST, "/calls", Some(&body), waiting).await;
    let mut shown = String::new();
    while status.is_success() && !ended(&answer) {
        let now = line::outcome(&answer);
        if now != shown {
            println!("{head}: {now}");
            shown = now;
        }
        let Some(id) = answer["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned) else {
            println!("{head}: the answer names no id: {answer}");
            return;
        };
        (status, answer) = client.ask(Method::GET, &format!("/calls/{id}?waitSeconds={WAIT_SECONDS}"), None, waiting).await;
    }
    match status {
        status if status.is_success() => println!("{head}: {}", line::outcome(&answer)),
        StatusCode::FORBIDDEN => println!("{head}: {}", line::denied(&answer)),
        status => println!("{head}: Refused {status} {}", line::problem(&answer)),
    }
}

/// Whether nothing will happen any more by itself. `Unknown` is settled by a person, maybe never.
fn ended(answer: &Value) -> bool {
    matches!(answer["phase"].as_str(), Some("Succeeded" | "Failed" | "Denied" | "Canceled" | "Unknown"))
}
