//! The in-memory pipe between the planes of one process: a gRPC channel at one end, incoming connections at the other.

use std::io;

use hyper_util::rt::TokioIo;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Bytes that may be on their way.
const BUFFER: usize = 64 << 10;

/// Both ends of a pipe.
pub(crate) fn pipe() -> (Channel, UnboundedReceiverStream<io::Result<DuplexStream>>) {
    let (connections, incoming) = mpsc::unbounded_channel();
    let connect = tower::service_fn(move |_: Uri| {
        let (near, far) = duplex(BUFFER);
        let sent = connections
            .send(Ok(far))
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused));
        std::future::ready(sent.map(|()| TokioIo::new(near)))
    });
    let channel = Endpoint::from_static("http://pipe").connect_with_connector_lazy(connect);
    (channel, UnboundedReceiverStream::new(incoming))
}
