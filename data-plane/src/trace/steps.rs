//! The steps of one request, as plain data that may leave its core.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use proxyxai_core::{
    account::tree::{AccountIndex, AccountTree},
    dialect::{Dialect, Endpoint, error::ErrorCode, usage::Usage},
    route::{pool::UpstreamKeyIndex, retry::REASONS},
    snapshot::KeyId,
    trace::{SpanId, TraceContext},
};

use crate::{meter::Facts, request_id::RequestId};

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
    /// Whose key it is, and in which tree its account stands.
    pub(super) key: Option<(KeyId, AccountIndex, Arc<AccountTree>)>,
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
    pub(crate) upstream: UpstreamKeyIndex,
    pub(crate) number: u32,
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

    /// Path of the account, and id of the key.
    pub(super) fn caller(&self) -> Option<(String, &str)> {
        let (key, account, accounts) = self.key.as_ref()?;
        Some((accounts.path(*account), key.as_str()))
    }

    /// The client got less than a whole answer, or none.
    pub(super) fn client_left(&self) -> bool {
        self.answered.is_none() || self.attempts.iter().any(|one| one.reason == CLIENT_GONE)
    }
}

/// What an attempt ends for when its client hung up.
const CLIENT_GONE: &str = "client_gone";

impl AttemptSteps {
    /// Whether another upstream key was tried because of it.
    pub(super) fn discarded(&self) -> bool {
        REASONS.contains(&self.reason)
    }

    /// Whether it ended other than well, and not by the client's doing.
    pub(super) fn failed(&self) -> bool {
        !matches!(self.reason, "ok" | "rejected" | "no_usage" | CLIENT_GONE)
    }
}
