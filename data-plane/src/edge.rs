//! What is refused, or answered, before anybody is identified: ambiguous framing, wrong hosts, and the pages for people and probes.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, Version, header, request::Parts};

use crate::{head::Head, relay::AnswerBody, respond::Failure, signs::Signs};

/// What hyper lets pass and an edge must not (RFC 9110 §7.2, RFC 9112 §6.1, §6.3, §11.2).
pub(crate) fn check(head: &Parts, signs: &Signs<'_>, seen: Head) -> Result<(), Failure> {
    if let Head::Ambiguous(why) = seen {
        return Err(Failure::BadHead(why));
    }
    if head.method == Method::CONNECT {
        return Err(Failure::BadHead("this is no proxy: ask for a path"));
    }
    host(head, signs)?;
    match signs.transfer_encoding {
        None => Ok(()),
        Some(_) if seen == Head::Unseen => Err(Failure::BadHead(
            "a request behind another one needs a Content-Length",
        )),
        Some(coding) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        Some(_) => Err(Failure::BadHead("the one transfer coding is `chunked`")),
    }
}

/// Exactly one valid Host, which an absolute target agrees with.
fn host(head: &Parts, signs: &Signs<'_>) -> Result<(), Failure> {
    let plain = |b: &u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
    };
    let valid = |host: &&HeaderValue| !host.is_empty() && host.as_bytes().iter().all(plain);
    let host = match (signs.host.filter(valid), signs.hosts) {
        (Some(host), 1) => host.as_bytes(),
        (None, 0) if head.version < Version::HTTP_11 => return Ok(()),
        _ => {
            return Err(Failure::BadHead(
                "a request has exactly one valid Host header",
            ));
        }
    };
    match head.uri.authority() {
        Some(target) if !target.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            Err(Failure::BadHead("the target and Host name different hosts"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Clients that ask for a WebSocket fall back to HTTP when told so.
pub(crate) fn refuse_upgrade(signs: &Signs<'_>) -> Result<(), Failure> {
    if signs.upgrade.is_some() {
        return Err(Failure::Upgrade);
    }
    Ok(())
}

const GREETING: &str = "This is ProxyXAI, an AI API gateway.\n\n\
    OpenAI clients:     base URL http://THIS-ADDRESS/v1\n\
    Anthropic clients:  base URL http://THIS-ADDRESS\n\
    API key:            a virtual key, sk-pxai-…\n\n\
    An administrator makes virtual keys with `xai key create`; `xai key first` shows the first one.\n";

const GREETING_JSON: &str = concat!(
    r#"{"name":"ProxyXAI","what":"an AI API gateway","#,
    r#""next":"OpenAI clients: base URL http://THIS-ADDRESS/v1; Anthropic clients: base URL http://THIS-ADDRESS; API key: a virtual key, sk-pxai-…","#,
    r#""endpoints":["POST /v1/chat/completions","POST /v1/embeddings","POST /v1/responses","POST /v1/messages","POST /v1/messages/count_tokens","GET /v1/models","GET /v1/models/{id}"]}"#,
);

/// What this is and what to do next, for people and probes that look at the address itself.
pub(crate) fn greeting(head: &Parts) -> Option<Response<AnswerBody>> {
    let path = head.uri.path();
    let looks = matches!(head.method, Method::GET | Method::HEAD);
    if !looks || !(path == "/" || path == "/api/hello") {
        return None;
    }
    let (text, kind) = if wants_json(&head.headers) {
        (GREETING_JSON, "application/json")
    } else {
        (GREETING, "text/plain; charset=utf-8")
    };
    let mut response = Response::new(AnswerBody::whole(if head.method == Method::HEAD {
        Bytes::new()
    } else {
        Bytes::from_static(text.as_bytes())
    }));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Some(response)
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
    accept.is_some_and(|accept| memchr::memmem::find(accept, b"application/json").is_some())
}
