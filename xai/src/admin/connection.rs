//! Where the control plane is and what to show it: named, or found in the data directory of the gateway on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use proxyxai_core::secret::{SecretString, fingerprint::Fingerprint};
use proxyxai_data_plane::control_tls;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

use super::api::Api;
use crate::{
    data::{ADDRESSES, ADMIN_CREDENTIAL, AUTHORITY},
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
    settings::{self, Given, Settings},
};

/// Options of every admin command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Control plane as `host:port` [env: XAI_SERVER] [default: the one that runs on the data directory, else `127.0.0.1:3444`].
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// Fingerprint of its authority, as it prints it at start [env: XAI_AUTHORITY] [default: that of the data directory].
    #[arg(long, global = true, value_name = "FINGERPRINT")]
    authority: Option<Fingerprint>,
    /// File that holds the admin credential [env: XAI_CREDENTIAL, the credential itself] [default: `admin-credential` in the data directory].
    #[arg(long, global = true, value_name = "FILE")]
    credential_file: Option<PathBuf>,
    /// Data directory of the gateway [env: `XAI_DATA`].
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<settings::value::Folder>,
    /// For whom to print.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    output: Output,
}

impl Connection {
    /// For whom to print.
    pub fn output(&self) -> Output {
        self.output
    }

    /// The data directory.
    pub fn data(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        Ok(self.settings(environment)?.data.0)
    }

    /// A client that connects when it is first used.
    pub fn open(&self, environment: &Environment) -> Result<Api, Failure> {
        let settings = self.settings(environment)?;
        let running = Running::read(&settings.data.0);
        let server = self.server(&settings, &running, environment);
        let channel = match server.strip_prefix("http://") {
            Some(_) => plain(&server)?,
            None => {
                let address = server.strip_prefix("https://").unwrap_or(&server);
                let pin = self.pin(&server, &running, environment)?;
                control_tls::channel(address.trim_end_matches('/'), pin, None)
                    .map_err(|error| Failure::usage(error.to_string()))?
            }
        };
        Api::new(
            channel,
            &self.credential(&settings, environment)?,
            format!("the control plane at {server}"),
        )
    }

    pub(crate) fn settings(&self, environment: &Environment) -> Result<Settings, Failure> {
        Ok(settings::load(self.flags(), None, environment)?.settings)
    }

    /// The settings that its flags give.
    pub(crate) fn flags(&self) -> Given {
        Given {
            data: self.data.clone(),
            ..Given::default()
        }
    }

    fn server(&self, settings: &Settings, running: &Running, environment: &Environment) -> String {
        self.server
            .as_deref()
            .or_else(|| environment.get("XAI_SERVER"))
            .map(str::to_owned)
            .or_else(|| running.grpc.clone())
            .unwrap_or_else(|| settings.grpc.to_string())
    }

    /// Whom to trust at the server.
    fn pin(
        &self,
        server: &str,
        running: &Running,
        environment: &Environment,
    ) -> Result<Fingerprint, Failure> {
        let named = match environment.get("XAI_AUTHORITY") {
            Some(text) => Some(
                text.parse()
                    .map_err(|error| Failure::usage(format!("XAI_AUTHORITY: {error}")))?,
            ),
            None => None,
        };
        self.authority.or(named).or(running.authority).ok_or_else(|| {
            Failure::new(
                Exit::Unreachable,
                format!(
                    "it is not known whom to trust at {server}; give the fingerprint that the control plane prints at start with --authority or XAI_AUTHORITY, or name its data directory with --data"
                ),
            )
        })
    }

    fn credential(
        &self,
        settings: &Settings,
        environment: &Environment,
    ) -> Result<SecretString, Failure> {
        if let (None, Some(credential)) = (&self.credential_file, environment.get("XAI_CREDENTIAL"))
        {
            return Ok(credential.trim().into());
        }
        let found = || settings.data.0.join(ADMIN_CREDENTIAL);
        let file = self.credential_file.clone().unwrap_or_else(found);
        match fs::read_to_string(&file) {
            Ok(credential) => Ok(credential.trim().into()),
            Err(error) => Err(Failure::new(
                Exit::Unreachable,
                format!(
                    "the admin credential cannot be read from {} ({error}); start `xai up` first, or name its data directory with --data",
                    file.display()
                ),
            )),
        }
    }
}

/// The gateway of a data directory, as it says itself: where it is while it runs, and whom to trust.
#[derive(Default)]
struct Running {
    grpc: Option<String>,
    authority: Option<Fingerprint>,
}

impl Running {
    fn read(data: &Path) -> Self {
        let all = fs::read(data.join(ADDRESSES)).ok();
        let all = all.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let grpc = all.and_then(|all| all.get("grpc")?.as_str().map(str::to_owned));
        let authority = fs::read(data.join(AUTHORITY)).ok();
        let authority = authority.and_then(|bytes| pem::parse(bytes).ok());
        Self {
            grpc,
            authority: authority.map(|pem| Fingerprint::of(pem.contents())),
        }
    }
}

/// A channel without TLS, for whoever has put something else in front of the control plane.
fn plain(server: &str) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(server.to_owned()).map_err(|_| {
        Failure::usage(format!(
            "`{server}` is no address of a control plane, such as `127.0.0.1:3444`"
        ))
    })?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .connect_lazy())
}
