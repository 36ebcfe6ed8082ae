//! What the audit trail says of a store that was moved: nobody showed a credential, but whoever did it holds the key-encryption key.

use std::{sync::Arc, time::Duration};

use proxyxai_core::{
    access::{Caller, Role},
    account::tree::{AccountTree, ROOT},
    ports::Clock,
};
use proxyxai_proto::config::v1::Account;

use crate::{
    audit::{Deed, Trail},
    keyring::asked::Asked,
    status::Fault,
    store::Store,
};

/// The actor, as the trail names it.
const ACTOR: &str = "store";

/// A record that is to be written into a store on which nothing runs.
pub(super) struct Record {
    trail: Trail,
    caller: Caller,
    accounts: AccountTree,
    action: &'static str,
}

impl Record {
    pub(super) fn new(
        store: &Arc<dyn Store>,
        now_unix_ms: i64,
        action: &'static str,
    ) -> Result<Self, Fault> {
        let root = Account {
            id: ROOT.to_owned(),
            name: ROOT.to_owned(),
            ..Account::default()
        };
        let accounts = AccountTree::build([&root]);
        Ok(Self {
            trail: Trail::new(Arc::clone(store), Arc::new(Moment(now_unix_ms)))?,
            caller: Caller::of_deployment(ACTOR, Role::Root),
            accounts: accounts.map_err(|_| Fault::Defect("the root is no account".to_owned()))?,
            action,
        })
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            trail: &self.trail,
            deed: Deed {
                caller: &self.caller,
                action: self.action,
                accounts: &self.accounts,
            },
        }
    }
}

/// The time of the whole move, in Unix milliseconds.
struct Moment(i64);

impl Clock for Moment {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_ms(&self) -> i64 {
        self.0
    }
}
