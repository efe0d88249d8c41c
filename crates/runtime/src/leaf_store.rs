//! The edge's side of certificates: follows Secret `polity-edge-tls` and puts what it finds in force. Reads only. What cannot be
//! used is logged, and what was in force stays.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use polity_api::names;
use tokio_util::sync::CancellationToken;

use crate::{
    ca_store::text,
    pulse::Pulse,
    tls::Certs,
    watch::{self, Event, Target},
};

/// Follows the Secret until cancelled. The certificates are empty until core has made the Secret; servers may start before.
#[must_use]
pub fn follow(client: Client, namespace: &str, cancel: CancellationToken) -> Arc<Certs> {
    let certs = Certs::empty();
    let target = Target::<Secret>::within(namespace).fields(&format!("metadata.name={}", names::EDGE_TLS_SECRET));
    let fed = certs.clone();
    let sink = move |event| {
        for secret in present(event) {
            install(&fed, &secret);
        }
    };
    tokio::spawn(watch::run(client, target, Arc::new(Pulse::default()), sink, cancel));
    certs
}

/// The Secrets in an event. A deleted one takes nothing out of force: core will make it again.
fn present(event: Event<Secret>) -> Vec<Arc<Secret>> {
    let items = match event {
        Event::Listed(items) => items,
        Event::Applied(item) => vec![item],
        Event::Deleted { .. } => Vec::new(),
    };
    items.into_iter().filter(|item| item.name == names::EDGE_TLS_SECRET).filter_map(|item| item.object.ok()).collect()
}

fn install(certs: &Certs, secret: &Secret) {
    let [cert, key, ca] = ["tls.crt", "tls.key", "ca.crt"].map(|name| text(secret, name).unwrap_or_default());
    match certs.install(&cert, &key, &ca) {
        Ok(true) => tracing::info!(not_after = certs.not_after().map(|t| t.to_string()), "certificate in force"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "Secret {} is of no use", names::EDGE_TLS_SECRET),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::ByteString;

    use super::*;
    use crate::{
        ca::{Authority, Lives},
        watch::Item,
    };

    fn secret(parts: &[(&str, &str)]) -> Arc<Secret> {
        let data: BTreeMap<_, _> = parts.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()))).collect();
        Arc::new(Secret { data: Some(data), ..Secret::default() })
    }

    fn applied(secret: Arc<Secret>) -> Event<Secret> {
        Event::Applied(Item { namespace: "ns".into(), name: names::EDGE_TLS_SECRET.into(), object: Ok(secret) })
    }

    #[test]
    fn an_expired_certificate_is_replaced_and_rubbish_is_not_taken() {
        let now = Timestamp::now();
        let long_ago = now - SignedDuration::from_hours(24 * 60);
        let lives = Lives::default();
        let ca = Authority::create(long_ago, &lives).unwrap();
        let wanted = ["polity-edge".to_owned()];
        let [old, new] = [long_ago, now].map(|at| ca.issue(&wanted, at, &lives).unwrap());
        let certs = Certs::empty();
        let feed = |event| present(event).iter().for_each(|s| install(&certs, s));
        let bundle = ca.bundle();
        assert!(certs.valid(now).is_err(), "nothing yet");
        feed(applied(secret(&[("tls.crt", &old.cert), ("tls.key", &old.key), ("ca.crt", &bundle)])));
        assert!(certs.valid(now).unwrap_err().contains("expired"));
        feed(applied(secret(&[("tls.crt", &new.cert), ("tls.key", &new.key), ("ca.crt", &bundle)])));
        assert_eq!(certs.valid(now), Ok(()));
        feed(applied(secret(&[("tls.crt", &new.cert), ("tls.key", &old.key), ("ca.crt", &bundle)])));
        feed(applied(secret(&[])));
        feed(Event::Deleted { namespace: "ns".into(), name: names::EDGE_TLS_SECRET.into() });
        assert_eq!(certs.valid(now), Ok(()), "what was in force stays");
    }
}
