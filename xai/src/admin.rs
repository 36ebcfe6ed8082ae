//! The admin client: one file per kind of object, each verb one call of the gRPC API.

pub mod account;
pub mod api;
pub mod audit;
pub mod backup;
pub mod connection;
pub mod credential;
pub mod join_token;
pub mod key;
pub mod keyring;
pub mod log;
pub mod manifest;
pub mod node;
pub mod options;
pub mod price;
pub mod provider;
pub mod route;
pub mod secret;
pub mod settings;
pub mod stale;
pub mod upstream_key;
pub mod usage;
pub mod welcome;
pub mod when;
pub mod whoami;

use clap::{Args, Subcommand};

use crate::{environment::Environment, failure::Failure, output::Output, settings::value::Span};
use api::Api;
use connection::Connection;

/// What can be administered.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Bring the configuration in line with files, all of it or nothing.
    Apply(manifest::Apply),
    /// Show what applying files would change; exit code 0 for nothing, 1 for something, 2 when it cannot be told.
    Diff(manifest::Diff),
    /// Print the configuration as a file that `xai apply` takes.
    Export(manifest::Export),
    /// Upstream APIs.
    Provider(Configure<provider::Verb>),
    /// Secrets of providers.
    UpstreamKey(Configure<upstream_key::Verb>),
    /// Which models go to which providers.
    Route(Configure<route::Verb>),
    /// Tables of list prices, one of them in force.
    Price(Configure<price::Verb>),
    /// The subaccount tree.
    Account(Configure<account::Verb>),
    /// Virtual keys.
    Key(Configure<key::Verb>),
    /// Settings of the whole deployment that are changed while it runs.
    Settings(Configure<settings::Verb>),
    /// What lets nodes into the deployment.
    JoinToken(Admin<join_token::Verb>),
    /// List the nodes: what each runs, and whether it follows.
    Nodes(node::All),
    /// List what stands in the store and is not in force as it stands there.
    Withheld(node::All),
    /// One node.
    Node(Admin<node::Verb>),
    /// Levels of logs.
    Log(Admin<log::Verb>),
    /// What was used, and what it cost.
    Usage(usage::Usage),
    /// Who may administer what.
    Credential(Admin<credential::Verb>),
    /// What was changed, by whom.
    Audit(Admin<audit::Verb>),
    /// Show which credential is used, what it may do, and who answers.
    #[command(name = "whoami")]
    WhoAmI(whoami::WhoAmI),
    /// Print how to begin with the gateway of this data directory: first virtual key, admin credential, authority.
    Welcome(welcome::Welcome),
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

/// A verb of what is part of the configuration, so that nodes have to hear of it.
#[derive(Debug, Args)]
pub struct Configure<V: Subcommand> {
    #[command(flatten)]
    connection: Connection,
    /// Then wait until every live node enforces the newest configuration, so long at most; fails, and names them, when some do not.
    #[arg(
        long,
        global = true,
        value_name = "SPAN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "30s"
    )]
    wait: Option<Span>,
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
            Noun::Apply(apply) => manifest::apply(apply, environment).await,
            Noun::Diff(diff) => manifest::diff(diff, environment).await,
            Noun::Export(export) => manifest::export(export, environment).await,
            Noun::Provider(admin) => {
                let (api, output) = admin.open(environment)?;
                provider::run(admin.verb, &api, output).await?;
                applied(admin.wait, &api).await
            }
            Noun::UpstreamKey(admin) => {
                let (api, output) = admin.open(environment)?;
                upstream_key::run(admin.verb, &api, output).await?;
                applied(admin.wait, &api).await
            }
            Noun::Route(admin) => {
                let (api, output) = admin.open(environment)?;
                route::run(admin.verb, &api, output).await?;
                applied(admin.wait, &api).await
            }
            Noun::Account(admin) => {
                let (api, output) = admin.open(environment)?;
                account::run(admin.verb, &api, output).await?;
                applied(admin.wait, &api).await
            }
            Noun::Key(Configure {
                connection,
                wait,
                verb,
            }) => {
                key::run(verb, &connection, environment).await?;
                match wait {
                    Some(_) => applied(wait, &connection.open(environment)?).await,
                    None => Ok(()),
                }
            }
            Noun::Price(admin) => {
                let (api, output) = admin.open(environment)?;
                price::run(admin.verb, &api, output).await?;
                applied(admin.wait, &api).await
            }
            Noun::Settings(admin) => {
                let (api, output) = admin.open(environment)?;
                settings::run(admin.verb, &api, output).await?;
                applied(admin.wait, &api).await
            }
            Noun::JoinToken(Admin { connection, verb }) => {
                join_token::run(verb, &connection.open(environment)?, connection.output()).await
            }
            Noun::Nodes(all) => node::list(&all, environment).await,
            Noun::Withheld(all) => node::list_withheld(&all, environment).await,
            Noun::Node(Admin { connection, verb }) => {
                node::run(verb, &connection.open(environment)?, connection.output()).await
            }
            Noun::Log(Admin { connection, verb }) => {
                log::run(verb, &connection.open(environment)?, connection.output()).await
            }
            Noun::Usage(usage) => usage::run(usage, environment).await,
            Noun::Credential(Admin { connection, verb }) => {
                credential::run(verb, &connection.open(environment)?, connection.output()).await
            }
            Noun::Audit(Admin { connection, verb }) => {
                audit::run(verb, &connection, environment).await
            }
            Noun::WhoAmI(whoami) => whoami::run(whoami, environment).await,
            Noun::Welcome(one) => welcome::run(&one, environment),
            Noun::Backup(backup) => backup::run(backup, environment).await,
            Noun::Secret(Admin {
                connection, verb, ..
            }) => keyring::run(verb, &connection, environment).await,
        }
    })
}

impl<V: Subcommand> Configure<V> {
    fn open(&self, environment: &Environment) -> Result<(Api, Output), Failure> {
        Ok((self.connection.open(environment)?, self.connection.output()))
    }
}

/// Waits until what was done is enforced, when that is asked for.
async fn applied(wait: Option<Span>, api: &Api) -> Result<(), Failure> {
    match wait {
        Some(within) => node::wait(api, within.0).await,
        None => Ok(()),
    }
}
