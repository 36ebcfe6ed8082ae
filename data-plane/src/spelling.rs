//! Compares the spelling of header names, whose letters may be of either case (RFC 9110 §5.1), a machine word at a time.

/// Whether these are the bytes of `lower`, which has lower-case letters, digits, `-` and `:` only, in either case.
///
/// Setting one bit makes a letter lower-case and leaves the others as they are. It also makes bytes alike that no header name may have, so
/// what is compared was found to be a name before, or is refused by the HTTP library anyhow.
pub(crate) fn is<const N: usize>(bytes: &[u8], lower: &[u8; N]) -> bool {
    <&[u8; N]>::try_from(bytes).is_ok_and(|bytes| {
        let pairs = bytes.iter().zip(lower);
        pairs.fold(0, |differ, (one, other)| differ | (one | 0x20) ^ other) == 0
    })
}

/// Whether `bytes` begin so.
pub(crate) fn begins<const N: usize>(bytes: &[u8], lower: &[u8; N]) -> bool {
    bytes.get(..N).is_some_and(|start| is(start, lower))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{begins, is};

    proptest! {
        /// For all that may stand in a name or end it.
        #[test]
        fn the_case_of_letters_alone_makes_no_difference(text in "([Cc][Oo][Nn][Nn][Ee][Cc][Tt][Ii][Oo][Nn]:?|[!#-'*+\\-.0-9A-Z^-z|~:]{9,11})") {
            let bytes = text.as_bytes();
            prop_assert_eq!(is(bytes, b"connection"), text.eq_ignore_ascii_case("connection"));
            let start = &text[..text.len().min(10)];
            prop_assert_eq!(begins(bytes, b"connection"), start.eq_ignore_ascii_case("connection"));
        }
    }

    #[test]
    fn length_matters() {
        for other in ["", "dat", "dates", "-date", "d\u{0}te"] {
            assert!(!is(other.as_bytes(), b"date"), "{other:?}");
        }
        assert!(is(b"Date", b"date") && begins(b"DATE: x", b"date:"));
    }
}
