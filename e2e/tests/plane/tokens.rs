//! Tokens that are right but for one thing: expired, not yet valid, for another audience, or signed by somebody else. They are made by
//! hand from a good one, with the key that this cluster's API server signs with.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::DeleteParams};
use polity_e2e::{org_name, parts::Polity, shim, until};
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::{
    fixtures::{self, SOON},
    help,
};

/// The gateway takes none of them, and takes the same token with nothing wrong.
pub async fn wrong_in_one_thing(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("expiring");
    fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let claims = robot.token.split('.').nth(1).context("claims")?;
    let claims: Value = serde_json::from_slice(&BASE64.decode(claims)?)?;
    let key = KeyPair::from_pem(&std::fs::read_to_string(key_file(polity)?)?)?;
    let now = jiff::Timestamp::now().as_second();
    let body = json!({"tool": "pay", "input": {"amount": 1, "to": "mallory"}});
    let ask = async |token: &str| robot.call_with(&org, body.clone(), Some(token)).await;
    let with = |changes: Value| {
        let mut claims = claims.clone();
        if let (Some(claims), Value::Object(changes)) = (claims.as_object_mut(), changes) {
            claims.extend(changes);
        }
        claims
    };
    // What the others are compared with: made by hand, and good.
    let good = signed(&key, &with(json!({"exp": now + 600})))?;
    let (code, answer) = ask(&good).await?;
    ensure!(code == 403 && answer["reason"] == "PolicyDenied", "a good token made by hand: {code} {answer}");
    let stranger = KeyPair::generate()?;
    for (what, token) in [
        ("expired", signed(&key, &with(json!({"exp": now - 120, "iat": now - 900, "nbf": now - 900})))?),
        ("not yet valid", signed(&key, &with(json!({"nbf": now + 3600, "exp": now + 7200})))?),
        ("of another audience", signed(&key, &with(json!({"aud": ["https://kubernetes.default.svc.cluster.local"]})))?),
        ("of another issuer", signed(&key, &with(json!({"iss": "https://elsewhere.example"})))?),
        ("of another key", signed(&stranger, &with(json!({"exp": now + 600})))?),
    ] {
        let (code, answer) = ask(&token).await?;
        ensure!(code == 401 && answer["reason"] == "Unauthenticated", "{what}: {code} {answer}");
    }
    // One that expires while it is used: good at first, and nobody remembers that for long. The API server grants clocks a minute.
    let short = signed(&key, &with(json!({"exp": jiff::Timestamp::now().as_second() - 50})))?;
    let (code, answer) = ask(&short).await?;
    ensure!(code == 403 && answer["reason"] == "PolicyDenied", "a short token: {code} {answer}");
    until(SOON, "the short token is refused", || async {
        let (code, answer) = ask(&short).await.map_err(|e| e.to_string())?;
        if code == 401 { Ok(()) } else { Err(format!("{code} {answer}")) }
    })
    .await
}

/// A token that is revoked while its agent works: what it had begun is not undone, and as soon as nobody may remember it any more it does nothing again,
/// at no door. The agent's next worker has one of its own.
pub async fn revoked_while_in_use(polity: &Polity) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("revoked");
    fixtures::organisation(&admin, &org).await?;
    let robot = help::robot(polity, &org).await?;
    let pay = json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}, "waitSeconds": 0});
    let (code, begun) = robot.call(&org, pay.clone()).await?;
    ensure!(code == 202, "{code} {begun}");
    // A token bound to a Pod is good only while there is that very Pod.
    let pods: Api<Pod> = Api::namespaced(admin.clone(), &org);
    pods.delete(&robot.pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    until(SOON, "the token is refused", || async {
        let (code, answer) =
            robot.evaluate(&org, json!({"tool": "pay", "input": {"amount": 20, "to": "ann"}})).await.map_err(|e| e.to_string())?;
        if code == 401 && answer["reason"] == "Unauthenticated" { Ok(()) } else { Err(format!("{code} {answer}")) }
    })
    .await?;
    let id = begun["id"].as_str().context("id")?;
    for (door, (code, answer)) in [
        ("calls", robot.call(&org, pay.clone()).await?),
        ("a call of its own", robot.read(&org, id, Duration::ZERO).await?),
        ("cancel", robot.cancel(&org, id).await?),
    ] {
        ensure!(code == 401 && answer["reason"] == "Unauthenticated", "{door}: {code} {answer}");
    }
    shim::play(polity, &org, id, 0, r#"{"receipt": "r-1"}"#).await?;
    let next = help::robot(polity, &org).await?;
    ensure!(next.pod.uid() != robot.pod.uid(), "the same worker");
    let (code, answer) = next.read(&org, id, SOON).await?;
    ensure!(code == 200 && answer["phase"] == "Succeeded", "{code} {answer}");
    Ok(())
}

pub fn key_file(polity: &Polity) -> Result<std::path::PathBuf> {
    Ok(polity.cluster.dir()?.join(Path::new("pki/tokens.key")))
}

/// A JSON Web Token with ES256 (RFC 7518, 3.4), without a key id: the API server then tries its keys.
pub fn signed(key: &KeyPair, claims: &Value) -> Result<String> {
    let text = format!("{}.{}", BASE64.encode(r#"{"alg":"ES256","typ":"JWT"}"#), BASE64.encode(claims.to_string()));
    Ok(format!("{text}.{}", BASE64.encode(fixed(&key.sign(text.as_bytes())?)?)))
}

/// The two numbers of a signature, 32 bytes each, out of their DER form.
fn fixed(der: &[u8]) -> Result<Vec<u8>> {
    let mut rest = der.get(2..).context("a DER sequence")?;
    let mut out = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1).context("a length")?);
        let number = rest.get(2..2 + length).context("a number")?;
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        out.resize(out.len() + 32 - number.len().min(32), 0);
        out.extend_from_slice(number);
        rest = &rest[2 + length..];
    }
    Ok(out)
}
