//! What the parser of expressions says, for people: what is missing or too much at that place, and what to write instead. It reads the text around the
//! place and never parses; where it knows nothing better, it says what cannot be read there.

/// Example of a whole expression.
const EXAMPLE: &str = "state what must hold, such as `args.amount <= 500`";

/// Says what is wrong at a place of a text, given as bytes from its beginning. `said` are the parser's words.
pub fn explain(text: &str, at: usize, said: &str) -> String {
    let at = text.floor_char_boundary(at.min(text.len()));
    let (before, after) = text.split_at(at);
    if text.trim().is_empty() {
        return format!("an expression is missing: {EXAMPLE}");
    }
    let (last, next) = (last_word(before), first_word(after));
    if let Some(word) = said.strip_prefix("reserved identifier: ") {
        return match word {
            "if" | "else" => "CEL has no `if`: write `condition ? one : other`".to_owned(),
            word => format!("`{word}` is a reserved word of CEL; as a name in a map it is written ['{word}']"),
        };
    }
    if said.contains("_?_:_") {
        return "`?` needs both sides: write `condition ? one : other`".to_owned();
    }
    // of macros, in words of its own
    if !said.starts_with("Syntax error") && !said.starts_with("Incomplete") {
        return said.to_owned();
    }
    // it begins where it cannot go on, which may be in the middle of what was meant as one operator
    if said.contains("token recognition error") {
        return unreadable(before, after);
    }
    word_operator(last).or_else(|| word_operator(next)).unwrap_or_else(|| misplaced(text, before, last, next, said))
}

/// A character that no part of an expression begins with.
fn unreadable(before: &str, after: &str) -> String {
    let doubled = |c: char| before.trim_end().ends_with(c);
    match after.chars().next() {
        Some('=') if doubled('=') => "`===` is no operator: compare with `==`".to_owned(),
        Some('=') if after.starts_with("=>") => "`=>` is no operator: a loop is written `list.all(x, x > 0)`, at least is `>=`".to_owned(),
        Some('=') => "`=` is no operator: compare with `==`; an expression changes nothing".to_owned(),
        Some('&') => "`&` is no operator: \"and\" is written `&&`".to_owned(),
        Some('|') => "`|` is no operator: \"or\" is written `||`".to_owned(),
        Some('\'' | '"') => "a string is not closed: the quote at its end is missing".to_owned(),
        Some('\\') => "`\\` stands in strings only".to_owned(),
        Some(c) => format!("`{c}` means nothing in an expression"),
        None => "the expression ends in the middle of a word".to_owned(),
    }
}

/// Words that other languages have for operators.
fn word_operator(word: &str) -> Option<String> {
    let operator = match word.to_ascii_lowercase().as_str() {
        "and" => "&&",
        "or" => "||",
        "not" => "!",
        "is" | "equals" | "eq" => "==",
        "then" | "else" => return Some("CEL has no `then` and `else`: write `condition ? one : other`".to_owned()),
        _ => return None,
    };
    Some(format!("`{word}` is no operator: write `{operator}`"))
}

/// Something is missing or too much between two words.
fn misplaced(text: &str, before: &str, last: &str, next: &str, said: &str) -> String {
    let open = open_bracket(before);
    let closes = matches!(next, ")" | "]" | "}");
    let pair = |c: char| match c {
        '(' => ')',
        '[' => ']',
        _ => '}',
    };
    let wants_value = operator(last) || last.is_empty() || matches!(last, "(" | "[" | "{" | "," | "?" | ":" | "!");
    if wants_value && !(closes && open.is_some() && matches!(last, "(" | "[" | "{")) {
        let what = if last == "." { "the name of a field or function" } else { "an expression" };
        let where_ = if last.is_empty() { format!("before `{next}`") } else { format!("after `{last}`") };
        return format!("{what} is expected {where_}{}", found(next));
    }
    match open {
        Some((at, bracket)) if next.is_empty() => {
            format!("`{}` is missing: the `{bracket}` {} is never closed", pair(bracket), place(text, at))
        }
        Some((at, bracket)) if closes && !next.starts_with(pair(bracket)) => {
            format!("`{}` is expected, as the `{bracket}` {} is still open{}", pair(bracket), place(text, at), found(next))
        }
        None if closes => format!("`{next}` is too much: no bracket is open here"),
        _ if next.is_empty() => format!("the expression is not complete after `{last}`"),
        _ if said.contains("expecting") || said.contains("viable") => {
            format!("an operator is expected between `{last}` and `{next}`, such as `&&` or `==`")
        }
        _ => format!("`{next}` cannot be read here"),
    }
}

fn found(next: &str) -> String {
    if next.is_empty() { ", but the text ends there".to_owned() } else { format!(", not `{next}`") }
}

/// The place of a byte, for people.
fn place(text: &str, at: usize) -> String {
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    if text.contains('\n') { format!("at line {line} column {column}") } else { format!("at column {column}") }
}

/// The innermost bracket that is open at the end of a text, outside of strings.
fn open_bracket(text: &str) -> Option<(usize, char)> {
    let mut open = Vec::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[' | '{') => open.push((at, c)),
            (None, ')' | ']' | '}') => drop(open.pop()),
            _ => {}
        }
    }
    open.pop()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether something must follow it.
fn operator(word: &str) -> bool {
    matches!(word, "&&" | "||" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "+" | "-" | "*" | "/" | "%" | "." | "in")
}

/// The first word, operator or other character of a text.
fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    let mut chars = text.chars();
    match chars.next() {
        None => "",
        Some(c) if is_word(c) => &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())],
        Some(quote @ ('\'' | '"')) => text.get(1..).and_then(|rest| rest.find(quote)).map_or(text, |end| &text[..end + 2]),
        Some(c) => {
            let two = c.len_utf8() + chars.next().map_or(0, char::len_utf8);
            if operator(&text[..two]) { &text[..two] } else { &text[..c.len_utf8()] }
        }
    }
}

/// The last one.
fn last_word(text: &str) -> &str {
    let text = text.trim_end();
    let Some(c) = text.chars().next_back() else { return "" };
    let one = text.len() - c.len_utf8();
    if is_word(c) {
        return &text[text.rfind(|c| !is_word(c)).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8))..];
    }
    if matches!(c, '\'' | '"') {
        return &text[text[..one].rfind(c).unwrap_or(0)..];
    }
    let two = text[..one].char_indices().next_back().map_or(one, |(at, _)| at);
    if operator(&text[two..]) { &text[two..] } else { &text[one..] }
}

#[cfg(test)]
mod tests {
    use crate::cel::program::parse;

    #[test]
    fn mistakes_are_named_with_their_place_and_what_to_write() {
        for (text, column, wanted) in [
            ("args.amount <= 5 &&", 20, "an expression is expected after `&&`, but the text ends there"),
            ("args.amount <=", 15, "an expression is expected after `<=`, but the text ends there"),
            ("", 1, "an expression is missing: state what must hold"),
            ("args.amount = 5", 13, "`=` is no operator: compare with `==`"),
            ("args.amount === 5", 15, "`===` is no operator: compare with `==`"),
            ("args.a > 1 & args.a < 5", 12, "`&` is no operator: \"and\" is written `&&`"),
            ("args.a > 1 | args.a < 5", 12, "`|` is no operator: \"or\" is written `||`"),
            ("args.amount > 1 and args.amount < 5", 17, "`and` is no operator: write `&&`"),
            ("args.amount > 1 OR args.amount < 5", 17, "`OR` is no operator: write `||`"),
            ("not args.amount > 5", 5, "`not` is no operator: write `!`"),
            ("agent.name is 'x'", 12, "`is` is no operator: write `==`"),
            ("(args.amount > 1", 17, "`)` is missing: the `(` at column 1 is never closed"),
            ("args.amount > 5)", 16, "`)` is too much: no bracket is open here"),
            ("args.list.all(x, x > (2]", 24, "`)` is expected, as the `(` at column 22 is still open, not `]`"),
            ("args.amount in [1,,2]", 19, "an expression is expected after `,`, not `,`"),
            ("agent.name == 'x", 15, "a string is not closed"),
            ("[1].all(x => x > 0)", 11, "`=>` is no operator: a loop is written `list.all(x, x > 0)`"),
            ("args.amount > 5 ? true", 1, "`?` needs both sides: write `condition ? one : other`"),
            ("if args.amount > 5 then false", 1, "CEL has no `if`: write `condition ? one : other`"),
            ("$args.amount > 5", 1, "`$` means nothing in an expression"),
            ("args. > 5", 7, "the name of a field or function is expected after `.`, not `>`"),
            ("args.amount 5", 13, "an operator is expected between `amount` and `5`, such as `&&` or `==`"),
            ("agent.name == 'a' 'b'", 19, "an operator is expected between `'a'` and `'b'`"),
            ("> 5", 1, "an expression is expected before `>`"),
            ("args.a.startsWith('x' +)", 24, "an expression is expected after `+`, not `)`"),
        ] {
            let fault = parse(text).expect_err(text);
            assert!(fault.message.starts_with("not a CEL expression: ") && fault.message.contains(wanted), "{text}: {fault:?}");
            assert_eq!((fault.line, fault.column), (1, column), "{text}: {fault:?}");
        }
        let fault = parse("args.a > 1 &&\n(args.b > 2\n").unwrap_err();
        assert!(fault.message.contains("the `(` at line 2 column 1 is never closed"), "{fault:?}");
    }

    /// Whatever is written, the parser's list of tokens is never what people get.
    #[test]
    fn no_list_of_tokens_is_shown() {
        let pieces =
            ["args.amount", "<=", "5", "&&", "(", ")", "[", "]", "{", "}", ",", "'x'", "\"", "ü", ".", "?", ":", "!", "and", "=", "\n"];
        let mut seed = 7_u64;
        for _ in 0..3000 {
            let mut text = String::new();
            for _ in 0..6 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text += pieces[usize::try_from(seed >> 33).unwrap() % pieces.len()];
                text += " ";
            }
            let Err(fault) = parse(&text) else { continue };
            for word in ["expecting", "IDENTIFIER", "EOF", "NUM_", "viable", "mismatched", "extraneous", "token"] {
                assert!(!fault.message.contains(word), "{text:?}: {fault:?}");
            }
        }
    }
}
