//! Reads the text form of protocol buffers as far as the published CEL cases use it. Knows no schema.

/// A value in the text form.
#[derive(Clone, Debug, PartialEq)]
pub enum Text {
    /// `{ name: value … }`, in order; a name may come again.
    Message(Vec<(String, Text)>),
    /// A quoted text.
    Quoted(String),
    /// A number or name.
    Word(String),
}

impl Text {
    /// All values of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Text> {
        let fields = if let Text::Message(fields) = self { fields.as_slice() } else { &[] };
        fields.iter().filter(move |(n, _)| n == name).map(|(_, v)| v)
    }

    /// The first value of a field.
    pub fn field<'a>(&'a self, name: &'a str) -> Option<&'a Text> {
        self.all(name).next()
    }

    /// The text of a field.
    pub fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        match self.field(name)? {
            Text::Quoted(s) | Text::Word(s) => Some(s),
            Text::Message(_) => None,
        }
    }
}

/// Reads a file.
///
/// # Errors
/// It is not in the text form, with the place in characters.
pub fn read(text: &str) -> Result<Text, String> {
    let mut reader = Reader { chars: text.chars().collect(), at: 0 };
    let fields = reader.fields(None)?;
    Ok(Text::Message(fields))
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    /// The next character that is no space, comment or separator.
    fn peek(&mut self) -> Option<char> {
        while let Some(c) = self.chars.get(self.at) {
            match c {
                '#' => self.at += self.chars[self.at..].iter().take_while(|c| **c != '\n').count(),
                c if c.is_whitespace() || *c == ',' || *c == ';' => self.at += 1,
                c => return Some(*c),
            }
        }
        None
    }

    fn fields(&mut self, end: Option<char>) -> Result<Vec<(String, Text)>, String> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                found if found == end => {
                    self.at += 1;
                    return Ok(out);
                }
                None => return Err(format!("ends before {end:?}")),
                Some('[') => {
                    let name: String = self.chars[self.at..].iter().take_while(|c| **c != ']').chain(&[']']).collect();
                    self.at += name.chars().count();
                    self.values(&name, &mut out)?;
                }
                Some(_) => {
                    let name = self.word()?;
                    self.values(&name, &mut out)?;
                }
            }
        }
    }

    fn word(&mut self) -> Result<String, String> {
        let word: String = self.chars[self.at..].iter().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.')).collect();
        self.at += word.chars().count();
        if word.is_empty() { Err(format!("a name or value is missing at {}", self.at)) } else { Ok(word) }
    }

    fn values(&mut self, name: &str, out: &mut Vec<(String, Text)>) -> Result<(), String> {
        if self.peek() == Some(':') {
            self.at += 1;
        }
        if self.peek() == Some('[') {
            self.at += 1;
            while self.peek() != Some(']') {
                let value = self.value()?;
                out.push((name.to_owned(), value));
            }
            self.at += 1;
        } else {
            let value = self.value()?;
            out.push((name.to_owned(), value));
        }
        Ok(())
    }

    fn value(&mut self) -> Result<Text, String> {
        match self.peek() {
            Some('{') => {
                self.at += 1;
                Ok(Text::Message(self.fields(Some('}'))?))
            }
            Some('"' | '\'') => {
                let mut bytes = Vec::new();
                while let Some(quote @ ('"' | '\'')) = self.peek() {
                    self.at += 1;
                    self.quoted(quote, &mut bytes)?;
                }
                Ok(Text::Quoted(String::from_utf8_lossy(&bytes).into_owned()))
            }
            _ => self.word().map(Text::Word),
        }
    }

    fn quoted(&mut self, quote: char, out: &mut Vec<u8>) -> Result<(), String> {
        while let Some(&c) = self.chars.get(self.at) {
            self.at += 1;
            if c == quote {
                return Ok(());
            }
            if c != '\\' {
                push(out, c);
                continue;
            }
            let escape = self.chars.get(self.at).copied().unwrap_or(quote);
            self.at += 1;
            match escape {
                'n' => push(out, '\n'),
                't' => push(out, '\t'),
                'r' => push(out, '\r'),
                'a' => push(out, '\x07'),
                'b' => push(out, '\x08'),
                'f' => push(out, '\x0c'),
                'v' => push(out, '\x0b'),
                'x' | 'X' => {
                    let n = self.digits(16, 2)?;
                    out.push(u8::try_from(n).unwrap_or_default());
                }
                'u' => push(out, char::from_u32(self.digits(16, 4)?).unwrap_or('\u{fffd}')),
                'U' => push(out, char::from_u32(self.digits(16, 8)?).unwrap_or('\u{fffd}')),
                '0'..='7' => {
                    self.at -= 1;
                    let n = self.digits(8, 3)?;
                    out.push(u8::try_from(n).unwrap_or_default());
                }
                other => push(out, other),
            }
        }
        Err("a text does not end".to_owned())
    }

    fn digits(&mut self, radix: u32, most: usize) -> Result<u32, String> {
        let digits: String = self.chars[self.at..].iter().take(most).take_while(|c| c.is_digit(radix)).collect();
        self.at += digits.len();
        u32::from_str_radix(&digits, radix).map_err(|e| format!("escape at {}: {e}", self.at))
    }
}

fn push(out: &mut Vec<u8>, c: char) {
    out.extend(c.encode_utf8(&mut [0; 4]).bytes());
}
