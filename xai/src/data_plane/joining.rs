//! The first start of a node: it takes its join token to a control plane and comes back with an identity, which it keeps.

use std::time::Duration;

use proxyxai_core::{
    account::key::base62,
    ports::{Clock, Random, random_bytes},
    secret::join_token::JoinToken,
};
use proxyxai_data_plane::{
    control_tls,
    enroll::{self, EnrollError},
};
use tokio::time::sleep;

use super::identity::{self, Identity};
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    settings::data_plane::Settings,
    up::data::DataDir,
};

/// How often all control planes are tried before it is given up, and the wait between: they may be starting too.
const ROUNDS: u32 = 10;
const BETWEEN: Duration = Duration::from_secs(2);

/// Joins under a new name.
pub(super) async fn join(
    settings: &Settings,
    environment: &Environment,
    data: &DataDir,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Identity, Failure> {
    let token = token(settings, environment)?;
    let id = format!(
        "node-{}",
        base62(&random_bytes(random), 10).to_ascii_lowercase()
    );
    let mut said = String::new();
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(BETWEEN).await;
        }
        let mut untrusted = None;
        for address in settings.control_planes.all() {
            let channel = control_tls::channel(address, token.authority, None)
                .map_err(|error| Failure::usage(error.to_string()))?;
            match enroll::join(channel, &token, &id, clock).await {
                Ok(enrolled) => {
                    identity::save(data, token.authority, &enrolled)
                        .map_err(|error| Failure::failed(error.to_string()))?;
                    return Ok(Identity {
                        enrolled,
                        authority: token.authority,
                    });
                }
                Err(EnrollError::Untrusted) => untrusted = Some(address),
                Err(EnrollError::Unreachable(why)) => {
                    tracing::info!(address, why, "a control plane does not answer");
                    said = format!("{address}: {why}");
                }
                Err(error @ (EnrollError::Refused(_) | EnrollError::Failed(_))) => {
                    return Err(Failure::failed(format!(
                        "{error}; give the node a new one, which `xai join-token create` prints"
                    )));
                }
            }
        }
        if let Some(address) = untrusted {
            return Err(Failure::failed(format!(
                "{address}: {}",
                EnrollError::Untrusted
            )));
        }
    }
    Err(Failure::new(
        Exit::Unreachable,
        format!(
            "no control plane can be reached, so this node cannot join ({said}); start one, or correct `control_planes`"
        ),
    ))
}

fn token(settings: &Settings, environment: &Environment) -> Result<JoinToken, Failure> {
    let text = match settings.join_token_file.file() {
        Some(file) => std::fs::read_to_string(&file).map_err(|error| {
            let file = file.display();
            Failure::usage(format!(
                "`join_token_file`: {file} cannot be read: {error}; write a token of `xai join-token create` to it"
            ))
        })?,
        None => environment
            .get("XAI_JOIN_TOKEN")
            .map(str::to_owned)
            .ok_or_else(|| {
                Failure::usage(
                    "this node has not joined a gateway; give it a token of `xai join-token create` by `join_token_file` or XAI_JOIN_TOKEN",
                )
            })?,
    };
    JoinToken::parse(&text).map_err(|error| Failure::usage(error.to_string()))
}
