//! What a misspelt name probably meant, and what there is.

/// Most names that a message lists.
const MAX_LISTED: usize = 12;

/// Number of single-character edits between two names; swapping two neighbours counts as one. Long names are cut.
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// The nearest name, if it is near enough to be a slip.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let limit = 1 + name.chars().count() / 3;
    let near = names.into_iter().map(|n| (distance(&lower, &n.to_lowercase()), n)).min();
    near.filter(|(d, _)| *d <= limit).map(|(_, n)| n)
}

/// What functions of other languages are called in CEL.
pub fn in_cel(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "len" | "length" | "count" | "strlen" => "size(x)",
        "lower" | "tolower" | "tolowercase" | "lowercase" => "x.lowerAscii()",
        "upper" | "toupper" | "touppercase" | "uppercase" => "x.upperAscii()",
        "includes" | "in_list" | "inlist" => "element in list, or text.contains(part)",
        "match" | "test" | "regex" | "regexmatch" | "re_match" => "text.matches('pattern')",
        "any" | "some" | "anymatch" => "list.exists(x, condition)",
        "every" | "forall" | "allmatch" => "list.all(x, condition)",
        "float" | "parsefloat" => "double(x)",
        "str" | "tostring" => "string(x)",
        "parseint" | "toint" => "int(x)",
        "defined" | "exists_field" | "isset" | "haskey" | "contains_key" | "containskey" => "has(args.field)",
        "now" | "time" | "date" => "the variable now, or timestamp('2026-01-31T00:00:00Z')",
        "not" => "!",
        _ => return None,
    })
}

/// `did you mean X? There are: …`.
pub fn among<'a>(what: &str, name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let list = if names.is_empty() {
        format!("there are no {what}")
    } else {
        let more = if names.len() > MAX_LISTED { ", …" } else { "" };
        format!("there are: {}{more}", names.iter().take(MAX_LISTED).copied().collect::<Vec<_>>().join(", "))
    };
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? T{}", list.trim_start_matches('t')),
        None => list,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_only_slips() {
        let names = ["amount", "currency", "to"];
        for (name, want) in
            [("amuont", Some("amount")), ("curency", Some("currency")), ("Amount", Some("amount")), ("x", None), ("zzzzzz", None)]
        {
            assert_eq!(nearest(name, names), want, "{name}");
        }
        assert_eq!(among("fields", "amuont", names), "did you mean `amount`? There are: amount, currency, to");
        assert_eq!(among("fields", "x", []), "there are no fields");
    }
}
