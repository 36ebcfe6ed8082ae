//! The steps of one request, as plain data that may leave its core.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use proxyxai_core::{
    account::tree::{AccountIndex, AccountTree},
    dialect::{Dialect, Endpoint, error::ErrorCode, usage::Usage},
    route::{pool::UpstreamKeyIndex, retry::REASONS},
    snapshot::{KeyId, Snapshot},
    trace::{SpanId, TraceContext},
};

use crate::{
    meter::{Facts, Sent},
    request_id::RequestId,
};

/// What was noted of a request. Times are of the core's monotonic clock.
#[derive(Clone)]
pub(crate) struct Steps {
    pub(super) request_id: Option<RequestId>,
    /// The span of the request itself.
    pub(super) context: TraceContext,
    /// The client's span, and the `tracestate` that came with it.
    pub(super) parent: Option<SpanId>,
    pub(super) state: Option<HeaderValue>,
    pub(super) began: Duration,
    pub(super) began_unix_ms: i64,
    /// The key was not at hand: its look-up.
    pub(super) asked: Option<(SpanId, Duration, Option<Duration>)>,
    pub(super) identified: Option<Duration>,
    pub(super) key: Option<KeyId>,
    /// Where the account of the key stands, until the request is over: then its path.
    pub(super) stands: Option<(AccountIndex, Arc<AccountTree>)>,
    pub(super) account: Option<String>,
    pub(super) planned: Option<Duration>,
    pub(super) facts: Option<Arc<Facts>>,
    pub(super) attempts: Vec<AttemptSteps>,
    /// The head of the answer went out; `None` when the client left before.
    pub(super) answered: Option<Duration>,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) dialect: Option<Dialect>,
    pub(super) status: u16,
    pub(super) error: Option<ErrorCode>,
    pub(super) ended: Duration,
}

/// One attempt that was settled.
#[derive(Clone)]
pub(crate) struct AttemptSteps {
    pub(crate) span: SpanId,
    /// By name, so that nothing of the configuration is kept.
    pub(crate) sent: Option<Sent>,
    /// Host and port of the provider; only where the trace was sampled at its start, as it is a text of its own.
    pub(crate) server: Option<(Box<str>, u16)>,
    pub(crate) number: usize,
    pub(crate) began: Duration,
    /// Since it began, until the head of an answer.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) ended: Duration,
    pub(crate) status: u16,
    /// `ok`, or one word for why it ended otherwise.
    pub(crate) reason: &'static str,
    pub(crate) usage: Usage,
    pub(crate) estimated: bool,
}

impl Steps {
    pub(super) fn begin(context: TraceContext, (began, began_unix_ms): (Duration, i64)) -> Self {
        Self {
            request_id: None,
            context,
            parent: None,
            state: None,
            began,
            began_unix_ms,
            asked: None,
            identified: None,
            key: None,
            stands: None,
            account: None,
            planned: None,
            facts: None,
            attempts: Vec::new(),
            answered: None,
            endpoint: None,
            dialect: None,
            status: 0,
            error: None,
            ended: began,
        }
    }

    /// Whether something failed that is not the client's own fault: the answer, an attempt that was discarded, or a stream that broke.
    pub(super) fn failed(&self) -> bool {
        self.status >= 500 || self.attempts.iter().any(AttemptSteps::failed)
    }

    /// The same, to be kept on: it names what it knows, and keeps nothing of the configuration.
    pub(super) fn kept(&self) -> Self {
        let stands = self.stands.as_ref();
        Self {
            account: stands.map(|(account, accounts)| accounts.path(*account)),
            stands: None,
            ..self.clone()
        }
    }

    /// The client got less than a whole answer, or none.
    pub(super) fn client_left(&self) -> bool {
        self.answered.is_none() || self.attempts.iter().any(|one| one.reason == CLIENT_GONE)
    }
}

/// What an attempt ends for when its client hung up.
const CLIENT_GONE: &str = "client_gone";

impl AttemptSteps {
    /// An attempt that begins.
    pub(super) fn begin(
        (span, number, sampled): (SpanId, usize, bool),
        began: Duration,
        snapshot: &Snapshot,
        upstream: UpstreamKeyIndex,
    ) -> Self {
        let upstream_of = || snapshot.upstream(upstream);
        let base = sampled.then(upstream_of).flatten().map(|(_, it)| &it.base);
        Self {
            span,
            sent: Sent::of(snapshot, upstream),
            server: base.map(|base| (base.host().into(), base.port())),
            number,
            began,
            first_byte: None,
            ended: began,
            status: 0,
            reason: CLIENT_GONE,
            usage: Usage::default(),
            estimated: false,
        }
    }

    /// Whether another upstream key was tried because of it.
    pub(super) fn discarded(&self) -> bool {
        REASONS.contains(&self.reason)
    }

    /// Whether it ended other than well, and not by the client's doing.
    pub(super) fn failed(&self) -> bool {
        !matches!(self.reason, "ok" | "rejected" | "no_usage" | CLIENT_GONE)
    }
}
