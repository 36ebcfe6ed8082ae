//! Why a report stream ended, and of what it is known that trying again only finds it again.

use super::reader::ReadError;

/// Why a report stream ended before everything was acknowledged.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryFault {
    /// An answer that cannot be, at this place.
    #[error("the control plane sent a message out of order")]
    OutOfOrder,
    /// No answer came while one was due.
    #[error("the control plane does not answer")]
    Silent,
    /// The connection takes nothing more.
    #[error("the connection to the control plane is stuck or gone")]
    Stuck,
    /// The other end went away in good order.
    #[error("the control plane ended the stream")]
    Closed,
    /// Somebody else reports under this node's id and epoch.
    #[error(
        "the control plane has batch {applied} of an epoch of which this node sent {sent}: its data directory was copied, or put \
         back from a backup; give the node a new id"
    )]
    Foreign {
        /// What the control plane has.
        applied: u64,
        /// What was sent from here.
        sent: u64,
    },
    /// The control plane does not take what was sent.
    #[error("the control plane refuses batch {sequence}: {why}")]
    Refused {
        /// Number of the batch; 0 when the epoch itself is refused.
        sequence: u64,
        /// In its words.
        why: String,
    },
    /// The control plane lets nobody but the node of an epoch report it.
    #[error("the control plane does not take usage of the node `{node}` from this one: {why}")]
    NotOurs {
        /// The node of the epoch.
        node: String,
        /// In the control plane's words.
        why: String,
    },
    /// A batch cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The call failed, or the connection.
    #[error("the stream failed: {} ({:?})", .0.message(), .0.code())]
    Rpc(#[from] Box<tonic::Status>),
}

impl DeliveryFault {
    /// What trying again would find again; `None` when it may help.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Refused { sequence, .. } => Some(Verdict::Refused(*sequence)),
            Self::Read(ReadError::Missing { sequence }) => Some(Verdict::Missing(*sequence)),
            Self::Foreign { .. } => Some(Verdict::Foreign),
            Self::NotOurs { .. } => Some(Verdict::NotOurs),
            Self::OutOfOrder
            | Self::Silent
            | Self::Stuck
            | Self::Closed
            | Self::Read(ReadError::Disk(_))
            | Self::Rpc(_) => None,
        }
    }
}

/// What is wrong with an epoch, if it is that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This batch is never taken.
    Refused(u64),
    /// This batch is asked for, and is not here.
    Missing(u64),
    /// Somebody else numbers batches alike.
    Foreign,
    /// The epoch is of a node that this one may not report for.
    NotOurs,
}

impl Verdict {
    /// Whether a fresh epoch helps the node that is in the one found bad: one that somebody else uses would be used by both again.
    pub(super) fn ends_the_current(self) -> bool {
        matches!(self, Self::Refused(1..) | Self::Missing(_))
    }

    /// Whether the files are to be set aside. Those of another node stay: who may report them is decided at the control plane.
    pub(super) fn sets_aside(self) -> bool {
        self != Self::NotOurs
    }
}
