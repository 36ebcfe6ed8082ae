//! The admin client: one file per kind of object, each verb one call of the gRPC API.

pub mod account;
pub mod api;
pub mod backup;
pub mod connection;
pub mod key;
pub mod keyring;
pub mod provider;
pub mod route;
pub mod secret;
pub mod upstream_key;
pub mod usage;

use clap::{Args, Subcommand};

use crate::{environment::Environment, failure::Failure};
use connection::Connection;

/// What can be administered.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Upstream APIs.
    Provider(Admin<provider::Verb>),
    /// Secrets of providers.
    UpstreamKey(Admin<upstream_key::Verb>),
    /// Which models go to which providers.
    Route(Admin<route::Verb>),
    /// The subaccount tree.
    Account(Admin<account::Verb>),
    /// Virtual keys.
    Key(Admin<key::Verb>),
    /// What was used, and what it cost.
    Usage(usage::Usage),
    /// Copy the whole store of a running gateway into a file; secrets stay sealed in it.
    Backup(backup::Backup),
    /// The keys that seal secrets in the store.
    Secret(Admin<keyring::Verb>),
}

/// A verb, and how to reach who does it.
#[derive(Debug, Args)]
pub struct Admin<V: Subcommand> {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: V,
}

/// Does what was asked for.
///
/// # Errors
/// Says why not.
pub fn run(noun: Noun, environment: &Environment) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the system gives no event loop: {error}")))?;
    runtime.block_on(async {
        match noun {
            Noun::Provider(Admin { connection, verb }) => {
                provider::run(verb, &connection.open(environment)?, connection.output()).await
            }
            Noun::UpstreamKey(Admin { connection, verb }) => {
                upstream_key::run(verb, &connection.open(environment)?, connection.output()).await
            }
            Noun::Route(Admin { connection, verb }) => {
                route::run(verb, &connection.open(environment)?, connection.output()).await
            }
            Noun::Account(Admin { connection, verb }) => {
                account::run(verb, &connection.open(environment)?, connection.output()).await
            }
            Noun::Key(Admin { connection, verb }) => key::run(verb, &connection, environment).await,
            Noun::Usage(usage) => usage::run(usage, environment).await,
            Noun::Backup(backup) => backup::run(backup, environment).await,
            Noun::Secret(Admin { connection, verb }) => {
                keyring::run(verb, &connection, environment).await
            }
        }
    })
}
