//! Keeps the configuration up to date: one stream to the control plane, opened again whenever it ends.
//!
//! Invariants: what is in force stays in force while there is no stream; waits between streams have full jitter; the task ends
//! at shutdown and leaves nothing running.

use std::{convert::Infallible, sync::Arc, sync::atomic::Ordering, time::Duration};

use proxyxai_core::{ports::Random, snapshot::Version};
use proxyxai_proto::config::v1::{
    Hello, StreamResponse, config_service_client::ConfigServiceClient, stream_request,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    backoff::Backoff,
    control::ControlChannel,
    freshness::{self, Deadline},
    held::Held,
    pinned::{ConfigHandle, NodeState},
    session::{Session, StreamFault, message},
};

/// Largest message taken: a difference of many resources is one message.
const MESSAGE_MAX: usize = 64 * 1024 * 1024;
/// Answers that may wait to be sent; a control plane that reads none of them is of no use.
const ANSWERS: usize = 64;
/// How long the control plane may take for its first message.
const GREETING: Duration = Duration::from_secs(10);
/// Taken when the control plane names no interval between bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);

/// Who asks for configuration.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Stays the same across starts; kept by the caller.
    pub node_id: String,
    /// New at every start.
    pub boot_id: String,
}

/// Keeps one [`ConfigHandle`] up to date.
pub struct Subscriber {
    client: ConfigServiceClient<ControlChannel>,
    identity: Identity,
    held: Held,
    backoff: Backoff,
    fresh_until: watch::Sender<Deadline>,
    start_over: bool,
}

impl Subscriber {
    /// A subscriber that writes to `config`; there must be one per handle.
    pub fn new(
        channel: ControlChannel,
        identity: Identity,
        config: ConfigHandle,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            client: ConfigServiceClient::new(channel).max_decoding_message_size(MESSAGE_MAX),
            identity,
            held: Held::new(config),
            backoff: Backoff::new(random),
            fresh_until: watch::Sender::new(None),
            start_over: false,
        }
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let watcher = freshness::watch(self.held.config().clone(), self.fresh_until.subscribe());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = watcher => {}
            never = self.stay_connected() => match never {},
        }
    }

    async fn stay_connected(&mut self) -> Infallible {
        loop {
            let fault = match self.stream().await {
                Ok(never) => match never {},
                Err(fault) => fault,
            };
            self.start_over = fault.starts_over();
            self.held
                .config()
                .counters()
                .disconnects
                .fetch_add(1, Ordering::Relaxed);
            if !self.held.config().is_ready() {
                self.held.config().set_state(NodeState::Waiting);
            }
            let wait = self.backoff.next_wait();
            tracing::warn!(%fault, wait_ms = wait.as_millis(), "no configuration stream; trying again");
            sleep(wait).await;
        }
    }

    async fn stream(&mut self) -> Result<Infallible, StreamFault> {
        let (answers, requests) = mpsc::channel(ANSWERS);
        answers
            .try_send(message(stream_request::Message::Hello(self.hello())))
            .map_err(|_| StreamFault::Closed)?;
        let opening = self.client.stream(ReceiverStream::new(requests));
        let mut messages = timeout(GREETING, opening)
            .await
            .map_err(|_| StreamFault::Silent)?
            .map_err(Box::new)?
            .into_inner();
        let mut lifetime = GREETING;
        let mut session = Session::new(&mut self.held);
        loop {
            let message = next(&mut messages, lifetime).await?;
            let taken = session.take(message)?;
            if let Some(interval) = taken.bookmark_interval {
                self.backoff.reset();
                lifetime = freshness::lifetime(if interval.is_zero() {
                    BOOKMARK_INTERVAL
                } else {
                    interval
                });
            }
            if taken.fresh {
                self.fresh_until
                    .send_replace(Instant::now().checked_add(lifetime));
            }
            if let Some(reply) = taken.reply {
                answers.try_send(reply).map_err(|_| StreamFault::Closed)?;
            }
        }
    }

    fn hello(&self) -> Hello {
        let held = self.held.version();
        let has_any = held != Version::default() && !self.start_over;
        Hello {
            node_id: self.identity.node_id.clone(),
            boot_id: self.identity.boot_id.clone(),
            held: has_any.then(|| held.into()),
            held_digest: if has_any {
                self.held.digest().0.to_vec()
            } else {
                Vec::new()
            },
            ..Hello::default()
        }
    }
}

async fn next(
    messages: &mut Streaming<StreamResponse>,
    within: Duration,
) -> Result<StreamResponse, StreamFault> {
    let message: Result<Option<StreamResponse>, Status> = timeout(within, messages.message())
        .await
        .map_err(|_| StreamFault::Silent)?;
    message.map_err(Box::new)?.ok_or(StreamFault::Closed)
}

#[cfg(test)]
mod tests;
