//! Takes connections of clients on one core, and lets each go in its time.
//!
//! Invariants: a connection that does not send a whole head in time is closed, also one that sends nothing at all; more connections or
//! requests than the core may hold are refused at once; when the node stops, connections between two requests close, requests
//! in flight get their time, and what is left then ends with an error; every task that was started ends with the core.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future as _, poll_fn},
    net::IpAddr,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proxyxai_core::order::Schedule;
use tokio::{
    io::AsyncWriteExt as _,
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cascade::Deployment,
    context::Context,
    net::{Io, Listener},
    relay::AnswerBody,
    request,
    respond::{Failure, respond},
    trace::Trace,
    visitor::{Visitor, Watched},
};

/// Largest head of a request; also how much of a body is read at a time.
const HEAD_BYTES: usize = 64 << 10;
/// After the system refused a connection (no more files, say), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const SWEEP: Duration = Duration::from_secs(1);
/// How long what is ended may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// When one core stops: first new connections, then those in flight.
#[derive(Clone)]
pub(crate) struct Stop {
    /// Connections close after the request that they are at; new ones are still taken.
    pub(crate) leave: CancellationToken,
    /// No new connection and no new request.
    pub(crate) drain: CancellationToken,
    /// What is in flight ends now.
    pub(crate) abort: CancellationToken,
}

/// Connections that are open.
#[derive(Default)]
struct Connections {
    open: Cell<usize>,
    none_left: Notify,
}

/// Serves one core until it has drained.
pub(crate) async fn serve(cx: Rc<Context>, mut listener: Listener, stop: Stop) {
    let connections = Rc::new(Connections::default());
    cx.spawn(Rc::clone(&cx.timers).run());
    cx.spawn(keep_house(Rc::clone(&cx)));
    let mut schedules = cx.orders.schedules();
    schedules.mark_changed();
    let mut leaving = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.drain.cancelled() => break,
            () = stop.leave.cancelled(), if !leaving => {
                leaving = true;
                cx.winding_down.set(true);
                cx.timers.wake_all();
                continue;
            }
            Ok(()) = schedules.changed() => {
                cx.winding_down.set(leaving || *schedules.borrow_and_update() == Schedule::Drain);
                cx.timers.wake_all();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((io, _)) if connections.open.get() >= cx.settings.max_connections => {
                cx.counters.shed();
                cx.spawn(turn_away(io));
            }
            Ok((io, from)) => {
                let open = Open::new(&cx, &connections);
                cx.spawn(connection(Rc::clone(&cx), io, from.ip(), open));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    leave(&cx, &connections, &stop).await;
    cx.stop_tasks();
}

async fn leave(cx: &Context, connections: &Connections, stop: &Stop) {
    cx.draining.set(true);
    cx.timers.wake_all();
    tokio::select! {
        biased;
        () = connections.none_left() => return,
        () = stop.abort.cancelled() => {}
    }
    cx.ending.set(true);
    cx.timers.wake_all();
    let _who_does_not_listen = timeout(LAST_WORDS, connections.none_left()).await;
}

impl Connections {
    async fn none_left(&self) {
        while self.open.get() > 0 {
            self.none_left.notified().await;
        }
    }
}

async fn keep_house(cx: Rc<Context>) {
    loop {
        sleep(SWEEP).await;
        cx.pool.sweep();
    }
}

async fn turn_away(mut io: Io) {
    const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let _who_does_not_listen = timeout(LAST_WORDS, io.write_all(REFUSAL)).await;
}

async fn connection(cx: Rc<Context>, io: Io, from: IpAddr, _open: Open) {
    let Some(io) = secured(&cx, io).await else {
        return;
    };
    let visitor = Visitor::new(from, &cx.timers, &cx.settings);
    let service = service_fn(|request| handle(Rc::clone(&cx), Rc::clone(&visitor), request));
    let watched = TokioIo::new(Watched::new(io, Rc::clone(&visitor)));
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_BYTES).header_read_timeout(None);
    let mut serving = std::pin::pin!(http.serve_connection(watched, service));
    let mut leaving = false;
    let is_to_leave = || cx.draining.get() || (cx.winding_down.get() && visitor.is_idle());
    poll_fn(|task| {
        cx.clock.begin_turn();
        loop {
            if is_to_leave() && !std::mem::replace(&mut leaving, true) {
                serving.as_mut().graceful_shutdown();
            }
            match serving.as_mut().poll(task) {
                Poll::Ready(ended) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a client's connection ended");
                    }
                    return Poll::Ready(());
                }
                // Its request ended just now.
                Poll::Pending if !leaving && is_to_leave() => {}
                Poll::Pending => return visitor.poll_overdue(task),
            }
        }
    })
    .await;
}

/// The connection as HTTP runs over it; `None` when the client does not speak TLS as it should, or not in time.
async fn secured(cx: &Context, io: Io) -> Option<Io> {
    match (&cx.tls, io) {
        (Some(tls), Io::Tcp(stream)) => {
            let accepted = timeout(cx.settings.head_timeout, tls.accept(stream)).await;
            match accepted.unwrap_or_else(|late| Err(late.into())) {
                Ok(stream) => Some(Io::Client(Box::new(stream))),
                Err(error) => {
                    tracing::debug!(%error, "a client's TLS handshake failed");
                    None
                }
            }
        }
        (_, io) => Some(io),
    }
}

async fn handle(
    cx: Rc<Context>,
    visitor: Rc<Visitor>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let head = visitor.begin();
    let busy = Busy::new(&cx, &visitor);
    if cx.in_flight.get() > cx.settings.max_in_flight {
        cx.counters.shed();
        visitor.body_unread();
        let dialect =
            proxyxai_core::dialect::endpoint::dialect_of_path(request.uri().path(), false);
        let pinned = cx.config.current();
        let mut response = respond(
            &Failure::Overloaded,
            dialect,
            cx.request_id().as_str(),
            pinned.deployment.as_deref().map(Deployment::id),
        );
        response.body_mut().keep(busy);
        return Ok(response);
    }
    let trace = busy.trace.clone();
    let mut response = request::serve(Rc::clone(&cx), request, head, visitor, trace).await;
    if cx.winding_down.get() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response.body_mut().keep(busy);
    Ok(response)
}

/// One request in flight, until its answer is over or dropped.
pub(crate) struct Busy {
    cx: Rc<Context>,
    visitor: Rc<Visitor>,
    trace: Option<Rc<Trace>>,
}

impl Busy {
    fn new(cx: &Rc<Context>, visitor: &Rc<Visitor>) -> Self {
        cx.in_flight.set(cx.in_flight.get().saturating_add(1));
        cx.counters.set_in_flight(cx.in_flight.get());
        Self {
            cx: Rc::clone(cx),
            visitor: Rc::clone(visitor),
            trace: Trace::begin(cx),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.visitor.end();
        if let Some(trace) = &self.trace {
            trace.end(&self.cx);
        }
        let left = self.cx.in_flight.get().saturating_sub(1);
        self.cx.in_flight.set(left);
        self.cx.counters.set_in_flight(left);
    }
}

/// One open connection.
struct Open {
    cx: Rc<Context>,
    all: Rc<Connections>,
}

impl Open {
    fn new(cx: &Rc<Context>, all: &Rc<Connections>) -> Self {
        all.open.set(all.open.get().saturating_add(1));
        cx.counters.set_connections(all.open.get());
        Self {
            cx: Rc::clone(cx),
            all: Rc::clone(all),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.open.set(self.all.open.get().saturating_sub(1));
        self.cx.counters.set_connections(self.all.open.get());
        self.all.none_left.notify_one();
    }
}
