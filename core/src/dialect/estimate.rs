//! Estimates what an attempt used whose provider never said.
//!
//! An estimate is marked as one and stands in sums of its own. Four bytes of text make about one token; media is never counted as
//! text, so an image given as base64 does not look like a novel.

use serde_json::Value;

use super::usage::Tokens;

const BYTES_PER_TOKEN: u64 = 4;

/// Estimates from the request's body and from the bytes of text that came back. It reads the whole body, so it is called only
/// when an attempt ends without a report.
pub fn estimate(body: &[u8], output_bytes: u64) -> Tokens {
    let input = match serde_json::from_slice::<Value>(body) {
        Ok(value) => text_bytes(&value),
        Err(_) => u64::try_from(body.len()).unwrap_or(u64::MAX),
    };
    Tokens {
        input: input.div_ceil(BYTES_PER_TOKEN),
        output: output_bytes.div_ceil(BYTES_PER_TOKEN),
        ..Tokens::default()
    }
}

/// Bytes of text in a value: strings, but not those that hold media.
fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) if is_media(text) => 0,
        Value::String(text) => u64::try_from(text.len()).unwrap_or(u64::MAX),
        Value::Array(items) => items.iter().map(text_bytes).fold(0, u64::saturating_add),
        Value::Object(members) => members
            .iter()
            .map(|(_, v)| text_bytes(v))
            .fold(0, u64::saturating_add),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// A data URL, or a long run of base 64 without a space in it.
fn is_media(text: &str) -> bool {
    text.starts_with("data:")
        || (text.len() > 1024
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b)))
}
