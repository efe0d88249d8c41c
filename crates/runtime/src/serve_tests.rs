use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::*;

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn serve(router: Router) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<Result<(), ServeError>>) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, cancel) = (listener.address(), CancellationToken::new());
    let server = tokio::spawn(serve_plain(listener, router, Duration::from_secs(30), cancel.clone()));
    (address, cancel, server)
}

#[tokio::test]
async fn health_names_what_fails_and_metrics_are_served() {
    let (health, metrics) = (Health::new(), Registry::new());
    let calls = prometheus::IntCounter::new("polity_calls_total", "Calls.").unwrap();
    metrics.register(Box::new(calls.clone())).unwrap();
    calls.inc();
    let snapshots = crate::cache::Cache::fixed(polity_policy::World::default()).snapshots().clone();
    metrics.register(Box::new(crate::metrics::SnapshotAge::new(snapshots).unwrap())).unwrap();
    health.ready("ledger", || Err("closed".to_owned()));
    let (address, cancel, server) = serve(admin_router(health, metrics));
    assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let ready = ask(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("ledger: closed"), "{ready}");
    assert!(ask(address, "/metrics").await.contains("polity_calls_total 1"));
    cancel.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_in_flight_finishes_and_no_new_one_begins() {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, wait) = (entered.clone(), go.clone());
    let router = Router::new().route(
        "/slow",
        get(move || async move {
            told.notify_one();
            wait.notified().await;
            "done"
        }),
    );
    let (address, cancel, server) = serve(router);
    let slow = tokio::spawn(async move { ask(address, "/slow").await });
    entered.notified().await;
    cancel.cancel();
    crate::testing::until_refused(address).await;
    go.notify_one();
    assert!(slow.await.unwrap().ends_with("done"));
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let first = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(matches!(Listener::bind(first.address()), Err(ServeError::Bind { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_let_go() {
    let (address, cancel, server) = serve(Router::new());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTT").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    cancel.cancel();
    server.await.unwrap().unwrap();
}

#[test]
fn connections_inherit_the_time_after_which_an_unread_one_is_closed() {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let _peer = std::net::TcpStream::connect(listener.address()).unwrap();
    let accepted = loop {
        match listener.socket.accept() {
            Ok((accepted, _)) => break accepted,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    };
    assert_eq!(rustix::net::sockopt::tcp_user_timeout(&accepted).unwrap(), millis(UNREAD));
}
