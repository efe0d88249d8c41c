//! Names that look like each other. Pure. Two names look alike when their skeletons (Unicode Technical Standard 39, section 4) do,
//! without regard to case and to what separates words.

use unicode_security::skeleton;

/// What a name looks like.
fn looks(name: &str) -> String {
    let lower = name.to_lowercase();
    let seen: String = skeleton(&lower).filter(|c| !matches!(c, '-' | '_' | '.' | '/' | ' ' | '\u{2010}'..='\u{2015}')).collect();
    seen.to_lowercase()
}

/// The first of `others` that is another name than `name` and looks like it.
pub fn look_alike<'a>(name: &str, others: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let own = looks(name);
    others.into_iter().find(|other| *other != name && looks(other) == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_can_be_mistaken() {
        for (one, other) in [
            ("paypal", "paypa1"),
            ("send-mail", "send_mail"),
            ("sendMail", "send-mail"),
            ("transfer", "tran\u{455}fer"),
            ("modern", "modem"),
            ("log0", "logo"),
            ("Send", "send"),
        ] {
            assert_eq!(look_alike(one, ["a", other]), Some(other), "{one} {other}");
            assert_eq!(look_alike(other, [one]), Some(one), "{other} {one}");
        }
        for (one, other) in [("send", "send"), ("mail-send", "send-mail"), ("send", "sent"), ("pay1", "pay2")] {
            assert_eq!(look_alike(one, [other]), None, "{one} {other}");
        }
    }
}
