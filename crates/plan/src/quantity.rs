//! Kubernetes quantities as exact numbers, written back in the API server's canonical form, so that what we apply is what is stored.

use std::ops::{Add, Sub};

use polity_api::quantity::{self, BINARY, DECIMAL, Form, NANO};

/// Text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity such as \"500m\", \"4\" or \"8Gi\"")]
pub struct BadQuantity(pub String);

/// An amount in billionths, and whether it is written with Ki, Mi, Gi.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    nano: i128,
    binary: bool,
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Amount {}
impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Amount {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Amount {
    /// Zero.
    pub const ZERO: Self = Self { nano: 0, binary: false };

    /// A whole number.
    #[must_use]
    pub fn whole(n: i64) -> Self {
        Self { nano: i128::from(n) * NANO, binary: false }
    }

    /// Reads `12`, `1.5`, `500m`, `8Gi`, `2k`.
    ///
    /// # Errors
    /// Not of that form, or too large to count.
    pub fn parse(text: &str) -> Result<Self, BadQuantity> {
        match quantity::parse(text.trim()) {
            // limits are never less than nothing, and their canonical form has no exponent
            Some((nano, form)) if nano >= 0 && !text.contains(['+', '-']) && form != Form::Exponent => {
                Ok(Self { nano, binary: form == Form::Binary })
            }
            _ => Err(BadQuantity(text.to_owned())),
        }
    }

    /// What is left of `self`, at least zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self { nano: (self.nano - other.nano).max(0), binary: self.binary }
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_add(other.nano), binary: self.binary || other.binary }
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_sub(other.nano), binary: self.binary }
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = self.nano.div_euclid(NANO) + i128::from(self.nano.rem_euclid(NANO) != 0);
        // Below 1024 the API server writes binary amounts as plain ones.
        if self.binary && self.nano >= 1024 * NANO {
            return match BINARY.iter().map(|(suffix, two)| (suffix, 1_i128 << two)).find(|(_, factor)| units % factor == 0) {
                Some((suffix, factor)) => write!(f, "{}{suffix}", units / factor),
                None => write!(f, "{units}"),
            };
        }
        if self.nano % NANO != 0 {
            return match [("m", 1_000_000), ("u", 1_000), ("n", 1)].iter().find(|(_, factor)| self.nano % factor == 0) {
                Some((suffix, factor)) => write!(f, "{}{suffix}", self.nano / factor),
                None => write!(f, "{}n", self.nano),
            };
        }
        match DECIMAL.iter().map(|(suffix, ten)| (suffix, 10_i128.pow(*ten))).find(|(_, factor)| units != 0 && units % factor == 0) {
            Some((suffix, factor)) => write!(f, "{}{suffix}", units / factor),
            None => write!(f, "{units}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_as_the_api_server_writes_it() {
        for (text, canonical) in [
            ("0", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("2000000", "2M"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("0.0001", "100u"),
            ("8Gi", "8Gi"),
            ("500", "500"),
            ("0.1Mi", "104858"),
            ("007", "7"),
            ("100k", "100k"),
            ("1.", "1"),
        ] {
            assert_eq!(Amount::parse(text).unwrap().to_string(), canonical, "{text}");
        }
        for bad in ["", "x", "1x", "1.2.3", "-1", "1e3", "99999999999999999999999999999999999999999", ".", "1 Gi"] {
            assert!(Amount::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same(n in 0..10_000_000_000_u64, suffix in prop::sample::select(vec!["", "m", "k", "M", "Ki", "Mi", "Gi"])) {
            let amount = Amount::parse(&format!("{n}{suffix}")).unwrap();
            let again = Amount::parse(&amount.to_string()).unwrap();
            prop_assert_eq!(amount, again);
            prop_assert_eq!(amount.to_string(), again.to_string());
        }

        #[test]
        fn order_and_sums_agree(a in 0..1_000_000_u64, b in 0..1_000_000_u64) {
            let (x, y) = (Amount::parse(&format!("{a}m")).unwrap(), Amount::parse(&format!("{b}m")).unwrap());
            prop_assert_eq!(x < y, a < b);
            prop_assert_eq!(x + y, Amount::parse(&format!("{}m", a + b)).unwrap());
            prop_assert_eq!((x + y).saturating_sub(y), x);
        }
    }
}
