//! Name patterns: `*` is any run of characters, `?` any one; everything else is itself. Linear in memory, never exponential.

/// Whether a name fits a pattern.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut i, mut j) = (0, 0);
    // where the last star was, and how much of the name it has taken
    let mut star: Option<(usize, usize)> = None;
    while j < n.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(&c) if c == '?' || c == n[j] => {
                i += 1;
                j += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    i = at + 1;
                    j = taken + 1;
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn table() {
        for (pattern, name, want) in [
            ("*", "", true),
            ("*", "payments", true),
            ("payments-*", "payments-eu", true),
            ("payments-*", "payments", false),
            ("pay?", "pays", true),
            ("pay?", "pay", false),
            ("*-eu-*", "a-eu-b-eu-c", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("[a]", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(60), &"b".repeat(250)));
    }
}
