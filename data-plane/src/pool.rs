//! Upstream connections of one core: last in, first out, so that few stay warm and the others run out.
//!
//! Invariant: a connection is here only between two answers; one that the provider closed meanwhile is never handed out.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use proxyxai_core::snapshot::Provider;

use crate::{context::Context, net::DialError};

/// Connections that are kept for one provider.
const KEPT: usize = 512;
/// How long one may wait for its next request; providers close theirs after a minute or more.
const IDLE: Duration = Duration::from_secs(55);

/// Connections that wait.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<Box<str>, Vec<Waiting>>>,
}

struct Waiting {
    sender: SendRequest<Full<Bytes>>,
    since: Duration,
}

/// A connection in use.
pub(crate) struct Lease {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
}

impl Pool {
    /// A connection that waits, if there is one.
    pub(crate) fn take(&self, provider: &Provider, now: Duration) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(provider.base.origin())?;
        while let Some(Waiting { sender, since }) = waiting.pop() {
            if now.saturating_sub(since) > IDLE {
                waiting.clear();
                return None;
            }
            if !sender.is_closed() {
                return Some(Lease {
                    sender,
                    reused: true,
                });
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn put(&self, provider: &Provider, lease: Lease, now: Duration) {
        if lease.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let origin = provider.base.origin();
        if !idle.contains_key(origin) {
            idle.insert(origin.into(), Vec::new());
        }
        if let Some(waiting) = idle.get_mut(origin)
            && waiting.len() < KEPT
        {
            waiting.push(Waiting {
                sender: lease.sender,
                since: now,
            });
        }
    }

    /// Closes what waits for too long; called now and then.
    pub(crate) fn sweep(&self, now: Duration) {
        let mut idle = self.idle.borrow_mut();
        for waiting in idle.values_mut() {
            waiting.retain(|one| now.saturating_sub(one.since) <= IDLE && !one.sender.is_closed());
        }
        idle.retain(|_, waiting| !waiting.is_empty());
    }
}

/// A new connection to a provider.
pub(crate) async fn connect(cx: &Rc<Context>, provider: &Provider) -> Result<Lease, DialError> {
    let io = cx.dial.dial(&provider.base, provider.allow_private).await?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(io))
        .await
        .map_err(DialError::Http)?;
    // It ends when its sender is dropped or the provider hangs up.
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream connection ended");
        }
    });
    Ok(Lease {
        sender,
        reused: false,
    })
}
