//! Random changes of inputs, and the shortening of one that fails. No clock, no randomness but what it is given.

/// Random numbers from a seed (splitmix64 of Steele, Lea and Flood).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below another; 0 below 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or_default()
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> Option<&'a T> {
        let at = self.below(all.len());
        all.get(at).copied()
    }
}

/// Numbers at which something often ends.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "255",
    "65536",
    "2147483648",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "0.1",
    "1e308",
];

/// An input of the pool, changed a few times.
pub fn changed(pool: &[Vec<u8>], words: &[&str], random: &mut Random, most: usize) -> Vec<u8> {
    // what was new lately is changed more often
    let recent = pool.len().saturating_sub(16);
    let at = if random.below(3) == 0 { recent + random.below(pool.len() - recent) } else { random.below(pool.len()) };
    let mut input = pool.get(at).cloned().unwrap_or_default();
    // mostly one change: each may make it useless
    for _ in 0..=random.below(2) * random.below(4) {
        change(&mut input, pool, words, random);
    }
    input.truncate(most);
    input
}

fn change(input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let (begin, end) = range(input, random);
    match random.below(16) {
        0 => {
            if let Some(byte) = input.get_mut(begin) {
                *byte = b' ' + u8::try_from(random.below(95)).unwrap_or_default();
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(begin) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            input.drain(begin..end);
        }
        3 => {
            let again = input.get(begin..end).unwrap_or_default().to_vec();
            input.splice(end..end, again);
        }
        4 => {
            let other = pool.get(random.below(pool.len())).cloned().unwrap_or_default();
            let (from, to) = range(&other, random);
            input.splice(begin..end, other.get(from..to).unwrap_or_default().iter().copied());
        }
        5 => {
            let number = random.of(&NUMBERS).unwrap_or_default();
            input.splice(token(input, begin), number.bytes());
        }
        6 | 7 => {
            // what is in brackets by what is in others
            let other = pool.get(random.below(pool.len())).cloned().unwrap_or_default();
            let from = group(&other, random.below(other.len() + 1));
            input.splice(group(input, begin), other.get(from).unwrap_or_default().iter().copied());
        }
        8..=11 => {
            let word = random.of(words).unwrap_or_default();
            input.splice(token(input, begin), word.bytes());
        }
        _ => {
            // behind a word, where an operator may stand
            let word = random.of(words).unwrap_or_default();
            let end = token(input, begin).end;
            input.splice(end..end, word.bytes());
        }
    }
}

/// A part of an input, mostly a short one.
fn range(input: &[u8], random: &mut Random) -> (usize, usize) {
    let begin = random.below(input.len() + 1);
    let longest = if random.below(4) == 0 { input.len() } else { 12 };
    (begin, (begin + random.below(longest + 1)).min(input.len()))
}

/// The word around a place.
fn token(input: &[u8], at: usize) -> std::ops::Range<usize> {
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'.';
    let begin = at - input.get(..at).unwrap_or_default().iter().rev().take_while(|b| word(b)).count();
    let end = at + input.get(at..).unwrap_or_default().iter().take_while(|b| word(b)).count();
    begin..end
}

/// What is in the nearest brackets that open at a place or after it, without them; nothing where there are none.
fn group(input: &[u8], at: usize) -> std::ops::Range<usize> {
    let rest = input.get(at..).unwrap_or_default();
    let Some(open) = rest.iter().position(|b| matches!(b, b'(' | b'[' | b'{')) else { return at..at };
    let mut depth = 0_usize;
    for (i, byte) in rest.iter().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + open + 1..at + i;
        }
    }
    at..at
}

/// The shortest input that was found to fail still, by leaving out parts of half its length, a quarter, and so on.
pub fn shortened(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut input = input.to_vec();
    let mut size = input.len().div_ceil(2);
    while size > 0 {
        let (before, mut at) = (input.len(), 0);
        while at < input.len() {
            let mut without = input.clone();
            without.drain(at..(at + size).min(input.len()));
            if fails(&without) {
                input = without;
            } else {
                at += size;
            }
        }
        if size == 1 && input.len() == before {
            break;
        }
        size = if size == 1 { 1 } else { size / 2 };
    }
    input
}
