//! Connections to providers: HTTP/1.1, driven by the task of the request that uses them.
//!
//! There is no task and no channel per connection, and no buffer that outlives its use: a stream that waits for its next event holds
//! a socket and little else. Heads are parsed by `httparse`; what is built here is which bytes belong to which answer (RFC 9112).
//!
//! Invariants: one request at a time, and the next one only after an answer was read to its end without a byte too many; framing that
//! two readers could see in two ways is an error or ends the connection; whatever is dropped half-way closes its connection.

mod chunked;
mod connection;
mod field;
mod head;
mod incoming;
mod pool;

pub(crate) use connection::{Connection, Lost};
pub(crate) use head::Head;
pub(crate) use incoming::Incoming;
pub(crate) use pool::Pool;
