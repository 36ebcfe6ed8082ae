//! How usage leaves a node: events are put into numbered batches, the batches into files, the files' content to the control plane.
//!
//! Invariants: a request never waits for any of it. A batch is sent only once it is durable here, and its bytes never change
//! after it got its number (law 5). What is durable is sent until the control plane says that it is durable there, also by the
//! next start of the node; the files stay as history. What can never be sent is set aside, loudly, and the node goes on in a fresh
//! epoch. An event is in one batch only (law 18).
//!
//! What is not durable yet waits in memory. It is not bounded by itself: an event cannot be refused after the money was spent.
//! In practice the requests admitted within one flush bound it, and while the disk is full the number that waits is an alarm.

mod batch;
mod delivery;
pub mod disk;
mod event;
mod fault;
mod files;
mod frame;
pub mod memory_disk;
mod progress;
mod reader;
mod recent;
mod reporter;
mod retention;
mod sender;
mod set_aside;
mod stream;
mod tally;
mod work;
mod writer;

pub use disk::{Disk, FsDisk};
pub use event::{Event, Row};
pub use memory_disk::MemoryDisk;
pub use reporter::{EVENTS_KEEP, OpenError, Ports, Reporter, open};
pub use sender::{EventSender, ReportCounters};
pub use work::FileWork;
