//! Keeps the configuration up to date: one stream to the control plane, opened again whenever it ends.
//!
//! Invariants: what is in force stays in force while there is no stream; waits between streams have full jitter, but for those that the
//! control plane asks for; the task ends at shutdown and leaves nothing running.

use std::{convert::Infallible, sync::Arc, sync::atomic::Ordering, time::Duration};

use proxyxai_core::{
    freshness::Freshness,
    ports::{Random, random_bytes},
    snapshot::Version,
};
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
    control::ControlPlanes,
    copy::Loaded,
    held::{Held, Holding},
    pinned::ConfigHandle,
    session::{SCHEMAS, Session, StreamFault, message},
    standing,
};
use crate::{keys::KeyResolver, orders::Orders};

/// Largest message taken: a difference of many resources is one message.
const MESSAGE_MAX: usize = 64 * 1024 * 1024;
/// Answers that may wait to be sent; a control plane that reads none of them is of no use.
const ANSWERS: usize = 1_024;
/// How long the control plane may take for its first message.
const GREETING: Duration = Duration::from_secs(10);

/// How soon a node connects again after it was sent away.
const SOONEST: Duration = Duration::from_millis(100);

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
    planes: ControlPlanes,
    identity: Identity,
    held: Held,
    keys: KeyResolver,
    orders: Orders,
    preload_max: u64,
    backoff: Backoff,
    random: Arc<dyn Random>,
    start_over: bool,
}

impl Subscriber {
    /// A subscriber that writes to `config`; there must be one per handle. With more than `preload_max` virtual keys, they are
    /// looked up on demand. What it holds can be read from the receiver, as it changes.
    pub(crate) fn new(
        planes: ControlPlanes,
        identity: Identity,
        config: ConfigHandle,
        keys: KeyResolver,
        orders: Orders,
        preload_max: u64,
        random: Arc<dyn Random>,
    ) -> (Self, watch::Receiver<Option<Holding>>) {
        let (published, holding) = watch::channel(None);
        let subscriber = Self {
            planes,
            identity,
            held: Held::new(config, published),
            keys,
            orders,
            preload_max,
            backoff: Backoff::new(Arc::clone(&random)),
            random,
            start_over: false,
        };
        (subscriber, holding)
    }

    /// Goes on from what an earlier process held.
    pub(crate) fn restore(&mut self, loaded: Loaded) {
        let (age, limit) = (loaded.age, loaded.limit);
        let (version, keyed) = (
            loaded.holding.pinned.snapshot.version,
            loaded.holding.pinned.keyed,
        );
        self.keys.import(loaded.remembered);
        if !keyed {
            self.keys.advance(version);
        }
        self.orders.restore(loaded.schedule);
        self.held.restore(loaded.holding);
        self.held
            .config()
            .note(|facts, now| facts.restored(now, age, limit));
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let watcher = standing::watch(self.held.config().clone());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            never = watcher => match never {},
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
            let config = self.held.config();
            config
                .counters()
                .disconnects
                .fetch_add(1, Ordering::Relaxed);
            config.note(|facts, _| facts.lost());
            // Who names a moment keeps room for this node.
            let asked = if let StreamFault::Rpc(refused) = &fault {
                self.backoff.asked(refused)
            } else {
                None
            };
            if !self.start_over && asked.is_none() {
                self.planes.move_on();
            }
            if let StreamFault::Drained(_) = fault {
                tracing::info!(%fault, "connecting again");
                continue;
            }
            let wait = asked.unwrap_or_else(|| self.backoff.next_wait());
            tracing::warn!(%fault, wait_ms = wait.as_millis(), "no configuration stream; trying again");
            sleep(wait).await;
        }
    }

    async fn stream(&mut self) -> Result<Infallible, StreamFault> {
        let (answers, requests) = mpsc::channel(ANSWERS);
        answers
            .try_send(message(stream_request::Message::Hello(self.hello())))
            .map_err(|_| StreamFault::Closed)?;
        let channel = self.planes.channel(0).ok_or(StreamFault::Closed)?;
        let mut client = ConfigServiceClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
        let opening = client.stream(ReceiverStream::new(requests));
        let mut messages = timeout(GREETING, opening)
            .await
            .map_err(|_| StreamFault::Silent)?
            .map_err(Box::new)?
            .into_inner();
        let mut patience = GREETING;
        let mut leaving: Option<(Instant, String)> = None;
        let config = self.held.config().clone();
        let mut session = Session::new(&mut self.held, &self.keys, &self.orders);
        loop {
            let message = match &leaving {
                None => next(&mut messages, patience).await?,
                Some((due, reason)) => {
                    // What still comes is taken until it is time to go, and then the stream is left in good order.
                    let drained = || StreamFault::Drained(reason.clone());
                    match tokio::time::timeout_at(*due, next(&mut messages, patience)).await {
                        Ok(Ok(message)) => message,
                        Ok(Err(_)) => {
                            tokio::time::sleep_until(*due).await;
                            return Err(drained());
                        }
                        Err(_) => return Err(drained()),
                    }
                }
            };
            let taken = session.take(message)?;
            if taken.greeted {
                self.backoff.reset();
                patience = config.ask(Freshness::patience);
            }
            if let Some(leave) = taken.leave
                && leaving.is_none()
            {
                let due = Instant::now().checked_add(spread(leave.after, &*self.random));
                leaving = Some((due.unwrap_or_else(Instant::now), leave.reason));
            }
            if let Some(reply) = taken.reply {
                answers.try_send(reply).map_err(|_| StreamFault::Closed)?;
            }
        }
    }

    fn hello(&self) -> Hello {
        let held = self.held.version();
        let has_any = held != Version::default() && !self.start_over;
        let through = self.keys.through();
        Hello {
            node_id: self.identity.node_id.clone(),
            boot_id: self.identity.boot_id.clone(),
            held: has_any.then(|| held.into()),
            held_digest: if has_any {
                self.held.digest().0.to_vec()
            } else {
                Vec::new()
            },
            invalidated_through: (through != Version::default()).then(|| through.into()),
            schema_min: SCHEMAS.0,
            schema_max: SCHEMAS.1,
            preload_max: self.preload_max,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A wait of at least this long and at most half as long again, so that nodes that were sent away together come back apart.
fn spread(least: Duration, random: &dyn Random) -> Duration {
    let draw = u32::from_le_bytes(random_bytes(random));
    let least = least.max(SOONEST);
    least.saturating_add(least.mul_f64(f64::from(draw) / f64::from(u32::MAX) / 2.0))
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
