use std::{net::SocketAddr, sync::atomic::AtomicUsize};

use axum::{
    Json, Router,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::*;
use crate::{
    ca::{Authority, Lives},
    serve::{Listener, serve_tls},
    tls::ClientAuth,
};

/// Core, scripted.
#[derive(Clone, Default)]
struct Core {
    epoch: Arc<AtomicI64>,
    notes: Arc<AtomicUsize>,
}

struct Rig {
    core: Core,
    ca: Authority,
    certs: Arc<Certs>,
    address: SocketAddr,
    cancel: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn fresh(ca: &Authority, name: &str, at: Timestamp) -> Arc<Certs> {
    let certs = Certs::empty();
    put(&certs, ca, name, at, &ca.bundle());
    certs
}

fn put(certs: &Certs, ca: &Authority, name: &str, at: Timestamp, bundle: &str) {
    let leaf = ca.issue(&[name.to_owned()], at, &Lives::default()).unwrap();
    assert!(certs.install(&leaf.cert, &leaf.key, bundle).unwrap());
}

async fn note(State(core): State<Core>, headers: HeaderMap, Json(note): Json<Note>) -> Response {
    core.notes.fetch_add(1, Ordering::SeqCst);
    let current = core.epoch.load(Ordering::SeqCst);
    let epoch: i64 = headers[EPOCH_HEADER].to_str().unwrap().parse().unwrap();
    if epoch != current {
        return (StatusCode::CONFLICT, Json(Refused::Fenced { epoch, current })).into_response();
    }
    match note.reason.as_str() {
        "refuse" => (StatusCode::CONFLICT, Json(Refused::Contended)).into_response(),
        "break" => (StatusCode::INTERNAL_SERVER_ERROR, "broken").into_response(),
        "babble" => "not json".into_response(),
        _ => Json(json!(7)).into_response(),
    }
}

fn rig() -> Rig {
    let core = Core::default();
    core.epoch.store(3, Ordering::SeqCst);
    let router = Router::new()
        .route(
            "/internal/v1/hello",
            get(|State(core): State<Core>| async move { Json(Hello { epoch: core.epoch.load(Ordering::SeqCst), ready: true }) }),
        )
        .route("/internal/v1/note", post(note))
        .route("/internal/v1/attempts/{org}/{id}", get(|| async { StatusCode::NOT_FOUND }))
        .route("/internal/v1/runs/{id}/input", post(|| async { StatusCode::FORBIDDEN }))
        .route("/internal/v1/runs/{id}/result", post(|| async { StatusCode::NOT_FOUND }))
        .with_state(core.clone());
    let ca = Authority::create(Timestamp::now(), &Lives::default()).unwrap();
    let certs = fresh(&ca, "polity-core", Timestamp::now());
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, cancel) = (listener.address(), CancellationToken::new());
    let tls = certs.server_config(&ClientAuth::Required { dns_name: "polity-edge".into() }).unwrap();
    tokio::spawn(serve_tls(listener, router, tls, Duration::from_secs(1), cancel.clone()));
    Rig { core, ca, certs, address, cancel }
}

fn client(rig: &Rig, certs: Arc<Certs>) -> Arc<CoreClient> {
    CoreClient::new(CoreConfig::new(format!("https://{}", rig.address)), certs).unwrap()
}

fn a_note(reason: &str) -> Note {
    serde_json::from_value(json!({"kind": "decision", "org": {"name": "a", "uid": "u"}, "reason": reason})).unwrap()
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
    match result {
        Err(Refused::LedgerUnavailable { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn learns_the_epoch_and_again_when_it_moves() {
    let rig = rig();
    let client = client(&rig, fresh(&rig.ca, "polity-edge", Timestamp::now()));
    assert_eq!(client.epoch(), None);
    assert_eq!(client.note(&a_note("")).await, Ok(Some(7)));
    assert_eq!((client.epoch(), rig.core.notes.load(Ordering::SeqCst)), (Some(3), 1));
    rig.core.epoch.store(4, Ordering::SeqCst);
    assert_eq!(client.note(&a_note("")).await, Ok(Some(7)));
    assert_eq!((client.epoch(), rig.core.notes.load(Ordering::SeqCst)), (Some(4), 3), "once more, not more often");
}

#[tokio::test]
async fn a_refusal_is_handed_on_and_everything_else_is_unavailable() {
    let rig = rig();
    let client = client(&rig, fresh(&rig.ca, "polity-edge", Timestamp::now()));
    assert_eq!(client.note(&a_note("refuse")).await, Err(Refused::Contended));
    assert!(unavailable(client.note(&a_note("break")).await).contains("broken"));
    assert!(unavailable(client.note(&a_note("babble")).await).contains("unreadable"));
    rig.cancel.cancel();
    let gone = CoreClient::new(CoreConfig::new("https://127.0.0.1:1"), fresh(&rig.ca, "polity-edge", Timestamp::now())).unwrap();
    unavailable(gone.note(&a_note("")).await);
}

#[tokio::test]
async fn answers_about_attempts_and_runs() {
    let rig = rig();
    let client = client(&rig, fresh(&rig.ca, "polity-edge", Timestamp::now()));
    assert_eq!(client.attempt("u", "i", Duration::ZERO).await, Ok(None));
    let pod = ShimPod { pod_name: "p".into(), pod_uid: "u".into(), namespace: "n".into() };
    assert_eq!(client.run_input("i", &pod).await, Err(RunError::AnotherPod { id: "i".into() }));
    let output =
        crate::internal::ShimOutput { exit_code: 0, stdout: "{}".into(), stderr_tail: String::new(), timed_out: false, too_large: false };
    let result = ShimResult { pod: pod.clone(), output };
    assert_eq!(client.run_result("i", &result).await, Err(RunError::NotKnown { id: "i".into() }));
    let escape = client.run_input("../note", &pod).await;
    assert!(matches!(escape, Err(RunError::Refused(Refused::Invalid { .. }))), "{escape:?}");
}

#[tokio::test]
async fn only_the_edge_gets_in_and_only_core_is_spoken_with() {
    let rig = rig();
    let now = Timestamp::now();
    let stranger = Authority::create(now, &Lives::default()).unwrap();
    let trusting = |ca: &Authority, name: &str| {
        let certs = Certs::empty();
        put(&certs, ca, name, now, &rig.ca.bundle());
        certs
    };
    unavailable(client(&rig, trusting(&rig.ca, "polity-shim")).hello().await);
    unavailable(client(&rig, trusting(&stranger, "polity-edge")).hello().await);
    unavailable(client(&rig, Certs::empty()).hello().await);
    unavailable(client(&rig, fresh(&stranger, "polity-edge", now)).hello().await);
    let other = CoreConfig { server_name: "polity-other".into(), ..CoreConfig::new(format!("https://{}", rig.address)) };
    unavailable(CoreClient::new(other, fresh(&rig.ca, "polity-edge", now)).unwrap().hello().await);
    assert_eq!(client(&rig, fresh(&rig.ca, "polity-edge", now)).hello().await, Ok(Hello { epoch: 3, ready: true }));
}

#[tokio::test]
async fn an_expired_certificate_fails_and_its_successor_mends_it_on_both_sides() {
    let rig = rig();
    let long_ago = Timestamp::now() - SignedDuration::from_hours(24 * 60);
    let old = Authority::create(long_ago, &Lives::default()).unwrap();
    let mine = fresh(&old, "polity-edge", long_ago);
    put(&mine, &old, "polity-edge", long_ago, &format!("{}{}", rig.ca.bundle(), old.bundle()));
    let client = client(&rig, mine.clone());
    let renewing = tokio::spawn(client.clone().renew_connections(rig.cancel.clone()));
    unavailable(client.hello().await);
    put(&mine, &rig.ca, "polity-edge", Timestamp::now(), &rig.ca.bundle());
    assert!(client.hello().await.is_ok());
    // Core's turn, with a CA rotation besides: trust goes first, and nobody is restarted.
    let next = rig.ca.rotate(Timestamp::now(), &Lives::default()).unwrap();
    put(&mine, &rig.ca, "polity-edge", Timestamp::now(), &next.bundle());
    put(&rig.certs, &next, "polity-core", Timestamp::now(), &next.bundle());
    let fresh_client = self::client(&rig, mine.clone());
    assert!(fresh_client.hello().await.is_ok());
    put(&rig.certs, &next, "polity-core", Timestamp::now(), &next.current.cert);
    unavailable(self::client(&rig, mine).hello().await);
    rig.cancel.cancel();
    renewing.await.unwrap();
}
