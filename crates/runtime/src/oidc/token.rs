//! A JSON Web Token in its compact form (RFC 7519, RFC 7515 section 7.1): read, and held to what it says of itself. Pure; signatures are checked by
//! `jwk`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest life of a token, from `iat` to `exp`, in seconds.
pub const LONGEST_LIFE: i64 = 30 * 60;
/// How far an issuer's clock may be ahead of ours, in seconds. None is given at the end: `exp` is exact.
pub const SKEW: i64 = 60;
/// Latest time that is one: years beyond it are a mistake.
const LATEST: f64 = 253_402_300_799.0;

/// What a token may be signed with (RFC 7518, section 3.1). Whatever is not named here is refused, `none` and shared secrets above all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA with P-256 and SHA-256.
    ES256,
}

impl Algorithm {
    /// Its name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11): none is.
    #[serde(default)]
    crit: Option<Value>,
}

/// A token that was read; nothing of it is believed yet.
pub struct Token<'a> {
    header: Header,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

/// What a text says that it is issued by, if it is a token of this form. Only for finding out who is to judge it.
#[must_use]
pub fn issuer_of(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }
    let (_, claims, _) = parts(text)?;
    serde_json::from_slice::<Issued>(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok().map(|issued| issued.iss)
}

fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let mut parts = text.split('.');
    let found = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(found)
}

/// Reads a token.
///
/// # Errors
/// It is none, or is signed in a way that is not accepted.
pub fn read(text: &str) -> Result<Token<'_>, String> {
    let (header, claims, signature) = parts(text).ok_or("not three parts")?;
    let signed = text.get(..header.len() + 1 + claims.len()).ok_or("not three parts")?;
    let decoded = |part: &str, name: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| format!("its {name} is not base64url"));
    let said: Value = serde_json::from_slice(&decoded(header, "header")?).map_err(|_| "its header is no JSON object")?;
    let header: Header = serde_json::from_value(said).map_err(|_| "its header names no algorithm that is accepted: RS256 or ES256")?;
    if header.crit.is_some() {
        return Err("its header has extensions that must be understood, and are not".to_owned());
    }
    let claims = serde_json::from_slice(&decoded(claims, "claims")?).map_err(|_| "its claims are no JSON object")?;
    Ok(Token { header, claims, signed, signature: decoded(signature, "signature")? })
}

impl Token<'_> {
    /// Id of the key that signed it, if it says so.
    pub fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// How it is signed.
    pub fn algorithm(&self) -> Algorithm {
        self.header.alg
    }

    /// What is signed.
    pub fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Whether issuer, audience and times are right at `now` (seconds since 1970).
    ///
    /// # Errors
    /// Says what is wrong, with times but no other value of the token.
    pub fn check(&self, issuer: &str, audience: &str, now: i64) -> Result<(), String> {
        if self.text("iss") != Some(issuer) {
            return Err("of another issuer".to_owned());
        }
        if !self.texts("aud").is_some_and(|list| list.contains(&audience)) {
            return Err(format!("not issued for audience {audience}"));
        }
        let (exp, iat) = (self.time("exp")?.ok_or("it has no exp")?, self.time("iat")?.ok_or("it has no iat")?);
        if now >= exp {
            return Err(format!("expired {} s ago", now - exp));
        }
        let ahead = [iat, self.time("nbf")?.unwrap_or(iat)].into_iter().max().unwrap_or(iat) - now;
        if ahead > SKEW {
            return Err(format!("not valid before {ahead} s from now"));
        }
        if exp - iat > LONGEST_LIFE {
            return Err(format!("it lives {} s from iat to exp; at most {LONGEST_LIFE} s are accepted", exp - iat));
        }
        Ok(())
    }

    /// A claim that is a text.
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// A claim that is a text or a list of texts; empty when it is absent.
    pub fn texts(&self, claim: &str) -> Option<Vec<&str>> {
        match self.claims.get(claim) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::String(one)) => Some(vec![one]),
            Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
            Some(_) => None,
        }
    }

    /// As the API server has it: an address that is said not to be verified names nobody.
    pub fn email_may_be_used(&self) -> bool {
        self.claims.get("email_verified").is_none_or(|verified| *verified == Value::Bool(true))
    }

    /// A claim that is a time (RFC 7519, section 2: seconds, maybe with a fraction).
    fn time(&self, claim: &str) -> Result<Option<i64>, String> {
        let wrong = || format!("{claim} is no time");
        let Some(value) = self.claims.get(claim) else { return Ok(None) };
        let seconds = value.as_f64().filter(|s| (0.0..=LATEST).contains(s)).ok_or_else(wrong)?;
        // In range, so nothing is lost but the fraction.
        #[allow(clippy::cast_possible_truncation)]
        let whole = seconds.floor() as i64;
        Ok(Some(whole))
    }
}
