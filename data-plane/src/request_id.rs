//! Names of requests: unique among all that ever were, and made without any look-up.

use std::cell::Cell;

use http::HeaderValue;

const PREFIX: &[u8] = b"req_";
/// Hexadecimal digits for the start of the core, which is random, and for its count of requests.
const START: usize = 16;
const COUNT: usize = 12;
const LEN: usize = PREFIX.len() + START + COUNT;
const COUNT_AT: usize = LEN - COUNT;

/// The name of a request, as it stands in headers, error bodies and usage events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; LEN]);

impl RequestId {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// A name that another gateway gave; `None` when it is of another form.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let name: [u8; LEN] = text.try_into().ok()?;
        let digits = name.strip_prefix(PREFIX)?;
        let plain = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        digits.iter().all(plain).then_some(Self(name))
    }

    /// The name as the value of a header.
    pub(crate) fn to_header(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Gives names to the requests of one core.
pub(crate) struct RequestIds {
    first: [u8; LEN],
    count: Cell<u64>,
}

impl RequestIds {
    /// Begins with a random number.
    pub(crate) fn new(start: u64) -> Self {
        let mut first = [0; LEN];
        let (prefix, digits) = first.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        let (digits, _) = digits.split_at_mut(START);
        write_hex(start, digits);
        Self {
            first,
            count: Cell::new(0),
        }
    }

    /// The next name.
    pub(crate) fn next(&self) -> RequestId {
        let number = self.count.get();
        self.count.set(number.wrapping_add(1));
        let mut id = self.first;
        let (_, digits) = id.split_at_mut(COUNT_AT);
        write_hex(number, digits);
        RequestId(id)
    }
}

/// Writes the lowest digits of a number, as many as fit.
fn write_hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        let nibble = (number & 15).to_le_bytes()[0];
        *digit = match nibble {
            0..10 => b'0'.wrapping_add(nibble),
            _ => (b'a' - 10).wrapping_add(nibble),
        };
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::{RequestId, RequestIds};

    #[test]
    fn names_of_other_gateways_are_read_when_they_are_such() {
        let check = |text: &str, want: bool| {
            let read = RequestId::read(text.as_bytes());
            assert_eq!(read.is_some(), want, "{text}");
            assert!(read.is_none_or(|read| read.as_str() == text));
        };
        check("req_0123456789abcdef000000000011", true);
        check("req_0123456789abcdef00000000001", false);
        check("req_0123456789abcdef00000000001G", false);
        check("xxx_0123456789abcdef000000000011", false);
        check("", false);
    }

    #[test]
    fn names_are_told_apart() {
        let ids = RequestIds::new(0x0123_4567_89ab_cdef);
        let names: Vec<_> = std::iter::repeat_with(|| ids.next().as_str().to_owned())
            .take(18)
            .collect();
        assert_eq!(names[0], "req_0123456789abcdef000000000000");
        assert_eq!(names[17], "req_0123456789abcdef000000000011");
        assert_eq!(ids.next().to_header(), "req_0123456789abcdef000000000012");
    }
}
