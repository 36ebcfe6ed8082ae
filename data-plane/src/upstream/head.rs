//! The head of an answer: its status, the headers that a client may see, and how its body is framed (RFC 9112 §6.3).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{chunked::Chunked, incoming::Framing};
use crate::headers;

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
    read: &mut BytesMut,
    seen: &mut usize,
) -> Result<Option<(Head, Body)>, InvalidAnswer> {
    loop {
        let Some(end) = end_of_head(read, *seen) else {
            *seen = read.len();
            let fits = read.len() <= BYTES;
            return if fits {
                Ok(None)
            } else {
                Err(InvalidAnswer::TooLarge)
            };
        };
        *seen = 0;
        let (head, body) = parse(read.split_to(end).freeze())?;
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

fn parse(bytes: Bytes) -> Result<(Head, Body), InvalidAnswer> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    match parser.parse_response_with_uninit_headers(&mut response, &bytes, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Err(InvalidAnswer::Head),
    }
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    let mut head = Head {
        status: status.ok_or(InvalidAnswer::Head)?,
        headers: HeaderMap::with_capacity(response.headers.len()),
        limits: Vec::new(),
    };
    let mut length = Length::default();
    let mut connection = Connection::default();
    for field in response.headers.iter() {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| InvalidAnswer::Head)?;
        match name {
            header::CONTENT_LENGTH => length.announced(field.value)?,
            header::TRANSFER_ENCODING => length.coded(field.value)?,
            header::CONNECTION => connection.says(&bytes.slice_ref(field.value)),
            header::SERVER => {}
            _ => {
                let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
                    .map_err(|_| InvalidAnswer::Head)?;
                if headers::is_limit(name.as_str()) {
                    head.limits.push((name, value));
                } else if headers::passes_back(name.as_str()) {
                    head.headers.append(name, value);
                }
            }
        }
    }
    let body = length.body(head.status, response.version == Some(1), &connection)?;
    connection.drop_named(&mut head);
    Ok((head, body))
}

/// What `Connection` says: whether the connection goes on, and which headers are for it alone.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    named: Vec<Bytes>,
}

impl Connection {
    fn says(&mut self, value: &Bytes) {
        for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if !token.is_empty() {
                self.named.push(value.slice_ref(token));
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
    use bytes::BytesMut;

    use super::{InvalidAnswer, take};

    /// Status, headers, framing, whether the connection goes on, and what is left.
    fn check(bytes: &str, want: Result<&str, InvalidAnswer>) {
        for cut in 0..bytes.len() {
            let (mut read, mut seen) = (BytesMut::from(&bytes.as_bytes()[..cut]), 0);
            let early = take(&mut read, &mut seen);
            let got = match early {
                Ok(None) => {
                    read.extend_from_slice(&bytes.as_bytes()[cut..]);
                    take(&mut read, &mut seen)
                }
                early => {
                    read.extend_from_slice(&bytes.as_bytes()[cut..]);
                    early
                }
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
        let mut endless = BytesMut::from("HTTP/1.1 200 OK\r\n".repeat(5000).as_bytes());
        assert_eq!(
            take(&mut endless, &mut 0).map(|_| ()),
            Err(InvalidAnswer::TooLarge)
        );
    }
}
