//! `xai welcome`: how to begin with the gateway of a data directory. Reads files alone, and calls nobody.

use std::fs;

use super::connection::Connection;
use crate::{
    data::{ADMIN_CREDENTIAL, AUTHORITY, FIRST_KEY},
    environment::Environment,
    failure::{Exit, Failure},
    output::print,
};
use proxyxai_core::secret::fingerprint::Fingerprint;

/// Print the first virtual key, the admin credential and the authority of this gateway.
#[derive(Debug, clap::Args)]
pub struct Welcome {
    #[command(flatten)]
    connection: Connection,
}

/// Does it.
///
/// # Errors
/// When no gateway has run on the data directory.
pub(crate) fn run(welcome: &Welcome, environment: &Environment) -> Result<(), Failure> {
    let data = welcome.connection.data(environment)?;
    let file = |name: &str| fs::read_to_string(data.join(name)).ok();
    let admin = file(ADMIN_CREDENTIAL).ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!(
                "no admin credential is in {}: no control plane of yours has run there; name its data directory with --data",
                data.display()
            ),
        )
    })?;
    let key = file(FIRST_KEY);
    let key = key
        .as_deref()
        .map_or("none is kept here; `xai key create` makes one", str::trim);
    let authority = file(AUTHORITY).and_then(|pem| pem::parse(pem).ok());
    let authority = authority.map(|pem| Fingerprint::of(pem.contents()).to_string());
    print(&format!(
        "Virtual key       {key}\nAdmin credential  {}\nAuthority         {}\n",
        admin.trim(),
        authority.unwrap_or_default()
    ))
}
