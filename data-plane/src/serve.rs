//! Takes connections of clients on one core, and lets each go in its time.
//!
//! Invariants: a connection that does not send a whole head in time is closed, also one that sends nothing at all; more connections or
//! requests than the core may hold are refused at once; when the node stops, connections between two requests close, and
//! requests in flight get their time.

use std::{cell::Cell, net::IpAddr, rc::Rc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    context::Context,
    net::{Io, Listener},
    relay::AnswerBody,
    request,
    respond::{Failure, respond},
};

/// Largest head of a request.
const HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// After the system refused a connection (no more files, say), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const SWEEP: Duration = Duration::from_secs(5);

/// When one core stops: first new connections, then those in flight.
#[derive(Clone)]
pub(crate) struct Stop {
    /// No new connection and no new request.
    pub(crate) drain: CancellationToken,
    /// Not one byte more.
    pub(crate) abort: CancellationToken,
}

/// Serves one core until it has drained.
pub(crate) async fn serve(cx: Rc<Context>, mut listener: Listener, stop: Stop) {
    let connections = TaskTracker::new();
    let open = Rc::new(Cell::new(0_usize));
    let house = tokio::task::spawn_local(keep_house(Rc::clone(&cx)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if open.get() >= cx.settings.max_connections => cx.counters.shed(),
            Ok((io, from)) => {
                let one = connection(
                    Rc::clone(&cx),
                    io,
                    from.ip(),
                    stop.clone(),
                    Open::new(&cx, &open),
                );
                connections.spawn_local(one);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    house.abort();
}

async fn keep_house(cx: Rc<Context>) {
    loop {
        sleep(SWEEP).await;
        cx.pool.sweep(cx.clock.monotonic());
    }
}

async fn connection(cx: Rc<Context>, io: Io, from: IpAddr, stop: Stop, _open: Open) {
    let state = Rc::new(Connection {
        busy: Cell::new(0),
        idle_since: Cell::new(cx.clock.monotonic()),
        served: Cell::new(false),
    });
    let service = service_fn(|request| handle(Rc::clone(&cx), Rc::clone(&state), request, from));
    let serving = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(true)
        .serve_connection(TokioIo::new(io), service);
    let mut serving = std::pin::pin!(serving);
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            () = stop.abort.cancelled() => return,
            () = stop.drain.cancelled(), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client's connection ended");
                }
                return;
            }
            // One timer for a connection, not one for a request.
            () = sleep(state.patience(&cx)) => if state.is_late(&cx) {
                return;
            },
        }
    }
}

async fn handle(
    cx: Rc<Context>,
    state: Rc<Connection>,
    request: Request<Incoming>,
    from: IpAddr,
) -> Result<Response<AnswerBody>, std::convert::Infallible> {
    let busy = Busy::new(&cx, &state);
    if cx.in_flight.get() > cx.settings.max_in_flight {
        cx.counters.shed();
        let dialect =
            proxyxai_core::dialect::endpoint::dialect_of_path(request.uri().path(), false);
        return Ok(respond(&Failure::Overloaded, dialect, &cx.request_id()));
    }
    let mut response = request::serve(cx, request, from).await;
    response.body_mut().keep(busy);
    Ok(response)
}

/// What is known of a connection without asking hyper.
struct Connection {
    busy: Cell<usize>,
    idle_since: Cell<Duration>,
    served: Cell<bool>,
}

impl Connection {
    fn limit(&self, cx: &Context) -> Duration {
        if self.served.get() {
            cx.settings.keep_alive
        } else {
            cx.settings.head_timeout
        }
    }

    /// How long it may be before somebody looks again.
    fn patience(&self, cx: &Context) -> Duration {
        let quiet = cx.clock.monotonic().saturating_sub(self.idle_since.get());
        let left = if self.busy.get() > 0 {
            self.limit(cx)
        } else {
            self.limit(cx).saturating_sub(quiet)
        };
        left.max(Duration::from_millis(10))
    }

    /// Whether it has waited too long for a head.
    fn is_late(&self, cx: &Context) -> bool {
        self.busy.get() == 0
            && cx.clock.monotonic().saturating_sub(self.idle_since.get()) >= self.limit(cx)
    }
}

/// One request in flight, until its answer is over or dropped.
struct Busy {
    cx: Rc<Context>,
    state: Rc<Connection>,
}

impl Busy {
    fn new(cx: &Rc<Context>, state: &Rc<Connection>) -> Rc<Self> {
        state.busy.set(state.busy.get().saturating_add(1));
        state.served.set(true);
        cx.in_flight.set(cx.in_flight.get().saturating_add(1));
        cx.counters.set_in_flight(cx.in_flight.get());
        Rc::new(Self {
            cx: Rc::clone(cx),
            state: Rc::clone(state),
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.state.busy.set(self.state.busy.get().saturating_sub(1));
        self.state.idle_since.set(self.cx.clock.monotonic());
        self.cx
            .in_flight
            .set(self.cx.in_flight.get().saturating_sub(1));
        self.cx.counters.set_in_flight(self.cx.in_flight.get());
    }
}

/// One open connection.
struct Open {
    cx: Rc<Context>,
    count: Rc<Cell<usize>>,
}

impl Open {
    fn new(cx: &Rc<Context>, count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get().saturating_add(1));
        cx.counters.set_connections(count.get());
        Self {
            cx: Rc::clone(cx),
            count: Rc::clone(count),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
        self.cx.counters.set_connections(self.count.get());
    }
}
