//! Kubernetes quantities as exact numbers of billionths. Reads what the API server's `resource.Quantity` documents; nothing here is ever a double, and what does
//! not fit is refused, never cut off.

/// Units in a whole one.
pub const NANO: i128 = 1_000_000_000;
/// Suffixes of powers of ten from a thousand up, the largest first.
pub const DECIMAL: [(&str, u32); 6] = [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3)];
/// Suffixes of powers of two, the largest first.
pub const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
/// Longest text that is read, in bytes.
const MAX_TEXT: usize = 64;

/// How a quantity was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Plain, or with n, u, m, k, M, G, T, P, E.
    Decimal,
    /// With Ki, Mi, Gi, Ti, Pi, Ei.
    Binary,
    /// With a power of ten such as `1e3`.
    Exponent,
}

/// Billionths of a quantity, and how it was written. None: it is no quantity, or larger than 128 bits of billionths hold (about 1.7e29). What is finer than
/// a billionth is rounded away from zero, and one with a binary suffix is at most 2^63 - 1, as the API server does.
#[must_use]
pub fn parse(text: &str) -> Option<(i128, Form)> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (ten, two, form) = unit(suffix)?;
    let fraction = fraction.trim_end_matches('0');
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let power = ten.checked_add(9)?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let mut nano = scaled(digits, two, power)?;
    if form == Form::Binary {
        nano = nano.min(i128::from(i64::MAX) * NANO);
    }
    Some((if text.starts_with('-') { -nano } else { nano }, form))
}

/// What a suffix stands for: a power of ten, a power of two.
fn unit(suffix: &str) -> Option<(i64, u32, Form)> {
    let small = [("", 0), ("n", -9), ("u", -6), ("m", -3)];
    if let Some((_, ten)) = small.iter().find(|(s, _)| *s == suffix) {
        return Some((*ten, 0, Form::Decimal));
    }
    let find = |table: &[(&str, u32)]| table.iter().find(|(s, _)| *s == suffix).map(|(_, power)| *power);
    if let Some(ten) = find(&DECIMAL) {
        return Some((i64::from(ten), 0, Form::Decimal));
    }
    if let Some(two) = find(&BINARY) {
        return Some((0, two, Form::Binary));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    // the API server takes a power of ten of 32 bits
    let ten: i32 = (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| exponent.parse().ok()).flatten()?;
    Some((i64::from(ten), 0, Form::Exponent))
}

/// `digits * 2^two * 10^ten`, rounded up. None: it does not fit.
fn scaled(digits: i128, two: u32, ten: i64) -> Option<i128> {
    if digits == 0 {
        return Some(0);
    }
    let digits = digits.checked_mul(1_i128.checked_shl(two)?)?;
    let Ok(up) = u32::try_from(ten) else {
        // more places than any number of ours has: what is left is the least there is
        let Some(by) = u32::try_from(-ten).ok().and_then(|down| 10_i128.checked_pow(down)) else { return Some(1) };
        return Some(digits / by + i128::from(digits % by != 0));
    };
    digits.checked_mul(10_i128.checked_pow(up)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_documents() {
        let whole = |n: i128| Some(n * NANO);
        for (text, want) in [
            ("0", Some(0)),
            ("12", whole(12)),
            ("+12", whole(12)),
            ("-12", whole(-12)),
            ("1.5", Some(1_500_000_000)),
            (".5", Some(500_000_000)),
            ("1.", whole(1)),
            ("500m", Some(500_000_000)),
            ("100n", Some(100)),
            ("2u", Some(2_000)),
            ("1k", whole(1_000)),
            ("1E", whole(1_000_000_000_000_000_000)),
            ("1e3", whole(1_000)),
            ("1E3", whole(1_000)),
            ("1e-3", Some(1_000_000)),
            ("-1.5e+1", whole(-15)),
            ("1Ki", whole(1024)),
            ("1.5Gi", whole(1_610_612_736)),
            ("-1Mi", whole(-1_048_576)),
            // capped
            ("16Ei", whole(i128::from(i64::MAX))),
            ("-16Ei", whole(-i128::from(i64::MAX))),
            // rounded away from zero
            ("0.1n", Some(1)),
            ("-0.1n", Some(-1)),
            ("1e-400", Some(1)),
            ("0e99999", Some(0)),
            ("1.0000000001", Some(1_000_000_001)),
            ("99999999999999999999", whole(99_999_999_999_999_999_999)),
            ("0.10000000000000000000000000000000000000", Some(100_000_000)),
        ] {
            assert_eq!(parse(text).map(|(nano, _)| nano), want, "{text}");
        }
        for text in [
            "",
            "x",
            "1x",
            "1.2.3",
            "1 ",
            " 1",
            "1 Gi",
            "--1",
            "+-1",
            ".",
            "+",
            "Mi",
            "1i",
            "0.1mi",
            "1e",
            "1ee3",
            "1e1.5",
            "1e+",
            "1e+-3",
            "1+1",
            "1K",
            "1gi",
            "0x10",
            "1_000",
            "٣",
            "1e99999999999",
            "1e30",
            "99999999999999999999999999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"1".repeat(65)), None);
        assert_eq!(parse("1Ki").map(|q| q.1), Some(Form::Binary));
        assert_eq!(parse("1k").map(|q| q.1), Some(Form::Decimal));
        assert_eq!(parse("1e3").map(|q| q.1), Some(Form::Exponent));
    }
}
