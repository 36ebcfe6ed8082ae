//! Lets nodes in: join tokens, the nodes that came with them, and their certificates.
//!
//! Invariants: a token lets in no more nodes than it says, however many ask at once (its count is compared in the transaction that writes
//! the node); a node that was removed gets no certificate again; of tokens and renewal secrets only keyed hashes are kept.

mod adopt;
mod service;
mod tokens;

use std::sync::Arc;

use prost::Message as _;
use proxyxai_core::{
    access::{Caller, Role},
    account::{
        key::{Pepper, base62},
        rules,
        tree::ROOT,
    },
    ports::{Clock, Random, random_bytes},
    secret::join_token::JoinToken,
};
use proxyxai_proto::{admin::v1::AuditChange, store::v1 as stored};
use subtle::ConstantTimeEq as _;

use crate::{
    audit::{Deed, Trail},
    authority::{Authority, Kept, NodeCertificate},
    config_store::ConfigStore,
    keyring::Keyring,
    status::Fault,
    store::{
        Compare, Entry, Op, Range, Store, Txn,
        keyspace::{self, JOIN_PREFIX, Key},
    },
};

pub(crate) use service::JoinServer;
pub(crate) use tokens::JoinTokenServer;

/// What stands before a node's id in the name of the credential that its certificate makes.
pub(crate) const NODE_CREDENTIAL: &str = "node/";
/// Tries before a write gives up on others that keep changing the same.
const TRIES: usize = 8;

/// The authority of the deployment; that of a new one is what was given, else made by whoever comes first.
pub(crate) async fn authority(
    store: &Arc<dyn Store>,
    random: &dyn Random,
    clock: &dyn Clock,
    keyring: &Keyring,
    deployment: &str,
    given: Option<&Kept>,
) -> Result<Authority, Fault> {
    let key = Key::Authority.to_string();
    let defect = |error: &dyn std::fmt::Display| Fault::Defect(error.to_string());
    for _ in 0..TRIES {
        if let Some(entry) = store.get(&key).await? {
            let kept: stored::Authority = keyspace::decode(&key, &entry.value)?;
            // Another replica may be rotating: what seals it is in the ring of before or in that of after.
            keyring.refresh().await?;
            let opened = keyring.now().open(&key, &kept.sealed_key);
            let opened = opened.map_err(|error| Fault::sealed(&key, &error))?;
            let kept = Kept {
                certificate: kept.certificate,
                key: opened,
            };
            return Authority::open(deployment, &kept).map_err(|e| defect(&e));
        }
        let made = match given {
            Some(given) => Authority::take_up(deployment, given, clock.unix_ms())
                .map_err(|error| Fault::Invalid(error.to_string()))?,
            None => Authority::make(deployment, clock.unix_ms()).map_err(|e| defect(&e))?,
        };
        let (_, made) = made;
        keyring.refresh().await?;
        let keys = keyring.now();
        let value = stored::Authority {
            certificate: made.certificate,
            sealed_key: keys.seal(random, &key, &made.key)?,
        };
        // Whoever loses the race finds what the winner made.
        store
            .txn(Txn {
                compares: vec![Compare::absent(key.clone()), keys.fence()],
                then: vec![Op::Put(key.clone(), value.encode_to_vec())],
            })
            .await?;
    }
    Err(Fault::Contended)
}

/// Lets nodes in.
pub(crate) struct Door {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pepper: Pepper,
    pub(crate) authority: Arc<Authority>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) config: Arc<ConfigStore>,
}

/// A node that joined.
pub(crate) struct Joined {
    pub(crate) certificate: NodeCertificate,
    /// Shown this once.
    pub(crate) renewal_secret: String,
}

/// Why nobody is let in. What was shown is not repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinRefusal {
    /// No such token, or another secret.
    #[error("the join token is not valid here; make one with `xai join-token create`")]
    UnknownToken,
    /// Not any more.
    #[error("the join token `{id}` {why}; make another one with `xai join-token create`")]
    Spent {
        /// Names the token.
        id: String,
        /// In words.
        why: &'static str,
    },
    /// Another node has this name.
    #[error(
        "a node `{0}` has joined before; choose another id, or delete that node with `xai node remove`"
    )]
    Taken(String),
    /// It was removed, or never joined, or shows another secret.
    #[error(
        "the node `{0}` is none of this deployment any more; let it join again under another id"
    )]
    UnknownNode(String),
    /// What was sent cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Door {
    /// Makes a token.
    pub(crate) async fn create_token(
        &self,
        caller: &Caller,
        expires_in_ms: i64,
        uses_max: u32,
    ) -> Result<(JoinToken, stored::JoinToken), Fault> {
        let token = JoinToken::make(&random_bytes(&*self.random), self.authority.fingerprint());
        let now = self.clock.unix_ms();
        let row = stored::JoinToken {
            digest: self.digest(token.expose()),
            expires_unix_ms: if expires_in_ms == 0 {
                0
            } else {
                now.saturating_add(expires_in_ms)
            },
            uses_max,
            created_unix_ms: now,
            ..stored::JoinToken::default()
        };
        let key = Key::JoinToken(token.id.clone()).to_string();
        let txn = Txn {
            compares: vec![Compare::absent(key.clone())],
            then: vec![Op::Put(key, row.encode_to_vec())],
        };
        let change = self.token_change(&token.id, None, &row)?;
        if self
            .record(caller, "CreateJoinToken", vec![change], txn)
            .await?
        {
            Ok((token, row))
        } else {
            Err(Fault::Contended)
        }
    }

    /// All tokens, in the order of their ids.
    pub(crate) async fn tokens(&self) -> Result<Vec<(String, stored::JoinToken)>, Fault> {
        let mut all = Vec::new();
        for entry in self.store.range(Range::prefix(JOIN_PREFIX)).await?.entries {
            if let Some(Key::JoinToken(id)) = Key::parse(&entry.key) {
                all.push((id, keyspace::decode(&entry.key, &entry.value)?));
            }
        }
        Ok(all)
    }

    /// Lets nobody in with this token from now on.
    pub(crate) async fn revoke_token(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<stored::JoinToken, Fault> {
        let key = Key::JoinToken(id.to_owned()).to_string();
        for _ in 0..TRIES {
            let Some((entry, before)) = self.read::<stored::JoinToken>(&key).await? else {
                return Err(Fault::NotFound {
                    what: "join token",
                    id: id.to_owned(),
                });
            };
            let after = stored::JoinToken {
                revoked: true,
                ..before.clone()
            };
            let txn = Txn {
                compares: vec![Compare::unchanged(key.clone(), Some(&entry))],
                then: vec![Op::Put(key.clone(), after.encode_to_vec())],
            };
            let change = self.token_change(id, Some(&before), &after)?;
            if self
                .record(caller, "RevokeJoinToken", vec![change], txn)
                .await?
            {
                return Ok(after);
            }
        }
        Err(Fault::Contended)
    }

    /// Lets a node in.
    pub(crate) async fn join(
        &self,
        token: &str,
        node: &str,
        request: &[u8],
    ) -> Result<Joined, JoinRefusal> {
        let token =
            JoinToken::parse(token).map_err(|error| JoinRefusal::Invalid(error.to_string()))?;
        rules::check_id(node)
            .map_err(|error| JoinRefusal::Invalid(format!("the node's id: {error}")))?;
        let now = self.clock.unix_ms();
        let certificate = self.certificate(node, request)?;
        let token_key = Key::JoinToken(token.id.clone()).to_string();
        let node_key = Key::Node(node.to_owned()).to_string();
        let renewal_secret = base62(&random_bytes(&*self.random), 40);
        for _ in 0..TRIES {
            let (entry, before) = self
                .read::<stored::JoinToken>(&token_key)
                .await?
                .filter(|(_, row)| same(&row.digest, &self.digest(token.expose())))
                .ok_or(JoinRefusal::UnknownToken)?;
            if let Some(why) = spent(&before, now) {
                let id = token.id.clone();
                return Err(JoinRefusal::Spent { id, why });
            }
            if self.read::<stored::Node>(&node_key).await?.is_some() {
                return Err(JoinRefusal::Taken(node.to_owned()));
            }
            let after = stored::JoinToken {
                uses: before.uses.saturating_add(1),
                ..before.clone()
            };
            let joined = stored::Node {
                renewal_digest: self.digest(&renewal_secret),
                join_token_id: token.id.clone(),
                joined_unix_ms: now,
                removed: false,
            };
            let txn = Txn {
                compares: vec![
                    Compare::unchanged(token_key.clone(), Some(&entry)),
                    Compare::absent(node_key.clone()),
                ],
                then: vec![
                    Op::Put(token_key.clone(), after.encode_to_vec()),
                    Op::Put(node_key.clone(), joined.encode_to_vec()),
                ],
            };
            let changes = vec![
                self.token_change(&token.id, Some(&before), &after)?,
                self.node_change(node, None, &joined)?,
            ];
            let caller = Caller {
                credential: format!("join-token/{}", token.id),
                ..node_caller(node)
            };
            if self.record(&caller, "Join", changes, txn).await? {
                tracing::info!(node, token = token.id, "a node joined");
                return Ok(Joined {
                    certificate,
                    renewal_secret,
                });
            }
        }
        Err(Fault::Contended.into())
    }

    /// Gives a node that joined its next certificate.
    pub(crate) async fn renew(
        &self,
        node: &str,
        renewal_secret: &str,
        request: &[u8],
    ) -> Result<NodeCertificate, JoinRefusal> {
        let key = Key::Node(node.to_owned()).to_string();
        let known = self
            .read::<stored::Node>(&key)
            .await?
            .is_some_and(|(_, row)| {
                !row.removed && same(&row.renewal_digest, &self.digest(renewal_secret))
            });
        if !known {
            return Err(JoinRefusal::UnknownNode(node.to_owned()));
        }
        self.certificate(node, request)
    }

    /// The caller that a certificate of this node makes.
    ///
    /// # Errors
    /// [`JoinRefusal::UnknownNode`]: it is none of the deployment any more.
    pub(crate) async fn caller(&self, node: &str) -> Result<Caller, JoinRefusal> {
        let key = Key::Node(node.to_owned()).to_string();
        match self.read::<stored::Node>(&key).await? {
            Some((_, row)) if !row.removed => Ok(node_caller(node)),
            Some(_) | None => Err(JoinRefusal::UnknownNode(node.to_owned())),
        }
    }

    /// Whether a node was taken out of the deployment.
    pub(crate) async fn is_removed(&self, node: &str) -> Result<bool, Fault> {
        let key = Key::Node(node.to_owned()).to_string();
        let found = self.read::<stored::Node>(&key).await?;
        Ok(found.is_some_and(|(_, row)| row.removed))
    }

    /// Whether a node ever joined under this id, also when it was removed since then.
    pub(crate) async fn has_joined(&self, node: &str) -> Result<bool, Fault> {
        let key = Key::Node(node.to_owned()).to_string();
        Ok(self.store.get(&key).await?.is_some())
    }

    /// Takes a node out of the deployment: its certificate and its renewal secret are refused from now on, all replicas end what it has
    /// open, and nobody gets its id again. Says whether there was any such node.
    pub(crate) async fn remove_node(&self, caller: &Caller, id: &str) -> Result<bool, Fault> {
        let roster_key = Key::Roster(id.to_owned()).to_string();
        let key = Key::Node(id.to_owned()).to_string();
        for _ in 0..TRIES {
            let known = self.read::<stored::Node>(&key).await?;
            let known = known.filter(|(_, row)| !row.removed);
            let roster = self.store.get(&roster_key).await?;
            let mut txn = Txn {
                compares: vec![Compare::unchanged(roster_key.clone(), roster.as_ref())],
                then: Vec::new(),
            };
            if let Some(row) = &roster {
                txn.then.push(Op::Delete(row.key.clone()));
            }
            let change = match (&known, &roster) {
                (Some((entry, before)), _) => {
                    let after = stored::Node {
                        removed: true,
                        ..before.clone()
                    };
                    let unchanged = Compare::unchanged(key.clone(), Some(entry));
                    txn.compares.push(unchanged);
                    txn.then.push(Op::Put(key.clone(), after.encode_to_vec()));
                    self.node_change(id, Some(before), &after)?
                }
                // It came without a certificate of its own, as the node of a control plane's process does.
                (None, Some(row)) => {
                    let (message, row) = ("proxyxai.store.v1.RosterRow", &row.value);
                    self.trail
                        .change(("node", id), Vec::new(), message, Some(row), None)?
                }
                (None, None) => return Ok(false),
            };
            if self.record(caller, "RemoveNode", vec![change], txn).await? {
                tracing::info!(node = id, "a node was removed");
                return Ok(true);
            }
        }
        Err(Fault::Contended)
    }

    /// Commits a transaction together with its record in the audit trail.
    async fn record(
        &self,
        caller: &Caller,
        action: &str,
        changes: Vec<AuditChange>,
        txn: Txn,
    ) -> Result<bool, Fault> {
        let state = self.config.state();
        let deed = Deed {
            caller,
            action,
            accounts: &state.snapshot.accounts,
        };
        Ok(self.trail.commit(&deed, changes, txn).await?.succeeded)
    }

    fn token_change(
        &self,
        id: &str,
        before: Option<&stored::JoinToken>,
        after: &stored::JoinToken,
    ) -> Result<AuditChange, Fault> {
        self.trail.change(
            ("join_token", id),
            Vec::new(),
            "proxyxai.store.v1.JoinToken",
            before.map(stored::JoinToken::encode_to_vec).as_deref(),
            Some(&after.encode_to_vec()),
        )
    }

    fn node_change(
        &self,
        id: &str,
        before: Option<&stored::Node>,
        after: &stored::Node,
    ) -> Result<AuditChange, Fault> {
        self.trail.change(
            ("node", id),
            Vec::new(),
            "proxyxai.store.v1.Node",
            before.map(stored::Node::encode_to_vec).as_deref(),
            Some(&after.encode_to_vec()),
        )
    }

    fn certificate(&self, node: &str, request: &[u8]) -> Result<NodeCertificate, JoinRefusal> {
        self.authority
            .node(node, request, self.clock.unix_ms())
            .map_err(|error| JoinRefusal::Invalid(error.to_string()))
    }

    fn digest(&self, secret: &str) -> Vec<u8> {
        self.pepper.digest(secret).0.to_vec()
    }

    async fn read<M: prost::Message + Default>(
        &self,
        key: &str,
    ) -> Result<Option<(Entry, M)>, Fault> {
        match self.store.get(key).await? {
            Some(entry) => {
                let row = keyspace::decode(key, &entry.value)?;
                Ok(Some((entry, row)))
            }
            None => Ok(None),
        }
    }
}

/// A node, as calls see it.
fn node_caller(node: &str) -> Caller {
    Caller {
        credential: format!("{NODE_CREDENTIAL}{node}"),
        role: Role::Node,
        account: ROOT.to_owned(),
        expires_unix_ms: None,
    }
}

/// Why a token lets nobody in any more, if so.
fn spent(row: &stored::JoinToken, now_unix_ms: i64) -> Option<&'static str> {
    if row.revoked {
        return Some("was revoked");
    }
    if row.expires_unix_ms != 0 && row.expires_unix_ms <= now_unix_ms {
        return Some("has run out");
    }
    (row.uses_max != 0 && row.uses >= row.uses_max).then_some("has let in as many nodes as it may")
}

fn same(one: &[u8], other: &[u8]) -> bool {
    bool::from(one.ct_eq(other))
}

#[cfg(test)]
mod tests;
