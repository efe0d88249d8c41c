//! W3C trace context: the caller's if it is one, else a new one.

use axum::http::HeaderMap;

/// The `traceparent` to go on with. From a caller's only the trace and parent ids are taken; what cannot be read is replaced, as the
/// recommendation says.
pub fn of(headers: &HeaderMap, random: [u8; 24]) -> String {
    of_text(headers.get("traceparent").and_then(|v| v.to_str().ok()), random)
}

/// `of` a `traceparent` that came by another way.
pub fn of_text(given: Option<&str>, random: [u8; 24]) -> String {
    match given.map(str::trim) {
        Some(text) if valid(text) => text.to_owned(),
        _ => polity_made(random),
    }
}

/// A new trace; the lowest bits are set, since all-zero ids are not allowed.
fn polity_made(mut random: [u8; 24]) -> String {
    random[15] |= 1;
    random[23] |= 1;
    format!("00-{}-{}-01", hex::encode(&random[..16]), hex::encode(&random[16..]))
}

fn valid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return false };
    let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let some = |s: &str| s.bytes().any(|b| b != b'0');
    version == "00" && hex(trace, 32) && some(trace) && hex(parent, 16) && some(parent) && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_one_is_kept_and_a_bad_one_replaced() {
        let with = |text: &str| of(&[("traceparent".parse().unwrap(), text.parse().unwrap())].into_iter().collect(), [0; 24]);
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(with(good), good);
        let made = "00-00000000000000000000000000000001-0000000000000001-01";
        for bad in [
            "",
            "x",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(with(bad), made, "{bad}");
        }
        assert_eq!(of(&HeaderMap::new(), [0; 24]), made);
    }
}
