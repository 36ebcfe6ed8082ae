//! The first virtual key of a deployment, as the process that makes it keeps it.

use proxyxai_control_plane::app::{ControlPlane, FirstKey};
use proxyxai_core::{account::key, ports::random_bytes};

use crate::{failure::Failure, system::SystemRandomness, up::data::DataDir};

/// Makes it, unless one was ever made: it is written to its file before it exists, so that no crash can lose it. Gives it while it is kept.
pub(crate) async fn ensure(
    data: &DataDir,
    control: &ControlPlane,
    random: &SystemRandomness,
) -> Result<Option<String>, Failure> {
    let kept = data.first_key()?;
    let candidate = match &kept {
        Some(text) => key::GeneratedKey {
            id: key::parse(text)
                .map_err(|error| {
                    Failure::failed(format!(
                        "the file `first-key` holds no key: {error}; delete it"
                    ))
                })?
                .id()
                .to_owned(),
            text: text.clone().into(),
        },
        None => {
            let made = key::generate(random_bytes(random));
            data.write_first_key(&made.text)?;
            made
        }
    };
    let id = candidate.id.clone();
    let adopted = control
        .adopt_first_key(&candidate)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    let ours = adopted == FirstKey::Created || adopted == (FirstKey::Exists { id });
    if ours && control.knows(&candidate) {
        return data.first_key();
    }
    data.remove_first_key();
    Ok(None)
}
