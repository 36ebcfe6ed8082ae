//! Where the control plane is and what to show it: named, or found in the data directory of the gateway on this machine.

use std::{fs, path::PathBuf};

use proxyxai_core::secret::SecretString;
use serde_json::Value;
use tonic::transport::Endpoint;

use super::api::Api;
use crate::{
    data::{ADDRESSES, ADMIN_CREDENTIAL},
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
    settings::{self, Given, Settings},
};

/// Options of every admin command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Control plane [env: XAI_SERVER] [default: the one that runs on the data directory, else `http://127.0.0.1:3444`].
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
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
        let server = self.server(&settings, environment);
        let endpoint = Endpoint::from_shared(server.clone()).map_err(|_| {
            Failure::usage(format!(
                "`{server}` is no address of a control plane, such as `http://127.0.0.1:3444`"
            ))
        })?;
        let endpoint = endpoint.connect_timeout(std::time::Duration::from_secs(5));
        Api::new(
            endpoint.connect_lazy(),
            &self.credential(&settings, environment)?,
            format!("the control plane at {server}"),
        )
    }

    pub(crate) fn settings(&self, environment: &Environment) -> Result<Settings, Failure> {
        let flags = Given {
            data: self.data.clone(),
            ..Given::default()
        };
        Ok(settings::load(flags, None, environment)?.settings)
    }

    fn server(&self, settings: &Settings, environment: &Environment) -> String {
        let named = self
            .server
            .as_deref()
            .or_else(|| environment.get("XAI_SERVER"));
        if let Some(named) = named {
            return if named.contains("://") {
                named.to_owned()
            } else {
                format!("http://{named}")
            };
        }
        let running = fs::read(settings.data.0.join(ADDRESSES)).ok();
        let running = running.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let address = running.and_then(|all| all.get("grpc")?.as_str().map(str::to_owned));
        format!(
            "http://{}",
            address.unwrap_or_else(|| settings.grpc.to_string())
        )
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
