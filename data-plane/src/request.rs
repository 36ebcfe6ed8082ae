//! The life of one request, top to bottom. Read this file first.
//!
//! Each step is one line of `exchange` and one room elsewhere. Steps that decide live in `core` and cannot do I/O; steps that act live
//! beside this file and cannot decide.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
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
use proxyxai_core::route::cascade::Allowance;

use crate::{
    attempt::{self, Answer, Call, Coming},
    body,
    cascade::{self, Child, Deployment, X_UPSTREAM_ATTEMPTS},
    config::Pinned,
    context::Context,
    edge, forwarded,
    head::Head,
    headers::{ANTHROPIC_VERSION, X_API_KEY, X_PROXYXAI_REQUEST_ID, X_REQUEST_ID},
    identify,
    made::Servers,
    meter::{Caller, Facts},
    models,
    relay::AnswerBody,
    request_id::RequestId,
    respond::{Failure, respond},
    signs::Signs,
    trace::Trace,
    visitor::Visitor,
};

/// Serves one request. Never fails: every [`Failure`] becomes an answer in one place.
pub(crate) async fn serve(
    cx: Rc<Context>,
    request: Request<Incoming>,
    seen: Head,
    visitor: Rc<Visitor>,
    trace: Option<Rc<Trace>>,
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
        request_id: Cell::new(request_id),
        seen,
        from: forwarded::client(
            cx.settings.trusted_proxies.as_ref(),
            visitor.peer,
            &head.headers,
        ),
        began,
        of_gateway: Cell::new(false),
        used: Cell::new(0),
        trace,
    };
    let outcome = {
        // Pinned here, since the future is large: it is never moved.
        let exchange = pin!(exchange(&cx, head, &mut body, &asked));
        unless_ending(&cx, exchange).await
    };
    let request_id = asked.request_id.get();
    let error = outcome.as_ref().err().map(Failure::code);
    let mut response = outcome.unwrap_or_else(|failure| {
        let pinned = cx.config.current();
        let deployment = pinned.deployment.as_deref().map(Deployment::id);
        respond(&failure, dialect, request_id.as_str(), deployment)
    });
    if asked.of_gateway.get() {
        let used = HeaderValue::from(asked.used.get());
        response.headers_mut().insert(X_UPSTREAM_ATTEMPTS, used);
    }
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
    if let Some(code) = error {
        cx.counters.failed(code);
    }
    if let Some(trace) = &asked.trace {
        let status = response.status().as_u16();
        trace.answered(&cx, (endpoint.ok(), dialect), status, error);
    }
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

/// A request, as far as its head tells, and what is found out on its way.
pub(crate) struct Asked {
    endpoint: Result<Endpoint, NoEndpoint>,
    pub(crate) dialect: Dialect,
    /// That of a child gateway, once it is known to be one.
    pub(crate) request_id: Cell<RequestId>,
    /// What its raw bytes looked like.
    seen: Head,
    from: IpAddr,
    began: Duration,
    of_gateway: Cell<bool>,
    /// How many calls to providers it took.
    pub(crate) used: Cell<usize>,
    /// What is noted of it, if anything is.
    pub(crate) trace: Option<Rc<Trace>>,
}

/// What a request may cost until the first byte of its answer.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) allowance: Allowance,
    pub(crate) time: Duration,
    /// When that time is over, on the monotonic clock: timers are too coarse for what is passed on.
    pub(crate) end: Duration,
    /// Whether it came through another gateway, or something that says it is one.
    pub(crate) came_through: bool,
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
        seen,
        from,
        ref trace,
        ..
    } = *asked;
    let signs = Signs::of(&head.headers);
    if let Some(trace) = trace {
        trace.take_up(cx, &signs, asked.request_id.get());
    }
    edge::check(&head, &signs, seen)?; // 0 one host, one framing
    if let Some(answer) = edge::greeting(&head) {
        return Ok(answer);
    }
    edge::refuse_upgrade(&signs)?;
    let endpoint = endpoint.map_err(no_endpoint)?;
    let pinned = cx.config.current(); // 1 pin one configuration for the whole life
    if signs.cdn_loop.is_some() {
        cascade::check_way(pinned.deployment.as_deref(), &head.headers)?;
    }
    let caller = identify::identify(cx, &pinned, &signs, endpoint, from, trace).await?; // 2 who asks
    let bounds = bounds(cx, &caller, &head.headers, signs.cdn_loop.is_some(), asked);
    if endpoint == Endpoint::Models {
        // Boxed, as all that is rare: the future of a request is moved once, and should be small.
        return Box::pin(models::answer(cx, pinned, caller, head, asked, bounds)).await;
    }
    let body = body::read(cx, &signs, body).await?;
    let intent = intent::read(endpoint, &body)?; // 3 what they ask for
    caller.may_use(&intent.model)?; // 4 whether they may
    let servers = cx.made.servers(&intent.state, &pinned, &caller)?;
    let mut call = plan(
        cx, pinned, caller, dialect, intent, head, &body, bounds, asked,
    ); // 5 what is sent
    call.servers = servers;
    let answer = try_keys(cx, &call).await; // 6 try, judge, try again
    asked.used.set(call.used.get());
    Ok(relay(cx, &call, answer?)) // 7 stream out; the attempt settles when the body ends or is dropped
}

/// What the request may cost: less than usual, when a child gateway says so.
fn bounds(
    cx: &Context,
    caller: &Caller,
    headers: &HeaderMap,
    came_through: bool,
    asked: &Asked,
) -> Bounds {
    let own_limit = cx.settings.request_timeout;
    if !caller.is_gateway() {
        return Bounds {
            allowance: Allowance::default(),
            time: own_limit,
            end: asked.began.saturating_add(own_limit),
            came_through,
        };
    }
    let child = Child::of(headers, own_limit);
    asked.of_gateway.set(true);
    if let Some(request_id) = child.request_id {
        asked.request_id.set(request_id);
        if let Some(trace) = &asked.trace {
            trace.named(request_id);
        }
    }
    let end = asked.began.saturating_add(child.time);
    Bounds {
        allowance: child.allowance,
        time: end.saturating_sub(cx.clock.monotonic()),
        end,
        came_through,
    }
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
    bounds: Bounds,
    asked: &Asked,
) -> Call {
    let mapped_model = pinned.snapshot.mapped(dialect, &intent.model);
    let body = intent.forward_body(body, mapped_model.as_deref());
    let hides_usage = intent.hides_usage();
    let facts = Arc::new(Facts {
        request_id: asked.request_id.get(),
        account: caller.account(),
        key: caller.key.record.id,
        prices: Arc::clone(&pinned.snapshot.prices),
        endpoint: intent.endpoint,
        model: intent.model,
        mapped_model,
        stream: intent.stream,
    });
    if let Some(trace) = &asked.trace {
        trace.planned(cx, &facts);
    }
    Call {
        dialect,
        method: head.method,
        path: head
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/")),
        headers: head.headers,
        body,
        hides_usage,
        deadline: cx.timers.deadline(bounds.time),
        bounds,
        servers: Servers::Any,
        used: Cell::new(0),
        facts,
        trace: asked.trace.clone(),
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
        NoEndpoint::NotPassedOn(instead) => Failure::NotPassedOn(instead),
    }
}
