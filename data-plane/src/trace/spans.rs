//! From the steps of a request to its spans: the request, how its caller was identified, what was planned, each attempt, the relay.

use std::{borrow::Cow, time::Duration};

use proxyxai_core::{
    dialect::Dialect,
    trace::{Conventions, Span, SpanId, SpanKind, Value, genai},
};

use super::steps::{AttemptSteps, Steps};
use crate::meter::Facts;

/// The spans of a request; the first one is the request itself.
pub(super) fn of(steps: &Steps, conventions: Conventions) -> Vec<Span> {
    let maker = Maker { steps };
    let mut spans = vec![maker.request()];
    let identified = steps.identified.unwrap_or(steps.ended);
    let identify = maker.step(1, "identify", (steps.began, identified));
    if let Some((span_id, from, to)) = steps.asked {
        let to = to.unwrap_or(steps.ended);
        spans.push(Span {
            span_id,
            parent: Some(identify.span_id),
            ..maker.step(2, "look up key", (from, to))
        });
    }
    spans.push(identify);
    if let (Some(from), Some(to)) = (steps.identified, steps.planned) {
        spans.push(maker.step(3, "plan", (from, to)));
    }
    if let (Some(facts), Some(dialect)) = (&steps.facts, steps.dialect) {
        let attempts = steps.attempts.iter();
        spans.extend(attempts.map(|one| maker.attempt(one, facts, dialect, conventions)));
    }
    if let Some(answered) = steps.answered.filter(|_| !steps.attempts.is_empty()) {
        spans.push(maker.step(4, "relay", (answered, steps.ended)));
    }
    spans
}

struct Maker<'a> {
    steps: &'a Steps,
}

impl Maker<'_> {
    /// The span that the whole request is.
    fn request(&self) -> Span {
        let steps = self.steps;
        let mut span = Span {
            span_id: steps.context.span_id,
            parent: steps.parent,
            kind: SpanKind::Server,
            ..self.step(0, "", (steps.began, steps.ended))
        };
        let mut add = |key, value: Value| span.attributes.push((key, value));
        if let Some(endpoint) = steps.endpoint {
            add("http.request.method", endpoint.method().into());
            add("http.route", endpoint.route().into());
        }
        if let Some(id) = &steps.request_id {
            add("xai.request_id", id.as_str().into());
        }
        if let Some(account) = &steps.account {
            add("xai.account", account.as_str().into());
        }
        if let Some(key) = &steps.key {
            add("xai.key_id", key.as_str().into());
        }
        if let Some(facts) = &steps.facts {
            add("gen_ai.request.model", facts.model.as_str().into());
            add("xai.stream", facts.stream.into());
        }
        add("xai.attempts", number(steps.attempts.len()));
        if steps.status > 0 {
            add("http.response.status_code", steps.status.into());
        }
        let broke = steps.attempts.last().filter(|last| last.failed());
        let error = match (steps.error, broke) {
            (Some(code), _) => Some(code.as_str()),
            (None, Some(last)) => Some(last.reason),
            (None, None) if steps.client_left() => Some("client_gone"),
            (None, None) => None,
        };
        if let Some(error) = error {
            add("error.type", error.into());
        }
        // What the client did wrong is no error of a server's span.
        let failed = steps.status >= 500 || (steps.error.is_none() && broke.is_some());
        span.error = error.filter(|_| failed).map(str::to_owned);
        span.name = steps.endpoint.map_or(Cow::Borrowed("request"), |endpoint| {
            format!("{} {}", endpoint.method(), endpoint.route()).into()
        });
        span
    }

    fn attempt(
        &self,
        attempt: &AttemptSteps,
        facts: &Facts,
        dialect: Dialect,
        conventions: Conventions,
    ) -> Span {
        let mut span = Span {
            span_id: attempt.span,
            kind: SpanKind::Client,
            name: name_of(facts),
            ..self.step(0, "", (attempt.began, attempt.ended))
        };
        let mut add = |key, value: Value| span.attributes.push((key, value));
        if let Some(operation) = genai::operation(facts.endpoint) {
            add("gen_ai.operation.name", operation.into());
        }
        if let Some(model) = facts.sent_model() {
            add("gen_ai.request.model", model.into());
        }
        if let Some(sent) = &attempt.sent {
            let (name, value) = conventions.provider(sent.kind, dialect);
            add(name, value);
            add("xai.provider", (&*sent.provider).into());
            add("xai.upstream_key", (&*sent.key).into());
        }
        if let Some((host, port)) = &attempt.server {
            add("server.address", (&**host).into());
            add("server.port", (*port).into());
        }
        add("xai.attempt", number(attempt.number));
        add("xai.reason", attempt.reason.into());
        let verdict = if attempt.discarded() {
            "discarded"
        } else {
            "returned"
        };
        add("xai.verdict", verdict.into());
        if attempt.status > 0 {
            add("http.response.status_code", attempt.status.into());
        }
        if attempt.usage.tokens != Default::default() {
            for (name, value) in conventions.usage(&attempt.usage.tokens) {
                add(name, value);
            }
            add("xai.usage.estimated", attempt.estimated.into());
        }
        if attempt.reason != "ok" {
            add("error.type", attempt.reason.into());
        }
        span.error = (attempt.failed() || attempt.status >= 400).then(|| attempt.reason.to_owned());
        if let Some(first) = attempt.first_byte {
            let at = self.unix_ns(attempt.began.saturating_add(first));
            span.events.push((at, "first byte"));
        }
        span
    }

    /// A step in the request, whose name follows from that of the request: only one has each number.
    fn step(&self, number: u64, name: &'static str, (from, to): (Duration, Duration)) -> Span {
        let context = &self.steps.context;
        Span {
            trace_id: context.trace_id,
            span_id: SpanId(context.span_id.0.wrapping_add(number).max(1)),
            parent: Some(context.span_id),
            state: self
                .steps
                .state
                .as_ref()
                .and_then(|state| state.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            name: Cow::Borrowed(name),
            kind: SpanKind::Internal,
            start: self.unix_ns(from),
            end: self.unix_ns(to.max(from)),
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
        }
    }

    /// Wall-clock time of a moment of the request.
    fn unix_ns(&self, at: Duration) -> u64 {
        let began = u64::try_from(self.steps.began_unix_ms).unwrap_or(0);
        let since = at.saturating_sub(self.steps.began).as_nanos();
        began
            .saturating_mul(1_000_000)
            .saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

fn number(count: usize) -> Value {
    u64::try_from(count).unwrap_or(u64::MAX).into()
}

fn name_of(facts: &Facts) -> Cow<'static, str> {
    match (genai::operation(facts.endpoint), facts.sent_model()) {
        (Some(operation), Some(model)) => format!("{operation} {model}").into(),
        (Some(operation), None) => operation.into(),
        (None, _) => facts.endpoint.as_str().into(),
    }
}
