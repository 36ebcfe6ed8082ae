//! A plan as one change: the decisions of the calls that change single objects, in an order in which each finds what it needs.

use std::collections::BTreeMap;

use proxyxai_core::{
    access::Caller,
    account::key::{self, Pepper},
    manifest::{self, Named},
    ports::{Random, random_bytes},
    secret::ExposeSecret as _,
    snapshot::ResourceName,
};
use proxyxai_proto::{
    admin::v1::{
        ActivatePriceTableRequest, CreateAccountRequest, CreateKeyRequest, CreatedKey, ManagedBy,
        ManifestAccount, ManifestKey, ManifestObject, ManifestPriceTable, manifest_object::Kind,
    },
    store::v1::StoredResource,
};

use super::{
    plan::{Planned, at},
    steps,
};
use crate::{
    admin::{accounts, keys, new_id, prices},
    auth,
    config_store::{Edit, State},
    status::Fault,
};

/// What decisions need besides the state.
pub(super) struct Tools<'a> {
    pub(super) caller: &'a Caller,
    pub(super) pepper: &'a Pepper,
    pub(super) random: &'a dyn Random,
    pub(super) now_unix_ms: i64,
    /// Ids of the accounts that have credentials.
    pub(super) with_credentials: &'a std::collections::BTreeSet<String>,
}

/// The configuration as it would be, and how it differs.
struct Working<'a> {
    tools: &'a Tools<'a>,
    state: State,
    /// What was changed, and which object of the manifest wanted it.
    touched: BTreeMap<ResourceName, Option<(usize, Named)>>,
    /// Ids of new accounts by path.
    new_accounts: BTreeMap<String, String>,
    created: Vec<CreatedKey>,
}

/// Decides the whole plan; gives what to change, and the keys that are made.
pub(super) fn decide(
    state: &State,
    tools: &Tools<'_>,
    planned: &[Planned],
) -> Result<(Vec<Edit>, Vec<CreatedKey>), Fault> {
    let mut working = Working {
        tools,
        state: state.clone(),
        touched: BTreeMap::new(),
        new_accounts: BTreeMap::new(),
        created: Vec::new(),
    };
    let mut puts: Vec<&Planned> = planned.iter().filter(|one| one.after.is_some()).collect();
    puts.sort_by_key(|one| one.after.as_ref().map(manifest::rank));
    for batch in puts.chunk_by(|one, next| is_beside(one, next)) {
        working.step(batch, Working::put)?;
        // What a creation does not take.
        working.step(batch, Working::finish)?;
    }
    let gone: Vec<&Planned> = planned.iter().filter(|one| one.after.is_none()).collect();
    for batch in gone.chunk_by(|one, next| is_beside(one, next)) {
        working.step(batch, Working::delete)?;
    }
    Ok((working.edits(state), working.created))
}

/// Whether two objects do not depend on each other, and can be decided on the same state.
fn is_beside(one: &Planned, next: &Planned) -> bool {
    let object = |planned: &Planned| planned.after.clone().or_else(|| planned.before.clone());
    let (Some(one), Some(next)) = (object(one), object(next)) else {
        return false;
    };
    // Of price tables only so many are kept.
    manifest::rank(&one) == manifest::rank(&next) && !matches!(next.kind, Some(Kind::PriceTable(_)))
}

impl Working<'_> {
    /// Decides a batch on the state that those before led to, and goes on from what it leads to.
    fn step(
        &mut self,
        batch: &[&Planned],
        decide: fn(&mut Self, &Planned) -> Result<Vec<Edit>, Fault>,
    ) -> Result<(), Fault> {
        let mut edits = Vec::new();
        for planned in batch {
            let place = planned.index.map(|index| (index, planned.named.clone()));
            let decided = decide(self, planned).map_err(|fault| match &place {
                Some((index, named)) => at(*index, named, fault),
                None => fault,
            })?;
            for edit in decided {
                if let Some(name) = edit.name() {
                    self.touched.insert(name, place.clone());
                }
                edits.push(edit);
            }
        }
        if !edits.is_empty() {
            self.state = self
                .state
                .with(&edits)
                .map_err(|fault| self.placed(fault))?;
        }
        Ok(())
    }

    /// A refusal of the whole, told of the object that it is about.
    fn placed(&self, fault: Fault) -> Fault {
        let mut place = None;
        if let Fault::Rejected(rejections) = &fault {
            place = rejections
                .iter()
                .find_map(|rejection| self.touched.get(&rejection.name)?.clone());
        }
        match place {
            Some((index, named)) => at(index, &named, fault),
            None => fault,
        }
    }

    fn put(&mut self, planned: &Planned) -> Result<Vec<Edit>, Fault> {
        let Some(after) = &planned.after else {
            return Ok(Vec::new());
        };
        auth::may_make(self.tools.caller, steps::call(planned))?;
        if planned.target.is_some() {
            return steps::update(&self.state, self.tools, planned);
        }
        match &after.kind {
            Some(Kind::Account(it)) => self.new_account(planned, it),
            Some(Kind::Key(it)) => self.new_key(planned, it),
            _ => steps::create(&self.state, self.tools, after),
        }
    }

    fn new_account(
        &mut self,
        planned: &Planned,
        account: &ManifestAccount,
    ) -> Result<Vec<Edit>, Fault> {
        let (parent, name) = manifest::parent(&account.path).unwrap_or_default();
        let request = CreateAccountRequest {
            parent: self.account(planned, parent),
            name: name.to_owned(),
            allowed_models: account.allowed_models.clone(),
            allowed_endpoints: account.allowed_endpoints.clone(),
            allowed_networks: account.allowed_networks.clone(),
            max_stale_seconds: account.max_stale_seconds,
            serve_expired: account.serve_expired,
            gateway: account.gateway,
            idempotency_key: String::new(),
        };
        let id = new_id(self.tools.random, "acct");
        let (caller, now) = (self.tools.caller, self.tools.now_unix_ms);
        let stored = accounts::create(&self.state, caller, &request, &id, now)?;
        self.new_accounts.insert(account.path.clone(), id);
        Ok(vec![Edit::Put(managed(stored))])
    }

    fn new_key(&mut self, planned: &Planned, key: &ManifestKey) -> Result<Vec<Edit>, Fault> {
        let request = CreateKeyRequest {
            account: self.account(planned, &key.account),
            name: key.name.clone(),
            expires_unix_ms: key.expires_unix_ms,
            allowed_models: key.allowed_models.clone(),
            allowed_endpoints: key.allowed_endpoints.clone(),
            allowed_networks: key.allowed_networks.clone(),
            idempotency_key: String::new(),
        };
        let tools = self.tools;
        let made = key::generate(random_bytes(tools.random));
        let (caller, now) = (tools.caller, tools.now_unix_ms);
        let stored = keys::new(&self.state, caller, tools.pepper, &made, &request, now)?;
        self.created.push(CreatedKey {
            id: made.id.clone(),
            account: key.account.clone(),
            name: key.name.clone(),
            secret: made.text.expose_secret().to_owned(),
        });
        let stored = managed(stored);
        Ok(vec![Edit::Put(match key.disabled {
            true => keys::disabled(stored),
            false => stored,
        })])
    }

    /// The id of the account above; its path when it is not there, so that the refusal names it.
    fn account(&self, planned: &Planned, path: &str) -> String {
        let new = self.new_accounts.get(path);
        let id = new.or(planned.above.as_ref()).cloned();
        id.unwrap_or_else(|| path.to_owned())
    }

    /// What comes after the making of an object: what a creation does not take.
    fn finish(&mut self, planned: &Planned) -> Result<Vec<Edit>, Fault> {
        match planned.after.as_ref().and_then(|after| after.kind.as_ref()) {
            Some(Kind::PriceTable(table)) => self.activate(table),
            _ if planned.target.is_some() => Ok(Vec::new()),
            Some(Kind::Account(account)) => {
                let id = self.new_accounts.get(&account.path);
                steps::finish(&self.state, self.tools, planned, id)
            }
            _ => steps::finish(&self.state, self.tools, planned, None),
        }
    }

    fn activate(&self, table: &ManifestPriceTable) -> Result<Vec<Edit>, Fault> {
        if !table.active {
            return Ok(Vec::new());
        }
        auth::may_make(self.tools.caller, steps::ACTIVATE)?;
        let request = ActivatePriceTableRequest {
            version: table.version.clone(),
            resource_version: 0,
        };
        prices::activate(&self.state, &request)
    }

    fn delete(&mut self, planned: &Planned) -> Result<Vec<Edit>, Fault> {
        auth::may_make(self.tools.caller, steps::call(planned))?;
        steps::delete(&self.state, self.tools, planned)
    }

    /// What it all comes to.
    fn edits(&self, base: &State) -> Vec<Edit> {
        let mut edits = Vec::new();
        for name in self.touched.keys() {
            let before = base.get(name.kind, &name.id);
            match self.state.get(name.kind, &name.id) {
                Some(after) if before == Some(after) => {}
                Some(after) => edits.push(Edit::Put(after.clone())),
                None if before.is_some() => edits.push(Edit::Delete(name.clone())),
                None => {}
            }
        }
        edits
    }
}

/// Made by an apply.
fn managed(stored: StoredResource) -> StoredResource {
    StoredResource {
        managed_by: ManagedBy::Apply.into(),
        ..stored
    }
}

/// What an object was before, if it was there.
pub(super) fn held(planned: &Planned) -> Option<&Kind> {
    let before: Option<&ManifestObject> = planned.before.as_ref();
    before.and_then(|before| before.kind.as_ref())
}
