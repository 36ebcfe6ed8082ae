//! A configuration's place in time.

use std::fmt;

use proxyxai_proto::config::v1 as proto;

/// Compared by generation, then revision; never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Raised when the store is restored or imported.
    pub generation: u64,
    /// Raised by every config write.
    pub revision: u64,
}

impl From<proto::Version> for Version {
    fn from(version: proto::Version) -> Self {
        Self {
            generation: version.generation,
            revision: version.revision,
        }
    }
}

impl From<Version> for proto::Version {
    fn from(version: Version) -> Self {
        Self {
            generation: version.generation,
            revision: version.revision,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.revision)
    }
}
