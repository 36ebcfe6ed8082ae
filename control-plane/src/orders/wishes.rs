//! Writes what administrators want, with its record in the audit trail.

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::access::Caller;
use proxyxai_proto::{
    admin::v1::AuditChange,
    store::v1::{LogWish, Node, RosterRow},
};

use crate::{
    audit::{Deed, Trail},
    config_store::ConfigStore,
    status::Fault,
    store::{
        Compare, Op, Store, Txn,
        keyspace::{self, Key},
    },
};

/// Tries before a write gives up on others that keep changing the same.
const TRIES: usize = 8;

/// Keeps wishes in the store.
pub(crate) struct Wishes {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) config: Arc<ConfigStore>,
}

impl Wishes {
    /// Changes what is wanted of a node that joined, or was served once.
    pub(crate) async fn of_node(
        &self,
        caller: &Caller,
        action: &str,
        id: &str,
        change: impl Fn(&mut RosterRow),
    ) -> Result<(), Fault> {
        let key = Key::Roster(id.to_owned()).to_string();
        for _ in 0..TRIES {
            let entry = self.store.get(&key).await?;
            let mut txn = Txn {
                compares: vec![Compare::unchanged(key.clone(), entry.as_ref())],
                then: Vec::new(),
            };
            let before: RosterRow = match &entry {
                Some(entry) => keyspace::decode(&key, &entry.value)?,
                None => {
                    txn.compares.push(self.joined(id).await?);
                    RosterRow::default()
                }
            };
            let mut after = before;
            change(&mut after);
            if after == before && entry.is_some() {
                return Ok(());
            }
            let value = after.encode_to_vec();
            let record = self.trail.change(
                ("node", id),
                Vec::new(),
                "proxyxai.store.v1.RosterRow",
                entry.as_ref().map(|entry| entry.value.as_slice()),
                Some(&value),
            )?;
            txn.then.push(Op::Put(key.clone(), value));
            if self.record(caller, action, record, txn).await? {
                return Ok(());
            }
        }
        Err(Fault::Contended)
    }

    /// Changes what is wanted of the logs of all control planes.
    pub(crate) async fn of_log(
        &self,
        caller: &Caller,
        action: &str,
        wish: &LogWish,
    ) -> Result<(), Fault> {
        let key = Key::LogLevel.to_string();
        for _ in 0..TRIES {
            let entry = self.store.get(&key).await?;
            let value = wish.encode_to_vec();
            let record = self.trail.change(
                ("log_level", "control-plane"),
                Vec::new(),
                "proxyxai.store.v1.LogWish",
                entry.as_ref().map(|entry| entry.value.as_slice()),
                Some(&value),
            )?;
            let txn = Txn {
                compares: vec![Compare::unchanged(key.clone(), entry.as_ref())],
                then: vec![Op::Put(key.clone(), value)],
            };
            if self.record(caller, action, record, txn).await? {
                return Ok(());
            }
        }
        Err(Fault::Contended)
    }

    /// That a node joined and is still one of the deployment, to be compared.
    async fn joined(&self, id: &str) -> Result<Compare, Fault> {
        let key = Key::Node(id.to_owned()).to_string();
        let entry = self.store.get(&key).await?;
        let node: Option<Node> = match &entry {
            Some(entry) => Some(keyspace::decode(&key, &entry.value)?),
            None => None,
        };
        if node.is_none_or(|node| node.removed) {
            let (what, id) = ("node", id.to_owned());
            return Err(Fault::NotFound { what, id });
        }
        Ok(Compare::unchanged(key, entry.as_ref()))
    }

    async fn record(
        &self,
        caller: &Caller,
        action: &str,
        change: AuditChange,
        txn: Txn,
    ) -> Result<bool, Fault> {
        let state = self.config.state();
        let deed = Deed {
            caller,
            action,
            accounts: &state.snapshot.accounts,
        };
        Ok(self.trail.commit(&deed, vec![change], txn).await?.succeeded)
    }
}
