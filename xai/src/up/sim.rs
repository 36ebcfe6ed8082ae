//! The simulated providers, alone or inside `xai up --demo`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use proxyxai_core::route::provider::ProviderKind;
use proxyxai_testkit::{Running, Simulator};

use super::managed::{Key, Provider, Wanted};
use crate::{
    failure::Failure,
    process::{self, say, stop_signal},
};

/// The simulated providers of a demo; they stop when this is dropped.
pub(super) struct Demo {
    running: Running,
}

/// Starts simulated providers on any free port.
pub(super) fn start_demo() -> Result<Demo, Failure> {
    let running = start((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(Demo { running })
}

impl Demo {
    /// The objects that lead to them.
    pub(super) fn wanted(&self) -> Wanted {
        let provider = |id: &str, kind: ProviderKind| Provider {
            id: id.to_owned(),
            kind,
            base_url: self.running.url(),
        };
        let key = |provider: &str, number: u8| Key {
            id: format!("{provider}-{number}"),
            provider_id: provider.to_owned(),
            secret: format!("sk-{provider}-{number}").into(),
        };
        Wanted {
            providers: vec![
                provider("demo-openai", ProviderKind::Openai),
                provider("demo-anthropic", ProviderKind::Anthropic),
            ],
            keys: vec![
                key("demo-openai", 1),
                key("demo-openai", 2),
                key("demo-anthropic", 1),
                key("demo-anthropic", 2),
            ],
            keep_others: false,
        }
    }
}

/// Runs the simulated providers until a signal comes.
///
/// # Errors
/// When the port is taken.
pub fn sim(address: SocketAddr, addresses_file: Option<PathBuf>) -> Result<(), Failure> {
    let running = start(address)?;
    say(&format!(
        "Simulated OpenAI and Anthropic at {}; any key is accepted; see testkit/README.md",
        running.url()
    ));
    if let Some(file) = addresses_file {
        let text = serde_json::json!({ "sim": running.url() }).to_string();
        std::fs::write(&file, text).map_err(|error| {
            Failure::failed(format!("cannot write {}: {error}", file.display()))
        })?;
    }
    process::run(async {
        stop_signal().await;
        Ok(())
    })
}

fn start(address: SocketAddr) -> Result<Running, Failure> {
    let refused = |error: std::io::Error| {
        Failure::failed(format!(
            "the simulated providers cannot listen on {address}: {error}; choose another port with --port"
        ))
    };
    Simulator::new().start(address).map_err(refused)
}
