//! What a request for a response asks for, and what it goes on from.
//!
//! Invariant: whatever may lie with one account of the provider alone is taken for state; to take too much for it costs a retry, to take
//! too little sends a conversation to somebody who does not know it.

use std::ops::Range;

use bytes::Bytes;

use super::{Endpoint, Fields, Intent, InvalidBody, State, UsageRequest, flag, number, read_model};
use crate::dialect::scan;

/// The keys that are read.
const KEYS: [&str; 8] = [
    "model",
    "stream",
    "max_output_tokens",
    "service_tier",
    "previous_response_id",
    "conversation",
    "background",
    "input",
];

/// What the items of an input have that name, or hold, what only one account can read.
const NAMED: [&[u8]; 3] = [
    b"\"item_reference\"",
    b"\"encrypted_content\"",
    b"\"file_id\"",
];

/// Reads the body of a request for a response. Usage is reported without being asked for.
pub(super) fn read(body: &Bytes) -> Result<Intent, InvalidBody> {
    let mut fields = Fields::of(&KEYS);
    scan::members(body, |member| fields.take(body, member))?;
    let [
        model,
        stream,
        cap,
        tier,
        previous,
        conversation,
        background,
        input,
    ] = fields.found;
    let model_at = model.ok_or(InvalidBody::NoModel)?;
    if flag(body, background.as_ref(), "background")? {
        return Err(InvalidBody::Background);
    }
    let given = |range: Option<Range<usize>>| {
        let text = body.get(range?)?;
        (text != b"null").then_some(text)
    };
    let words = |range| serde_json::from_slice::<String>(given(range)?).ok();
    let input = given(input).unwrap_or_default();
    let named = || {
        NAMED
            .iter()
            .any(|name| memchr::memmem::find(input, name).is_some())
    };
    let state = match given(previous.clone()) {
        Some(_) => words(previous).map_or(State::Other, State::Response),
        None if given(conversation).is_some() || named() => State::Other,
        None => State::None,
    };
    Ok(Intent {
        endpoint: Endpoint::Responses,
        model: read_model(body, model_at.clone())?,
        stream: flag(body, stream.as_ref(), "stream")?,
        output_cap: number(body, cap.as_ref()),
        choices: 1,
        service_tier: words(tier),
        state,
        usage: UsageRequest::AsGiven,
        model_at,
    })
}
