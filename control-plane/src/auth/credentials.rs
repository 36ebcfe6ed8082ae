//! Who a credential is of. Those of the deployment's own processes are held here; all others are read from the store at each call, so that
//! what was disabled, replaced or deleted is refused at once by every replica.

use std::{collections::BTreeSet, sync::Arc};

use proxyxai_core::{
    access::{Caller, Role, credential},
    account::key::Pepper,
    ports::Clock,
    secret::{ExposeSecret as _, SecretString},
};
use proxyxai_proto::store::v1::{Counter, StoredCredential};
use subtle::ConstantTimeEq as _;
use tonic::Status;

use crate::{
    config_store::State,
    status::Fault,
    store::{
        Compare, Entry, Range, Store,
        keyspace::{self, CREDENTIAL_PREFIX, Key},
    },
};

/// A credential that a process of the deployment holds.
pub(crate) struct ProcessCredential {
    pub(crate) caller: Caller,
    pub(crate) secret: SecretString,
}

/// All credentials.
pub(crate) struct Credentials {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pepper: Pepper,
    pub(crate) processes: Vec<ProcessCredential>,
}

impl Credentials {
    /// Who shows this credential. A connection that proves by itself who is at its other end is to be asked here, before the text is.
    pub(crate) async fn identify(
        &self,
        bearer: Option<&str>,
        state: &State,
    ) -> Result<Caller, Status> {
        let Some(given) = bearer.filter(|given| !given.is_empty()) else {
            return Err(Status::unauthenticated(
                "send `authorization: Bearer <credential>`; the first credential is in the file `admin-credential` of the data directory, and its holder makes others with `xai credential create`",
            ));
        };
        let of_process = self.processes.iter().find(|process| {
            bool::from(
                process
                    .secret
                    .expose_secret()
                    .as_bytes()
                    .ct_eq(given.as_bytes()),
            )
        });
        if let Some(process) = of_process {
            return Ok(process.caller.clone());
        }
        let unknown = || {
            Status::unauthenticated(
                "it was not made here, or was replaced or deleted; ask who gave it to you for another one",
            )
        };
        let id = credential::id_of(given).ok_or_else(unknown)?;
        let (_, stored) = self.read(id).await?.ok_or_else(unknown)?;
        let digest = credential::digest(&self.pepper, given);
        if !bool::from(digest.ct_eq(&stored.digest)) {
            return Err(unknown());
        }
        let caller = caller_of(&stored)?;
        let accounts = &state.snapshot.accounts;
        credential::check(&caller, stored.disabled, self.clock.unix_ms(), accounts)
            .map_err(|unfit| Status::unauthenticated(unfit.to_string()))?;
        Ok(caller)
    }

    /// A stored credential.
    pub(crate) async fn read(&self, id: &str) -> Result<Option<(Entry, StoredCredential)>, Fault> {
        let key = Key::Credential(id.to_owned()).to_string();
        let Some(entry) = self.store.get(&key).await? else {
            return Ok(None);
        };
        let stored = keyspace::decode(&key, &entry.value)?;
        Ok(Some((entry, stored)))
    }

    /// All stored credentials, in the order of their ids.
    pub(crate) async fn all(&self) -> Result<Vec<StoredCredential>, Fault> {
        let page = self.store.range(Range::prefix(CREDENTIAL_PREFIX)).await?;
        let decode = |entry: &Entry| keyspace::decode(&entry.key, &entry.value);
        Ok(page.entries.iter().map(decode).collect::<Result<_, _>>()?)
    }

    /// How many credentials were made so far, and the row that says so.
    pub(crate) async fn made(&self) -> Result<(u64, Option<Entry>), Fault> {
        let key = Key::CredentialsMade.to_string();
        let entry = self.store.get(&key).await?;
        let made = match &entry {
            Some(entry) => keyspace::decode::<Counter>(&key, &entry.value)?.value,
            None => 0,
        };
        Ok((made, entry))
    }

    /// That no credential is made from now on, to be compared.
    pub(crate) async fn none_made_meanwhile(&self) -> Result<Compare, Fault> {
        let (_, entry) = self.made().await?;
        let key = Key::CredentialsMade.to_string();
        Ok(Compare::unchanged(key, entry.as_ref()))
    }

    /// Ids of the accounts that have credentials.
    pub(crate) async fn accounts(&self) -> Result<BTreeSet<String>, Fault> {
        let all = self.all().await?;
        Ok(all.into_iter().map(|stored| stored.account_id).collect())
    }
}

fn caller_of(stored: &StoredCredential) -> Result<Caller, Fault> {
    let role = Role::from_proto(stored.role())
        .ok_or_else(|| Fault::Defect(format!("the credential `{}` has no role", stored.id)))?;
    Ok(Caller {
        credential: stored.id.clone(),
        role,
        account: stored.account_id.clone(),
        expires_unix_ms: Some(stored.expires_unix_ms).filter(|expires| *expires != 0),
    })
}
