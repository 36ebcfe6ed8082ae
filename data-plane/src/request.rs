//! The life of one request, top to bottom. Read this file first.
//!
//! Each step is one line of `exchange` and one room elsewhere. Steps that decide live in `core` and cannot do I/O; steps that act live
//! beside this file and cannot decide.

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts, uri::PathAndQuery};
use hyper::body::{Body as _, Incoming};
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
    edge,
    head::Head,
    headers::{self, ANTHROPIC_VERSION, X_API_KEY, X_PROXYXAI_REQUEST_ID, X_REQUEST_ID},
    identify,
    meter::{Caller, Facts},
    models,
    relay::AnswerBody,
    respond::{Failure, respond},
    visitor::Visitor,
};

/// Serves one request. Never fails: every [`Failure`] becomes an answer in one place.
pub(crate) async fn serve(
    cx: Rc<Context>,
    request: Request<Incoming>,
    seen: Head,
    visitor: Rc<Visitor>,
) -> Response<AnswerBody> {
    let (began, request_id) = (cx.clock.monotonic(), cx.request_id());
    let (head, mut body) = request.into_parts();
    let anthropic =
        head.headers.contains_key(ANTHROPIC_VERSION) || head.headers.contains_key(X_API_KEY);
    let endpoint = find(head.method.as_str(), head.uri.path());
    let dialect = match endpoint {
        Ok(endpoint) => endpoint.dialect(anthropic),
        Err(_) => dialect_of_path(head.uri.path(), anthropic),
    };
    let expects = head.headers.contains_key(header::EXPECT);
    let asked = Asked {
        endpoint,
        dialect,
        request_id: &request_id,
        seen,
        from: visitor.peer,
    };
    let exchange = exchange(&cx, head, &mut body, &asked);
    let mut response = match unless_ending(&cx, exchange).await {
        Ok(response) => response,
        Err(failure) => respond(&failure, dialect, &request_id),
    };
    if !body.is_end_stream() {
        visitor.body_unread();
        if !expects && !response.headers().contains_key(header::CONNECTION) {
            body::discard(&cx, body);
        }
    }
    let name = HeaderValue::try_from(request_id).unwrap_or(HeaderValue::from_static(""));
    response
        .headers_mut()
        .entry(X_REQUEST_ID)
        .or_insert_with(|| name.clone());
    response.headers_mut().insert(X_PROXYXAI_REQUEST_ID, name);
    cx.counters.answered(
        endpoint.ok(),
        response.status().as_u16(),
        cx.clock.monotonic().saturating_sub(began),
    );
    response
}

/// A request, as far as its head tells.
struct Asked<'a> {
    endpoint: Result<Endpoint, NoEndpoint>,
    dialect: Dialect,
    request_id: &'a str,
    /// What its raw bytes looked like.
    seen: Head,
    from: IpAddr,
}

/// The future's result, or a refusal once the time to drain is over.
async fn unless_ending<T>(
    cx: &Context,
    exchange: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut exchange = pin!(exchange);
    poll_fn(|task| match exchange.as_mut().poll(task) {
        Poll::Ready(result) => Poll::Ready(result),
        Poll::Pending if cx.ending.get() => Poll::Ready(Err(Failure::Stopping)),
        Poll::Pending => Poll::Pending,
    })
    .await
}

async fn exchange(
    cx: &Rc<Context>,
    head: Parts,
    body: &mut Incoming,
    asked: &Asked<'_>,
) -> Result<Response<AnswerBody>, Failure> {
    let Asked {
        endpoint,
        dialect,
        request_id,
        seen,
        from,
    } = *asked;
    edge::check(&head, seen)?; // 0 one host, one framing
    if let Some(answer) = edge::greeting(&head) {
        return Ok(answer);
    }
    let endpoint = endpoint.map_err(no_endpoint)?;
    edge::refuse_upgrade(&head)?;
    let pinned = cx.config.current(); // 1 pin one configuration for the whole life
    let caller = identify::identify(cx, &pinned, &head.headers, from).await?; // 2 who asks
    if endpoint == Endpoint::Models {
        return models::answer(cx, &pinned, caller, dialect, head, request_id).await;
    }
    let body = body::read(cx, &head.headers, body).await?;
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
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/")),
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
            body: body::apart(body),
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

fn no_endpoint(reason: NoEndpoint) -> Failure {
    match reason {
        NoEndpoint::UnknownPath => Failure::UnknownPath,
        NoEndpoint::MethodNotAllowed(endpoint) => Failure::Method(endpoint),
    }
}
