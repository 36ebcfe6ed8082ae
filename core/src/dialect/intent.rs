//! What a request asks for: read in one pass over the top level of its body, which is then forwarded as it came.
//!
//! Invariant: what is read here is what the provider will read. A key that decides something must not stand twice, also when it is
//! written with escapes.

use std::{borrow::Cow, ops::Range};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    Endpoint,
    scan::{self, Member, NotAnObject},
};

mod response;

/// What a request asks for.
#[derive(Debug, Clone)]
pub struct Intent {
    /// What is called.
    pub endpoint: Endpoint,
    /// The model, as the client named it.
    pub model: String,
    /// Whether the answer shall be a stream of events.
    pub stream: bool,
    /// The most output tokens per choice, when given.
    pub output_cap: Option<u64>,
    /// How many answers are asked for.
    pub choices: u64,
    /// The service tier that is asked for; told of responses alone.
    pub service_tier: Option<String>,
    /// What it goes on from that the provider keeps, if anything.
    pub state: State,
    usage: UsageRequest,
    /// Where the model's name stands in the body, its quotes included.
    model_at: Range<usize>,
}

/// What a request goes on from that lies with the provider's account that made it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing: any account can serve it.
    #[default]
    None,
    /// The response of this id.
    Response(String),
    /// Something else that only one account has: a conversation, a file, an item, sealed reasoning.
    Other,
}

/// Where the body asks for usage in a stream, or where it can be made to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
enum UsageRequest {
    /// It asks, or no stream is asked for: forward the bytes as they came.
    AsGiven,
    /// It does not: insert `text` in place of `at`.
    Insert {
        at: Range<usize>,
        text: &'static str,
    },
}

/// Longest model name, in bytes: it ends up in usage rows.
pub const MAX_MODEL_LEN: usize = 256;

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    /// Not JSON, cut, or with a tail.
    #[error(transparent)]
    NotAnObject(#[from] NotAnObject),
    /// A key that decides something stands twice.
    #[error("the body has `{0}` twice; send it once")]
    Twice(&'static str),
    /// A value of the wrong type.
    #[error("`{key}` must be {want}")]
    Type {
        /// The key.
        key: &'static str,
        /// What it must be.
        want: &'static str,
    },
    /// No model.
    #[error("you must provide a model parameter")]
    NoModel,
    /// A response that is made later, and would have to be fetched.
    #[error(
        "`background` responses are not passed on, as what they end with could not be fetched here; send the request without it, and with `stream` if it takes long"
    )]
    Background,
}

/// Reads the body of a request.
///
/// # Errors
/// Says what is wrong with the body, in words for its sender.
pub fn read(endpoint: Endpoint, body: &Bytes) -> Result<Intent, InvalidBody> {
    if endpoint == Endpoint::Responses {
        return response::read(body);
    }
    let mut fields = Fields::of(&KEYS);
    scan::members(body, |member| fields.take(body, member))?;
    let [model, stream, options, cap, cap_chat, choices] = fields.found;
    let model_at = model.ok_or(InvalidBody::NoModel)?;
    let model = read_model(body, model_at.clone())?;
    let stream = flag(body, stream.as_ref(), "stream")?;
    let number = |range: Option<&Range<usize>>| number(body, range);
    let usage = match endpoint {
        Endpoint::ChatCompletions if stream => usage_request(body, options)?,
        Endpoint::ChatCompletions
        | Endpoint::Embeddings
        | Endpoint::Responses
        | Endpoint::Messages
        | Endpoint::CountTokens
        | Endpoint::Models => UsageRequest::AsGiven,
    };
    Ok(Intent {
        endpoint,
        model,
        stream: stream && endpoint != Endpoint::Embeddings && endpoint != Endpoint::CountTokens,
        output_cap: number(cap_chat.as_ref()).or_else(|| number(cap.as_ref())),
        choices: number(choices.as_ref()).unwrap_or(1),
        service_tier: None,
        state: State::None,
        usage,
        model_at,
    })
}

impl Intent {
    /// The intent of a request without a body.
    pub fn without_body(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            model: String::new(),
            stream: false,
            output_cap: None,
            choices: 1,
            service_tier: None,
            state: State::None,
            usage: UsageRequest::AsGiven,
            model_at: 0..0,
        }
    }

    /// Whether the client did not ask for usage that the gateway asks for, so that it must be hidden again.
    pub fn hides_usage(&self) -> bool {
        self.usage != UsageRequest::AsGiven
    }

    /// The body to forward: the same bytes, unless usage must be asked for or the upstream calls the model by another name.
    pub fn forward_body(&self, body: &Bytes, upstream_model: Option<&str>) -> Bytes {
        let usage = match &self.usage {
            UsageRequest::AsGiven => None,
            UsageRequest::Insert { at, text } => Some((at.clone(), Cow::Borrowed(*text))),
        };
        let model = upstream_model
            .filter(|name| *name != self.model)
            .map(|name| (self.model_at.clone(), Cow::Owned(quoted(name))));
        let mut edits: Vec<_> = match (usage, model) {
            (None, None) => return body.clone(),
            (usage, model) => usage.into_iter().chain(model).collect(),
        };
        edits.sort_by_key(|(at, _)| at.start);
        let longer = edits.iter().map(|(_, text)| text.len());
        let mut out = BytesMut::with_capacity(longer.fold(body.len(), usize::saturating_add));
        let mut from = 0;
        for (at, text) in edits {
            out.put_slice(body.get(from..at.start).unwrap_or_default());
            out.put_slice(text.as_bytes());
            from = at.end;
        }
        out.put_slice(body.get(from..).unwrap_or_default());
        out.freeze()
    }
}

/// A name as JSON text.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

/// The keys that are read; the order is that of `Fields::found`.
const KEYS: [&str; 6] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
];

/// Where the values of some keys stand.
struct Fields<const N: usize> {
    keys: &'static [&'static str; N],
    found: [Option<Range<usize>>; N],
}

impl<const N: usize> Fields<N> {
    fn of(keys: &'static [&'static str; N]) -> Self {
        Self {
            keys,
            found: [const { None }; N],
        }
    }

    fn take(&mut self, body: &[u8], member: Member) -> Result<(), InvalidBody> {
        let raw = body.get(member.key.clone()).unwrap_or_default();
        let mut position = self.keys.iter().position(|name| name.as_bytes() == raw);
        if position.is_none() && member.escaped {
            let key = unescape(body, &member.key).ok_or(NotAnObject {
                what: "a key with a wrong escape",
                at: member.key.start,
            })?;
            position = self.keys.iter().position(|name| *name == key);
        }
        let Some((slot, name)) = position.and_then(|p| self.found.get_mut(p).zip(self.keys.get(p)))
        else {
            return Ok(());
        };
        if slot.replace(member.value).is_some() {
            Err(InvalidBody::Twice(name))
        } else {
            Ok(())
        }
    }
}

fn flag(body: &[u8], value: Option<&Range<usize>>, key: &'static str) -> Result<bool, InvalidBody> {
    match value.map(|range| body.get(range.clone()).unwrap_or_default()) {
        None | Some(b"false" | b"null") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => Err(InvalidBody::Type {
            key,
            want: "true or false",
        }),
    }
}

fn number(body: &[u8], value: Option<&Range<usize>>) -> Option<u64> {
    let text = body.get(value?.clone())?;
    str::from_utf8(text).ok()?.parse().ok()
}

fn read_model(body: &[u8], value: Range<usize>) -> Result<String, InvalidBody> {
    let wrong = InvalidBody::Type {
        key: "model",
        want: "a string of 1 to 256 bytes",
    };
    let quoted = body.get(value.clone()).unwrap_or_default();
    if quoted.first() != Some(&b'"') {
        return Err(wrong);
    }
    let inner = value.start.saturating_add(1)..value.end.saturating_sub(1);
    // As nearly every name is.
    let plain = |raw: &[u8]| {
        raw.iter()
            .fold(true, |all, b| all & matches!(b, b' '..=b'[' | b']'..=b'~'))
    };
    let name = match body.get(inner.clone()) {
        Some(raw) if plain(raw) && (1..=MAX_MODEL_LEN).contains(&raw.len()) => {
            return str::from_utf8(raw).map(str::to_owned).map_err(|_| wrong);
        }
        Some(raw) if raw.contains(&b'\\') => unescape(body, &inner),
        Some(raw) => str::from_utf8(raw).ok().map(str::to_owned),
        None => None,
    };
    let fits = |name: &String| {
        (1..=MAX_MODEL_LEN).contains(&name.len()) && !name.chars().any(char::is_control)
    };
    name.filter(fits).ok_or(wrong)
}

/// The string between quotes, with its escapes read.
fn unescape(body: &[u8], inner: &Range<usize>) -> Option<String> {
    let quoted = body.get(inner.start.checked_sub(1)?..inner.end.checked_add(1)?)?;
    serde_json::from_slice(quoted).ok()
}

/// Finds out how to make a streamed chat completion report its usage.
fn usage_request(body: &[u8], options: Option<Range<usize>>) -> Result<UsageRequest, InvalidBody> {
    let Some(options) = options else {
        let after_brace = memchr::memchr(b'{', body).map_or(0, |at| at.saturating_add(1));
        return Ok(UsageRequest::Insert {
            at: after_brace..after_brace,
            text: r#""stream_options":{"include_usage":true},"#,
        });
    };
    let text = body.get(options.clone()).unwrap_or_default();
    if text == b"null" {
        return Ok(UsageRequest::Insert {
            at: options,
            text: r#"{"include_usage":true}"#,
        });
    }
    let wrong = InvalidBody::Type {
        key: "stream_options",
        want: "an object",
    };
    let (mut wish, mut members) = (None, 0_usize);
    scan::members(text, |member| {
        members = members.saturating_add(1);
        let key = member.key.start..member.key.end;
        let is_wish = text.get(key.clone()) == Some(b"include_usage")
            || unescape(text, &key).is_some_and(|key| key == "include_usage");
        if is_wish && wish.replace(member.value).is_some() {
            return Err(InvalidBody::Twice("stream_options.include_usage"));
        }
        Ok(())
    })
    .map_err(|error| {
        if matches!(error, InvalidBody::NotAnObject(_)) {
            wrong
        } else {
            error
        }
    })?;
    let shift = |inner: Range<usize>| {
        options.start.saturating_add(inner.start)..options.start.saturating_add(inner.end)
    };
    Ok(match wish {
        Some(value) if text.get(value.clone()) == Some(b"true") => UsageRequest::AsGiven,
        Some(value) => UsageRequest::Insert {
            at: shift(value),
            text: "true",
        },
        None => {
            let inside = if members == 0 {
                r#""include_usage":true"#
            } else {
                r#""include_usage":true,"#
            };
            UsageRequest::Insert {
                at: shift(1..1),
                text: inside,
            }
        }
    })
}
