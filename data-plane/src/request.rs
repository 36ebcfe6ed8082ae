//! The life of one request, top to bottom. Read this file first.
//!
//! Each step is one line of `exchange` and one room elsewhere. Steps that decide live in `core` and cannot do I/O; steps that act live
//! beside this file and cannot decide.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use proxyxai_core::dialect::{
    Dialect, Endpoint, NoEndpoint,
    endpoint::{dialect_of_path, find},
    intent::{self, Intent},
};
use tokio::time::Instant;

use crate::{
    attempt::{self, Answer, Call},
    body,
    config::Pinned,
    context::Context,
    headers, identify,
    meter::{Caller, Facts},
    models,
    relay::AnswerBody,
    respond::{Failure, respond},
};

/// Serves one request. Never fails: every [`Failure`] becomes an answer in one place.
pub(crate) async fn serve(
    cx: Rc<Context>,
    request: Request<Incoming>,
    from: IpAddr,
) -> Response<AnswerBody> {
    let (began, request_id) = (cx.clock.monotonic(), cx.request_id());
    let anthropic = request.headers().contains_key("anthropic-version")
        || request.headers().contains_key("x-api-key");
    let endpoint = find(request.method().as_str(), request.uri().path());
    let dialect = match endpoint {
        Ok(endpoint) => endpoint.dialect(anthropic),
        Err(_) => dialect_of_path(request.uri().path(), anthropic),
    };
    let mut response = match exchange(&cx, request, endpoint, dialect, &request_id, from).await {
        Ok(response) => response,
        Err(failure) => respond(&failure, dialect, &request_id),
    };
    let name = HeaderValue::try_from(request_id).unwrap_or(HeaderValue::from_static(""));
    response
        .headers_mut()
        .entry("x-request-id")
        .or_insert_with(|| name.clone());
    response.headers_mut().insert("x-proxyxai-request-id", name);
    cx.counters.answered(
        endpoint.ok(),
        response.status().as_u16(),
        cx.clock.monotonic().saturating_sub(began),
    );
    response
}

async fn exchange(
    cx: &Rc<Context>,
    request: Request<Incoming>,
    endpoint: Result<Endpoint, NoEndpoint>,
    dialect: Dialect,
    request_id: &str,
    from: IpAddr,
) -> Result<Response<AnswerBody>, Failure> {
    let (head, body) = request.into_parts();
    check_head(&head)?; // 0 one host, one framing
    if let Some(answer) = greeting(&head) {
        return Ok(answer);
    }
    let endpoint = endpoint.map_err(no_endpoint)?;
    let pinned = cx.config.current(); // 1 pin one configuration for the whole life
    let caller = identify::identify(cx, &pinned, &head.headers, from).await?; // 2 who asks
    if endpoint == Endpoint::Models {
        return models::answer(cx, &pinned, caller, dialect, head, request_id).await;
    }
    let body = body::read(
        &head.headers,
        body,
        cx.settings.body_limit,
        cx.settings.head_timeout,
    )
    .await?;
    let intent = intent::read(endpoint, &body)?; // 3 what they ask for
    caller
        .accounts
        .admits(caller.key.account, intent.model.as_str())
        .map_err(Failure::Account)?; // 4 whether they may
    let call = plan(cx, pinned, caller, dialect, &intent, head, body, request_id); // 5 what is sent
    let answer = try_keys(cx, &call, &intent).await?; // 6 try, judge, try again
    Ok(relay(cx, &call, answer)) // 7 stream out; the attempt settles when the body ends or is dropped
}

#[expect(
    clippy::too_many_arguments,
    reason = "everything that is known of a request comes together here"
)]
fn plan(
    cx: &Rc<Context>,
    pinned: Arc<Pinned>,
    caller: Caller,
    dialect: Dialect,
    intent: &Intent,
    head: Parts,
    body: Bytes,
    request_id: &str,
) -> Call {
    let now = Instant::now();
    Call {
        pinned,
        dialect,
        method: head.method,
        path: head
            .uri
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: head.headers,
        body: intent.forward_body(&body),
        hides_usage: intent.hides_usage(),
        deadline: now.checked_add(cx.settings.request_timeout).unwrap_or(now),
        facts: Rc::new(Facts {
            request_id: request_id.to_owned(),
            caller,
            endpoint: intent.endpoint,
            model: intent.model.as_str().to_owned(),
            stream: intent.stream,
            body,
        }),
    }
}

async fn try_keys(cx: &Rc<Context>, call: &Call, intent: &Intent) -> Result<Answer, Failure> {
    let model = intent.model.as_str();
    match call.pinned.snapshot.pool(call.dialect, Some(model)) {
        Some((index, pool)) if !pool.keys.is_empty() => attempt::run(cx, call, (index, pool)).await,
        _ => Err(Failure::NoUpstream {
            what: format!(
                "the model `{model}` in the dialect {}",
                call.dialect.as_str()
            ),
        }),
    }
}

/// The answer of a provider, as the client gets it.
pub(crate) fn relay(cx: &Rc<Context>, call: &Call, answer: Answer) -> Response<AnswerBody> {
    match answer {
        Answer::Kept(kept) => {
            let mut response = Response::new(AnswerBody::whole(kept.body));
            *response.status_mut() =
                StatusCode::from_u16(kept.status).unwrap_or(StatusCode::BAD_GATEWAY);
            *response.headers_mut() = kept.headers;
            headers::answer(response.headers_mut(), kept.status == 429);
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response
        }
        Answer::Coming(mut coming) => {
            let status = coming.head.status;
            let mut headers = std::mem::take(&mut coming.head.headers);
            headers::answer(&mut headers, status == StatusCode::TOO_MANY_REQUESTS);
            if coming.events {
                // What is hidden or added changes the length; proxies on the way must not gather events.
                headers.remove(header::CONTENT_LENGTH);
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
            }
            let mut response = Response::new(AnswerBody::relay(cx, call, status.as_u16(), *coming));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response
        }
    }
}

/// What hyper lets pass and an edge must not (RFC 9110 §7.2, RFC 9112 §6.1, §6.3).
fn check_head(head: &Parts) -> Result<(), Failure> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._:[]%".contains(b);
    if hosts.next().is_some()
        || !host.is_some_and(|host| !host.is_empty() && host.iter().all(plain))
    {
        return Err(Failure::BadHead(
            "a request has exactly one valid Host header",
        ));
    }
    if head.method == Method::CONNECT
        || head
            .uri
            .authority()
            .is_some_and(|a| Some(a.as_str().as_bytes()) != host)
    {
        return Err(Failure::BadHead("this is no proxy: ask for a path"));
    }
    let coded = head.headers.get_all(header::TRANSFER_ENCODING);
    if coded.iter().any(|coding| {
        !coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked")
    }) || coded.iter().count() > 1
    {
        return Err(Failure::BadHead("the one transfer coding is `chunked`"));
    }
    if coded.iter().next().is_some() && head.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Failure::BadHead(
            "a request has Content-Length or Transfer-Encoding, not both",
        ));
    }
    if head.headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(Failure::BadHead("a request has one Content-Length"));
    }
    Ok(())
}

/// What this is and what to do next, for people and probes that look at the address itself.
fn greeting(head: &Parts) -> Option<Response<AnswerBody>> {
    let path = head.uri.path();
    let looks = matches!(head.method, Method::GET | Method::HEAD);
    if !looks || !(path == "/" || path == "/api/hello") {
        return None;
    }
    let text = "This is ProxyXAI, an AI API gateway.\n\n\
        OpenAI clients:     base URL http://THIS-ADDRESS/v1\n\
        Anthropic clients:  base URL http://THIS-ADDRESS\n\
        API key:            a virtual key, sk-pxai-…\n\n\
        An administrator makes virtual keys with `xai key create`; `xai key first` shows the first one.\n";
    let mut response = Response::new(AnswerBody::whole(if head.method == Method::HEAD {
        Bytes::new()
    } else {
        Bytes::from_static(text.as_bytes())
    }));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Some(response)
}

fn no_endpoint(reason: NoEndpoint) -> Failure {
    match reason {
        NoEndpoint::UnknownPath => Failure::UnknownPath,
        NoEndpoint::MethodNotAllowed(endpoint) => Failure::Method(endpoint),
    }
}
