//! Tokens of an OpenID Connect issuer: a scripted issuer of this test's own, over TLS on loopback. The gateway and a second API server, started with the
//! flags of the same names, must find the same user behind the same token.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use polity_e2e::{
    Cluster, apply, chaos, org_name,
    parts::{Addresses, Part, Polity},
    shim, until,
};
use rcgen::KeyPair;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{fixtures, fixtures::SOON, help, tokens::signed};

/// The scripted issuer: its discovery documents, one a path, and its one key.
struct Scripted {
    base: String,
    ca: String,
    key: KeyPair,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Scripted {
    async fn start() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let secret = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|e| anyhow::anyhow!("{e}"))?;
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], secret)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let key = KeyPair::generate()?;
        let point = key.public_key_raw();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..65]));
        let keys =
            json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "scripted", "x": x, "y": y}]}).to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("https://127.0.0.1:{}", listener.local_addr()?.port());
        let own = base.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, own, keys) = (acceptor.clone(), own.clone(), keys.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        asked.push(byte);
                    }
                    let asked = String::from_utf8_lossy(&asked).into_owned();
                    let path = asked.split(' ').nth(1).unwrap_or_default();
                    let body = match path.strip_suffix("/.well-known/openid-configuration") {
                        Some(realm) => json!({"issuer": format!("{own}{realm}"), "jwks_uri": format!("{own}/keys"), "id_token_signing_alg_values_supported": ["ES256"]}).to_string(),
                        None => keys,
                    };
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    // Whoever has gone away needs no answer.
                    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Ok(Self { base, ca: made.cert.pem(), key, serving })
    }

    fn claims(&self, realm: &str) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({
            "iss": format!("{}{realm}", self.base), "aud": "polity", "sub": "erin", "email": "erin@example.com", "email_verified": true,
            "groups": ["payers", "staff"], "iat": now, "exp": now + 900
        })
    }

    fn token(&self, realm: &str, more: &Value) -> Result<String> {
        let mut claims = self.claims(realm);
        if let (Some(claims), Some(more)) = (claims.as_object_mut(), more.as_object()) {
            claims.extend(more.clone());
        }
        signed(&self.key, &claims)
    }
}

/// A second API server on the same store, with flags of its own. Killed when dropped.
struct Second {
    child: Child,
    base: String,
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Second {
    async fn start(cluster: &Cluster, dir: &Path, flags: &[String]) -> Result<Self> {
        let record: Value = serde_json::from_slice(&std::fs::read(cluster.dir()?.join("run/kube-apiserver.json"))?)?;
        let line = std::fs::read(format!("/proc/{}/cmdline", record["pid"]))?;
        let words: Vec<String> =
            line.split(|b| *b == 0).filter(|w| !w.is_empty()).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (program, arguments) = words.split_first().context("the API server's command line")?;
        // The audit log stays the first one's alone.
        let own = arguments.iter().filter(|a| !["--secure-port", "--audit"].iter().any(|flag| a.starts_with(flag)));
        let log = std::fs::File::create(dir.join("second-apiserver.log"))?;
        let child = Command::new(program)
            .args(own)
            .arg(format!("--secure-port={port}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child, base: format!("https://127.0.0.1:{port}") })
    }

    /// Who it says that a token is: username and groups.
    async fn says(&self, token: &str) -> Result<(String, Vec<String>)> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let url = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", self.base);
        let http = shim::client()?;
        let answer = until(SOON, "the second API server knows the token", || async {
            let answer = http.post(&url).bearer_auth(token).json(&review).send().await.map_err(|e| e.to_string())?;
            let (code, text) = (answer.status(), answer.text().await.map_err(|e| e.to_string())?);
            if code.is_success() { Ok(text) } else { Err(format!("{code} {text}")) }
        })
        .await?;
        let user = serde_json::from_str::<Value>(&answer)?["status"]["userInfo"].clone();
        let groups = user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok((user["username"].as_str().context("username")?.to_owned(), groups))
    }
}

/// The gateway takes an issuer's tokens for the users that the API server would take them for, nothing that is wrong in one thing, and no token of an
/// issuer that it was not told of.
pub async fn tokens_name_the_users_of_the_api_server(polity: &mut Polity) -> Result<()> {
    let issuer = Scripted::start().await?;
    let dir = polity.dir.join("oidc-edge");
    std::fs::create_dir_all(&dir)?;
    let mut addresses = Addresses::choose()?;
    addresses.internal = polity.addresses.internal;
    let mut second = Part::edge(&polity.cluster, &dir, &addresses).await?;
    let issuers = json!([
        {"issuerURL": format!("{}/a", issuer.base), "audience": "polity", "groupsClaim": "groups", "groupsPrefix": "oidc:", "ca": issuer.ca},
        {"issuerURL": format!("{}/b", issuer.base), "audience": "polity", "usernameClaim": "email", "usernamePrefix": "corp:", "ca": issuer.ca}
    ]);
    second.set("POLITY_OIDC_ISSUERS", &issuers.to_string());
    second.set("POLITY_POD_NAME", "polity-edge-1");
    second.start()?;
    second.ready().await?;
    let result = chaos::mended(polity, |p| Box::pin(judged(p, issuer, addresses.gateway))).await;
    second.kill()?;
    result
}

async fn judged(polity: &mut Polity, issuer: Scripted, gateway: u16) -> Result<()> {
    let admin = polity.cluster.admin().await?;
    let org = org_name("issued");
    let uid = fixtures::organisation(&admin, &org).await?;
    let users = [("a", format!("{}/a#erin", issuer.base)), ("b", "corp:erin@example.com".to_owned())];
    let usernames: Vec<&String> = users.iter().map(|(_, user)| user).collect();
    let agent = json!({"apiVersion": "polity.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "erin", "namespace": org}, "spec": {"type": "Human", "usernames": usernames}});
    apply(&admin, &agent.to_string()).await?;
    let robot = help::robot(polity, &org).await?;
    help::patch(&admin, "Role", Some(&org), "payer", json!({"spec": {"assignment": {"agents": ["bot", "robot", "erin"]}}})).await??;
    let told = robot.at(format!("https://127.0.0.1:{gateway}"));
    let denied = json!({"tool": "pay", "input": {"amount": 20, "to": "mallory"}});

    let ca = polity.dir.join("issuer.crt");
    std::fs::write(&ca, &issuer.ca)?;
    for (realm, user) in &users {
        let token = issuer.token(&format!("/{realm}"), &json!({}))?;
        // By the exact username, an Agent that may call: a rule denies, and the record has who asked.
        let id = until(SOON, "erin is known", || async {
            let (code, body) = told.call_with(&org, denied.clone(), Some(&token)).await.map_err(|e| e.to_string())?;
            let id = body["id"].as_str().filter(|_| code == 403 && body["reason"] == "PolicyDenied").map(str::to_owned);
            id.ok_or_else(|| format!("{code} {body}"))
        })
        .await?;
        let lines = help::lines(polity, &uid, Some(&id))?;
        let actor = &lines.first().context("the decision's record")?["actor"];
        ensure!(actor["username"] == user.as_str() && actor["agent"] == format!("{org}/erin"), "{actor}");

        let mut flags = vec![
            format!("--oidc-issuer-url={}/{realm}", issuer.base),
            "--oidc-client-id=polity".to_owned(),
            format!("--oidc-ca-file={}", ca.display()),
            "--oidc-signing-algs=RS256,ES256".to_owned(),
        ];
        match *realm {
            "a" => flags.extend(["--oidc-groups-claim=groups".to_owned(), "--oidc-groups-prefix=oidc:".to_owned()]),
            _ => flags.extend(["--oidc-username-claim=email".to_owned(), "--oidc-username-prefix=corp:".to_owned()]),
        }
        let api = Second::start(&polity.cluster, &polity.dir, &flags).await?;
        let (username, mut groups) = api.says(&token).await?;
        groups.sort();
        let wanted: &[&str] =
            if *realm == "a" { &["oidc:payers", "oidc:staff", "system:authenticated"] } else { &["system:authenticated"] };
        ensure!(username == *user && groups == wanted, "the API server says {username} {groups:?}");
    }

    let now = jiff::Timestamp::now().as_second();
    let stranger = KeyPair::generate()?;
    for (what, token, part) in [
        ("of a long life", issuer.token("/a", &json!({"exp": now + 3600}))?, "1800"),
        ("for somebody else", issuer.token("/a", &json!({"aud": "kubernetes"}))?, "audience"),
        ("expired", issuer.token("/a", &json!({"iat": now - 900, "exp": now - 1}))?, "expired"),
        ("not yet valid", issuer.token("/a", &json!({"nbf": now + 600}))?, "not valid before"),
        ("of another key", signed(&stranger, &issuer.claims("/a"))?, "signature"),
        ("of a realm that is not configured", issuer.token("/c", &json!({}))?, ""),
    ] {
        let (code, body) = told.call_with(&org, denied.clone(), Some(&token)).await?;
        let message = body["message"].as_str().unwrap_or_default();
        ensure!(code == 401 && body["reason"] == "Unauthenticated" && message.contains(part), "{what}: {code} {body}");
    }
    // An edge that was not told of the issuer asks the API server, which does not know it either.
    let (code, body) = robot.call_with(&org, denied.clone(), Some(&issuer.token("/a", &json!({}))?)).await?;
    ensure!(code == 401, "{code} {body}");
    // A ServiceAccount's token goes the other way, as ever.
    let (code, body) = told.call(&org, denied).await?;
    ensure!(code == 403 && body["reason"] == "PolicyDenied", "{code} {body}");
    Ok(())
}
