//! The life of one request, top to bottom. Read this file first.
//!
//! Each step is one line of `exchange` and one room elsewhere. Steps that decide live in `core` and cannot do I/O; steps that act live
//! beside this file and cannot decide.

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts,
    uri::PathAndQuery,
};
use hyper::body::{Body as _, Incoming};
use proxyxai_core::dialect::{
    Dialect, Endpoint, NoEndpoint,
    endpoint::{dialect_of_path, find},
    intent::{self, Intent},
};

use crate::{
    attempt::{self, Answer, Call, Coming},
    body,
    config::Pinned,
    context::Context,
    edge, forwarded,
    head::Head,
    headers::{ANTHROPIC_VERSION, X_API_KEY, X_PROXYXAI_REQUEST_ID, X_REQUEST_ID},
    identify,
    meter::{Caller, Facts},
    models,
    relay::AnswerBody,
    request_id::RequestId,
    respond::{Failure, respond},
    signs::Signs,
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
    let endpoint = find(head.method.as_str(), head.uri.path());
    let dialect = match endpoint {
        Ok(endpoint) => endpoint.dialect(|| speaks_anthropic(&head.headers)),
        Err(_) => dialect_of_path(head.uri.path(), speaks_anthropic(&head.headers)),
    };
    let expects = head.headers.contains_key(header::EXPECT);
    let asked = Asked {
        endpoint,
        dialect,
        request_id,
        seen,
        from: forwarded::client(
            cx.settings.trusted_proxies.as_ref(),
            visitor.peer,
            &head.headers,
        ),
    };
    let outcome = {
        // Pinned here, since the future is large: it is never moved.
        let exchange = pin!(exchange(&cx, head, &mut body, &asked));
        unless_ending(&cx, exchange).await
    };
    let mut response = match outcome {
        Ok(response) => response,
        Err(failure) => respond(&failure, dialect, request_id.as_str()),
    };
    if !body.is_end_stream() {
        visitor.body_unread();
        if !expects && !response.headers().contains_key(header::CONNECTION) {
            body::discard(&cx, body);
        }
    }
    let name = request_id.to_header();
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

/// Paths that both dialects have are told apart by headers that only clients of Anthropic's API send.
fn speaks_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key(ANTHROPIC_VERSION) || headers.contains_key(X_API_KEY)
}

/// A request, as far as its head tells.
struct Asked {
    endpoint: Result<Endpoint, NoEndpoint>,
    dialect: Dialect,
    request_id: RequestId,
    /// What its raw bytes looked like.
    seen: Head,
    from: IpAddr,
}

/// The future's result, or a refusal once the time to drain is over.
async fn unless_ending<T>(
    cx: &Context,
    mut exchange: Pin<&mut impl Future<Output = Result<T, Failure>>>,
) -> Result<T, Failure> {
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
    asked: &Asked,
) -> Result<Response<AnswerBody>, Failure> {
    let Asked {
        endpoint,
        dialect,
        request_id,
        seen,
        from,
    } = *asked;
    let signs = Signs::of(&head.headers);
    edge::check(&head, &signs, seen)?; // 0 one host, one framing
    if let Some(answer) = edge::greeting(&head) {
        return Ok(answer);
    }
    let endpoint = endpoint.map_err(no_endpoint)?;
    edge::refuse_upgrade(&signs)?;
    let pinned = cx.config.current(); // 1 pin one configuration for the whole life
    let caller = identify::identify(cx, &pinned, &signs, endpoint, from).await?; // 2 who asks
    if endpoint == Endpoint::Models {
        // Boxed, as all that is rare: the future of a request is moved once, and should be small.
        return Box::pin(models::answer(
            cx, pinned, caller, dialect, head, request_id,
        ))
        .await;
    }
    let body = body::read(cx, &signs, body).await?;
    let intent = intent::read(endpoint, &body)?; // 3 what they ask for
    caller.may_use(&intent.model)?; // 4 whether they may
    let call = plan(cx, pinned, caller, dialect, intent, head, &body, request_id); // 5 what is sent
    let answer = try_keys(cx, &call).await?; // 6 try, judge, try again
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
    intent: Intent,
    head: Parts,
    body: &Bytes,
    request_id: RequestId,
) -> Call {
    let mapped_model = pinned.snapshot.mapped(dialect, &intent.model);
    Call {
        dialect,
        method: head.method,
        path: head
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/")),
        headers: head.headers,
        body: intent.forward_body(body, mapped_model.as_deref()),
        hides_usage: intent.hides_usage(),
        deadline: cx.timers.deadline(cx.settings.request_timeout),
        facts: Arc::new(Facts {
            request_id,
            account: caller.account(),
            key: caller.key.record.id,
            prices: Arc::clone(&pinned.snapshot.prices),
            endpoint: intent.endpoint,
            model: intent.model,
            mapped_model,
            stream: intent.stream,
        }),
        pinned,
        caller,
    }
}

async fn try_keys(cx: &Rc<Context>, call: &Call) -> Result<Answer, Failure> {
    let model = call.facts.model.as_str();
    match call.pinned.snapshot.pool(call.dialect, Some(model)) {
        Some((index, pool)) if pool.serves(call.facts.sent_model()) => {
            attempt::run(cx, call, (index, pool)).await
        }
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
            response
        }
        Answer::Coming(coming) => {
            let Coming {
                head,
                first,
                body,
                meter,
                events,
            } = coming;
            let status = head.status;
            let mut headers = head.headers_for(status.as_u16());
            if events {
                // Proxies on the way must not gather events.
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
            }
            let mut response =
                Response::new(if events && status == StatusCode::OK && call.facts.stream {
                    AnswerBody::events(cx, call, meter, first, body)
                } else {
                    AnswerBody::plain(cx, call, meter, status.as_u16(), body)
                });
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
