//! What a request needs of its core: everything here belongs to one thread, but for the handles that say otherwise.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use moka::sync::Cache;
use proxyxai_core::{
    account::network::NetworkList,
    freshness::LONGEST_STALE,
    ports::{Clock, Random, random_bytes},
    trace::{Conventions, Sampling},
};
use tokio::task::JoinSet;

use crate::{
    client_tls::ClientTls,
    config::ConfigHandle,
    keys::{KeyResolver, REMEMBERED},
    made::Made,
    meter::Settled,
    metrics::CoreCounters,
    net::{Dial, DialFactory},
    orders::Orders,
    report::EventSender,
    request_id::{RequestId, RequestIds},
    timers::Timers,
    trace::{Sink, TraceUpstreams, Traces},
    turn::TurnClock,
    upstream::Pool,
};

/// How a node behaves. Durations are wall-clock differences of a monotonic clock.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that serve requests.
    pub cores: usize,
    /// Whose `X-Forwarded-For` says where a request comes from; nobody's when there are none.
    pub trusted_proxies: Option<NetworkList>,
    /// Largest body of a request, in bytes.
    pub body_limit: usize,
    /// To connect to a provider, TLS included.
    pub connect_timeout: Duration,
    /// From sending a request to the first byte of its answer.
    pub first_byte_timeout: Duration,
    /// Between two bytes of an answer.
    pub idle_timeout: Duration,
    /// From a request to the first byte of its answer, all attempts included.
    pub request_timeout: Duration,
    /// From accepting a connection to its first whole head, and for reading a body.
    pub head_timeout: Duration,
    /// How long a connection may stay between two requests.
    pub keep_alive: Duration,
    /// Connections of one core.
    pub max_connections: usize,
    /// Requests in flight on one core; more are refused at once.
    pub max_in_flight: usize,
    /// From being told to stop, and saying so to probes, until no connection is taken any more.
    pub drain_delay: Duration,
    /// How long requests in flight may take to end when the node stops.
    pub drain: Duration,
    /// How long the node serves without proof that its configuration is the newest; where the deployment says less, that.
    pub max_stale: Duration,
    /// Most virtual keys that are preloaded; with more of them, keys and accounts are looked up on demand.
    pub preload_max: u64,
    /// Keys that are remembered of those looked up on demand.
    pub keys_remembered: u64,
    /// Which traces are kept; `None` for no traces at all.
    pub trace: Option<Sampling>,
    /// What the attributes of spans are called.
    pub trace_conventions: Conventions,
    /// Which upstreams learn of traces.
    pub trace_upstreams: TraceUpstreams,
    /// Whether there is a request log.
    pub request_log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cores: 1,
            trusted_proxies: None,
            body_limit: 32 << 20,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(300),
            request_timeout: Duration::from_secs(600),
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            max_connections: 20_000,
            max_in_flight: 10_000,
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(30),
            max_stale: LONGEST_STALE,
            preload_max: 1_000_000,
            keys_remembered: REMEMBERED,
            trace: None,
            trace_conventions: Conventions::V1_41,
            trace_upstreams: TraceUpstreams::Gateways,
            request_log: false,
        }
    }
}

/// What all cores share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) config: ConfigHandle,
    pub(crate) keys: KeyResolver,
    pub(crate) orders: Orders,
    pub(crate) strangers: Strangers,
    pub(crate) made: Made,
    pub(crate) events: EventSender<Settled>,
    pub(crate) dial: DialFactory,
    pub(crate) sink: Arc<Sink>,
    pub(crate) tls: Option<ClientTls>,
}

/// One core.
pub(crate) struct Context {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: TurnClock,
    pub(crate) config: ConfigHandle,
    pub(crate) keys: KeyResolver,
    pub(crate) orders: Orders,
    pub(crate) strangers: Strangers,
    pub(crate) made: Made,
    pub(crate) events: EventSender<Settled>,
    pub(crate) dial: Rc<dyn Dial>,
    /// Clients come over TLS.
    pub(crate) tls: Option<ClientTls>,
    pub(crate) pool: Pool,
    pub(crate) counters: Arc<CoreCounters>,
    pub(crate) in_flight: Cell<usize>,
    pub(crate) timers: Rc<Timers>,
    /// The node is being drained: connections close after the request that they are at, and new ones after their first.
    pub(crate) winding_down: Cell<bool>,
    /// No new request: connections close after the one that they are at.
    pub(crate) draining: Cell<bool>,
    /// The time to drain is over: what still runs ends with an error.
    pub(crate) ending: Cell<bool>,
    pub(crate) traces: Traces,
    tasks: RefCell<JoinSet<()>>,
    ids: RequestIds,
}

impl Context {
    pub(crate) fn new(shared: Shared, counters: Arc<CoreCounters>) -> Rc<Self> {
        Rc::new(Self {
            dial: (shared.dial)(),
            tls: shared.tls,
            ids: RequestIds::new(u64::from_le_bytes(random_bytes(&*shared.random))),
            traces: Traces::new(
                u64::from_le_bytes(random_bytes(&*shared.random)),
                shared.sink,
            ),
            settings: shared.settings,
            clock: TurnClock::new(shared.clock),
            config: shared.config,
            keys: shared.keys,
            orders: shared.orders,
            strangers: shared.strangers,
            made: shared.made,
            events: shared.events,
            pool: Pool::default(),
            counters,
            in_flight: Cell::new(0),
            timers: Rc::default(),
            winding_down: Cell::new(false),
            draining: Cell::new(false),
            ending: Cell::new(false),
            tasks: RefCell::default(),
        })
    }

    /// Runs a task that ends with the core.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(task);
    }

    /// Ends every task.
    pub(crate) fn stop_tasks(&self) {
        self.clock.begin_turn();
        drop(self.tasks.take());
    }

    /// A name for a request, unique among all that ever were.
    pub(crate) fn request_id(&self) -> RequestId {
        self.ids.next()
    }
}

/// Counts keys that do not exist by the address that showed them, so that guessing is slow.
#[derive(Clone)]
pub(crate) struct Strangers(Cache<IpAddr, u32>);

/// Wrong keys of one address before it has to wait.
const MISSES: u32 = 50;
const WINDOW: Duration = Duration::from_secs(10);
const ADDRESSES: u64 = 50_000;

impl Strangers {
    pub(crate) fn new() -> Self {
        Self(
            Cache::builder()
                .max_capacity(ADDRESSES)
                .time_to_live(WINDOW)
                .build(),
        )
    }

    /// Whether the address has to wait.
    pub(crate) fn must_wait(&self, address: IpAddr) -> bool {
        self.0.get(&address).is_some_and(|misses| misses >= MISSES)
    }

    /// Notes a key that does not exist.
    pub(crate) fn missed(&self, address: IpAddr) {
        self.0
            .entry(address)
            .and_upsert_with(|old| old.map_or(1, |old| old.into_value().saturating_add(1)));
    }
}
