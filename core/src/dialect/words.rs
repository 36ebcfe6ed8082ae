//! Looks at eight bytes at once for those that end a JSON string. Most strings that are not text for people are short: a search for one
//! byte among many costs more to begin than they have bytes.

/// Bytes that are looked at together.
const WORD: usize = 8;
/// The lowest bit of each byte, and the highest.
const LOW: u64 = u64::from_le_bytes([1; WORD]);
const HIGH: u64 = u64::from_le_bytes([0x80; WORD]);

/// Where the first quote or backslash stands, if it is one of the first eight bytes.
pub(super) fn soon_ended(text: &[u8]) -> Option<usize> {
    let word = u64::from_le_bytes(*text.first_chunk::<WORD>()?);
    first(equal(word, b'"') | equal(word, b'\\'))
}

/// Where the first quote, backslash or control character stands.
pub(super) fn end_of_plain(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<WORD>();
    let mut before = 0_usize;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let ends = below(word, b' ') | equal(word, b'"') | equal(word, b'\\');
        if let Some(at) = first(ends) {
            return before.checked_add(at);
        }
        before = before.saturating_add(WORD);
    }
    let at = rest
        .iter()
        .position(|b| matches!(b, b'"' | b'\\' | 0..32))?;
    before.checked_add(at)
}

/// Marks the bytes below `limit`, which is at most 128. A byte behind one that is marked may be marked without cause.
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(LOW.wrapping_mul(u64::from(limit))) & !word & HIGH
}

/// Marks the bytes that are this one, as [`below`] does.
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ LOW.wrapping_mul(u64::from(byte)), 1)
}

/// The first byte that is marked.
fn first(marks: u64) -> Option<usize> {
    (marks != 0).then(|| usize::try_from(marks.trailing_zeros() / 8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_tell_what_bytes_tell(text in prop::collection::vec(prop_oneof![any::<u8>(), 30_u8..36, 90_u8..95, 125_u8..130, Just(b'a')], 0..40)) {
            let ends = |b: &u8| matches!(b, b'"' | b'\\');
            prop_assert_eq!(end_of_plain(&text), text.iter().position(|b| ends(b) || *b < 32));
            let soon = text.first_chunk::<WORD>().and_then(|word| word.iter().position(ends));
            prop_assert_eq!(soon_ended(&text), soon);
        }
    }
}
