//! The chunked transfer coding, as it is read (RFC 9112 §7.1).
//!
//! Invariants: how the bytes are cut into reads changes nothing; lines end with CR LF; extensions and trailers are passed over, within
//! limits; nothing behind the last chunk is touched.

use super::head::InvalidAnswer;

/// Longest line with the size of a chunk, its extensions included.
const SIZE_LINE: usize = 1 << 10;
/// All trailers together.
const TRAILERS: usize = 16 << 10;
/// Hexadecimal digits that fit into 64 bits.
const DIGITS: usize = 16;

/// Where in the coding the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a line with a size.
    Size,
    /// In a chunk, with so many bytes left.
    Data(u64),
    /// Behind a chunk.
    DataEnd,
    /// In the trailers, of which so many bytes came.
    Trailers(usize),
    /// Behind it all.
    End,
}

/// Follows one body.
#[derive(Debug)]
pub(super) struct Chunked(Place);

impl Chunked {
    pub(super) fn new() -> Self {
        Self(Place::Size)
    }

    /// How many bytes at the start of `bytes` only frame the data.
    pub(super) fn pass_over(&mut self, bytes: &[u8]) -> Result<usize, InvalidAnswer> {
        let mut over = 0_usize;
        loop {
            let rest = bytes.get(over..).unwrap_or_default();
            let line = match self.0 {
                Place::Data(_) | Place::End => return Ok(over),
                Place::DataEnd => line(rest, 0)?,
                Place::Size => line(rest, SIZE_LINE)?,
                Place::Trailers(before) => line(rest, TRAILERS.saturating_sub(before))?,
            };
            let Some(line) = line else { return Ok(over) };
            let used = line.len().saturating_add(2);
            over = over.saturating_add(used);
            self.0 = match self.0 {
                Place::DataEnd => Place::Size,
                Place::Size => match size(line)? {
                    0 => Place::Trailers(0),
                    size => Place::Data(size),
                },
                Place::Trailers(_) if line.is_empty() => Place::End,
                Place::Trailers(before) => Place::Trailers(before.saturating_add(used)),
                Place::Data(_) | Place::End => self.0,
            };
        }
    }

    /// How many of `available` bytes are data.
    pub(super) fn take(&mut self, available: usize) -> usize {
        let Place::Data(left) = self.0 else { return 0 };
        let taken = left.min(u64::try_from(available).unwrap_or(u64::MAX));
        self.0 = match left.saturating_sub(taken) {
            0 => Place::DataEnd,
            left => Place::Data(left),
        };
        usize::try_from(taken).unwrap_or(available)
    }

    pub(super) fn is_end(&self) -> bool {
        self.0 == Place::End
    }
}

/// The first line, without its end; `None` when it is not complete.
fn line(bytes: &[u8], longest: usize) -> Result<Option<&[u8]>, InvalidAnswer> {
    let within = bytes.len().min(longest.saturating_add(2));
    let Some(end) = memchr::memchr(b'\n', bytes.get(..within).unwrap_or_default()) else {
        return if bytes.len() > within || within > longest.saturating_add(1) {
            Err(InvalidAnswer::Chunk)
        } else {
            Ok(None)
        };
    };
    match bytes.get(..end).and_then(<[u8]>::split_last) {
        Some((b'\r', line)) => Ok(Some(line)),
        _ => Err(InvalidAnswer::Chunk),
    }
}

fn size(line: &[u8]) -> Result<u64, InvalidAnswer> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii_end();
    let plain = (1..=DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = str::from_utf8(digits).ok().filter(|_| plain);
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(InvalidAnswer::Chunk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Chunked, InvalidAnswer};

    /// Data, what is left behind the end, and whether the end was seen.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), InvalidAnswer> {
        let (mut chunked, mut data, mut rest) = (Chunked::new(), Vec::new(), Vec::new());
        for piece in pieces {
            rest.extend_from_slice(piece);
            loop {
                let over = chunked.pass_over(&rest)?;
                rest.drain(..over);
                let taken = chunked.take(rest.len());
                data.extend(rest.drain(..taken));
                if taken == 0 {
                    break;
                }
            }
        }
        Ok((data, rest, chunked.is_end()))
    }

    #[test]
    fn chunks_are_told_from_their_frame() {
        let check = |bytes: &str, want: Result<(&str, &str, bool), InvalidAnswer>| {
            let got = read(&[bytes.as_bytes()]);
            let want = want.map(|(data, rest, end)| (data.into(), rest.into(), end));
            assert_eq!(got, want, "{bytes:?}");
        };
        check("5\r\nhello\r\n0\r\n\r\n", Ok(("hello", "", true)));
        check(
            "00a;x=\"y\"\r\n0123456789\r\n0\r\nA: b\r\n\r\nmore",
            Ok(("0123456789", "more", true)),
        );
        check("3 \r\nabc\r\n2\r\nd", Ok(("abcd", "", false)));
        check("3\r\nabc\r", Ok(("abc", "\r", false)));
        check("", Ok(("", "", false)));
        for wrong in [
            "3\nabc\r\n",
            "3\r\nabcd\r\n",
            "\r\n",
            "-1\r\n",
            "0x3\r\nabc",
            "+3\r\nabc",
            " 3\r\nabc",
            "11111111111111111\r\n",
            "g\r\n",
            "0\r\nA: b\n\r\n",
        ] {
            check(wrong, Err(InvalidAnswer::Chunk));
        }
        for endless in [
            "1;".to_owned() + &"x".repeat(1 << 11),
            "0\r\n".to_owned() + &"a: b\r\n".repeat(1 << 12),
        ] {
            check(&endless, Err(InvalidAnswer::Chunk));
        }
    }

    proptest! {
        #[test]
        fn cuts_between_reads_change_nothing(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            tail in "[a-z]{0,4}",
            cuts in prop::collection::vec(0_usize..300, 0..8),
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:X};a=b\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\nT: v\r\n\r\n");
            bytes.extend_from_slice(tail.as_bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces), Ok((chunks.concat(), tail.into_bytes(), true)));
        }
    }
}
