//! Errors in the words and shapes of each dialect.
//!
//! OpenAI: `{"error":{"message","type","param","code"}}`, all four always there. Anthropic:
//! `{"type":"error","error":{"type","message"},"request_id"}`.

use serde::Serialize;

use super::Dialect;

/// What went wrong, as a machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request cannot be understood.
    InvalidRequest,
    /// No key, a wrong one, or a disabled one.
    InvalidApiKey,
    /// The key is good, but must not do this.
    PermissionDenied,
    /// The key's account must not use this model.
    ModelNotAllowed,
    /// Nothing is at this path.
    NotFound,
    /// The response that is gone on from is not one of the caller's.
    NoSuchResponse,
    /// The path is right, the method is not.
    MethodNotAllowed,
    /// The body is too large.
    TooLarge,
    /// The body's encoding is not read here.
    UnsupportedEncoding,
    /// Too many requests from this address with keys that do not exist.
    TooManyRequests,
    /// The gateway cannot serve now, and says when to try again.
    Unavailable,
    /// No upstream key serves this.
    NoUpstream,
    /// The upstream keys failed.
    UpstreamFailed,
    /// The upstream keys did not answer in time.
    UpstreamTimeout,
    /// An upstream key is refused by its provider.
    UpstreamKeyRefused,
    /// The request went round in a circle of gateways, or through too many.
    Loop,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 16] = [
        Self::InvalidRequest,
        Self::InvalidApiKey,
        Self::PermissionDenied,
        Self::ModelNotAllowed,
        Self::NotFound,
        Self::NoSuchResponse,
        Self::MethodNotAllowed,
        Self::TooLarge,
        Self::UnsupportedEncoding,
        Self::TooManyRequests,
        Self::Unavailable,
        Self::NoUpstream,
        Self::UpstreamFailed,
        Self::UpstreamTimeout,
        Self::UpstreamKeyRefused,
        Self::Loop,
    ];

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::InvalidApiKey => 401,
            Self::PermissionDenied | Self::ModelNotAllowed => 403,
            Self::NotFound | Self::NoSuchResponse => 404,
            Self::MethodNotAllowed => 405,
            Self::TooLarge => 413,
            Self::UnsupportedEncoding => 415,
            Self::TooManyRequests => 429,
            Self::UpstreamFailed | Self::UpstreamKeyRefused => 502,
            Self::Unavailable | Self::NoUpstream => 503,
            Self::UpstreamTimeout => 504,
            Self::Loop => 508,
        }
    }

    /// OpenAI's `code`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidApiKey => "invalid_api_key",
            Self::PermissionDenied => "permission_denied",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::NotFound => "not_found",
            Self::NoSuchResponse => "previous_response_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "request_too_large",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::TooManyRequests => "rate_limit_exceeded",
            Self::Unavailable => "gateway_unavailable",
            Self::NoUpstream => "no_upstream_key",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamKeyRefused => "upstream_key_refused",
            Self::Loop => "gateway_loop",
        }
    }

    fn openai_type(self) -> &'static str {
        match self.status() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn anthropic_type(self) -> &'static str {
        match self.status() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }
}

#[derive(Serialize)]
struct OpenaiBody<'a> {
    error: OpenaiError<'a>,
}

#[derive(Serialize)]
struct OpenaiError<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

#[derive(Serialize)]
struct ResponseEvent<'a> {
    r#type: &'static str,
    sequence_number: u64,
    code: &'static str,
    message: &'a str,
    param: Option<&'a str>,
    error: OpenaiError<'a>,
}

#[derive(Serialize)]
struct AnthropicBody<'a> {
    r#type: &'static str,
    error: AnthropicError<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    r#type: &'static str,
    message: &'a str,
}

/// The body of an error answer.
pub fn body(dialect: Dialect, code: ErrorCode, message: &str, request_id: &str) -> Vec<u8> {
    let written = match dialect {
        Dialect::OpenaiChat | Dialect::OpenaiResponses => serde_json::to_vec(&OpenaiBody {
            error: OpenaiError {
                message,
                r#type: code.openai_type(),
                param: None,
                code: code.as_str(),
            },
        }),
        Dialect::AnthropicMessages => serde_json::to_vec(&AnthropicBody {
            r#type: "error",
            error: AnthropicError {
                r#type: code.anthropic_type(),
                message,
            },
            request_id,
        }),
    };
    written.unwrap_or_default()
}

/// The event that ends a stream whose rest will not come. It begins with an empty line, which ends an event that was cut. `number` is how
/// many events came before it.
pub fn event(
    dialect: Dialect,
    code: ErrorCode,
    message: &str,
    request_id: &str,
    number: u64,
) -> Vec<u8> {
    let name: &[u8] = match dialect {
        Dialect::OpenaiChat => b"",
        Dialect::OpenaiResponses | Dialect::AnthropicMessages => b"event: error\n",
    };
    let data = match dialect {
        Dialect::OpenaiResponses => response_event(code, message, number),
        Dialect::OpenaiChat | Dialect::AnthropicMessages => {
            body(dialect, code, message, request_id)
        }
    };
    [b"\n\n", name, b"data: ", &data, b"\n\n"].concat()
}

/// The reference has what is wrong at the top of the event; the official clients raise an error only for one that has it within `error`.
fn response_event(code: ErrorCode, message: &str, sequence_number: u64) -> Vec<u8> {
    let written = serde_json::to_vec(&ResponseEvent {
        r#type: "error",
        sequence_number,
        code: code.as_str(),
        message,
        param: None,
        error: OpenaiError {
            message,
            r#type: code.openai_type(),
            param: None,
            code: code.as_str(),
        },
    });
    written.unwrap_or_default()
}
