//! The head of an answer: its status, the headers that a client may see, and how its body is framed (RFC 9112 §6.3).

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{chunked::Chunked, field::Field, incoming::Framing};

/// Largest head, and most headers in it.
const BYTES: usize = 64 << 10;
const HEADERS: usize = 100;

/// Why an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAnswer {
    /// Not HTTP/1.1.
    #[error("the provider's answer is not HTTP/1.1")]
    Head,
    /// More than is ever meant.
    #[error("the head of the provider's answer is larger than 64 KiB")]
    TooLarge,
    /// Where the body ends can be read in two ways, or not at all.
    #[error("the length of the provider's answer is not clear")]
    Length,
    /// A chunk is wrong.
    #[error("the chunks of the provider's answer are wrong")]
    Chunk,
}

/// The head of an answer, as far as a client may see it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Rate limits describe the upstream key, which clients share: they pass with a 429 alone, which would make no sense without them.
    pub(crate) limits: Vec<(HeaderName, HeaderValue)>,
    /// Whether its body is a stream of events.
    pub(crate) events: bool,
}

impl Head {
    /// The headers for an answer with this status.
    pub(crate) fn headers_for(self, status: u16) -> HeaderMap {
        let mut headers = self.headers;
        if status == 429 {
            for (name, value) in self.limits {
                headers.append(name, value);
            }
        }
        headers
    }
}

/// What a head says about the bytes behind it.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) framing: Framing,
    /// Whether the connection can be used again behind it.
    pub(super) keep_alive: bool,
}

/// Takes the first head that is no interim one from what was read; `None` when it is not there yet. `seen` is how many bytes were
/// looked at before.
pub(super) fn take(
    read: &mut Bytes,
    seen: &mut usize,
) -> Result<Option<(Head, Body)>, InvalidAnswer> {
    loop {
        // Nearly always a head comes whole, and is parsed at once. One that comes in pieces is parsed again when its end is there.
        let again = *seen > 0;
        let parsed = if again && end_of_head(read, *seen).is_none() {
            None
        } else {
            parse(read)?
        };
        let Some((end, head, body)) = parsed else {
            *seen = read.len();
            let fits = read.len() <= BYTES;
            return if fits {
                Ok(None)
            } else {
                Err(InvalidAnswer::TooLarge)
            };
        };
        *seen = 0;
        read.advance(end);
        match head.status.as_u16() {
            // No upgrade was asked for.
            101 => return Err(InvalidAnswer::Head),
            100..200 => {}
            _ => return Ok(Some((head, body))),
        }
    }
}

/// Behind the empty line that ends a head.
fn end_of_head(read: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    memchr::memchr_iter(b'\n', read.get(from..)?).find_map(|at| {
        let next = from.saturating_add(at).saturating_add(1);
        match read.get(next..)? {
            [b'\n', ..] => next.checked_add(1),
            [b'\r', b'\n', ..] => next.checked_add(2),
            _ => None,
        }
    })
}

/// The head at the start of `bytes`, and where it ends; `None` when it does not end in them.
fn parse(bytes: &Bytes) -> Result<Option<(usize, Head, Body)>, InvalidAnswer> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let end = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut fields) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(InvalidAnswer::Head),
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    let mut head = Head {
        status: status.ok_or(InvalidAnswer::Head)?,
        headers: HeaderMap::with_capacity(response.headers.len()),
        limits: Vec::new(),
        events: false,
    };
    let mut length = Length::default();
    let mut connection = Connection::default();
    let mut kind_told = false;
    for field in response.headers.iter() {
        let name = match Field::of(field.name.as_bytes())? {
            Field::Stays => continue,
            Field::Length => {
                length.announced(field.value)?;
                continue;
            }
            Field::Coding => {
                length.coded(field.value)?;
                continue;
            }
            Field::Connection => {
                connection.says(bytes, field.value);
                continue;
            }
            Field::Limit(name) => {
                head.limits.push((name, value(bytes, field.value)?));
                continue;
            }
            Field::Kind => {
                // Of several, the first one counts.
                if !std::mem::replace(&mut kind_told, true) {
                    head.events = field.value.starts_with(b"text/event-stream");
                }
                header::CONTENT_TYPE
            }
            Field::Passes(name) => name,
        };
        head.headers.append(name, value(bytes, field.value)?);
    }
    let body = length.body(head.status, response.version == Some(1), &connection)?;
    connection.drop_named(&mut head);
    Ok(Some((end, head, body)))
}

fn value(bytes: &Bytes, value: &[u8]) -> Result<HeaderValue, InvalidAnswer> {
    HeaderValue::from_maybe_shared(bytes.slice_ref(value)).map_err(|_| InvalidAnswer::Head)
}

/// What `Connection` says: whether the connection goes on, and which headers are for it alone.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    named: Vec<Bytes>,
}

impl Connection {
    /// Reads a value, which is a part of `bytes`.
    fn says(&mut self, bytes: &Bytes, value: &[u8]) {
        for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if !token.is_empty() {
                self.named.push(bytes.slice_ref(token));
            }
        }
    }

    fn drop_named(&self, head: &mut Head) {
        for token in &self.named {
            let named = |name: &HeaderName| token.eq_ignore_ascii_case(name.as_str().as_bytes());
            if let Some(name) = head.headers.keys().find(|name| named(name)).cloned() {
                head.headers.remove(name);
            }
            head.limits.retain(|(name, _)| !named(name));
            head.events &= !named(&header::CONTENT_TYPE);
        }
    }
}

/// What a head says about the length of its body.
#[derive(Default)]
struct Length {
    announced: Option<u64>,
    chunked: bool,
}

impl Length {
    fn announced(&mut self, value: &[u8]) -> Result<(), InvalidAnswer> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = str::from_utf8(value).ok().filter(|_| digits);
        let length = text
            .and_then(|text| text.parse().ok())
            .ok_or(InvalidAnswer::Length)?;
        match self.announced.replace(length) {
            Some(before) if before != length => Err(InvalidAnswer::Length),
            _ => Ok(()),
        }
    }

    fn coded(&mut self, value: &[u8]) -> Result<(), InvalidAnswer> {
        let twice = std::mem::replace(&mut self.chunked, true);
        if twice || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(InvalidAnswer::Length);
        }
        Ok(())
    }

    fn body(
        self,
        status: StatusCode,
        http_11: bool,
        connection: &Connection,
    ) -> Result<Body, InvalidAnswer> {
        let persistent = !connection.close && (http_11 || connection.keep_alive);
        let none = status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        let (framing, keep_alive) = match (self.chunked, self.announced) {
            _ if none => (Framing::Length(0), persistent),
            (true, _) if !http_11 => return Err(InvalidAnswer::Length),
            // Both: the chunks count (RFC 9112 §6.3), and nobody knows what follows them.
            (true, announced) => (
                Framing::Chunked(Chunked::new()),
                persistent && announced.is_none(),
            ),
            (false, Some(length)) => (Framing::Length(length), persistent),
            (false, None) => (Framing::UntilClosed, false),
        };
        Ok(Body {
            framing,
            keep_alive,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{InvalidAnswer, take};

    /// Status, headers, framing, whether the connection goes on, and what is left.
    fn check(bytes: &str, want: Result<&str, InvalidAnswer>) {
        for cut in 0..bytes.len() {
            let (mut read, mut seen) = (Bytes::copy_from_slice(&bytes.as_bytes()[..cut]), 0);
            let early = take(&mut read, &mut seen);
            let rest = &bytes.as_bytes()[cut..];
            read = [&read[..], rest].concat().into();
            let got = match early {
                Ok(None) => take(&mut read, &mut seen),
                early => early,
            };
            let got = got.map(|found| {
                let (head, body) = found.unwrap();
                let names: Vec<&str> = head.headers.keys().map(|name| name.as_str()).collect();
                let rest = String::from_utf8_lossy(&read);
                format!(
                    "{} [{}] {} limits {:?} {} {rest:?}",
                    head.status.as_u16(),
                    names.join(" "),
                    head.limits.len(),
                    body.framing,
                    body.keep_alive
                )
            });
            assert_eq!(got, want.map(str::to_owned), "{bytes:?} cut at {cut}");
        }
    }

    #[test]
    fn framing_is_read_in_one_way() {
        check(
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX: y\r\n\r\nhello",
            Ok("200 [x] 0 limits Length(5) true \"hello\""),
        );
        check(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            Ok("204 [] 0 limits Length(0) true \"\""),
        );
        check(
            "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n",
            Ok("200 [] 0 limits Chunked(Chunked(Size)) true \"\""),
        );
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
            Ok("200 [] 0 limits Chunked(Chunked(Size)) false \"\""),
        );
        check(
            "HTTP/1.0 200 OK\r\n\r\n",
            Ok("200 [] 0 limits UntilClosed false \"\""),
        );
        check(
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n",
            Ok("200 [] 0 limits Length(1) true \"\""),
        );
        check(
            "HTTP/1.1 200 OK\r\nconnection: x-a, Close\r\nx-a: 1\r\nx-b: 2\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            Ok("200 [x-b] 0 limits Length(1) false \"\""),
        );
        check(
            "HTTP/1.1 429 Too Many\r\nserver: s\r\nset-cookie: c\r\nx-ratelimit-reset: 1\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
            Ok("429 [retry-after] 1 limits Length(0) true \"\""),
        );
        for wrong in [
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            check(wrong, Err(InvalidAnswer::Length));
        }
        for wrong in [
            "HTTP/2 200\r\n\r\n",
            "hello\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        ] {
            check(wrong, Err(InvalidAnswer::Head));
        }
        let mut endless = Bytes::from("HTTP/1.1 200 OK\r\na: ".to_owned() + &"b".repeat(1 << 16));
        for mut seen in [0, 9] {
            let taken = take(&mut endless, &mut seen).map(|_| ());
            assert_eq!(taken, Err(InvalidAnswer::TooLarge), "{seen} seen");
        }
        let many = "HTTP/1.1 200 OK\r\n".to_owned() + &"a: b\r\n".repeat(101) + "\r\n";
        check(&many, Err(InvalidAnswer::Head));
    }

    #[test]
    fn streams_of_events_are_told() {
        let check = |fields: &str, want: bool| {
            let mut read = Bytes::from(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
            let (head, _) = take(&mut read, &mut 0).unwrap().unwrap();
            assert_eq!(head.events, want, "{fields}");
        };
        check("Content-TYPE: text/event-stream; charset=utf-8", true);
        check("content-type: application/json", false);
        check("content-type: text/event-stream\r\ncontent-type: a/b", true);
        check(
            "content-type: a/b\r\ncontent-type: text/event-stream",
            false,
        );
        check(
            "connection: Content-Type\r\ncontent-type: text/event-stream",
            false,
        );
        check("x: text/event-stream", false);
    }
}
