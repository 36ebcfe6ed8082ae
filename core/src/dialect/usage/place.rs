//! Where an answer says what it used.
//!
//! Providers write usage behind the text that they generated, so it is looked for from the end: what a long answer costs to read does
//! not grow with its length. In valid JSON a quote that follows `{`, `,` or white space is not inside a string, so what is found is a
//! key; and its object is the outermost one, because nothing follows that object's end.

use std::ops::Range;

use crate::dialect::scan::{self, NotAnObject};

/// Bytes at the end of an answer in which usage is looked for first.
const TAIL: usize = 2 << 10;
const USAGE: &[u8] = b"\"usage\"";
const TIER: &[u8] = b"\"service_tier\"";

/// Values at the top level of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) usage: Range<usize>,
    pub(super) tier: Option<Range<usize>>,
}

/// Where the value of the last `usage` begins, when that stands near the end; [`rest`] must agree.
pub(super) fn near_the_end(body: &[u8]) -> Option<usize> {
    let tail = body.len().saturating_sub(TAIL);
    // `g` is the letter that occurs least elsewhere in the end of an answer.
    let key = memchr::memrchr_iter(b'g', body.get(tail..)?)
        .filter_map(|g| tail.saturating_add(g).checked_sub(4))
        .find(|at| body.get(*at..).is_some_and(|rest| rest.starts_with(USAGE)))?;
    let before = body.get(..key)?;
    let is_key = matches!(before.last()?, b'{' | b',' | b' ' | b'\n' | b'\r' | b'\t');
    if !is_key || before.trim_ascii_start().first() != Some(&b'{') || has_tier(before) {
        return None;
    }
    let after = body.get(key.checked_add(USAGE.len())?..)?;
    let value = after
        .trim_ascii_start()
        .strip_prefix(b":")?
        .trim_ascii_start();
    body.len().checked_sub(value.len())
}

/// The service tier behind a usage that ends at `end`; `None` when what follows shows that it was not at the top level.
pub(super) fn rest(body: &[u8], end: usize) -> Option<Option<Range<usize>>> {
    let (mut tier, mut again) = (None, false);
    scan::members_after::<NotAnObject>(body, end, |member| {
        match body.get(member.key) {
            Some(b"usage") => again = true,
            Some(b"service_tier") => tier = Some(member.value),
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    (!again).then_some(tier)
}

/// The last `usage`, wherever it stands.
pub(super) fn anywhere(body: &[u8]) -> Option<Place> {
    let (mut usage, mut tier) = (None, None);
    scan::members::<NotAnObject>(body, |member| {
        match body.get(member.key) {
            Some(b"usage") => usage = Some(member.value),
            Some(b"service_tier") => tier = Some(member.value),
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    usage.map(|usage| Place { usage, tier })
}

/// Whether a service tier may stand in what comes before: such an answer is read from its start.
fn has_tier(before: &[u8]) -> bool {
    memchr::memchr_iter(b'_', before)
        .filter_map(|at| at.checked_sub(8))
        .any(|at| before.get(at..).is_some_and(|rest| rest.starts_with(TIER)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Place, anywhere, near_the_end, rest};
    use crate::dialect::{
        Endpoint,
        usage::{
            general_usage,
            plain::tests::{json, object},
            plain_usage,
        },
    };

    /// What reading from the end finds, given where a value ends that begins at some place.
    fn from_the_end(body: &[u8]) -> Option<Place> {
        let begin = near_the_end(body)?;
        let mut values = serde_json::Deserializer::from_slice(&body[begin..])
            .into_iter::<serde::de::IgnoredAny>();
        values.next()?.ok()?;
        let end = begin.checked_add(values.byte_offset())?;
        rest(body, end).map(|tier| Place {
            usage: begin..end,
            tier,
        })
    }

    proptest! {
        /// Whatever stands in the answer, reading from the end finds what reading from the start finds, or leaves it to that.
        #[test]
        fn the_end_tells_what_the_whole_tells(body in object(json()), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_vec_pretty(&body) } else { serde_json::to_vec(&body) }.unwrap();
            if let Some(place) = from_the_end(&text) {
                prop_assert_eq!(Some(place), anywhere(&text));
            }
            for endpoint in [Endpoint::ChatCompletions, Endpoint::Messages] {
                if let Some(usage) = plain_usage(endpoint, &text) {
                    prop_assert_eq!(Some(usage), general_usage(endpoint, &text));
                }
            }
        }
    }

    #[test]
    fn usual_answers_are_read_from_the_end() {
        for body in [
            r#"{"id":"a","choices":[{"message":{"content":"\\\"usage\\\": {"}}],"usage":{"prompt_tokens":1},"service_tier":"flex","x":[]}"#,
            "{ \"content\": [{\"usage\": 1}],\n  \"usage\" : {\"input_tokens\": 1, \"b\": {\"c\": [\"}\"]}}\n}\n",
        ] {
            let place = from_the_end(body.as_bytes());
            assert!(place.is_some(), "{body}");
            assert_eq!(place, anywhere(body.as_bytes()), "{body}");
        }
        for body in [
            r#"{"content":[{"usage":{"input_tokens":1}}]}"#,
            r#"{"a":{"usage":1}}"#,
            r#"{"service_tier":"flex","usage":{"prompt_tokens":1}}"#,
            r#"{"a":"b \"usage":1}"#,
            r#"["usage"]"#,
            r#"{"a":"usage"}"#,
        ] {
            assert_eq!(from_the_end(body.as_bytes()), None, "{body}");
        }
    }
}
