//! A node of this process, put together from its settings, its data directory, and its membership of a gateway.

use std::{sync::Arc, time::Duration};

use proxyxai_core::secret::{SecretString, seal::SealKey};
use proxyxai_data_plane::{config::CopyPorts, context, dial, node, report};
use tonic::transport::Channel;

use crate::{
    failure::Failure,
    system::{SystemClock, SystemRandomness},
    up::data::DataDir,
};

/// How long the first configuration may take to reach a node.
pub(crate) const FIRST_CONFIG: Duration = Duration::from_secs(20);

/// Who the node is, and how it reaches its control planes.
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) channels: Vec<Channel>,
    /// `None` when the certificate of the channels says who it is.
    pub(crate) credential: Option<SecretString>,
    /// Seals the copy of what it holds.
    pub(crate) copy_key: SealKey,
}

/// Puts the node together.
pub(crate) fn build(
    settings: context::Settings,
    member: Member,
    data: &DataDir,
    clock: Arc<SystemClock>,
    random: Arc<SystemRandomness>,
) -> Result<node::Node, Failure> {
    let disk = report::FsDisk::open(&data.events_dir())
        .map_err(|error| data.failed("the event files", &error))?;
    let copy_disk = report::FsDisk::open(&data.config_dir())
        .map_err(|error| data.failed("the copy of the configuration", &error))?;
    let dial = dial::factory(Arc::clone(&clock) as _, settings.connect_timeout);
    let ports = node::Ports {
        node_id: member.id,
        clock,
        random,
        channels: member.channels,
        credential: member.credential,
        disk: Arc::new(disk),
        copy: Some(CopyPorts {
            disk: Arc::new(copy_disk),
            key: member.copy_key,
        }),
        file_work: report::FileWork::Threads,
        dial: dial.map_err(|error| Failure::failed(format!("TLS cannot be used: {error}")))?,
    };
    node::build(settings, ports).map_err(|error| Failure::failed(error.to_string()))
}
