//! Lines that differ, as people read them. Pure.

/// Lines beyond which no common lines are looked for in the middle.
const MOST: usize = 2000;

/// `old` and `new` line by line: `- ` gone, `+ ` come, `  ` the same.
pub fn lines(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut out: Vec<String> = old[..head].iter().map(|l| format!("  {l}")).collect();
    out.extend(middle(a, b));
    out.extend(old[old.len() - tail..].iter().map(|l| format!("  {l}")));
    out
}

/// The longest common subsequence, by the table of its lengths.
fn middle(a: &[&str], b: &[&str]) -> Vec<String> {
    let gone = |l: &&str| format!("- {l}");
    let come = |l: &&str| format!("+ {l}");
    if a.len() > MOST || b.len() > MOST {
        return a.iter().map(gone).chain(b.iter().map(come)).collect();
    }
    let width = b.len() + 1;
    let mut longest = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i] == b[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(format!("  {}", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
            out.push(gone(&a[i]));
            i += 1;
        } else {
            out.push(come(&b[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_went() {
        assert_eq!(lines("a\nb\nc\nd\ne", "a\nx\nc\ny\ne"), ["  a", "- b", "+ x", "  c", "- d", "+ y", "  e"]);
        assert_eq!(lines("", "a"), ["+ a"]);
        assert_eq!(lines("a\na", "a"), ["  a", "- a"]);
        assert_eq!(lines("a", "a"), ["  a"]);
    }
}
