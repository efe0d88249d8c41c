//! Warnings of the API server, shown as kubectl shows them: who will be asked, what is advised against.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Response, header::WARNING};

/// The warnings heard so far.
#[derive(Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Shows the warnings of a response on standard error, keeps them, and hands the response on.
    pub fn show<B>(&self, response: Response<B>) -> Response<B> {
        for value in response.headers().get_all(WARNING) {
            if let Some(text) = value.to_str().ok().and_then(text) {
                // With nobody to read it there is nothing left to say.
                let _ = writeln!(std::io::stderr(), "Warning: {text}");
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        }
        response
    }

    /// All of them, in the order of arrival.
    pub fn heard(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The text of `299 - "text"`, with its escapes undone.
fn text(value: &str) -> Option<String> {
    let quoted = value.strip_prefix("299 ")?.split_once('"')?.1;
    let mut text = String::new();
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => text.push(rest.next()?),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_what_the_api_server_writes() {
        assert_eq!(super::text(r#"299 - "rule a/b/c: \"x\" is \\ odd""#).as_deref(), Some(r#"rule a/b/c: "x" is \ odd"#));
        for bad in ["", "199 - \"x\"", "299 - x", "299 - \"x"] {
            assert_eq!(super::text(bad), None, "{bad}");
        }
    }
}
