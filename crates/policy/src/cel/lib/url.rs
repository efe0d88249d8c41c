//! URLs as the API server reads them: absolute, or an absolute path. Nothing is normalised but the case of the scheme, so that a rule sees what a client that
//! uses the text would use. What is unusual enough for two readers to disagree is refused.

/// A URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    user: Option<String>,
    /// With its port, unescaped.
    host: String,
    path: String,
    /// What follows a scheme without `/`.
    opaque: String,
    query: Option<String>,
}

/// What stands where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Host,
    Path,
}

impl Url {
    /// Reads a text. There is no fragment: `#` belongs to the path or the query, as in a request.
    pub fn read(text: &str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return None;
        }
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query.to_owned())));
        let mut url = Self { scheme, user: None, host: String::new(), path: String::new(), opaque: String::new(), query };
        if !rest.starts_with('/') {
            if url.scheme.is_empty() && rest != "*" {
                return None;
            }
            let whole = if url.scheme.is_empty() { &mut url.path } else { &mut url.opaque };
            rest.clone_into(whole);
            return Some(url);
        }
        let path = match rest.strip_prefix("//") {
            Some(rest) if !url.scheme.is_empty() => {
                let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
                url.authority(authority)?;
                path
            }
            _ => rest,
        };
        unescape(path, false)?;
        url.path = if path.chars().all(in_path) { path.to_owned() } else { escaped(path)? };
        Some(url)
    }

    fn authority(&mut self, text: &str) -> Option<()> {
        let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user), host));
        if let Some(user) = user {
            let known = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%".contains(c);
            if !user.chars().all(known) {
                return None;
            }
            unescape(user, false)?;
            self.user = Some(user.to_owned());
        }
        let (name, port) = match host.strip_prefix('[') {
            Some(inner) => {
                let (inner, port) = inner.split_once(']')?;
                inner.parse::<std::net::Ipv6Addr>().ok()?;
                (inner, port)
            }
            None => {
                let (name, port) = host.find(':').map_or((host, ""), |at| host.split_at(at));
                if !name.chars().all(|c| allowed(c, Part::Host)) {
                    return None;
                }
                (name, port)
            }
        };
        let digits = port.strip_prefix(':').unwrap_or(port);
        if !digits.bytes().all(|b| b.is_ascii_digit()) || (!port.is_empty() && !port.starts_with(':')) {
            return None;
        }
        // only bytes that no text of ASCII has may be escaped in a host
        let name_unescaped = unescape(name, true)?;
        self.host = if host.starts_with('[') { host.to_owned() } else { name_unescaped + port };
        Some(())
    }

    /// The scheme in lower case; empty: none.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host with its port, if it has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host without port and brackets.
    pub fn hostname(&self) -> &str {
        match self.host.strip_prefix('[') {
            Some(inner) => inner.split_once(']').map_or(inner, |(inner, _)| inner),
            None => self.host.split_once(':').map_or(&*self.host, |(name, _)| name),
        }
    }

    /// The port; empty: none.
    pub fn port(&self) -> &str {
        let after = self.host.rsplit_once(']').map_or(&*self.host, |(_, port)| port);
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }

    /// The path as it is escaped.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes of all its parts.
    pub fn len(&self) -> usize {
        let parts = [&self.scheme, &self.host, &self.path, &self.opaque].map(String::len);
        parts.iter().sum::<usize>() + [&self.user, &self.query].iter().map(|part| part.as_ref().map_or(0, String::len)).sum::<usize>()
    }

    /// Number of pairs in the query.
    pub fn pairs(&self) -> usize {
        self.query.as_ref().map_or(0, |q| q.split('&').filter(|pair| !pair.is_empty()).count())
    }

    /// The query by name, in the order in which names first come. None: a part of it is not what everybody reads alike (`;`, a bad escape, no UTF-8).
    pub fn query(&self) -> Option<Vec<(String, Vec<String>)>> {
        let mut places = std::collections::HashMap::new();
        let mut out: Vec<(String, Vec<String>)> = Vec::new();
        for pair in self.query.iter().flat_map(|q| q.split('&')).filter(|pair| !pair.is_empty()) {
            if pair.contains(';') {
                return None;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plus = |s: &str| unescape(&s.replace('+', " "), false);
            let (name, value) = (plus(name)?, plus(value)?);
            let at = *places.entry(name.clone()).or_insert(out.len());
            match out.get_mut(at) {
                Some((_, values)) => values.push(value),
                None => out.push((name, vec![value])),
            }
        }
        Some(out)
    }
}

/// The scheme in lower case and what follows it. None: there is a colon and nothing before it.
fn scheme(text: &str) -> Option<(String, &str)> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return None,
            ':' => return Some((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Some((String::new(), text))
}

fn unreserved(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.~".contains(c)
}

/// Whether a character may stand in a part as it is.
fn allowed(c: char, part: Part) -> bool {
    match part {
        Part::Host => !c.is_ascii() || unreserved(c) || "!$&'()*+,;=%".contains(c),
        Part::Path => unreserved(c) || "$&+,/:;=@".contains(c),
    }
}

/// Whether a path with this character needs no escape: also what an escaped path leaves as it is.
fn in_path(c: char) -> bool {
    allowed(c, Part::Path) || "!'()*[]%".contains(c)
}

/// A path escaped anew.
fn escaped(path: &str) -> Option<String> {
    let mut out = String::new();
    for c in unescape(path, false)?.chars() {
        if allowed(c, Part::Path) {
            out.push(c);
        } else {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                out += &format!("%{byte:02X}");
            }
        }
    }
    Some(out)
}

/// Without its escapes. None: one is none, or what comes of it is no UTF-8; in a host also one of an ASCII character.
fn unescape(text: &str, host: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let value = u8::try_from(digit()? * 16 + digit()?).ok()?;
        if host && value < 0x80 {
            return None;
        }
        out.push(value);
    }
    String::from_utf8(out).ok()
}
