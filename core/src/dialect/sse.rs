//! Server-sent events: where one ends, and what its data is (WHATWG HTML §9.2).
//!
//! Lines end with LF, CR or CRLF, as bytes; U+2028 and the like end nothing. An event ends with an empty line.

/// Where the first event of `bytes` ends, the empty line included; `None` when it is not complete. A CR as the last byte may be half
/// of a CRLF, so it ends nothing yet.
pub fn event_end(bytes: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    loop {
        let rest = bytes.get(line_start..)?;
        let at = line_start.checked_add(memchr::memchr2(b'\n', b'\r', rest)?)?;
        let after = at.checked_add(1)?;
        let next = match (bytes.get(at), bytes.get(after)) {
            (Some(b'\r'), None) => return None,
            (Some(b'\r'), Some(b'\n')) => after.checked_add(1)?,
            _ => after,
        };
        if at == line_start {
            return Some(next);
        }
        line_start = next;
    }
}

/// The lines of an event.
pub fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    event
        .split(|b| matches!(b, b'\n' | b'\r'))
        .filter(|line| !line.is_empty())
}

/// The data of an event when it has exactly one `data` line, as all providers send it: its place in `event`.
pub fn data_range(event: &[u8]) -> Option<std::ops::Range<usize>> {
    let base = event.as_ptr().addr();
    let mut found = None;
    for line in lines(event) {
        let Some(value) = line.strip_prefix(b"data:") else {
            continue;
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let start = value.as_ptr().addr().checked_sub(base)?;
        if found
            .replace(start..start.checked_add(value.len())?)
            .is_some()
        {
            return None;
        }
    }
    found
}

/// The data of an event.
pub fn data(event: &[u8]) -> Option<&[u8]> {
    data_range(event).and_then(|range| event.get(range))
}

/// Whether the event is one for a client: comments, and `ping` events, only keep the line alive.
pub fn is_keep_alive(event: &[u8]) -> bool {
    lines(event).all(|line| line.starts_with(b":"))
        || lines(event).any(|line| line == b"event: ping" || line == b"event:ping")
}
