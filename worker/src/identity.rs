//! Which Pod this is, by the claims of its own token. Read for idempotency keys only; who the caller is, the edge asks the API server.

use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;

/// The Pod's uid in a ServiceAccount token.
pub fn pod_uid(token_file: &Path) -> anyhow::Result<String> {
    let token = std::fs::read_to_string(token_file).with_context(|| format!("token {}", token_file.display()))?;
    from_claims(token.trim()).with_context(|| format!("the token in {} names no Pod; give --pod-uid", token_file.display()))
}

fn from_claims(token: &str) -> Option<String> {
    let claims = token.split('.').nth(1)?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims["kubernetes.io"]["pod"]["uid"].as_str().filter(|uid| !uid.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_pod_of_a_bound_token() {
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"kubernetes.io":{"pod":{"name":"a","uid":"u-1"}}}"#);
        assert_eq!(from_claims(&format!("e30.{claims}.sig")).as_deref(), Some("u-1"));
        assert_eq!(from_claims("opaque"), None);
        assert_eq!(from_claims("e30.e30.sig"), None);
    }
}
