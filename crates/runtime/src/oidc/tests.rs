//! A scripted issuer on loopback over TLS, with keys that change, and tokens that are wrong in one thing.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jiff::Timestamp;
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{keys::Pace, *};
use crate::{
    clock::ManualClock,
    identity::Identities,
    serve::{Listener, serve_tls},
};

const NOW: i64 = 1_800_000_000;

/// PKCS #8 of an RSA key that signs nothing but the tokens of these tests.
const TEST_RSA: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDV3QnfELd+iRm/Cwme2eIhsHy0jxayZqwBa+RVdA0DR8DpAJDfc7LJz0ectSMOAM88eNJx\
     e64l9/+tqoRt3TQCvcqZE7m6IjX9iVxnoXX+Fjx5CdF+Esd6K6kPD0h4EVF9tUtprC8eRTY5hy1S+1e1MpkfNYvS44DNDhZdBOUxswKW0g/MtWwetSgNJgm1\
     3c56wbrnRh990GWT1QyQAtikzeuzMMQvU6tqlVbKj5kytJo+i4cnriRHnei8WvXjTYVNTITT5fRMmqbIYRX0O5LizC7Cf5YdNmjscBPNG1PmVVCYROx39/ob\
     a0zLmZEYOmNxHFaG2BqmMRrrN8RT/ZZBAgMBAAECggEAB3zjiv2nckG6Ntf1fUW84IsXKRQKQ/+X4PDcuY7RPQUp7VgjIMyI1phwT6QaVxosjb4S0cn2MS27\
     gPwdNa+Ia6dZ5mQsNsBasMbUOmvXzFt0JvsmBf3Ou1zqxwE0+1prE2iuld0wEfJAay4FcztW0pxNg8WfLXVG6po/3cywraQgSDM9QI3sLYapGf6jX4UmSDHJ\
     YZEnlDhU8iU5GG1oZAGonguu4bTBUcrudiZktcMoeoLAqZ4iEvFf+HII9mLYA59180a1TEejWXh4hTurViGx1U7ogO52KtechvCt4bZg5G8Ymh1ZbrnwyxoA\
     Lek+JHaJ+z0ekcGBe1dsis5FNQKBgQDyQfPrT23vy1uDwZvmQV3roxrKbknFdPQr7RQal65FMp77f69O3zWIdx1NyxD3CLhSc+D3TzjC7BrtEpW2ozKqxUDI\
     qV/77lWqQmaraHQhUVKnAweo/oUoC/PugIu1z6L5FnyxkauqfU8PvZyzUFZJTaoWoAjoG+SUfUtgp7+XFwKBgQDh/r9SdJRznjT0qUjJW9oe5MO/nJrZSjnJ\
     2nT8fwva5DiNecf/olDOnN2N7ms8jetAOEP38LDyS8DHM9Ju7nXCAHCYDEhG49JLAl9RV77mqwrQ2IhkYTwCL/eWB/JwxXg80aSApk8g3OcenVnhmzHydCTt\
     4Wut7JSXvTw3gvYUZwKBgQDenjzHv/YGpZkzOndI4EiugPPdkfu4uACpXPNcfIZokFwIQQ2YLQXEobEMC89LM3guTM4udV5zwQP9V1a8vruQsjMWMo9Bs4KF\
     Mv+mBBazh0essdwYL8utQU6nnPjF2kipHUD47CQUR5KfpF6baPfh5LyojeehZABpc7oQ2BX3gQKBgBjkychYZR3TOHwWxZjAkGdExbculfQHdBQjBy3lBLZI\
     213iI0CqbYJEzzbaI1/ZNietyvbdwW//Hi4TLEPh6oDDMaPd/nwojjqK+VrpcnLQNnHI2EVOXKDVDc2t9GutpM/2O8ucBi1Vh/PcW1E5mifd2U+GvCi9XaTV\
     SHPI7jhTAoGAAP23JWs9tA5UN3FFaijwZK6isiLwzHng11EMU8UBkto7YfeNmieXTPaGysyWhwrRrqm9lnKXMVYnUj9jfcxbtjITskZbAx+32/ufmYPMbVQl\
     683aOVjT6WxxniGQlUnyfxRqLLsQmclNsG3kgEXwYrYVXI79F8vJ3FniYewEOEI=";

enum Signer {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl Signer {
    fn ec() -> Self {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self::Ec(Box::new(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap()))
    }

    fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(&STANDARD.decode(TEST_RSA).unwrap()).unwrap()))
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": BASE64.encode(n), "e": BASE64.encode(e)})
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])})
            }
        }
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).unwrap();
                signature
            }
            Self::Ec(key) => key.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec(),
        }
    }

    fn token_of(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        format!("{text}.{}", BASE64.encode(self.sign(text.as_bytes())))
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let alg = if matches!(self, Self::Rsa(_)) { "RS256" } else { "ES256" };
        self.token_of(&json!({"alg": alg, "kid": kid}), claims)
    }
}

#[derive(Default)]
struct Script {
    keys: Mutex<Vec<Value>>,
    fetched: AtomicUsize,
    down: AtomicBool,
    /// What the discovery document says instead of the truth.
    discovery: Mutex<Option<Value>>,
    url: Mutex<String>,
}

struct Rig {
    script: Arc<Script>,
    url: String,
    ca: String,
    clock: Arc<ManualClock>,
    _stop: tokio_util::sync::DropGuard,
}

impl Rig {
    fn start(keys: Vec<Value>) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let script = Arc::new(Script { keys: Mutex::new(keys), ..Script::default() });
        let router = Router::new()
            .route("/realm/.well-known/openid-configuration", get(discovery))
            .route("/realm/keys", get(published))
            .with_state(script.clone());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let url = format!("https://localhost:{}/realm", listener.address().port());
        *script.url.lock().unwrap() = url.clone();
        let stop = CancellationToken::new();
        tokio::spawn(serve_tls(listener, router, tls, Duration::ZERO, stop.clone()));
        let clock = ManualClock::at(Timestamp::from_second(NOW).unwrap());
        Self { script, url, ca: made.cert.pem(), clock, _stop: stop.drop_guard() }
    }

    fn issuer(&self) -> Issuer {
        serde_json::from_value(json!({"issuerURL": self.url, "audience": "polity", "groupsClaim": "groups", "ca": self.ca})).unwrap()
    }

    fn oidc(&self, pace: Pace) -> Oidc {
        self.with(self.issuer(), pace)
    }

    fn with(&self, issuer: Issuer, pace: Pace) -> Oidc {
        let mut oidc = Oidc::new(issuer, self.clock.clone()).unwrap();
        oidc.keys.pace = pace;
        oidc
    }

    fn claims(&self, more: &Value) -> Value {
        let mut claims = json!({"iss": self.url, "aud": "polity", "sub": "ann", "iat": NOW - 10, "exp": NOW + 600});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    fn fetched(&self) -> usize {
        self.script.fetched.load(Ordering::SeqCst)
    }
}

async fn discovery(State(script): State<Arc<Script>>) -> Result<String, StatusCode> {
    if script.down.load(Ordering::SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let url = script.url.lock().unwrap().clone();
    let said = script.discovery.lock().unwrap().clone();
    Ok(said.unwrap_or_else(|| json!({"issuer": url, "jwks_uri": format!("{url}/keys")})).to_string())
}

async fn published(State(script): State<Arc<Script>>) -> String {
    script.fetched.fetch_add(1, Ordering::SeqCst);
    json!({"keys": *script.keys.lock().unwrap()}).to_string()
}

fn refused(answer: Result<Caller, IdentityError>) -> String {
    match answer {
        Err(IdentityError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

fn unavailable(answer: Result<Caller, IdentityError>) -> String {
    match answer {
        Err(IdentityError::Unavailable(why)) => why,
        other => panic!("not unavailable: {other:?}"),
    }
}

#[tokio::test]
async fn tokens_of_both_kinds_name_their_user() {
    let (rsa, ec) = (Signer::rsa(), Signer::ec());
    let odd = vec![json!({"kty": "oct", "k": "AAAA"}), json!({"kty": "EC", "crv": "P-521"}), json!(7)];
    let rig = Rig::start([vec![rsa.jwk("r"), ec.jwk("e")], odd].concat());
    let oidc = rig.oidc(Pace::default());
    let claims = rig.claims(&json!({"aud": ["other", "polity"], "groups": ["payers", "staff"]}));
    for token in [rsa.token("r", &claims), ec.token("e", &claims), ec.token_of(&json!({"alg": "ES256"}), &claims)] {
        let caller = oidc.verify(&token).await.unwrap();
        assert_eq!(caller.username, format!("{}#ann", rig.url));
        assert_eq!(caller.groups, ["payers", "staff", "system:authenticated"]);
        assert_eq!((caller.uid, caller.pod_uid, caller.via), (None, None, None));
    }
    assert_eq!(rig.fetched(), 1, "keys are kept");
}

#[tokio::test]
async fn a_token_wrong_in_one_thing_is_refused() {
    let (rsa, ec, stranger) = (Signer::rsa(), Signer::ec(), Signer::ec());
    let rig = Rig::start(vec![rsa.jwk("r"), ec.jwk("e")]);
    let oidc = rig.oidc(Pace::default());
    let good = rig.claims(&json!({}));
    oidc.verify(&ec.token("e", &good)).await.unwrap();
    for (more, part) in [
        (json!({"iss": "https://elsewhere.example"}), "another issuer"),
        (json!({"iss": 7}), "another issuer"),
        (json!({"aud": "other"}), "not issued for audience polity"),
        (json!({"aud": []}), "not issued for audience polity"),
        (json!({"aud": {"polity": 1}}), "not issued for audience polity"),
        (json!({"exp": NOW, "iat": NOW - 60}), "expired"),
        (json!({"exp": "never"}), "exp is no time"),
        (json!({"exp": 1e300}), "exp is no time"),
        (json!({"exp": null}), "exp is no time"),
        (json!({"iat": -1}), "iat is no time"),
        (json!({"nbf": NOW + 61}), "not valid before"),
        (json!({"iat": NOW + 61, "exp": NOW + 600}), "not valid before"),
        (json!({"exp": NOW + 1791}), "it lives 1801 s"),
        (json!({"sub": 7}), "claim sub is no text"),
        (json!({"sub": ""}), "claim sub is empty"),
        (json!({"groups": [1]}), "claim groups is no list"),
        (json!({"groups": {"a": "b"}}), "claim groups is no list"),
        (json!({"groups": ["system:masters"]}), "system:"),
    ] {
        let why = refused(oidc.verify(&ec.token("e", &rig.claims(&more))).await);
        assert!(why.contains(part), "{more}: {why}");
    }
    for gone in ["exp", "iat"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(gone);
        assert!(refused(oidc.verify(&ec.token("e", &claims)).await).contains(&format!("no {gone}")));
    }
    oidc.verify(&ec.token("e", &rig.claims(&json!({"nbf": NOW + 60, "exp": NOW + 1790})))).await.unwrap();

    let whole = ec.token("e", &good);
    let (rest, signature) = whole.rsplit_once('.').unwrap();
    let other = BASE64.encode(rig.claims(&json!({"sub": "eve"})).to_string());
    let header = rest.split('.').next().unwrap();
    let claims = rest.split('.').nth(1).unwrap();
    let none = BASE64.encode(r#"{"alg":"none"}"#);
    let secret = BASE64.encode(r#"{"alg":"HS256","kid":"e"}"#);
    let as_rsa = BASE64.encode(r#"{"alg":"RS256","kid":"e"}"#);
    for (what, token, part) in [
        ("of another key", stranger.token("e", &good), "signature"),
        ("another key's name", ec.token("r", &good), "no such key for ES256"),
        ("unknown key", ec.token("z", &good), "no such key"),
        ("claims changed", format!("{header}.{other}.{signature}"), "signature"),
        ("no signature", format!("{rest}."), "signature"),
        ("not signed at all", format!("{none}.{claims}."), "no algorithm that is accepted"),
        ("signed with the public key", format!("{secret}.{claims}.{signature}"), "no algorithm that is accepted"),
        ("said to be of another kind", format!("{as_rsa}.{claims}.{signature}"), "no such key for RS256"),
        ("with demands", ec.token_of(&json!({"alg": "ES256", "kid": "e", "crit": ["b64"], "b64": false}), &good), "must be understood"),
        ("four parts", format!("{whole}.x"), "not three parts"),
        ("two parts", rest.to_owned(), "not three parts"),
        ("padded", format!("{whole}=="), "base64url"),
    ] {
        let why = refused(oidc.verify(&token).await);
        assert!(why.contains(part), "{what}: {why}");
    }
    rig.clock.advance(jiff::SignedDuration::from_secs(600));
    assert!(refused(oidc.verify(&whole).await).contains("expired 0 s ago"), "to the second");
}

#[tokio::test]
async fn keys_change_and_nobody_makes_us_ask_without_end() {
    let (one, two) = (Signer::ec(), Signer::ec());
    let rig = Rig::start(vec![one.jwk("1")]);
    let mut oidc = rig.oidc(Pace { pause: Duration::from_secs(3600), ..Pace::default() });
    let claims = rig.claims(&json!({}));
    oidc.verify(&one.token("1", &claims)).await.unwrap();
    *rig.script.keys.lock().unwrap() = vec![one.jwk("1"), two.jwk("2")];
    for _ in 0..3 {
        refused(oidc.verify(&two.token("2", &claims)).await);
    }
    assert_eq!(rig.fetched(), 1, "asked again within the pause");
    // The pause is over.
    oidc.keys.pace.pause = Duration::ZERO;
    assert!(oidc.verify(&two.token("2", &claims)).await.unwrap().username.ends_with("#ann"));
    assert_eq!(rig.fetched(), 2);

    // One at a time, however many ask.
    let rig = Rig::start(vec![one.jwk("1")]);
    let oidc = rig.oidc(Pace::default());
    let (token, claims) = (one.token("1", &rig.claims(&json!({}))), rig.claims(&json!({})));
    let all = futures::future::join_all((0..20).map(|_| oidc.verify(&token))).await;
    assert!(all.iter().all(Result::is_ok));
    for i in 0..50 {
        refused(oidc.verify(&one.token(&format!("made-up-{i}"), &claims)).await);
    }
    assert_eq!(rig.fetched(), 1);
}

#[tokio::test]
async fn an_issuer_that_is_down_closes_what_is_not_known() {
    let (one, two) = (Signer::ec(), Signer::ec());
    let rig = Rig::start(vec![one.jwk("1")]);
    let short = Pace { pause: Duration::ZERO, renew: Duration::ZERO, stale: Duration::from_secs(3600) };
    let (oidc, strict) = (rig.oidc(short), rig.oidc(Pace { stale: Duration::ZERO, ..short }));
    let claims = rig.claims(&json!({}));
    rig.script.down.store(true, Ordering::SeqCst);
    assert!(unavailable(oidc.verify(&one.token("1", &claims)).await).contains("503"), "before anything is known");
    rig.script.down.store(false, Ordering::SeqCst);
    oidc.verify(&one.token("1", &claims)).await.unwrap();
    rig.script.down.store(true, Ordering::SeqCst);
    oidc.verify(&one.token("1", &claims)).await.unwrap();
    assert!(unavailable(oidc.verify(&two.token("2", &claims)).await).contains("new keys"));
    assert!(refused(oidc.verify(&two.token("1", &claims)).await).contains("signature"));
    unavailable(strict.verify(&one.token("1", &claims)).await);
    // A key that was withdrawn is forgotten.
    rig.script.down.store(false, Ordering::SeqCst);
    *rig.script.keys.lock().unwrap() = vec![two.jwk("2")];
    refused(oidc.verify(&one.token("1", &claims)).await);
}

#[tokio::test]
async fn a_discovery_that_lies_gives_no_keys() {
    let one = Signer::ec();
    let rig = Rig::start(vec![one.jwk("1")]);
    let claims = rig.claims(&json!({}));
    for (said, part) in [
        (json!({"issuer": "https://elsewhere.example", "jwks_uri": format!("{}/keys", rig.url)}), "another issuer"),
        (json!({"issuer": rig.url, "jwks_uri": "http://127.0.0.1/keys"}), "no https URL"),
        (json!({"issuer": rig.url}), "jwks_uri"),
        (json!({"issuer": rig.url, "jwks_uri": format!("{}/none", rig.url)}), "404"),
        (json!({"issuer": rig.url, "jwks_uri": format!("{}/keys", rig.url), "more": "x".repeat(300_000)}), "more than"),
    ] {
        *rig.script.discovery.lock().unwrap() = Some(said);
        let why = unavailable(rig.oidc(Pace::default()).verify(&one.token("1", &claims)).await);
        assert!(why.contains(part), "{why}");
    }
    let mut stranger = rig.issuer();
    stranger.ca = Rig::start(Vec::new()).ca;
    *rig.script.discovery.lock().unwrap() = None;
    unavailable(rig.with(stranger, Pace::default()).verify(&one.token("1", &claims)).await);
    assert_eq!(rig.fetched(), 0);
}

#[tokio::test]
async fn usernames_are_those_of_the_api_server() {
    let one = Signer::ec();
    let rig = Rig::start(vec![one.jwk("1")]);
    let more = json!({"email": "ann@example.com", "name": "Ann", "bad": "system:admin", "groups": "payers"});
    let named = async |claim: &str, prefix: &str, more: &Value| {
        let issuer = Issuer { username_claim: claim.into(), username_prefix: prefix.into(), groups_prefix: "oidc:".into(), ..rig.issuer() };
        rig.with(issuer, Pace::default()).verify(&one.token("1", &rig.claims(more))).await
    };
    for (claim, prefix, wanted) in [
        ("sub", "", format!("{}#ann", rig.url)),
        ("sub", "-", "ann".to_owned()),
        ("name", "oidc:", "oidc:Ann".to_owned()),
        ("email", "", "ann@example.com".to_owned()),
        ("email", "x:", "x:ann@example.com".to_owned()),
    ] {
        let caller = named(claim, prefix, &more).await.unwrap();
        assert_eq!((caller.username, caller.groups), (wanted, vec!["oidc:payers".to_owned(), "system:authenticated".to_owned()]));
    }
    assert!(refused(named("bad", "-", &more).await).contains("system:"));
    for verified in [json!(false), json!("true"), json!(null)] {
        let more = json!({"email": "ann@example.com", "email_verified": verified});
        assert!(refused(named("email", "", &more).await).contains("email_verified"), "{verified}");
    }
    named("email", "", &json!({"email": "ann@example.com", "email_verified": true})).await.unwrap();
}

#[test]
fn a_configuration_that_makes_no_sense() {
    let issuer = |more: Value| {
        let mut text = json!({"issuerURL": "https://id.example", "audience": "polity"});
        for (name, value) in more.as_object().unwrap() {
            text[name] = value.clone();
        }
        serde_json::from_value::<Issuer>(text)
    };
    let clock: SharedClock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let wrong = |more: Value| Oidc::new(issuer(more).unwrap(), clock.clone()).map(|_| ()).unwrap_err().to_string();
    assert!(wrong(json!({"issuerURL": "http://id.example"})).contains("must be https"));
    assert!(wrong(json!({"issuerURL": "https://a:b@id.example"})).contains("without user"));
    assert!(wrong(json!({"issuerURL": "id"})).contains("no URL"));
    assert!(wrong(json!({"audience": ""})).contains("audience"));
    assert!(wrong(json!({"usernamePrefix": "system:"})).contains("system:"));
    assert!(wrong(json!({"groupsPrefix": "system:x"})).contains("system:"));
    assert!(wrong(json!({"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"})).contains("ca"));
    assert!(wrong(json!({"ca": "no certificate"})).contains("ca"));
    assert!(issuer(json!({"usernamePrefx": "x"})).is_err());
}

#[tokio::test]
async fn each_token_is_judged_in_one_way() {
    let one = Signer::ec();
    let rig = Rig::start(vec![one.jwk("1")]);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let api = Router::new().fallback(move || {
        count.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::INTERNAL_SERVER_ERROR }
    });
    let oidc = Oidc::all(vec![rig.issuer()], &(rig.clock.clone() as SharedClock)).unwrap();
    assert!(Oidc::all(vec![rig.issuer(), rig.issuer()], &(rig.clock.clone() as SharedClock)).is_err());
    let identities = Identities::new(kube::Client::new(api, "default"), oidc);
    let good = one.token("1", &rig.claims(&json!({})));
    assert!(identities.caller(&good).await.unwrap().username.ends_with("#ann"));
    let bad = one.token("1", &rig.claims(&json!({"aud": "other"})));
    assert!(matches!(identities.caller(&bad).await, Err(IdentityError::Refused(_))));
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the API server is not asked about an issuer's tokens");
    let other = one.token("1", &rig.claims(&json!({"iss": "https://kubernetes.default.svc"})));
    for token in [other.as_str(), "opaque", "a.b.c"] {
        assert!(matches!(identities.caller(token).await, Err(IdentityError::Unavailable(_))), "{token}");
    }
    assert_eq!((asked.load(Ordering::SeqCst), rig.fetched()), (3, 1), "nor the issuer about others'");
    let huge = one.token("1", &rig.claims(&json!({"much": "x".repeat(20_000)})));
    assert!(matches!(identities.caller(&huge).await, Err(IdentityError::NoToken)));
    // Nothing of it is remembered: it ends to the second.
    rig.clock.advance(jiff::SignedDuration::from_secs(600));
    assert!(matches!(identities.caller(&good).await, Err(IdentityError::Refused(_))));
}
