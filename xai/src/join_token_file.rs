//! The join token that a control plane keeps in a file for its nodes, as on a volume that they share.
//!
//! Invariant: a token that stands in the file is never replaced, so that nodes which read it meanwhile are let in.

use std::{fs, io, path::Path};

use proxyxai_control_plane::app::ControlPlane;
use proxyxai_core::secret::join_token::JoinToken;

use crate::{failure::Failure, new_file::write_new};

/// Takes up the token in the file, or writes a new one to it.
///
/// # Errors
/// When the file cannot be used, or its token is of another deployment.
pub(crate) async fn ensure(file: &Path, control: &ControlPlane) -> Result<(), Failure> {
    let refuse = |why: &dyn std::fmt::Display| {
        Failure::failed(format!("`join_token_file`: {}: {why}", file.display()))
    };
    for _ in 0..2 {
        match fs::read_to_string(file) {
            Ok(text) => {
                let token = JoinToken::parse(&text).map_err(|error| refuse(&error))?;
                let adopted = control.adopt_join_token(&token).await;
                return adopted.map_err(|error| refuse(&error));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refuse(&error)),
        }
        let made = control.make_join_token().await;
        let made = made.map_err(|error| refuse(&error))?;
        match write_new(file, made.expose()) {
            Ok(()) => return Ok(()),
            // Another control plane was faster; its token is as good.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refuse(&error)),
        }
    }
    Err(refuse(&"it comes and goes"))
}
