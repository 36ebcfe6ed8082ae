//! The threads and sockets of a node: bind → run → drain. Nothing else of this crate makes either.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::mpsc,
    thread,
};

use socket2::{Domain, Socket, Type};
use tokio::{
    net::TcpListener,
    runtime::{self, LocalOptions},
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    net::Listener,
    node::{Handle, Node, Parts},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Sockets of a node, one for each core, all at one address.
pub struct Bound {
    listeners: Vec<StdListener>,
    address: SocketAddr,
}

/// Binds the client port, for so many cores.
///
/// # Errors
/// What the system says: the port is taken, say.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<Bound> {
    if address.port() != 0 {
        // The sockets of one node share a port, which would let a second node share it too: one that does not share finds out.
        drop(listen(address, false)?);
    }
    let first = listen(address, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < cores.max(1) {
        listeners.push(another(&listeners, address)?);
    }
    Ok(Bound { listeners, address })
}

/// Linux spreads connections over the sockets of an address; elsewhere the cores accept from the same socket.
#[cfg(target_os = "linux")]
fn another(_: &[StdListener], address: SocketAddr) -> io::Result<StdListener> {
    listen(address, true)
}

#[cfg(not(target_os = "linux"))]
fn another(listeners: &[StdListener], address: SocketAddr) -> io::Result<StdListener> {
    listeners
        .first()
        .map_or_else(|| listen(address, false), StdListener::try_clone)
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(shared)?;
    #[cfg(not(target_os = "linux"))]
    let _one_socket_serves_all_cores = shared;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Bound {
    /// The real address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A node whose cores run.
pub struct Running {
    /// Looks at it from outside.
    pub handle: Handle,
    cores: Vec<oneshot::Receiver<()>>,
    cores_done: CancellationToken,
}

/// Starts a thread for each core. What is returned second is everything that is no request: it must run for as long as the node does.
///
/// # Errors
/// When the system gives no thread.
pub fn start(node: Node, bound: Bound) -> io::Result<(Running, impl Future<Output = ()>)> {
    let Parts {
        cores,
        background,
        handle,
    } = node.split();
    let mut ends = Vec::with_capacity(cores.len());
    for (number, (core, listener)) in cores.into_iter().zip(bound.listeners).enumerate() {
        let (ended, end) = oneshot::channel();
        let (built, outcome) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name(format!("core-{number}"))
            .spawn(move || {
                // Tasks run right in the runtime's queue, which a local task set within an ordinary runtime would go round.
                let runtime = runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default());
                let (runtime, outcome) = match runtime {
                    Ok(runtime) => (Some(runtime), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let _whoever_starts_it_waits = built.send(outcome);
                if let Some(runtime) = runtime {
                    runtime.block_on(async {
                        match TcpListener::from_std(listener) {
                            Ok(listener) => core.serve(Listener::Tcp(listener)).await,
                            Err(error) => tracing::error!(%error, "a core cannot listen"),
                        }
                    });
                }
                let _whoever_waits_may_be_gone = ended.send(());
            })?;
        outcome.recv().map_err(io::Error::other)??;
        ends.push(end);
    }
    let cores_done = CancellationToken::new();
    let background = background.run(cores_done.clone());
    Ok((
        Running {
            handle,
            cores: ends,
            cores_done,
        },
        background,
    ))
}

impl Running {
    /// Tells everybody that the node leaves, then takes no new request, lets those in flight end in their time, then lets the last usage be reported: wait for the background
    /// after this.
    pub async fn drain(self) {
        self.handle.leave();
        tokio::time::sleep(self.handle.drain_delay()).await;
        self.handle.drain();
        let Self {
            handle,
            cores,
            cores_done,
        } = self;
        let mut ended = std::pin::pin!(async {
            for core in cores {
                let _a_core_that_broke_off_has_ended_too = core.await;
            }
        });
        if timeout(handle.drain_time(), ended.as_mut()).await.is_err() {
            tracing::warn!(
                "requests were still in flight when the time to drain was over; they were ended"
            );
            handle.abort();
            ended.await;
        }
        cores_done.cancel();
    }
}
