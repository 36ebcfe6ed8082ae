//! What a caller is.

use std::fmt;

use proxyxai_proto::admin::v1 as proto;

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Does everything; its account is the root account.
    Root,
    /// Changes what is below its account, and the keys and credentials in it.
    Admin,
    /// Sees what an admin of the same account sees, and changes nothing.
    Viewer,
    /// A data-plane node.
    Node,
}

impl Role {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Admin => "admin",
            Self::Viewer => "viewer",
            Self::Node => "node",
        }
    }

    /// From the wire; `None` when it is not said.
    pub fn from_proto(role: proto::Role) -> Option<Self> {
        match role {
            proto::Role::Unspecified => None,
            proto::Role::Root => Some(Self::Root),
            proto::Role::Admin => Some(Self::Admin),
            proto::Role::Viewer => Some(Self::Viewer),
            proto::Role::Node => Some(Self::Node),
        }
    }

    /// To the wire.
    pub fn to_proto(self) -> proto::Role {
        match self {
            Self::Root => proto::Role::Root,
            Self::Admin => proto::Role::Admin,
            Self::Viewer => proto::Role::Viewer,
            Self::Node => proto::Role::Node,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
