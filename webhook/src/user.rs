//! Who asks: the caller and the trace context as stamped at CREATE, from what the API server authenticated.
//!
//! Nothing here reads labels, annotations or headers. Our two accounts alone may name somebody else, and are then named in `via`.

use k8s_openapi::api::authentication::v1::UserInfo;
use polity_api::{Caller, Trace, names, reasons};
use polity_runtime::identity;

use crate::outcome::Refusal;

/// The user of a request as a caller; without a username when the API server names none.
#[must_use]
pub fn caller_of(user: &UserInfo) -> Caller {
    identity::caller_of(user.clone()).unwrap_or_default()
}

/// Whether a username is one of our two accounts.
#[must_use]
pub fn is_ours(username: &str, system: &str) -> bool {
    [names::CORE, names::EDGE].iter().any(|account| username == names::service_account_username(system, account))
}

/// The caller to stamp on a new object. What the user wrote may repeat the truth, in whole or in part, and nothing else.
///
/// # Errors
/// The user has no name, or wrote somebody else, or something about himself that is not so.
pub fn stamp(user: &UserInfo, written: Option<&Caller>, system: &str) -> Result<Caller, Refusal> {
    let own = caller_of(user);
    if own.username.is_empty() {
        return Err(Refusal::forbidden(reasons::CALLER_NOT_STAMPED, "the API server names no user for this request"));
    }
    let Some(written) = written else { return Ok(own) };
    if written.username != own.username && is_ours(&own.username, system) {
        return behalf(&own, written);
    }
    let differs = |what: &str| {
        Err(Refusal::forbidden(reasons::CALLER_NOT_STAMPED, format!("spec.caller{what} is not what {} is; Polity stamps it", own.username))
            .hint("leave spec.caller out"))
    };
    if written.username != own.username {
        return Err(Refusal::forbidden(
            reasons::CALLER_NOT_STAMPED,
            format!("spec.caller names {:?}, but the request comes from {:?}", written.username, own.username),
        )
        .hint("leave spec.caller out; Polity stamps it"));
    }
    if written.uid.is_some() && written.uid != own.uid {
        return differs(".uid");
    }
    if !written.groups.is_empty() && written.groups != own.groups {
        return differs(".groups");
    }
    if (written.pod_name.is_some() && written.pod_name != own.pod_name) || (written.pod_uid.is_some() && written.pod_uid != own.pod_uid) {
        return differs(".podName or podUid");
    }
    if written.via.is_some() || !written.chain.is_empty() {
        return differs(".via or chain");
    }
    Ok(own)
}

/// One of our accounts acts for somebody: that one is the caller, ours is `via`.
fn behalf(own: &Caller, written: &Caller) -> Result<Caller, Refusal> {
    if written.username.is_empty() {
        return Err(Refusal::forbidden(reasons::CALLER_NOT_STAMPED, "spec.caller names nobody"));
    }
    if written.via.as_ref().is_some_and(|via| *via != own.username) {
        return Err(Refusal::forbidden(
            reasons::CALLER_NOT_STAMPED,
            format!("spec.caller.via is {:?}, not {:?}", written.via, own.username),
        ));
    }
    Ok(Caller { via: Some(own.username.clone()), ..written.clone() })
}

/// A new, sampled W3C trace context from 24 random bytes. All-zero ids are not allowed there, so the lowest bit of each is set.
#[must_use]
pub fn new_trace(mut random: [u8; 24]) -> Trace {
    random[15] |= 1;
    random[23] |= 1;
    Trace { traceparent: format!("00-{}-{}-01", hex::encode(&random[..16]), hex::encode(&random[16..])) }
}

/// Whether a trace context is a W3C `traceparent` of version 00.
#[must_use]
pub fn trace_is_valid(trace: &Trace) -> bool {
    let hex = |s: &str| s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = trace.traceparent.split('-').collect();
    let [version, id, parent, flags] = parts[..] else { return false };
    let zero = |s: &str| s.bytes().all(|b| b == b'0');
    version == "00"
        && id.len() == 32
        && parent.len() == 16
        && flags.len() == 2
        && [id, parent, flags].iter().all(|s| hex(s))
        && !zero(id)
        && !zero(parent)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
    const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

    fn user(name: &str) -> UserInfo {
        UserInfo {
            username: Some(name.to_owned()),
            uid: Some("u1".to_owned()),
            groups: Some(vec!["staff".to_owned(), "system:authenticated".to_owned()]),
            extra: Some(BTreeMap::from([(POD_NAME.to_owned(), vec!["w-1".to_owned()]), (POD_UID.to_owned(), vec!["p-1".to_owned()])])),
        }
    }

    const CORE: &str = "system:serviceaccount:polity-system:polity-core";

    #[test]
    fn stamps_the_truth_and_refuses_anything_else() {
        let own = stamp(&user("alice"), None, "polity-system").unwrap();
        assert_eq!((own.username.as_str(), own.pod_name.as_deref(), own.pod_uid.as_deref()), ("alice", Some("w-1"), Some("p-1")));
        assert_eq!(own.groups.len(), 2);
        assert_eq!(stamp(&user("alice"), Some(&own), "polity-system").unwrap(), own, "stamping twice changes nothing");
        let part = Caller { username: "alice".to_owned(), ..Caller::default() };
        assert_eq!(stamp(&user("alice"), Some(&part), "polity-system").unwrap(), own);

        let s = |v: &str| v.to_owned();
        let forged = [
            Caller { username: s("bob"), ..own.clone() },
            Caller { username: String::new(), ..own.clone() },
            Caller { uid: Some(s("u2")), ..own.clone() },
            Caller { groups: vec![s("admins")], ..own.clone() },
            Caller { pod_uid: Some(s("p-2")), ..own.clone() },
            Caller { via: Some(s(CORE)), ..own.clone() },
            Caller { chain: vec![s("carol")], ..own },
        ];
        for written in forged {
            let refused = stamp(&user("alice"), Some(&written), "polity-system").unwrap_err();
            assert_eq!((refused.code, refused.reason), (403, reasons::CALLER_NOT_STAMPED), "{written:?}");
        }
        assert!(stamp(&UserInfo::default(), None, "polity-system").is_err());
    }

    #[test]
    fn only_our_accounts_act_for_others() {
        let alice = Caller { username: "alice".to_owned(), chain: vec!["carol".to_owned()], ..Caller::default() };
        let stamped = stamp(&user(CORE), Some(&alice), "polity-system").unwrap();
        assert_eq!(stamped, Caller { via: Some(CORE.to_owned()), ..alice.clone() });
        assert_eq!(stamp(&user(CORE), Some(&stamped), "polity-system").unwrap(), stamped);
        let other = Caller { via: Some("system:serviceaccount:polity-system:polity-edge".to_owned()), ..alice.clone() };
        assert!(stamp(&user(CORE), Some(&other), "polity-system").is_err());
        assert!(stamp(&user(CORE), Some(&Caller::default()), "polity-system").is_err());
        let elsewhere = "system:serviceaccount:elsewhere:polity-core";
        assert!(stamp(&user(elsewhere), Some(&alice), "polity-system").is_err(), "the same name in another namespace is nobody");
        assert_eq!(stamp(&user(CORE), None, "polity-system").unwrap().via, None);
    }

    #[test]
    fn traces() {
        let trace = new_trace([0; 24]);
        assert_eq!(trace.traceparent, "00-00000000000000000000000000000001-0000000000000001-01");
        assert!(trace_is_valid(&trace));
        for bad in [
            "",
            "00-1-2-01",
            "00-00000000000000000000000000000000-0000000000000001-01",
            "01-00000000000000000000000000000001-0000000000000001-01",
            "00-0000000000000000000000000000000A-0000000000000001-01",
        ] {
            assert!(!trace_is_valid(&Trace { traceparent: bad.to_owned() }), "{bad}");
        }
    }
}
