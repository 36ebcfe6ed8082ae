//! One node, put together but for threads and sockets: a simulation runs the same parts on one runtime.

mod metrics;

use std::{io, sync::Arc, time::Duration};

use proxyxai_core::{
    order::Schedule,
    ports::{Clock, LogControl, Random, random_bytes},
    secret::SecretString,
    snapshot::Version,
    trace::SpanSource,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    client_tls::ClientTls,
    config::{
        ConfigHandle, ControlPlanes, CopyPorts, Identity, NodeCredential, NodeState, Subscriber,
        control::NoControlPlane,
        copy::{self, Keeper},
        credential::InvalidCredential,
    },
    context::{Context, Settings, Shared, Strangers},
    keys::{Asker, KeyResolver},
    made::Made,
    meter::Settled,
    metrics::CoreCounters,
    net::{DialFactory, Listener},
    orders::{Load, Orders},
    report::{self, Disk, EVENTS_KEEP, EventSender, FileWork, Reporter},
    serve::{self, Stop},
    trace::{RequestLog, Sink},
};

/// What a node is given to touch the world with.
pub struct Ports {
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub random: Arc<dyn Random>,
    /// The ways to the control planes, at least one; see [`crate::config::control::with_timeouts`].
    pub channels: Vec<Channel>,
    /// What the node shows there; `None` when the certificate of the channels says who it is.
    pub credential: Option<SecretString>,
    /// Names the node; stays the same across starts.
    pub node_id: String,
    /// Holds the event files.
    pub disk: Arc<dyn Disk>,
    /// Where a copy of what the node holds is kept; without one it cannot start before it reached a control plane.
    pub copy: Option<CopyPorts>,
    /// Where work on files is done.
    pub file_work: FileWork,
    /// Makes the dialler of each core.
    pub dial: DialFactory,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The credential cannot be sent.
    #[error(transparent)]
    Credential(#[from] InvalidCredential),
    /// There is no control plane to talk to.
    #[error(transparent)]
    NoControlPlane(#[from] NoControlPlane),
    /// The event files cannot be used.
    #[error(transparent)]
    Events(#[from] report::OpenError),
}

/// A node that is ready to run.
pub struct Node {
    shared: Shared,
    cores: Vec<Arc<CoreCounters>>,
    planes: ControlPlanes,
    subscriber: Subscriber,
    asker: Asker,
    keeper: Option<Keeper>,
    reporter: Reporter<Settled>,
    log: Option<Arc<dyn LogControl>>,
    request_log: Option<RequestLog>,
}

/// Puts a node together.
///
/// # Errors
/// When its credential or its event files cannot be used, or it knows no control plane.
pub fn build(settings: Settings, ports: Ports) -> Result<Node, StartError> {
    let credential = match &ports.credential {
        Some(secret) => NodeCredential::new(secret)?,
        None => NodeCredential::certificate(),
    };
    let channels = ports.channels.into_iter();
    let channels = channels
        .map(|channel| credential.clone().on(channel))
        .collect();
    let planes = ControlPlanes::new(channels, &*ports.random)?;
    let (config, boot) = (
        ConfigHandle::new(settings.max_stale),
        u128::from_le_bytes(random_bytes(&*ports.random)),
    );
    let identity = Identity {
        node_id: ports.node_id.clone(),
        boot_id: format!("{boot:032x}"),
    };
    let (keys, asker) = KeyResolver::new(config.clone(), settings.keys_remembered);
    let report = report::Ports {
        disk: ports.disk,
        work: ports.file_work,
        planes: planes.clone(),
        clock: Arc::clone(&ports.clock),
        random: Arc::clone(&ports.random),
    };
    let (events, reporter) = report::open(&ports.node_id, EVENTS_KEEP, report)?;
    let cores: Vec<Arc<CoreCounters>> = std::iter::repeat_with(Arc::default)
        .take(settings.cores.max(1))
        .collect();
    let orders = Orders::new(load(cores.clone(), events.clone()));
    let (mut subscriber, holding) = Subscriber::new(
        planes.clone(),
        identity,
        config.clone(),
        keys.clone(),
        orders.clone(),
        settings.preload_max,
        Arc::clone(&ports.random),
    );
    let keeper = ports.copy.map(|copy| {
        if let Some(loaded) = copy::load(&copy, ports.clock.unix_ms()) {
            subscriber.restore(loaded);
        }
        Keeper {
            ports: Arc::new(copy),
            work: ports.file_work,
            clock: Arc::clone(&ports.clock),
            random: Arc::clone(&ports.random),
            config: config.clone(),
            keys: keys.clone(),
            orders: orders.clone(),
            holding,
        }
    });
    let sink = Arc::new(Sink::new(&settings));
    let shared = Shared {
        sink,
        settings: Arc::new(settings),
        clock: ports.clock,
        random: ports.random,
        config,
        keys,
        orders,
        strangers: Strangers::new(),
        made: Made::new(),
        events,
        dial: ports.dial,
        tls: None,
    };
    Ok(Node {
        shared,
        cores,
        planes,
        subscriber,
        asker,
        keeper,
        reporter,
        log: None,
        request_log: None,
    })
}

/// What a node has in hand.
fn load(
    cores: Vec<Arc<CoreCounters>>,
    events: EventSender<Settled>,
) -> impl Fn() -> Load + Send + Sync {
    use std::sync::atomic::Ordering;
    move || {
        let starts = &events.counters().unreported_starts;
        Load {
            open_requests: cores.iter().map(|core| core.in_flight()).sum(),
            unreported_events: events.unreported(),
            unreported_starts: starts.load(Ordering::Relaxed),
        }
    }
}

/// The parts of a node, each to be run where it belongs.
pub struct Parts {
    /// One for each core.
    pub cores: Vec<Core>,
    /// Everything that is no request.
    pub background: Background,
    /// Looks at the node from outside.
    pub handle: Handle,
}

impl Node {
    /// Lets administrators change the level of this log while the node runs.
    #[must_use]
    pub fn with_log(self, log: Arc<dyn LogControl>) -> Self {
        let log = Some(log);
        Self { log, ..self }
    }

    /// Writes the request log there, if the settings want one.
    #[must_use]
    pub fn with_request_log(self, out: Box<dyn io::Write + Send>) -> Self {
        let request_log = Some(RequestLog {
            sink: Arc::clone(&self.shared.sink),
            out,
        });
        Self {
            request_log,
            ..self
        }
    }

    /// Takes connections of clients over TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<ClientTls>) -> Self {
        self.shared.tls = tls;
        self
    }

    /// Takes the node apart for running.
    pub fn split(self) -> Parts {
        let stop = Stop {
            leave: CancellationToken::new(),
            drain: CancellationToken::new(),
            abort: CancellationToken::new(),
        };
        let core = |counters: &Arc<CoreCounters>| Core {
            shared: self.shared.clone(),
            counters: Arc::clone(counters),
            stop: stop.clone(),
        };
        Parts {
            cores: self.cores.iter().map(core).collect(),
            background: Background {
                planes: self.planes,
                subscriber: self.subscriber,
                asker: self.asker,
                keeper: self.keeper,
                reporter: self.reporter,
                orders: self.shared.orders.clone(),
                log: self.log,
                request_log: self.request_log,
            },
            handle: Handle {
                shared: self.shared,
                cores: self.cores,
                stop,
            },
        }
    }
}

/// What one core runs.
pub struct Core {
    shared: Shared,
    counters: Arc<CoreCounters>,
    stop: Stop,
}

impl Core {
    /// Serves clients until drained. Needs a local runtime or task set around it.
    pub async fn serve(self, listener: Listener) {
        serve::serve(
            Context::new(self.shared, self.counters),
            listener,
            self.stop,
        )
        .await;
    }
}

/// The config stream and its disk copy, look-ups of keys, and the report of usage.
pub struct Background {
    planes: ControlPlanes,
    subscriber: Subscriber,
    asker: Asker,
    keeper: Option<Keeper>,
    reporter: Reporter<Settled>,
    orders: Orders,
    log: Option<Arc<dyn LogControl>>,
    request_log: Option<RequestLog>,
}

impl Background {
    /// Runs until `cores_done`, and then until the last usage is acknowledged, or ten seconds passed.
    pub async fn run(self, cores_done: CancellationToken) {
        let all_done = CancellationToken::new();
        let report = async {
            self.reporter.run(cores_done).await;
            all_done.cancel();
        };
        let keep = async {
            if let Some(keeper) = self.keeper {
                keeper.run(all_done.clone()).await;
            }
        };
        let log = async {
            if let Some(log) = self.log {
                let kept = self.orders.keep_log(&*log);
                all_done.run_until_cancelled(kept).await;
            }
        };
        let request_log = async {
            if let Some(request_log) = self.request_log {
                request_log.run(all_done.clone()).await;
            }
        };
        tokio::join!(
            report,
            keep,
            log,
            request_log,
            self.subscriber.run(all_done.clone()),
            self.asker.run(self.planes, all_done.clone())
        );
    }
}

/// Looks at a node from outside, and stops it.
#[derive(Clone)]
pub struct Handle {
    shared: Shared,
    cores: Vec<Arc<CoreCounters>>,
    stop: Stop,
}

impl Handle {
    /// Whether clients should be sent here: requests can be served, and no administrator wants them elsewhere.
    pub fn is_ready(&self) -> bool {
        self.can_serve() && self.schedule() == Schedule::Serve && !self.is_leaving()
    }

    /// Whether requests can be served.
    pub fn can_serve(&self) -> bool {
        self.shared.config.is_ready() && !self.stop.drain.is_cancelled()
    }

    /// Whether it was told to stop.
    pub fn is_leaving(&self) -> bool {
        self.stop.leave.is_cancelled()
    }

    /// What an administrator wants of the node.
    pub fn schedule(&self) -> Schedule {
        self.shared.orders.schedule()
    }

    /// Requests whose answers are not over, streams included.
    pub fn open_requests(&self) -> u64 {
        self.shared.orders.load().open_requests
    }

    /// Where the node stands with its configuration.
    pub fn state(&self) -> NodeState {
        self.shared.config.state()
    }

    /// How long ago what it serves from was known to be the newest; `None` when it holds nothing.
    pub fn age(&self) -> Option<Duration> {
        self.shared.config.age()
    }

    /// The version that it serves from.
    pub fn version(&self) -> Version {
        self.shared.config.version()
    }

    /// From leaving until no connection is taken any more.
    pub fn drain_delay(&self) -> Duration {
        self.shared.settings.drain_delay
    }

    /// How long requests in flight may take when the node stops.
    pub fn drain_time(&self) -> Duration {
        self.shared.settings.drain
    }

    /// Where the node's spans are to be had.
    pub fn spans(&self) -> Arc<dyn SpanSource> {
        Arc::clone(&self.shared.sink) as _
    }

    /// Says to probes that it is leaving, and to clients to come back by another connection; serves as ever.
    pub fn leave(&self) {
        self.stop.leave.cancel();
    }

    /// Takes no new request; those in flight go on.
    pub fn drain(&self) {
        self.stop.leave.cancel();
        self.stop.drain.cancel();
    }

    /// Ends everything at once.
    pub fn abort(&self) {
        self.stop.abort.cancel();
    }

    /// What the node serves from, without secrets.
    pub fn config_dump(&self) -> Value {
        let pinned = self.shared.config.current();
        let snapshot = &pinned.snapshot;
        let provider = |at: usize| {
            snapshot
                .providers
                .get(at)
                .map(|p| p.id.to_string())
                .unwrap_or_default()
        };
        json!({
            "state": self.state().as_str(),
            "age_seconds": self.age().map(|age| age.as_secs()),
            "max_stale_seconds": self.shared.config.max_stale().as_secs(),
            "keyed": pinned.keyed,
            "invalidated_through": self.shared.keys.through().to_string(),
            "version": snapshot.version.to_string(),
            "digest": format!("{:?}", snapshot.digest),
            "accounts": snapshot.accounts.all().map(|at| snapshot.accounts.path(at)).take(1000).collect::<Vec<_>>(),
            "virtual_keys": snapshot.keys.len(),
            "providers": snapshot.providers.iter().map(|p| json!({
                "id": &*p.id, "kind": p.kind.as_str(), "base_url": p.base.to_string(), "disabled": p.disabled,
            })).collect::<Vec<_>>(),
            "upstream_keys": snapshot.upstream_keys.iter().map(|key| json!({
                "id": &*key.id, "provider": provider(key.provider.0), "disabled": key.disabled,
            })).collect::<Vec<_>>(),
            "pools": snapshot.pools.iter().map(|pool| json!({ "name": pool.name, "keys": pool.keys().count() })).collect::<Vec<_>>(),
            "prices": { "version": snapshot.prices.version, "date": snapshot.prices.date, "models": snapshot.prices.len() },
        })
    }
}
