//! A join token without end for the nodes of this deployment, which the process keeps in a file.

use proxyxai_core::{
    access::{Caller, Role},
    secret::join_token::JoinToken,
};

use super::{ControlPlane, StartError, process};

impl ControlPlane {
    /// Makes a join token that lets any number of nodes in until it is revoked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn make_join_token(&self) -> Result<JoinToken, StartError> {
        let start = Caller::of_deployment(process::START, Role::Root);
        let (token, _) = self.door.create_token(&start, 0, 0).await?;
        Ok(token)
    }

    /// Lets nodes in with this token, which was made by this deployment or by somebody who knows its authority.
    ///
    /// # Errors
    /// When it is of another deployment, or the store fails.
    pub async fn adopt_join_token(&self, token: &JoinToken) -> Result<(), StartError> {
        let start = Caller::of_deployment(process::START, Role::Root);
        Ok(self.door.adopt_token(&start, token).await?)
    }
}
