//! What lets nodes in, given from outside: an authority for a new deployment, and a join token that stands in a file.

use prost::Message as _;
use proxyxai_core::{access::Caller, secret::join_token::JoinToken};
use proxyxai_proto::store::v1 as stored;

use super::{Door, TRIES, same};
use crate::{
    status::Fault,
    store::{Compare, Op, Txn, keyspace::Key},
};

impl Door {
    /// Lets any number of nodes in with a token that somebody else made, for as long as it is not revoked.
    ///
    /// # Errors
    /// [`Fault::Invalid`]: it pins another authority, or a token of its id is another one.
    pub(crate) async fn adopt_token(
        &self,
        caller: &Caller,
        token: &JoinToken,
    ) -> Result<(), Fault> {
        if token.authority != self.authority.fingerprint() {
            return Err(Fault::Invalid(format!(
                "the join token `{}` is of another authority than {}; take one of this deployment",
                token.id,
                self.authority.fingerprint()
            )));
        }
        let key = Key::JoinToken(token.id.clone()).to_string();
        let digest = self.digest(token.expose());
        for _ in 0..TRIES {
            if let Some((_, row)) = self.read::<stored::JoinToken>(&key).await? {
                if same(&row.digest, &digest) {
                    return Ok(());
                }
                return Err(Fault::Invalid(format!(
                    "another join token has the id `{}`; make a new one",
                    token.id
                )));
            }
            let row = stored::JoinToken {
                digest: digest.clone(),
                created_unix_ms: self.clock.unix_ms(),
                ..stored::JoinToken::default()
            };
            let txn = Txn {
                compares: vec![Compare::absent(key.clone())],
                then: vec![Op::Put(key.clone(), row.encode_to_vec())],
            };
            let change = self.token_change(&token.id, None, &row)?;
            if self
                .record(caller, "CreateJoinToken", vec![change], txn)
                .await?
            {
                return Ok(());
            }
        }
        Err(Fault::Contended)
    }
}
