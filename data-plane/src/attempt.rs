//! Tries upstream keys until one answers: hold the turn → connect → send → judge, again while it is allowed.
//!
//! What may be tried again is decided in `core::route::retry`; here it is done. Nothing of an attempt that is discarded reaches the
//! client (law 16).

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use proxyxai_core::{
    causes,
    dialect::{
        Dialect,
        first_event::{FirstEvent, first_event},
    },
    route::{
        cascade::{self as rules, Used},
        pool::{Candidates, Pool, PoolIndex, UpstreamKeyIndex},
        provider::ProviderKind,
        retry::{AttemptEnd, Exhausted, Verdict, judge, when_none_left},
    },
    snapshot::Provider,
    trace::SpanId,
};
use tokio::time::timeout;

use crate::{
    cascade::{self, Handed, Said, X_SHOULD_RETRY},
    config::Pinned,
    context::Context,
    headers,
    made::Servers,
    meter::{Caller, Facts, Meter},
    request::Bounds,
    respond::Failure,
    timers::{Deadline, within},
    trace::{self, Trace},
    upstream::{Head, Incoming, Lost},
};

/// Largest error body that is read, kept or passed over.
const ERROR_BODY: usize = 256 << 10;
/// Bytes that the head of a request hardly ever exceeds.
const HEAD: usize = 768;
/// How long a discarded body may take to end before its connection is given up.
const DISCARD: Duration = Duration::from_millis(200);

/// What is sent, whichever key it is sent with.
pub(crate) struct Call {
    /// The one configuration that the request is served from.
    pub(crate) pinned: Arc<Pinned>,
    pub(crate) caller: Caller,
    pub(crate) facts: Arc<Facts>,
    pub(crate) dialect: Dialect,
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the gateway asks for usage that the client did not ask for.
    pub(crate) hides_usage: bool,
    pub(crate) deadline: Deadline,
    pub(crate) bounds: Bounds,
    pub(crate) servers: Servers,
    /// How many calls to providers it took so far.
    pub(crate) used: Cell<usize>,
    pub(crate) trace: Option<Rc<Trace>>,
}

/// An answer that goes to the client.
pub(crate) enum Answer {
    /// Its body is still coming.
    Coming(Coming),
    /// It was kept whole: an error of the provider.
    Kept(Kept),
}

/// A head, and where its body comes from.
pub(crate) struct Coming {
    pub(crate) head: Head,
    /// What was read of the body already.
    pub(crate) first: Bytes,
    pub(crate) body: Incoming,
    pub(crate) meter: Box<Meter>,
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

/// Tries the keys of a pool, in turn, level by level.
pub(crate) async fn run(
    cx: &Rc<Context>,
    call: &Call,
    pool: (PoolIndex, &Pool),
) -> Result<Answer, Failure> {
    let turn = call.pinned.turn(pool.0);
    let mut failed: Vec<Failed> = Vec::new();
    let mut candidates = Candidates::new(pool.1, turn, call.facts.sent_model());
    if let Servers::This(key) = call.servers {
        candidates.only(key);
    }
    let (mut allowance, used_before) = (call.bounds.allowance, call.used.get());
    while let Some(upstream) = candidates.next(failed.last().map(|one| one.end), allowance.left()) {
        let number = failed.len().saturating_add(1);
        let mut meter = Meter::begin(cx, call, upstream, number);
        let Some((_, provider)) = call.pinned.snapshot.upstream(upstream) else {
            continue;
        };
        if call.servers != Servers::Any {
            candidates.only(upstream);
        }
        let parent = provider.kind == ProviderKind::Gateway;
        let handed = allowance.take(parent, parent && candidates.another_than(upstream));
        let mut sent = send(cx, call, provider, upstream, &mut meter, handed).await;
        let mut said = Said::default();
        if parent {
            let used = match &mut sent {
                Ok((head, ..)) => {
                    said = Said::take(head);
                    said.used()
                }
                Err(_) if meter.is_sent() => Used::NotSaid,
                Err(_) => Used::Nothing,
            };
            allowance.give_back(handed, used);
        }
        call.used.set(used_before.saturating_add(allowance.used()));
        let (end, detail, kept) = match sent {
            Ok((head, body, first_byte)) => {
                let coming = Coming {
                    events: head.events,
                    head,
                    first: Bytes::new(),
                    body,
                    meter,
                };
                if goes_on(call, &coming, parent) {
                    return Ok(Answer::Coming(coming));
                }
                match Box::pin(weigh(cx, call, coming, first_byte, &said)).await {
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
        if parent {
            let should_retry = said.should_retry.as_ref().map(HeaderValue::as_bytes);
            let another = candidates.another_than(upstream);
            if rules::judge_parent(end, should_retry, another).leave {
                candidates.leave_out(upstream);
            }
        }
        failed.push(Failed {
            end,
            upstream,
            detail,
            kept,
        });
        if cx.timers.until(call.deadline).is_zero() {
            break;
        }
    }
    if failed.is_empty() && matches!(call.servers, Servers::This(_)) {
        return Err(Failure::ResponseOutOfReach);
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
    handed: usize,
) -> Result<(Head, Incoming, Deadline), (AttemptEnd, String)> {
    let failed = |what: &str| (AttemptEnd::ConnectFailed, what.to_owned());
    let time_left = cx.timers.until(call.deadline);
    let first_byte = cx.timers.deadline(cx.settings.first_byte_timeout);
    let first_byte = first_byte.min(call.deadline);
    loop {
        let connection = match cx.pool.take(provider) {
            Some(connection) => connection,
            None => {
                let connecting = cx.pool.connect(&*cx.dial, provider);
                Box::pin(within(&cx.timers, time_left, connecting))
                    .await
                    .ok_or_else(|| failed("connecting took too long"))?
                    .map_err(|error| failed(&causes::in_one_line(&error)))?
            }
        };
        let handed = match provider.kind {
            ProviderKind::Gateway => {
                let left = call.bounds.end.saturating_sub(cx.clock.monotonic());
                let left = left.min(cx.settings.first_byte_timeout);
                let left = rules::time_for_parent(left);
                let too_late = || {
                    (
                        AttemptEnd::TimedOut,
                        "no time was left to ask it".to_owned(),
                    )
                };
                Some(Handed {
                    attempts: handed,
                    time_ms: left.ok_or_else(too_late)?,
                })
            }
            ProviderKind::Openai | ProviderKind::Anthropic | ProviderKind::OpenaiCompatible => None,
        };
        let head = write_head(cx, call, provider, upstream, (handed, meter.span()));
        let head = head.ok_or_else(|| failed("the key is not there"))?;
        meter.sent(true);
        let exchange = connection.exchange(head, call.body.clone());
        match within(&cx.timers, cx.timers.until(first_byte), exchange).await {
            None => return Err((AttemptEnd::TimedOut, "no answer came in time".to_owned())),
            Some(Ok((head, body))) => {
                meter.answered(head.status.as_u16());
                return Ok((head, body, first_byte));
            }
            Some(Err(Lost { stale: true, .. })) => meter.sent(false),
            Some(Err(Lost { sent, error, .. })) => {
                meter.sent(sent);
                let end = if sent {
                    AttemptEnd::ConnectionLost
                } else {
                    AttemptEnd::ConnectFailed
                };
                return Err((end, causes::in_one_line(&error)));
            }
        }
    }
}

/// The head of the request, as this provider gets it.
fn write_head(
    cx: &Context,
    call: &Call,
    provider: &Provider,
    upstream: UpstreamKeyIndex,
    (handed, span): (Option<Handed>, Option<SpanId>),
) -> Option<Vec<u8>> {
    let credential = call.pinned.credential(upstream)?;
    let mut head = Vec::with_capacity(HEAD);
    for part in [
        call.method.as_str(),
        " ",
        provider.base.path_prefix(),
        call.path.as_str(),
        " HTTP/1.1\r\n",
    ] {
        head.extend_from_slice(part.as_bytes());
    }
    headers::write_upstream(&mut head, &call.headers, provider.kind, credential);
    if !provider.official {
        cascade::write(&mut head, call, provider, handed);
    }
    trace::write_context(&mut head, cx, call, provider.kind, span);
    if call.method != Method::GET {
        headers::write_length(&mut head, call.body.len());
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
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

/// Whether an answer goes to the client as it is, as nearly all do that are no streams.
fn goes_on(call: &Call, coming: &Coming, parent: bool) -> bool {
    let status = coming.head.status.as_u16();
    let held_back = coming.events && call.facts.stream && status == 200;
    let end = AttemptEnd::Status(status);
    let verdict = if parent {
        rules::judge_parent(end, None, false).verdict
    } else {
        judge(end)
    };
    !held_back && matches!(verdict, Verdict::Return)
}

/// Judges an answer that is discarded or held back.
async fn weigh(
    cx: &Rc<Context>,
    call: &Call,
    coming: Coming,
    first_byte: Deadline,
    said: &Said,
) -> Weighed {
    let status = coming.head.status.as_u16();
    let end = AttemptEnd::Status(status);
    let Verdict::TryNext { why } = judge(end) else {
        return hold_back(cx, call, coming, first_byte).await;
    };
    let Coming {
        head,
        body,
        mut meter,
        ..
    } = coming;
    meter.settle_end(end, why);
    cx.counters.retried(why);
    let detail = format!("status {status}");
    // What a gateway says of its own failure tells more than could be said here.
    let keeps = status == 429 || said.of_a_gateway && status >= 500;
    let kept = discard(head, body).await.filter(|_| keeps);
    Weighed::Discarded { end, detail, kept }
}

/// Holds the head of a stream back until its first event shows whether the answer has begun. Until then the client has no byte of it, so
/// the limit on the first byte goes on.
async fn hold_back(
    cx: &Rc<Context>,
    call: &Call,
    mut coming: Coming,
    first_byte: Deadline,
) -> Weighed {
    let mut held = BytesMut::new();
    loop {
        let left = cx.timers.until(first_byte);
        let frame = match within(&cx.timers, left, coming.body.frame()).await {
            None => {
                return lost(
                    cx,
                    &mut coming.meter,
                    AttemptEnd::TimedOut,
                    "no event came in time",
                );
            }
            Some(None) => break,
            Some(Some(Err(_))) => {
                return lost(
                    cx,
                    &mut coming.meter,
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
                return Weighed::Answer(Answer::Coming(coming));
            }
            FirstEvent::Error { status, body } => return first_error(cx, coming, status, body),
        }
    }
    if held.is_empty() {
        return lost(
            cx,
            &mut coming.meter,
            AttemptEnd::ConnectionLost,
            "the stream ended before its first event",
        );
    }
    coming.first = held.freeze();
    Weighed::Answer(Answer::Coming(coming))
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

fn lost(cx: &Rc<Context>, meter: &mut Meter, end: AttemptEnd, detail: &str) -> Weighed {
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
    let mut headers = head.headers_for(status);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
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

/// Reads an answer that is not passed on, so that its connection can be used again; gives it where it was read to its end, as some are
/// what the client gets when no key is left.
async fn discard(head: Head, mut body: Incoming) -> Option<Kept> {
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
    let status = head.status.as_u16();
    ended.then(|| Kept {
        status,
        headers: head.headers_for(status),
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
    let passed = match exhausted {
        Exhausted::RateLimited { attempt } => failed.get_mut(attempt),
        Exhausted::Failed { .. } => failed.last_mut(),
        Exhausted::KeyRefused { .. } => None,
    };
    if let Some(mut kept) = passed.and_then(|one| one.kept.take()) {
        if failed.len() > 1 {
            // What could be tried elsewhere was tried: a client that tries again would multiply it.
            let spent = HeaderValue::from_static("false");
            kept.headers.insert(X_SHOULD_RETRY, spent);
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
    let of_parent = |one: &Failed| {
        let upstream = call.pinned.snapshot.upstream(one.upstream);
        upstream.is_some_and(|(_, provider)| provider.kind == ProviderKind::Gateway)
    };
    // A parent that is away is not called back by many clients at once.
    let spent = failed.len() > 1 || failed.last().is_some_and(of_parent);
    let (last, provider) = match failed.last() {
        Some(one) => (one.detail.clone(), provider(one).unwrap_or_default().1),
        None => ("no upstream key could be used".to_owned(), String::new()),
    };
    Err(Failure::UpstreamFailed {
        attempts: failed.len(),
        provider,
        last,
        timed_out,
        spent,
    })
}
