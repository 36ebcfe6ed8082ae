//! Walks over the top level of a JSON object without building anything.
//!
//! Strings and nested values are passed over at the speed of a byte search. What is between the outer braces must be well formed at
//! its top level, nested brackets must balance, and nothing may follow: a body that was cut or has a tail is refused. Nested
//! values are not checked further: the provider reads the same bytes.

use std::ops::Range;

use super::words;

/// Deepest nesting that is followed.
pub const MAX_DEPTH: usize = 128;

/// One member of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Between the quotes of the key.
    pub key: Range<usize>,
    /// Whether the key is written with escapes.
    pub escaped: bool,
    /// The value, without space around it.
    pub value: Range<usize>,
}

/// Why a body is no JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not a JSON object: {what} at byte {at}")]
pub struct NotAnObject {
    /// What was met instead.
    pub what: &'static str,
    /// Where.
    pub at: usize,
}

/// Visits the members of the object in order.
///
/// # Errors
/// What is wrong with the body, or what the visitor says.
pub fn members<E: From<NotAnObject>>(
    body: &[u8],
    mut visit: impl FnMut(Member) -> Result<(), E>,
) -> Result<(), E> {
    let mut walk = Walk { body, at: 0 };
    walk.space();
    walk.expect(b'{', "no `{`")?;
    walk.space();
    if walk.peek() == Some(b'}') {
        walk.step();
        walk.nothing_follows()?;
        return Ok(());
    }
    walk.members(&mut visit)
}

/// Visits the members behind the value that ends at `end`, up to the end of their object, after which nothing may follow.
///
/// # Errors
/// What is wrong with the rest of the body, or what the visitor says.
pub fn members_after<E: From<NotAnObject>>(
    body: &[u8],
    end: usize,
    mut visit: impl FnMut(Member) -> Result<(), E>,
) -> Result<(), E> {
    let mut walk = Walk { body, at: end };
    if walk.goes_on()? {
        walk.members(&mut visit)
    } else {
        Ok(walk.nothing_follows()?)
    }
}

/// Whether a byte opens or closes something; all others outside of strings are passed over.
fn shapes(byte: u8) -> bool {
    // `[` and `{`, `]` and `}` differ in one bit.
    byte == b'"' || byte | 0x20 == b'{' || byte | 0x20 == b'}'
}

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    /// Visits members up to the end of their object, and of the body.
    fn members<E: From<NotAnObject>>(
        &mut self,
        visit: &mut impl FnMut(Member) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            self.space();
            let (key, escaped) = self.string()?;
            self.space();
            self.expect(b':', "no `:` after a key")?;
            self.space();
            let value = self.value()?;
            visit(Member {
                key,
                escaped,
                value,
            })?;
            if !self.goes_on()? {
                return Ok(self.nothing_follows()?);
            }
        }
    }

    /// Whether another member follows a value.
    fn goes_on(&mut self) -> Result<bool, NotAnObject> {
        self.space();
        match self.take() {
            Some(b',') => Ok(true),
            Some(b'}') => Ok(false),
            _ => Err(self.fault("neither `,` nor `}` after a value")),
        }
    }

    fn nothing_follows(&mut self) -> Result<(), NotAnObject> {
        self.space();
        match self.peek() {
            Some(_) => Err(self.fault("something after the object")),
            None => Ok(()),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.step();
        byte
    }

    fn fault(&self, what: &'static str) -> NotAnObject {
        NotAnObject {
            what,
            at: self.at.min(self.body.len()),
        }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), NotAnObject> {
        if self.peek() != Some(byte) {
            return Err(self.fault(what));
        }
        self.step();
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.step();
        }
    }

    /// Passes over a string; gives what is between its quotes, and whether it has escapes.
    fn string(&mut self) -> Result<(Range<usize>, bool), NotAnObject> {
        self.expect(b'"', "no `\"`")?;
        let start = self.at;
        let rest = self.body.get(start..).unwrap_or_default();
        let (len, escaped) = end_of_string(rest).ok_or_else(|| self.endless_string())?;
        let end = start.saturating_add(len);
        self.at = end.saturating_add(1);
        Ok((start..end, escaped))
    }

    fn endless_string(&self) -> NotAnObject {
        NotAnObject {
            what: "a string without an end",
            at: self.body.len(),
        }
    }

    fn value(&mut self) -> Result<Range<usize>, NotAnObject> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string().map(|_| ())?,
            Some(b'{' | b'[') => self.nested()?,
            _ => self.word()?,
        }
        Ok(start..self.at)
    }

    /// Passes over a number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<(), NotAnObject> {
        let start = self.at;
        while let Some(b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.' | b'E') = self.peek() {
            self.step();
        }
        if self.at == start {
            Err(self.fault("no value"))
        } else {
            Ok(())
        }
    }

    /// Passes over an object or array.
    fn nested(&mut self) -> Result<(), NotAnObject> {
        let mut open = [0_u64; MAX_DEPTH / 64];
        let mut depth = 0_usize;
        let mut rest = self.body.get(self.at..).unwrap_or_default();
        while let Some((byte, after)) = rest.split_first() {
            match *byte {
                byte if !shapes(byte) => {}
                b'"' => {
                    let behind = end_of_string(after).and_then(|(end, _)| after.get(end..));
                    let (_, behind) = behind
                        .and_then(<[u8]>::split_first)
                        .ok_or_else(|| self.endless_string())?;
                    rest = behind;
                    continue;
                }
                byte @ (b'{' | b'[') => {
                    let Some(word) = open.get_mut(depth / 64) else {
                        return Err(self.fault_before(rest, "nesting deeper than 128"));
                    };
                    let bit = 1_u64 << (depth % 64);
                    if byte == b'{' {
                        *word |= bit
                    } else {
                        *word &= !bit
                    }
                    depth = depth.saturating_add(1);
                }
                byte => {
                    depth = depth.saturating_sub(1);
                    let was_object = open
                        .get(depth / 64)
                        .is_some_and(|word| word & (1_u64 << (depth % 64)) != 0);
                    if was_object != (byte == b'}') {
                        return Err(self.fault_before(rest, "brackets that do not fit"));
                    }
                    if depth == 0 {
                        self.at = self.body.len().saturating_sub(after.len());
                        return Ok(());
                    }
                }
            }
            rest = after;
        }
        Err(self.fault_before(rest, "a value without an end"))
    }

    fn fault_before(&self, rest: &[u8], what: &'static str) -> NotAnObject {
        NotAnObject {
            what,
            at: self.body.len().saturating_sub(rest.len()),
        }
    }
}

/// Where the quote stands that ends the string at the start of `text`, and whether there are escapes before it.
fn end_of_string(text: &[u8]) -> Option<(usize, bool)> {
    let (mut at, mut escaped) = (0_usize, false);
    loop {
        let rest = text.get(at..)?;
        let found = words::soon_ended(rest).or_else(|| memchr::memchr2(b'"', b'\\', rest))?;
        at = at.saturating_add(found);
        if rest.get(found) == Some(&b'"') {
            return Some((at, escaped));
        }
        escaped = true;
        at = at.saturating_add(2);
    }
}
