//! Reads the body of a request, within its limits.

use std::{rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::{context::Context, respond::Failure, signs::Signs, timers::within};

/// A body of so many bytes is cheaper to copy than to keep in place.
const SMALL: usize = 4 << 10;
/// Of the body of a refused request: what is read so that the client gets to read the refusal.
const LEFTOVER: usize = 64 << 20;
const LEFTOVER_TIME: Duration = Duration::from_secs(10);

/// The whole body: the bytes as they came when they came at once, joined otherwise.
pub(crate) async fn read(
    cx: &Context,
    signs: &Signs<'_>,
    body: &mut Incoming,
) -> Result<Bytes, Failure> {
    let limit = cx.settings.body_limit;
    let encoded = signs
        .content_encoding
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(Failure::Encoded);
    }
    let announced = body.size_hint().exact().unwrap_or(0);
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Failure::TooLarge(limit));
    }
    collect(cx, body, announced, limit).await
}

async fn collect(
    cx: &Context,
    body: &mut Incoming,
    announced: usize,
    limit: usize,
) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let frame = within(&cx.timers, cx.settings.head_timeout, body.frame())
            .await
            .ok_or(Failure::BodyLost)?;
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

/// The body for keeping. A small one is copied: the slice that the HTTP library hands out would keep the whole of the connection's
/// read buffer, for as long as the answer goes on.
pub(crate) fn apart(body: Bytes) -> Bytes {
    if body.len() > SMALL {
        return body;
    }
    Bytes::copy_from_slice(&body)
}

/// Reads on behind a refusal: a connection that is closed with bytes unread takes the refusal along.
pub(crate) fn discard(cx: &Rc<Context>, mut body: Incoming) {
    let timers = Rc::clone(&cx.timers);
    cx.spawn(async move {
        let mut left = LEFTOVER;
        let rest = async {
            while let Some(Ok(frame)) = body.frame().await {
                let read = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(read) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        within(&timers, LEFTOVER_TIME, rest).await;
    });
}
