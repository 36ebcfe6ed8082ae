//! Reads the fields of an encoded protobuf message where they stand, without building the message.

/// The fields of a message, in the order of its bytes.
pub(crate) struct Fields<'a>(&'a [u8]);

/// What stands in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number, a truth value, or one of an enumeration.
    Number(u64),
    /// Text, bytes, or a message.
    Bytes(&'a [u8]),
    /// A number of fixed size, which no message here has.
    Fixed,
}

/// These bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not the message that they should be")]
pub(crate) struct Malformed;

impl<'a> Fields<'a> {
    /// The fields of this message.
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let head = self.varint()?;
        let value = match head & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((head >> 3, value))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// Most numbers here have one byte.
    fn varint(&mut self) -> Option<u64> {
        match self.0.split_first()? {
            (byte @ 0..0x80, rest) => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for place in 0..10_u32 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            number |= bits.checked_shl(place.saturating_mul(7)).unwrap_or(0);
            if *byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_apart() {
        let check = |bytes: &[u8], want: &[Result<(u64, Value<'_>), Malformed>]| {
            assert_eq!(Fields::of(bytes).collect::<Vec<_>>(), want, "{bytes:?}");
        };
        check(b"", &[]);
        check(b"\x08\x96\x01", &[Ok((1, Value::Number(150)))]);
        check(
            b"\x12\x02hi\x18\x00",
            &[Ok((2, Value::Bytes(b"hi"))), Ok((3, Value::Number(0)))],
        );
        check(
            b"\x0d1234\x09\x00\x00\x00\x00\x00\x00\x00\x00",
            &[Ok((1, Value::Fixed)), Ok((1, Value::Fixed))],
        );
        check(
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            &[Ok((1, Value::Number(u64::MAX)))],
        );
        for wrong in [
            b"\x08".as_slice(),
            b"\x08\x80",
            b"\x12\x03hi",
            b"\x0d123",
            b"\x0b",
            b"\x0c",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            check(wrong, &[Err(Malformed)]);
        }
    }
}
