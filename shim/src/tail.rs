//! Keeps the end of a stream: what is shown of a failed tool. Memory is bounded whatever the tool writes.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::mask::Masks;

/// The last bytes of a stream, and before them enough to mask a secret that the cut goes through.
#[derive(Debug)]
pub struct Tail {
    bytes: VecDeque<u8>,
    keep: usize,
    before: usize,
    cut: bool,
}

impl Tail {
    /// Keeps `keep` bytes, and `before` more for masking.
    pub fn new(keep: usize, before: usize) -> Self {
        Self { bytes: VecDeque::new(), keep, before, cut: false }
    }

    /// Adds what was read.
    pub fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend(chunk);
        let over = self.bytes.len().saturating_sub(self.keep + self.before);
        if over > 0 {
            self.bytes.drain(..over);
            self.cut = true;
        }
    }

    /// Reads a stream to its end. A read error is an end: the command is gone then.
    pub async fn read(&mut self, mut stream: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; 8192];
        while let Ok(n) = stream.read(&mut chunk).await {
            if n == 0 {
                break;
            }
            self.push(chunk.get(..n).unwrap_or_default());
        }
    }

    /// The masked text, at most `keep` bytes of it.
    pub fn text(mut self, masks: &Masks) -> String {
        let from = if self.cut { self.before.min(self.bytes.len()) } else { 0 };
        let masked = masks.apply(self.bytes.make_contiguous(), from);
        let end = masked.get(masked.len().saturating_sub(self.keep)..).unwrap_or_default();
        String::from_utf8_lossy(end).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end_and_masks_across_the_cut() {
        let mut masks = Masks::default();
        masks.add(b"SECRETVALUE");
        let mut tail = Tail::new(16, masks.longest());
        for byte in b"noise noise noise SECRETVALUE and the end" {
            tail.push(&[*byte]);
        }
        assert_eq!(tail.text(&masks), "*** and the end");
    }

    #[test]
    fn keeps_all_of_a_short_stream() {
        let masks = Masks::default();
        let mut tail = Tail::new(16, 0);
        tail.push(b"short");
        assert_eq!(tail.text(&masks), "short");
    }
}
