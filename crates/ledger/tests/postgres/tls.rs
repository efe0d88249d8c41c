//! The way to the server: encrypted and checked unless the URL says otherwise, with a password that stands in a file and
//! is shown nowhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use polity_ledger::{Clock, Config, Ledger, OpenError, Postgres, Store, SystemClock};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::common::{begin_at, org};
use crate::home::query;
use crate::server::Server;

/// A certificate authority, and a certificate of it for 127.0.0.1 with its key.
fn issued() -> (String, String, String) {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (certificate, leaf.pem(), key.serialize_pem())
}

fn open(url: String, password: &Path, ca: &Path) -> Result<Ledger, OpenError> {
    let postgres = Postgres { url, password_file: Some(password.to_owned()), ca_file: Some(ca.to_owned()) };
    Ledger::open(Config::at(Store::Postgres(postgres), "test"), Arc::new(SystemClock))
}

/// An error with its causes.
fn told(error: &OpenError) -> String {
    format!("{error}: {error:?}")
}

#[tokio::test]
async fn encrypted_checked_and_with_a_password() {
    let ((ca, certificate, key), (other_ca, ..)) = (issued(), issued());
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        std::fs::write(files.path().join(name), text).unwrap();
        files.path().join(name)
    };
    let (ca, other_ca) = (file("ca.pem", &ca), file("other.pem", &other_ca));
    let (right, wrong) = (file("right", "correct horse\n"), file("wrong", "battery staple"));
    let mut server = Server::make(true);
    server.give("server.crt", &certificate);
    server.give("server.key", &key);
    server.give("data/pg_hba.conf", "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n");
    let encrypted = ["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key"];
    server.up(&encrypted);
    query(&server.url("public"), "CREATE ROLE keeper LOGIN PASSWORD 'correct horse'");
    query(&server.url("public"), "CREATE SCHEMA keeper AUTHORIZATION keeper");
    let url = |server: &Server, more: &str| format!("postgresql://keeper@127.0.0.1:{}/postgres{more}", server.port());

    let ledger = open(url(&server, ""), &right, &ca).unwrap();
    ledger.begin(1, begin_at(SystemClock.now(), "call", 1, 10)).await.unwrap();
    assert_eq!(ledger.orgs().await.unwrap(), [org()]);
    let sql = "SELECT ssl::text FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'polity-ledger'";
    let plain: Vec<String> = query(&server.url("public"), sql).iter().map(|row| row.get(0)).filter(|ssl: &String| ssl != "true").collect();
    assert!(plain.is_empty());
    ledger.close().await;

    let refused = open(url(&server, ""), &right, &other_ca).unwrap_err();
    assert!(told(&refused).contains("invalid peer certificate"), "{refused:?}");
    let refused = open(url(&server, "?sslmode=prefer"), &right, &other_ca).unwrap_err();
    assert!(told(&refused).contains("invalid peer certificate"), "{refused:?}");
    let refused = open(url(&server, ""), &wrong, &ca).unwrap_err();
    assert!(told(&refused).contains("password authentication failed") && !told(&refused).contains("battery"), "{refused:?}");
    let refused = open(url(&server, ""), &files.path().join("none"), &ca).unwrap_err();
    assert!(told(&refused).contains("no password in"), "{refused:?}");
    let refused = open(url(&server, "?sslmode=disable"), &right, &ca).unwrap_err();
    assert!(told(&refused).contains("no encryption"), "the server's own refusal: {refused:?}");
    let refused = open(url(&server, ""), &right, &right).unwrap_err();
    assert!(matches!(refused, OpenError::Config(_)), "{refused:?}");

    server.kill();
    server.up(&[]);
    let refused = open(url(&server, ""), &right, &ca).unwrap_err();
    assert!(told(&refused).contains("does not support TLS"), "it never falls back: {refused:?}");
}
