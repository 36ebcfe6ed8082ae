//! Tries upstream keys until one answers: hold the turn → connect → send → judge, again while it is allowed.
//!
//! What may be tried again is decided in `core::route::retry`; here it is done. Nothing of an attempt that is discarded reaches the
//! client (law 16).

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, header::CONTENT_TYPE, uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use proxyxai_core::{
    dialect::{
        Dialect,
        first_event::{FirstEvent, first_event},
    },
    route::{
        pool::{Pool, PoolIndex, UpstreamKeyIndex, candidates},
        retry::{AttemptEnd, Exhausted, Verdict, judge, when_none_left},
    },
    snapshot::Provider,
};
use tokio::time::{Instant, timeout};

use crate::{
    config::Pinned,
    context::Context,
    headers,
    meter::{Facts, Meter},
    pool::{self, Lease},
    respond::Failure,
    timers::within,
};

/// Largest error body that is read, kept or passed over.
const ERROR_BODY: usize = 256 << 10;
/// How long a discarded body may take to end before its connection is given up.
const DISCARD: Duration = Duration::from_millis(200);

/// What is sent, whichever key it is sent with.
pub(crate) struct Call {
    pub(crate) facts: Rc<Facts>,
    pub(crate) pinned: Arc<Pinned>,
    pub(crate) dialect: Dialect,
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the gateway asks for usage that the client did not ask for.
    pub(crate) hides_usage: bool,
    pub(crate) deadline: Instant,
}

impl Call {
    /// Until the deadline.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// An answer that goes to the client.
pub(crate) enum Answer {
    /// Its body is still coming.
    Coming(Box<Coming>),
    /// It was kept whole: an error of the provider.
    Kept(Kept),
}

/// A head, and where its body comes from.
pub(crate) struct Coming {
    pub(crate) head: http::response::Parts,
    /// What was read of the body already.
    pub(crate) first: Bytes,
    pub(crate) body: Incoming,
    pub(crate) meter: Meter,
    pub(crate) lease: Lease,
    pub(crate) upstream: UpstreamKeyIndex,
    /// Whether it is a stream of events.
    pub(crate) events: bool,
}

/// A whole answer.
pub(crate) struct Kept {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An attempt that failed.
struct Failed {
    end: AttemptEnd,
    upstream: UpstreamKeyIndex,
    detail: String,
    kept: Option<Kept>,
}

/// Tries the keys of a pool, in turn.
pub(crate) async fn run(
    cx: &Rc<Context>,
    call: &Call,
    pool: (PoolIndex, &Pool),
) -> Result<Answer, Failure> {
    let turn = call.pinned.turn(pool.0);
    let mut failed: Vec<Failed> = Vec::new();
    for (number, upstream) in candidates(pool.1, turn).enumerate() {
        let mut meter = Meter::begin(
            cx,
            &call.facts,
            &call.pinned,
            upstream,
            number.saturating_add(1),
        );
        let Some((_, provider)) = call.pinned.snapshot.upstream(upstream) else {
            continue;
        };
        let (end, detail, kept) = match send(cx, call, provider, upstream, &mut meter).await {
            Ok((response, lease, first_byte)) => {
                let weighed = weigh(
                    cx, call, provider, response, lease, meter, upstream, first_byte,
                );
                match weighed.await {
                    Weighed::Answer(answer) => return Ok(answer),
                    Weighed::Discarded { end, detail, kept } => (end, detail, kept),
                }
            }
            Err((end, detail)) => {
                let Verdict::TryNext { why } = judge(end) else {
                    continue;
                };
                meter.settle_end(end, why);
                cx.counters.retried(why);
                (end, detail, None)
            }
        };
        failed.push(Failed {
            end,
            upstream,
            detail,
            kept,
        });
        if call.time_left().is_zero() {
            break;
        }
    }
    none_left(call, failed)
}

/// Sends the request with one key; gives the time by which the client must have a byte of the answer, too. A reused connection that was
/// closed before a byte was written is replaced, which does not count.
async fn send(
    cx: &Rc<Context>,
    call: &Call,
    provider: &Provider,
    upstream: UpstreamKeyIndex,
    meter: &mut Meter,
) -> Result<(Response<Incoming>, Lease, Instant), (AttemptEnd, String)> {
    let mut request = build(call, provider, upstream).ok_or((
        AttemptEnd::ConnectFailed,
        "the request cannot be written".to_owned(),
    ))?;
    let now = Instant::now();
    let first_byte = now
        .checked_add(cx.settings.first_byte_timeout)
        .map_or(call.deadline, |limit| limit.min(call.deadline));
    loop {
        let waiting = cx.pool.take(provider, cx.clock.monotonic());
        let mut lease = match waiting {
            Some(lease) => lease,
            None => within(&cx.timers, call.time_left(), pool::connect(cx, provider))
                .await
                .ok_or_else(|| {
                    (
                        AttemptEnd::ConnectFailed,
                        "connecting took too long".to_owned(),
                    )
                })?
                .map_err(|error| (AttemptEnd::ConnectFailed, chain(&error)))?,
        };
        if lease.sender.ready().await.is_err() {
            if lease.reused {
                continue;
            }
            return Err((
                AttemptEnd::ConnectFailed,
                "the provider closed a new connection".to_owned(),
            ));
        }
        meter.sent(true);
        match within(
            &cx.timers,
            first_byte.saturating_duration_since(now),
            lease.sender.try_send_request(request),
        )
        .await
        {
            None => return Err((AttemptEnd::TimedOut, "no answer came in time".to_owned())),
            Some(Ok(response)) => {
                meter.answered(response.status().as_u16());
                return Ok((response, lease, first_byte));
            }
            Some(Err(mut error)) => match error.take_message() {
                Some(unsent) => {
                    meter.sent(false);
                    if !lease.reused {
                        return Err((AttemptEnd::ConnectFailed, chain(error.error())));
                    }
                    request = unsent;
                }
                None => return Err((AttemptEnd::ConnectionLost, chain(error.error()))),
            },
        }
    }
}

fn build(
    call: &Call,
    provider: &Provider,
    upstream: UpstreamKeyIndex,
) -> Option<Request<Full<Bytes>>> {
    let credential = call.pinned.credential(upstream)?;
    let prefix = provider.base.path_prefix();
    let uri = if prefix.is_empty() {
        Uri::from(call.path.clone())
    } else {
        format!("{prefix}{}", call.path).parse().ok()?
    };
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers::upstream(&call.headers, provider.kind, credential);
    Some(request)
}

/// What an answer's head, or the head of its stream, comes to.
enum Weighed {
    Answer(Answer),
    Discarded {
        end: AttemptEnd,
        detail: String,
        kept: Option<Kept>,
    },
}

#[expect(
    clippy::too_many_arguments,
    reason = "what is known of an answer's head comes together here"
)]
async fn weigh(
    cx: &Rc<Context>,
    call: &Call,
    provider: &Provider,
    response: Response<Incoming>,
    lease: Lease,
    mut meter: Meter,
    upstream: UpstreamKeyIndex,
    first_byte: Instant,
) -> Weighed {
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    let end = AttemptEnd::Status(status);
    if let Verdict::TryNext { why } = judge(end) {
        meter.settle_end(end, why);
        cx.counters.retried(why);
        let detail = format!("status {status}");
        let kept = discard(cx, provider, head, body, lease).await;
        return Weighed::Discarded { end, detail, kept };
    }
    let events = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let coming = Coming {
        head,
        first: Bytes::new(),
        body,
        meter,
        lease,
        upstream,
        events,
    };
    if events && call.facts.stream && status == 200 {
        return hold_back(cx, call, coming, first_byte).await;
    }
    Weighed::Answer(Answer::Coming(Box::new(coming)))
}

/// Holds the head of a stream back until its first event shows whether the answer has begun. Until then the client has no byte of it, so
/// the limit on the first byte goes on.
async fn hold_back(
    cx: &Rc<Context>,
    call: &Call,
    mut coming: Coming,
    first_byte: Instant,
) -> Weighed {
    let mut held = BytesMut::new();
    loop {
        let left = first_byte.saturating_duration_since(Instant::now());
        let frame = match within(&cx.timers, left, coming.body.frame()).await {
            None => {
                return lost(
                    cx,
                    coming.meter,
                    AttemptEnd::TimedOut,
                    "no event came in time",
                );
            }
            Some(None) => break,
            Some(Some(Err(_))) => {
                return lost(
                    cx,
                    coming.meter,
                    AttemptEnd::ConnectionLost,
                    "the stream broke off before its first event",
                );
            }
            Some(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        // Nearly always the first event is whole in the first frame, which then passes as it is.
        let whole = if held.is_empty() {
            data
        } else {
            std::mem::take(&mut held).freeze_with(&data)
        };
        match first_event(call.dialect, &whole) {
            FirstEvent::NeedMore if whole.len() < ERROR_BODY => held = BytesMut::from(whole),
            FirstEvent::NeedMore | FirstEvent::Content => {
                coming.first = whole;
                return Weighed::Answer(Answer::Coming(Box::new(coming)));
            }
            FirstEvent::Error { status, body } => return first_error(cx, coming, status, body),
        }
    }
    if held.is_empty() {
        return lost(
            cx,
            coming.meter,
            AttemptEnd::ConnectionLost,
            "the stream ended before its first event",
        );
    }
    coming.first = held.freeze();
    Weighed::Answer(Answer::Coming(Box::new(coming)))
}

trait FreezeWith {
    fn freeze_with(self, more: &Bytes) -> Bytes;
}

impl FreezeWith for BytesMut {
    fn freeze_with(mut self, more: &Bytes) -> Bytes {
        self.extend_from_slice(more);
        self.freeze()
    }
}

fn lost(cx: &Rc<Context>, mut meter: Meter, end: AttemptEnd, detail: &str) -> Weighed {
    if let Verdict::TryNext { why } = judge(end) {
        meter.settle_end(end, why);
        cx.counters.retried(why);
    }
    Weighed::Discarded {
        end,
        detail: detail.to_owned(),
        kept: None,
    }
}

/// The first event is an error: an answer with that status, as if it had come instead of the 200.
fn first_error(cx: &Rc<Context>, coming: Coming, status: u16, body: Vec<u8>) -> Weighed {
    let Coming {
        head, mut meter, ..
    } = coming;
    let mut headers = head.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(http::header::CONTENT_LENGTH);
    let end = AttemptEnd::FirstEventError(status);
    let kept = Kept {
        status,
        headers,
        body: body.into(),
    };
    match judge(end) {
        Verdict::TryNext { why } => {
            meter.settle_end(end, why);
            cx.counters.retried(why);
            Weighed::Discarded {
                end,
                detail: format!("an error event that stands for status {status}"),
                kept: Some(kept),
            }
        }
        Verdict::Return => {
            meter.settle_rejected("rejected");
            Weighed::Answer(Answer::Kept(kept))
        }
    }
}

/// Reads an answer that is not passed on, so that its connection can be used again; keeps it when it is a 429, which the client
/// gets when no key is left.
async fn discard(
    cx: &Rc<Context>,
    provider: &Provider,
    head: http::response::Parts,
    mut body: Incoming,
    lease: Lease,
) -> Option<Kept> {
    let mut read = BytesMut::new();
    let ended = timeout(DISCARD, async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data);
            }
            if read.len() > ERROR_BODY {
                return false;
            }
        }
        true
    });
    let ended = ended.await.unwrap_or(false);
    if ended {
        cx.pool.put(provider, lease, cx.clock.monotonic());
    }
    let status = head.status.as_u16();
    (status == 429 && ended).then(|| Kept {
        status,
        headers: head.headers,
        body: read.freeze(),
    })
}

/// Chooses what the client gets when no key is left.
fn none_left(call: &Call, mut failed: Vec<Failed>) -> Result<Answer, Failure> {
    let ends: Vec<AttemptEnd> = failed.iter().map(|one| one.end).collect();
    let provider = |one: &Failed| {
        call.pinned
            .snapshot
            .upstream(one.upstream)
            .map(|(key, provider)| (key.id.to_string(), provider.id.to_string()))
    };
    let exhausted = when_none_left(&ends);
    if let Exhausted::RateLimited { attempt } = exhausted
        && let Some(mut kept) = failed.get_mut(attempt).and_then(|one| one.kept.take())
    {
        if failed.len() > 1 {
            // What could be tried elsewhere was tried: a client that tries again would multiply it.
            let spent = HeaderValue::from_static("false");
            kept.headers.insert("x-should-retry", spent);
        }
        return Ok(Answer::Kept(kept));
    }
    if let Exhausted::KeyRefused { attempt } = exhausted
        && let Some(one) = failed.get(attempt)
    {
        let (key, provider) = provider(one).unwrap_or_default();
        let status = match one.end {
            AttemptEnd::Status(status) | AttemptEnd::FirstEventError(status) => status,
            AttemptEnd::ConnectFailed | AttemptEnd::TimedOut | AttemptEnd::ConnectionLost => 0,
        };
        return Err(Failure::UpstreamKeyRefused {
            provider,
            key,
            status,
        });
    }
    let timed_out = exhausted == Exhausted::Failed { timed_out: true };
    let (last, provider) = match failed.last() {
        Some(one) => (one.detail.clone(), provider(one).unwrap_or_default().1),
        None => ("no upstream key could be used".to_owned(), String::new()),
    };
    Err(Failure::UpstreamFailed {
        attempts: failed.len(),
        provider,
        last,
        timed_out,
    })
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
