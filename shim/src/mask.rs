//! Masks the values of a tool's secrets in text that leaves the Pod: each file below the secrets directory, whole and line by
//! line, as it is and in base64 (any alignment, so also inside a longer encoded text). Values under four bytes are not masked:
//! they would mask half of any text. It cannot know other encodings, so a tool that wants to leak its own secret can.

use std::{fs, path::Path};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What a masked stretch becomes.
const MASK: &[u8] = b"***";
/// Shorter values are left alone.
const SHORTEST: usize = 4;
/// Longer values are masked line by line only.
const LONGEST: usize = 64 * 1024;
/// Encoded forms shorter than this would match by accident.
const SHORTEST_ENCODED: usize = 6;

/// The byte strings to mask.
#[derive(Debug, Default)]
pub struct Masks {
    patterns: Vec<Vec<u8>>,
}

impl Masks {
    /// Reads every file below `directory`. An absent directory means no secrets; an unreadable file is an error, since its value could not be masked.
    pub fn read(directory: &Path) -> std::io::Result<Self> {
        let mut masks = Self::default();
        if directory.exists() {
            masks.walk(directory)?;
        }
        masks.patterns.sort();
        masks.patterns.dedup();
        Ok(masks)
    }

    /// Walks one directory. Names starting with `..` are the kubelet's own (`..data`): the visible names link to them.
    fn walk(&mut self, directory: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("..") {
                continue;
            }
            let path = entry.path();
            if fs::metadata(&path)?.is_dir() {
                self.walk(&path)?;
            } else {
                self.add(&fs::read(&path)?);
            }
        }
        Ok(())
    }

    /// Adds a secret's value in every form.
    pub fn add(&mut self, value: &[u8]) {
        self.add_one(value);
        self.add_one(value.trim_ascii());
        for line in value.split(|b| *b == b'\n') {
            self.add_one(line.trim_ascii());
        }
    }

    fn add_one(&mut self, value: &[u8]) {
        if !(SHORTEST..=LONGEST).contains(&value.len()) {
            return;
        }
        self.patterns.push(value.to_vec());
        for shift in 0..3 {
            // Encoded behind `shift` unknown bytes: the first characters mix with what stands before, the last one with what follows.
            let shifted = [vec![0; shift], value.to_vec()].concat();
            let skip = [0, 2, 3][shift];
            let keep = shifted.len() / 3 * 4;
            for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
                if shift == 0 {
                    self.add_encoded(text.as_bytes());
                }
                self.add_encoded(text.as_bytes().get(skip..keep).unwrap_or_default());
            }
        }
    }

    fn add_encoded(&mut self, text: &[u8]) {
        if text.len() >= SHORTEST_ENCODED {
            self.patterns.push(text.to_vec());
        }
    }

    /// Length of the longest pattern: how much text before a cut must be known to mask what the cut goes through.
    pub fn longest(&self) -> usize {
        self.patterns.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The text from `from` on with every occurrence masked; one that begins before `from` is masked too.
    pub fn apply(&self, text: &[u8], from: usize) -> Vec<u8> {
        let mut secret = vec![false; text.len()];
        for pattern in &self.patterns {
            let Some(first) = pattern.first() else { continue };
            for at in 0..(text.len() + 1).saturating_sub(pattern.len()) {
                if text.get(at) == Some(first) && text.get(at..at + pattern.len()) == Some(pattern) {
                    secret.iter_mut().skip(at).take(pattern.len()).for_each(|s| *s = true);
                }
            }
        }
        let mut out = Vec::with_capacity(text.len() - from.min(text.len()));
        let mut inside = false;
        for (byte, hidden) in text.iter().zip(&secret).skip(from) {
            if !hidden {
                out.push(*byte);
            } else if !inside {
                out.extend_from_slice(MASK);
            }
            inside = *hidden;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(value: &str) -> Masks {
        let mut masks = Masks::default();
        masks.add(value.as_bytes());
        masks
    }

    fn masked(masks: &Masks, text: &str) -> String {
        String::from_utf8(masks.apply(text.as_bytes(), 0)).unwrap()
    }

    #[test]
    fn hides_plain_lines_and_base64_at_every_alignment() {
        let m = masks("hunter2-secret\n");
        assert_eq!(masked(&m, "key=hunter2-secret!"), "key=***!");
        for user in ["", "a", "ab", "abc", "abcd"] {
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:hunter2-secret:tail"));
            let seen = masked(&m, &basic);
            assert!(seen.contains("***") && seen.len() + 12 < basic.len(), "{user}: {seen}");
        }
        let pem = masks("-----BEGIN-----\nAAAABBBB\nCCCCDDDD\n-----END-----\n");
        assert_eq!(masked(&pem, "bad key CCCCDDDD"), "bad key ***");
    }

    #[test]
    fn leaves_short_values_and_other_text_alone() {
        assert_eq!(masked(&masks("abc"), "abc abc"), "abc abc");
        assert_eq!(masked(&masks("abcd"), "nothing here"), "nothing here");
    }

    #[test]
    fn a_cut_through_a_secret_shows_no_part_of_it() {
        let m = masks("0123456789");
        assert_eq!(m.apply(b"xx0123456789yy", 5), b"***yy");
        assert_eq!(m.apply(b"0123456789", 10), b"");
    }

    #[test]
    fn overlapping_occurrences_are_one_stretch() {
        assert_eq!(masked(&masks("abab"), "xabababx"), "x***x");
    }

    #[test]
    fn reads_files_behind_links_as_the_kubelet_makes_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("db/..2026")).unwrap();
        fs::write(dir.path().join("db/..2026/password"), "correct-horse").unwrap();
        std::os::unix::fs::symlink("..2026", dir.path().join("db/..data")).unwrap();
        std::os::unix::fs::symlink("..data/password", dir.path().join("db/password")).unwrap();
        let m = Masks::read(dir.path()).unwrap();
        assert_eq!(masked(&m, "pw correct-horse"), "pw ***");
        assert_eq!(Masks::read(&dir.path().join("absent")).unwrap().longest(), 0);
    }
}
