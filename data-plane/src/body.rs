//! Reads the body of a request, within its limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::{headers::content_length, respond::Failure};

/// The whole body: the bytes as they came when they came at once, joined otherwise.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, Failure> {
    let encoded = headers
        .get(CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(Failure::Encoded);
    }
    let announced = content_length(headers)
        .map(|length| usize::try_from(length).unwrap_or(usize::MAX))
        .unwrap_or(0);
    if announced > limit {
        return Err(Failure::TooLarge(limit));
    }
    collect(body, announced, limit, patience).await
}

async fn collect(
    mut body: Incoming,
    announced: usize,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(patience, body.frame())
            .await
            .map_err(|_| Failure::BodyLost)?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|_| Failure::BodyLost)?.into_data() else {
            continue;
        };
        if first.is_empty() && joined.is_empty() {
            first = data;
            if body.is_end_stream() {
                break;
            }
            continue;
        }
        if joined.is_empty() {
            joined.reserve(
                announced
                    .min(limit)
                    .max(first.len().saturating_add(data.len())),
            );
            joined.extend_from_slice(&std::mem::take(&mut first));
        }
        joined.extend_from_slice(&data);
        if joined.len() > limit {
            return Err(Failure::TooLarge(limit));
        }
    }
    if first.len() > limit {
        return Err(Failure::TooLarge(limit));
    }
    Ok(if joined.is_empty() {
        first
    } else {
        joined.freeze()
    })
}
