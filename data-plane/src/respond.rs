//! Every failure as an answer in the caller's dialect: the one place that fixes its status, words and headers.

use http::{HeaderValue, Response, StatusCode, header};
use proxyxai_core::{
    account::{
        admission::Refusal,
        limits::Dimension,
        staleness::TooOld,
        terms::{Key, KeyRefusal},
        tree::AccountRefusal,
    },
    dialect::{
        Dialect, Endpoint,
        error::{self, ErrorCode},
        intent::InvalidBody,
    },
    route::cascade::Loop,
};

use crate::{
    cascade::{X_PROXYXAI_DEPLOYMENT, X_SHOULD_RETRY},
    relay::AnswerBody,
};

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The head of the request is not one.
    #[error("{0}")]
    BadHead(&'static str),
    /// Another protocol is asked for.
    #[error("this path speaks plain HTTP; send the request without an upgrade")]
    Upgrade,
    /// The body cannot be read.
    #[error("{0}")]
    Body(#[from] InvalidBody),
    /// The body did not come in time, or broke off.
    #[error("the body of the request did not arrive; send it again")]
    BodyLost,
    /// The body is too large.
    #[error("the body has more than {0} bytes; send less, or raise `body_limit`")]
    TooLarge(usize),
    /// The body is compressed.
    #[error("compressed bodies are not read here; send the body without Content-Encoding")]
    Encoded,
    /// Nothing is at this path.
    #[error(
        "there is nothing at this path; OpenAI clients use the base /v1 (chat/completions, responses, embeddings, models), Anthropic clients the base / (v1/messages, v1/messages/count_tokens, v1/models)"
    )]
    UnknownPath,
    /// The provider has something at this path that is not passed on.
    #[error("{0}")]
    NotPassedOn(&'static str),
    /// The request came round in a circle of gateways, or through too many.
    #[error("{0}; an administrator must mend the base address of a provider of kind `gateway`")]
    Loop(#[from] Loop),
    /// The response that is gone on from is not there for this caller.
    #[error(
        "the response `{0}` does not exist, or was made by another account or upstream key; send the whole conversation instead of `previous_response_id`"
    )]
    NoSuchResponse(String),
    /// The upstream key that made it is out of use, or does not serve the model.
    #[error(
        "the upstream key that made this response is out of use, or does not serve this model; send the whole conversation instead of `previous_response_id`"
    )]
    ResponseOutOfReach,
    /// Something is at this path, for another method.
    #[error("this path answers {} alone", .0.method())]
    Method(Endpoint),
    /// No key was shown.
    #[error(
        "no virtual key was sent; send it as `Authorization: Bearer sk-pxai-…` or as `x-api-key`"
    )]
    NoKey,
    /// Two keys were shown that differ.
    #[error("`Authorization` and `x-api-key` hold different keys; send one")]
    TwoKeys,
    /// The key does not exist.
    #[error("the virtual key is not valid: {0}")]
    WrongKey(String),
    /// The key exists and does not work now.
    #[error("the virtual key sk-pxai-{id}… {refusal}")]
    Key {
        /// Its id.
        id: String,
        /// Why it does not.
        refusal: KeyRefusal,
    },
    /// The key works, but not for this.
    #[error("the virtual key sk-pxai-{id}… does not allow {}; ask its administrator", .dimension.refused())]
    KeyLimit {
        /// Its id.
        id: String,
        /// What it does not allow.
        dimension: Dimension,
    },
    /// Wrong keys come from this address all the time.
    #[error("too many keys that do not exist came from this address; wait ten seconds")]
    Stranger,
    /// The key's account may not do this.
    #[error("{0}; ask its administrator")]
    Account(AccountRefusal),
    /// The model does not exist as far as this caller is concerned.
    #[error("the model `{0}` does not exist, or this key may not use it")]
    NoSuchModel(String),
    /// It cannot be told whether the key exists.
    #[error(
        "the key cannot be checked now, as the control plane does not answer; try again in a second"
    )]
    KeyUnchecked,
    /// The node has no configuration yet.
    #[error(
        "the gateway has no configuration yet, as no control plane has sent one since its start; try again in a second"
    )]
    NotReady,
    /// What the node holds is too old for the caller's account.
    #[error(transparent)]
    TooOld(TooOld),
    /// Too much is in flight.
    #[error("the gateway is busy; try again in a second")]
    Overloaded,
    /// The node stops, and its time to drain is over.
    #[error("the gateway is stopping; try again in a second")]
    Stopping,
    /// No upstream key serves the request.
    #[error(
        "no upstream key serves {what}; an administrator adds one with `xai provider create` and `xai upstream-key create`, or by XAI_KEYS at the start of `xai up`"
    )]
    NoUpstream {
        /// The model or dialect.
        what: String,
    },
    /// The last upstream key was refused by its provider.
    #[error(
        "the provider `{provider}` refuses the gateway's upstream key `{key}` (status {status}); an administrator must mend or disable that key; the caller's own key is good"
    )]
    UpstreamKeyRefused {
        /// Its provider.
        provider: String,
        /// The upstream key.
        key: String,
        /// What the provider said.
        status: u16,
    },
    /// All attempts failed.
    #[error(
        "all {attempts} attempts at upstream keys failed, the last one at provider `{provider}`: {last}"
    )]
    UpstreamFailed {
        /// How many there were.
        attempts: usize,
        /// The provider of the last one.
        provider: String,
        /// How it failed.
        last: String,
        /// Whether it was time that ran out.
        timed_out: bool,
        /// Whether a client that tries again would only multiply what was tried.
        spent: bool,
    },
}

impl Failure {
    /// The refusal of a key or its accounts.
    pub(crate) fn refused(key: &Key, refusal: Refusal) -> Self {
        let id = || key.record.id.as_str().to_owned();
        match refusal {
            Refusal::Key(refusal) => Self::Key { id: id(), refusal },
            Refusal::KeyLimit(dimension) => Self::KeyLimit {
                id: id(),
                dimension,
            },
            Refusal::Account(refusal) => Self::Account(refusal),
            Refusal::TooOld(reason) => Self::TooOld(reason),
        }
    }

    /// What it is in the words of machines.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::BadHead(_) | Self::Upgrade | Self::Body(_) | Self::BodyLost => {
                ErrorCode::InvalidRequest
            }
            Self::TooLarge(_) => ErrorCode::TooLarge,
            Self::Encoded => ErrorCode::UnsupportedEncoding,
            Self::UnknownPath | Self::NotPassedOn(_) | Self::NoSuchModel(_) => ErrorCode::NotFound,
            Self::NoSuchResponse(_) | Self::ResponseOutOfReach => ErrorCode::NoSuchResponse,
            Self::Loop(_) => ErrorCode::Loop,
            Self::Method(_) => ErrorCode::MethodNotAllowed,
            Self::NoKey | Self::TwoKeys | Self::WrongKey(_) | Self::Key { .. } => {
                ErrorCode::InvalidApiKey
            }
            Self::Stranger => ErrorCode::TooManyRequests,
            Self::KeyLimit { dimension, .. }
            | Self::Account(AccountRefusal::Forbidden { dimension, .. }) => match dimension {
                Dimension::Models => ErrorCode::ModelNotAllowed,
                Dimension::Endpoints | Dimension::Networks => ErrorCode::PermissionDenied,
            },
            Self::Account(AccountRefusal::Suspended { .. } | AccountRefusal::Unknown) => {
                ErrorCode::PermissionDenied
            }
            Self::KeyUnchecked
            | Self::NotReady
            | Self::TooOld(_)
            | Self::Overloaded
            | Self::Stopping => ErrorCode::Unavailable,
            Self::NoUpstream { .. } => ErrorCode::NoUpstream,
            Self::UpstreamKeyRefused { .. } => ErrorCode::UpstreamKeyRefused,
            Self::UpstreamFailed {
                timed_out: true, ..
            } => ErrorCode::UpstreamTimeout,
            Self::UpstreamFailed {
                timed_out: false, ..
            } => ErrorCode::UpstreamFailed,
        }
    }

    /// The status of the code, but where HTTP has one for this very case.
    fn status(&self) -> StatusCode {
        if matches!(self, Self::Upgrade) {
            return StatusCode::UPGRADE_REQUIRED;
        }
        if matches!(self, Self::BodyLost) {
            return StatusCode::REQUEST_TIMEOUT;
        }
        StatusCode::from_u16(self.code().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether what follows on the connection cannot be told from this request.
    fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::BadHead(_) | Self::Upgrade | Self::BodyLost | Self::Stopping
        )
    }

    /// Seconds after which it may be tried again.
    fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::KeyUnchecked | Self::NotReady | Self::Overloaded | Self::Stopping => Some("1"),
            Self::Stranger => Some("10"),
            // Nobody knows when the control plane is back; sooner than a minute, everybody would ask again and again.
            Self::TooOld(_) => Some("60"),
            Self::BadHead(_)
            | Self::Upgrade
            | Self::Body(_)
            | Self::BodyLost
            | Self::TooLarge(_)
            | Self::Encoded
            | Self::UnknownPath
            | Self::NotPassedOn(_)
            | Self::Loop(_)
            | Self::NoSuchResponse(_)
            | Self::ResponseOutOfReach
            | Self::Method(_)
            | Self::NoKey
            | Self::TwoKeys
            | Self::WrongKey(_)
            | Self::Key { .. }
            | Self::KeyLimit { .. }
            | Self::Account(_)
            | Self::NoSuchModel(_)
            | Self::NoUpstream { .. }
            | Self::UpstreamKeyRefused { .. }
            | Self::UpstreamFailed { .. } => None,
        }
    }

    /// Whether a client that tries again would only multiply what the gateway has tried.
    fn retry_is_spent(&self) -> bool {
        let gave_up = matches!(self, Self::UpstreamFailed { spent: true, .. });
        gave_up
            || matches!(
                self,
                Self::UpstreamKeyRefused { .. }
                    | Self::NoUpstream { .. }
                    | Self::TooOld(_)
                    | Self::Loop(_)
            )
    }
}

/// What is said behind an error that lies at this gateway or behind it, so that it is found among several.
pub(crate) fn level(deployment: &str) -> String {
    format!(" (gateway {deployment})")
}

/// The answer to a request that failed, at this deployment.
pub(crate) fn respond(
    failure: &Failure,
    dialect: Dialect,
    request_id: &str,
    deployment: Option<&str>,
) -> Response<AnswerBody> {
    let code = failure.code();
    let mut message = failure.to_string();
    if let Some(deployment) = deployment.filter(|_| code.status() >= 500) {
        message.push_str(&level(deployment));
    }
    let body = error::body(dialect, code, &message, request_id);
    let mut response = Response::new(AnswerBody::whole(body.into()));
    *response.status_mut() = failure.status();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Failure::Method(endpoint) = failure {
        headers.insert(header::ALLOW, HeaderValue::from_static(endpoint.method()));
    }
    if let Some(Ok(deployment)) = deployment.map(HeaderValue::from_str) {
        headers.insert(X_PROXYXAI_DEPLOYMENT, deployment);
    }
    if let Some(seconds) = failure.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
    }
    if failure.ends_connection() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if failure.retry_after().is_some() && !matches!(failure, Failure::Stranger) {
        headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("true"));
    }
    if failure.retry_is_spent() {
        headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}
