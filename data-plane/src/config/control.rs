//! The ways to the control planes: channels that show the node's credential with every call, of which one is in use.
//!
//! Nodes begin with a control plane at random, so that they spread over all of them, and move on to the next one when theirs dies
//! or sends them away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proxyxai_core::ports::{Random, random_bytes};
use tonic::transport::Endpoint;

use super::credential::ControlChannel;

/// How long connecting to a control plane may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a silent connection is asked whether it lives, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Sets an endpoint's timeouts so that a dead control plane is noticed and left.
pub fn with_timeouts(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
}

/// All control planes of a gateway, as a node reaches them. Cheap to clone; clones share which one is in use.
#[derive(Clone)]
pub struct ControlPlanes {
    channels: Arc<[ControlChannel]>,
    used: Arc<AtomicUsize>,
}

impl ControlPlanes {
    /// Takes a channel to each control plane, each of which connects by itself when it is used.
    ///
    /// # Errors
    /// There is none.
    pub fn new(channels: Vec<ControlChannel>, random: &dyn Random) -> Result<Self, NoControlPlane> {
        if channels.is_empty() {
            return Err(NoControlPlane);
        }
        let draw = usize::from(u16::from_le_bytes(random_bytes(random)));
        let first = draw.checked_rem(channels.len()).unwrap_or(0);
        Ok(Self {
            channels: channels.into(),
            used: Arc::new(AtomicUsize::new(first)),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.channels.len()
    }

    /// The number of the one in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The one in use, or so many after it.
    pub fn channel(&self, after: usize) -> Option<ControlChannel> {
        let number = self.used().wrapping_add(after);
        let number = number.checked_rem(self.channels.len())?;
        self.channels.get(number).cloned()
    }

    /// Uses the next one from now on.
    pub fn move_on(&self) {
        let next = self.used().wrapping_add(1);
        let next = next.checked_rem(self.channels.len()).unwrap_or(0);
        self.used.store(next, Ordering::Relaxed);
    }
}

/// A node has to be told of at least one control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node knows no control plane; name the address of at least one")]
pub struct NoControlPlane;
