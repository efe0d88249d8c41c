//! Money: decimal strings in specs, integer millionths of a US dollar everywhere else. No floats.

/// Why a decimal string is not an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not digits with at most one point.
    #[error("{0:?} is not a decimal amount such as \"12.50\"")]
    Syntax(String),
    /// More than six decimals.
    #[error("{0:?} has more than six decimals; the smallest amount is 0.000001 USD")]
    TooFine(String),
    /// Does not fit 64 bits.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// Parses a non-negative decimal amount of US dollars into micro-USD: `"12.50"` → `12_500_000`.
///
/// # Errors
/// The text is not digits with at most one point, is finer than a millionth, or does not fit 64 bits.
pub fn parse_usd(text: &str) -> Result<i64, MoneyError> {
    let syntax = || MoneyError::Syntax(text.to_owned());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return Err(syntax());
    }
    if fraction.len() > 6 {
        return Err(MoneyError::TooFine(text.to_owned()));
    }
    let large = || MoneyError::TooLarge(text.to_owned());
    let whole: i64 = whole.parse().map_err(|_| large())?;
    let micro: i64 = format!("{fraction:0<6}").parse().map_err(|_| syntax())?;
    whole.checked_mul(1_000_000).and_then(|w| w.checked_add(micro)).ok_or_else(large)
}

/// Writes micro-USD as a decimal string, without trailing zeros beyond two decimals.
#[must_use]
pub fn format_usd(micro: i64) -> String {
    let sign = if micro < 0 { "-" } else { "" };
    let abs = micro.unsigned_abs();
    let fraction = format!("{:06}", abs % 1_000_000);
    let kept = fraction.trim_end_matches('0').len().max(2);
    format!("{sign}{}.{}", abs / 1_000_000, &fraction[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses() {
        for (text, micro) in [("0", 0), ("12.50", 12_500_000), ("0.000001", 1), ("500", 500_000_000)] {
            assert_eq!(parse_usd(text), Ok(micro), "{text}");
        }
        assert_eq!(format_usd(12_500_000), "12.50");
        assert_eq!(format_usd(1), "0.000001");
        for bad in ["", ".", "1.", ".5", "-1", "1e3", "1,0", "1.2.3", " 1"] {
            assert!(matches!(parse_usd(bad), Err(MoneyError::Syntax(_))), "{bad}");
        }
        assert!(matches!(parse_usd("0.0000001"), Err(MoneyError::TooFine(_))));
        assert!(matches!(parse_usd("99999999999999999999"), Err(MoneyError::TooLarge(_))));
    }
}
