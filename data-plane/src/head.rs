//! Looks at the raw bytes of a request head for what makes its framing ambiguous (RFC 9112 §6.3, §11.2), since the HTTP library
//! removes the evidence: both lengths, a length that stands twice, lines that end with LF only.
//!
//! Invariants: linear in the bytes of the head, however they are cut into reads; keeps at most one line of at most
//! [`LINE_MAX`] bytes.

use crate::spelling;

/// A longer line is not kept; the HTTP library refuses such a head.
const LINE_MAX: usize = 64 * 1024;

/// What the raw head of a request looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Head {
    /// It came together with an earlier request, so it was not looked at.
    #[default]
    Unseen,
    /// Nothing ambiguous.
    Plain,
    /// This is wrong with it.
    Ambiguous(&'static str),
}

/// Reads heads, one after the other.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    partial: Vec<u8>,
    lengths: u32,
    encodings: u32,
    lf_only: bool,
    lines: u32,
    seen: Head,
}

impl HeadReader {
    /// Takes bytes that arrived while a head was waited for; what follows the head is passed over.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        if self.seen != Head::Unseen {
            return;
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes.get(start..end).unwrap_or_default();
            start = end.saturating_add(1);
            let done = if self.partial.is_empty() {
                self.line(line)
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole)
            };
            if done {
                self.finish();
                return;
            }
        }
        let rest = bytes.get(start..).unwrap_or_default();
        if self.partial.len().saturating_add(rest.len()) <= LINE_MAX {
            self.partial.extend_from_slice(rest);
        }
    }

    /// What the head looked like that was read; the next bytes begin another.
    pub(crate) fn take(&mut self) -> Head {
        let seen = self.seen;
        *self = Self::default();
        seen
    }

    /// Whether the line, given without its LF, ends the head.
    fn line(&mut self, line: &[u8]) -> bool {
        let Some((b'\r', line)) = line.split_last() else {
            self.lf_only = true;
            let done = line.is_empty() && self.lines > 0;
            self.lines = self.lines.saturating_add(u32::from(!line.is_empty()));
            return done;
        };
        match line.first() {
            // An empty line before the request line is passed over (RFC 9112 §2.2).
            None => return self.lines > 0,
            Some(b'c' | b'C') if spelling::begins(line, b"content-length:") => {
                self.lengths = self.lengths.saturating_add(1);
            }
            Some(b't' | b'T') if spelling::begins(line, b"transfer-encoding:") => {
                self.encodings = self.encodings.saturating_add(1);
            }
            Some(_) => {}
        }
        self.lines = self.lines.saturating_add(1);
        false
    }

    fn finish(&mut self) {
        self.seen = match (self.lengths, self.encodings) {
            _ if self.lf_only => Head::Ambiguous("its lines must end with CR LF"),
            (2.., _) => Head::Ambiguous("it has more than one Content-Length"),
            (_, 2..) => Head::Ambiguous("it has more than one Transfer-Encoding"),
            (1, 1) => Head::Ambiguous("it has both Content-Length and Transfer-Encoding"),
            _ => Head::Plain,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    const VECTORS: [(&str, Head); 10] = [
        (
            "GET / HTTP/1.1\nHost: a\n\n",
            Head::Ambiguous("its lines must end with CR LF"),
        ),
        (PLAIN, Head::Plain),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Head::Plain),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Head::Plain,
        ),
        (
            "POST / HTTP/1.1\r\nTRANSFER-encoding: chunked\r\ncontent-LENGTH: 2\r\n\r\n",
            Head::Ambiguous("it has both Content-Length and Transfer-Encoding"),
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            Head::Ambiguous("it has both Content-Length and Transfer-Encoding"),
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
            Head::Ambiguous("it has more than one Content-Length"),
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            Head::Ambiguous("it has more than one Transfer-Encoding"),
        ),
        (
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            Head::Ambiguous("its lines must end with CR LF"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\n\n",
            Head::Ambiguous("its lines must end with CR LF"),
        ),
    ];

    #[test]
    fn ambiguous_heads_are_told() {
        for (bytes, expected) in VECTORS {
            let mut reader = HeadReader::default();
            reader.read(bytes.as_bytes());
            assert_eq!(reader.take(), expected, "{bytes:?}");
            reader.read(PLAIN.as_bytes());
            assert_eq!(
                reader.take(),
                Head::Plain,
                "a head does not remember the one before"
            );
        }
    }

    proptest! {
        #[test]
        fn cuts_between_reads_change_nothing(which in 0..VECTORS.len(), cuts in prop::collection::vec(0_usize..90, 0..6)) {
            let (bytes, expected) = VECTORS[which];
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut reader = HeadReader::default();
            let mut start = 0;
            for cut in cuts {
                reader.read(&bytes.as_bytes()[start..cut]);
                start = cut;
            }
            reader.read(&bytes.as_bytes()[start..]);
            prop_assert_eq!(reader.take(), expected);
        }
    }
}
