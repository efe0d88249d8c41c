//! Events out of a stream of bytes, as the HTML standard's "server-sent events" has it. Pure; keeps no more than it is allowed to.

/// Takes bytes, gives the data of each event of the default type.
#[derive(Debug)]
pub(super) struct Events {
    most: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    any: bool,
    other_type: bool,
    after_cr: bool,
    started: bool,
}

/// An event is larger than what is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Events {
    /// With events of at most so many bytes.
    pub fn new(most: usize) -> Self {
        Self { most, line: Vec::new(), data: Vec::new(), any: false, other_type: false, after_cr: false, started: false }
    }

    /// The data of each event that these bytes complete.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLarge> {
        let mut out = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    out.extend(self.end_of_line());
                }
                byte => {
                    self.after_cr = false;
                    if self.line.len() + self.data.len() >= self.most {
                        return Err(TooLarge);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(out)
    }

    fn end_of_line(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            let (any, other) = (std::mem::take(&mut self.any), std::mem::take(&mut self.other_type));
            let data = std::mem::take(&mut self.data);
            return (any && !other && !data.is_empty()).then_some(data);
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (&line[..], &b""[..]),
        };
        match field {
            b"data" => {
                if std::mem::replace(&mut self.any, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            b"event" => self.other_type = !value.is_empty() && value != b"message",
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&str]) -> Vec<String> {
        let mut events = Events::new(64);
        let found = pieces.iter().flat_map(|p| events.take(p.as_bytes()).unwrap());
        found.map(|d| String::from_utf8(d).unwrap()).collect()
    }

    #[test]
    fn events_come_out_however_they_are_cut_and_ended() {
        for ending in ["\n", "\r\n", "\r"] {
            let text = [
                "\u{feff}: hello",
                "",
                "id: 1",
                "data: a",
                "data:b",
                "",
                "event: ping",
                "data: no",
                "",
                "event: message",
                "data: c",
                "",
                "data",
                "",
                "data: open",
            ]
            .join(ending);
            assert_eq!(all(&[&text]), ["a\nb", "c"], "{ending:?}");
            let single: Vec<&str> = text.split_inclusive(|_| true).collect();
            assert_eq!(all(&single), ["a\nb", "c"], "{ending:?}");
        }
    }

    #[test]
    fn an_event_never_grows_beyond_its_bound() {
        let mut events = Events::new(64);
        assert!(events.take("x".repeat(65).as_bytes()).is_err());
        let mut events = Events::new(64);
        let line = format!("data: {}\n", "x".repeat(40));
        assert!(events.take(line.as_bytes()).is_ok());
        assert!(events.take(line.as_bytes()).is_err());
        // comments are not kept
        let mut events = Events::new(64);
        for _ in 0..100 {
            events.take(b": still there\n").unwrap();
        }
    }
}
