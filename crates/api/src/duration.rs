//! Durations as users write them: a whole number and one unit, `30s`, `10m`, `24h`, `7d`.

/// Pattern of a duration, for schemas.
pub const PATTERN: &str = "^[1-9][0-9]{0,5}(s|m|h|d)$";

/// Seconds of a duration, or None when it is not of the form `NUMBER(s|m|h|d)` with a positive number of at most six digits.
#[must_use]
pub fn seconds(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.starts_with('0') {
        return None;
    }
    let n: i64 = digits.parse().ok()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    n.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    #[test]
    fn parses_and_refuses() {
        assert_eq!(super::seconds("24h"), Some(86_400));
        assert_eq!(super::seconds("1d"), Some(86_400));
        for bad in ["", "h", "0s", "05m", "1w", "1.5h", "-1s", "1h30m", "1234567s"] {
            assert_eq!(super::seconds(bad), None, "{bad}");
        }
    }
}
