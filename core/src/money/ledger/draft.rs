//! Rows in memory, and a transaction that is being decided on them.
//!
//! The leader's shell loads rows into a [`Ledger`], lets a command write into a [`Draft`], commits the draft's changes together with its
//! fence, and then takes them into the ledger. A draft that is dropped changed nothing, so a refusal half-way needs no undoing.

use std::collections::BTreeMap;

use super::{
    super::{
        lease::row::Lease,
        window::{Stamp, Windows},
    },
    account::AccountRow,
    budget::BudgetRow,
    fault::Fault,
    id::{Epoch, LeaseId, NodeId, RowKey},
    mark::{Mark, NodeRow, Recovery},
    restore,
};

/// Most rows that one transaction changes; the fence and what the shell adds fit beside them.
pub const MAX_CHANGES: usize = 96;

/// Any row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Row {
    /// Of an account.
    Account(AccountRow),
    /// Of a key, or of a model at an account.
    Budget(BudgetRow),
    /// Of a lease.
    Lease(Box<Lease>),
    /// Of a node.
    Node(NodeRow),
    /// Of an epoch.
    Mark(Mark),
    /// Of a restore.
    Recovery(Recovery),
}

/// Changed rows; `None` deletes one.
pub type Changes = BTreeMap<RowKey, Option<Row>>;

/// Rows as they are committed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Ledger {
    /// `None` is a row that is known not to exist.
    rows: Changes,
    complete: bool,
}

impl Ledger {
    /// A ledger that knows nothing: rows are loaded as commands ask for them.
    pub fn unloaded() -> Self {
        Self::default()
    }

    /// A ledger that has all rows there are.
    pub fn complete() -> Self {
        Self {
            rows: Changes::new(),
            complete: true,
        }
    }

    /// Takes in a row that was read. The row of an epoch is read together with all leases of the epoch, so that it tells also which
    /// leases do not exist.
    pub fn load(&mut self, key: RowKey, row: Option<Row>) {
        self.rows.insert(key, row);
    }

    /// Takes in what was committed.
    pub fn commit(&mut self, changes: Changes) {
        for (key, row) in changes {
            if row.is_none() && self.absent_unless_held(&key) {
                self.rows.remove(&key);
            } else {
                self.rows.insert(key, row);
            }
        }
    }

    /// All rows that exist and are loaded.
    pub fn rows(&self) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.rows
            .iter()
            .filter_map(|(key, row)| row.as_ref().map(|row| (key, row)))
    }

    /// All leases that are loaded.
    pub fn leases(&self) -> impl Iterator<Item = (&LeaseId, &Lease)> {
        self.rows().filter_map(|(key, row)| match (key, row) {
            (RowKey::Lease(id), Row::Lease(lease)) => Some((id, &**lease)),
            (_, _) => None,
        })
    }

    fn find(&self, key: &RowKey) -> Result<Option<&Row>, Fault> {
        match self.rows.get(key) {
            Some(row) => Ok(row.as_ref()),
            None if self.absent_unless_held(key) => Ok(None),
            None => Err(Fault::NotLoaded(key.clone())),
        }
    }

    fn absent_unless_held(&self, key: &RowKey) -> bool {
        let by_epoch = match key {
            RowKey::Lease(id) => self
                .rows
                .contains_key(&RowKey::Mark(id.node.clone(), id.epoch)),
            RowKey::Account(_)
            | RowKey::Key(_)
            | RowKey::Model(..)
            | RowKey::Node(_)
            | RowKey::Mark(..)
            | RowKey::Recovery => false,
        };
        self.complete || by_epoch
    }
}

/// A kind of row.
pub trait Kind: Sized {
    /// The row, if it is of this kind.
    fn of(row: &Row) -> Option<&Self>;
    /// As any row.
    fn into_row(self) -> Row;
}

macro_rules! kinds {
    ($($kind:ident: $type:ty),*) => {$(
        impl Kind for $type {
            fn of(row: &Row) -> Option<&Self> {
                if let Row::$kind(row) = row { Some(row) } else { None }
            }
            fn into_row(self) -> Row {
                Row::$kind(self)
            }
        }
    )*};
}

kinds!(Account: AccountRow, Budget: BudgetRow, Node: NodeRow, Mark: Mark, Recovery: Recovery);

impl Kind for Lease {
    fn of(row: &Row) -> Option<&Self> {
        if let Row::Lease(row) = row {
            Some(row)
        } else {
            None
        }
    }

    fn into_row(self) -> Row {
        Row::Lease(Box::new(self))
    }
}

/// A transaction that is being decided.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    ledger: &'a Ledger,
    changes: Changes,
}

impl<'a> Draft<'a> {
    /// Begins one.
    pub fn new(ledger: &'a Ledger) -> Self {
        Self {
            ledger,
            changes: Changes::new(),
        }
    }

    /// What it changes.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    /// How many rows it changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many rows it would change if it changed these as well.
    pub fn len_with(&self, keys: &std::collections::BTreeSet<RowKey>) -> usize {
        let new = keys.iter().filter(|key| !self.changes.contains_key(*key));
        self.len().saturating_add(new.count())
    }

    /// A row as this transaction would leave it.
    ///
    /// # Errors
    /// When it is not loaded, or of another kind than its key says.
    pub fn get<T: Kind>(&self, key: &RowKey) -> Result<Option<&T>, Fault> {
        let row = match self.changes.get(key) {
            Some(row) => row.as_ref(),
            None => self.ledger.find(key)?,
        };
        row.map(|row| T::of(row).ok_or(Fault::Broken("a row is not of the kind that its key says")))
            .transpose()
    }

    /// Writes a row.
    pub fn put(&mut self, key: RowKey, row: impl Kind) {
        self.changes.insert(key, Some(row.into_row()));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: RowKey) {
        self.changes.insert(key, None);
    }

    /// Changes the row of an account; one that is not there yet is an open account without limits.
    ///
    /// # Errors
    /// Those of the change, and of [`Draft::get`].
    pub fn account<T>(
        &mut self,
        key: &RowKey,
        change: impl FnOnce(&mut AccountRow) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut row = self.get::<AccountRow>(key)?.cloned().unwrap_or_default();
        let done = change(&mut row)?;
        self.put(key.clone(), row);
        Ok(done)
    }

    /// Changes the windows of an account, a key or a model.
    ///
    /// # Errors
    /// Those of the change, and of [`Draft::get`].
    pub fn budget<T>(
        &mut self,
        key: &RowKey,
        change: impl FnOnce(&mut BudgetRow) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if matches!(key, RowKey::Account(_)) {
            return self.account(key, |row| change(&mut row.budget));
        }
        let mut row = self.get::<BudgetRow>(key)?.cloned().unwrap_or_default();
        let done = change(&mut row)?;
        self.put(key.clone(), row);
        Ok(done)
    }

    /// The last stamp that the row of an account, a key or a model has seen.
    ///
    /// # Errors
    /// Those of [`Draft::get`].
    pub(crate) fn stamped(&self, key: &RowKey) -> Result<Stamp, Fault> {
        let stamped = if matches!(key, RowKey::Account(_)) {
            self.get::<AccountRow>(key)?.map(|row| row.budget.stamped())
        } else {
            self.get::<BudgetRow>(key)?.map(BudgetRow::stamped)
        };
        Ok(stamped.unwrap_or_default())
    }

    /// Brings a row to a moment; one that is not there yet is an account, key or model without limits.
    ///
    /// # Errors
    /// Those of [`Draft::get`].
    pub(crate) fn roll(&mut self, key: &RowKey, windows: &Windows, at: Stamp) -> Result<(), Fault> {
        self.budget(key, |row| {
            row.roll(windows, at);
            Ok(())
        })?;
        if matches!(key, RowKey::Account(_)) {
            self.expire(key, at)
        } else {
            Ok(())
        }
    }

    /// Lets grants of an account expire and close. While a restored ledger waits for nodes they stay: those may yet tell of charges to them.
    ///
    /// # Errors
    /// Those of [`Draft::get`].
    pub(crate) fn expire(&mut self, key: &RowKey, at: Stamp) -> Result<(), Fault> {
        if restore::is_recovering(self)? {
            return Ok(());
        }
        self.account(key, |row| {
            row.wallet.as_mut().map_or(Ok(()), |wallet| wallet.roll(at))
        })
    }

    /// The leases of an epoch, as this transaction would leave them.
    ///
    /// # Errors
    /// When the epoch is not loaded.
    pub fn leases_of(&self, node: &NodeId, epoch: Epoch) -> Result<Vec<LeaseId>, Fault> {
        self.get::<Mark>(&RowKey::Mark(node.clone(), epoch))?;
        let bound = |number| {
            RowKey::Lease(LeaseId {
                node: node.clone(),
                epoch,
                number,
            })
        };
        let range = || bound(0)..=bound(u64::MAX);
        let mut found = BTreeMap::new();
        found.extend(
            self.ledger
                .rows
                .range(range())
                .map(|(key, row)| (key, row.is_some())),
        );
        found.extend(
            self.changes
                .range(range())
                .map(|(key, row)| (key, row.is_some())),
        );
        let ids = found
            .into_iter()
            .filter(|(_, exists)| *exists)
            .filter_map(|(key, _)| {
                if let RowKey::Lease(id) = key {
                    Some(id.clone())
                } else {
                    None
                }
            });
        Ok(ids.collect())
    }

    /// The epochs of a node that have a row, oldest first.
    ///
    /// # Errors
    /// When the node is not loaded. The row of a node is read together with those of all its epochs.
    pub fn epochs_of(&self, node: &NodeId) -> Result<Vec<Epoch>, Fault> {
        self.get::<NodeRow>(&RowKey::Node(node.clone()))?;
        let bound = |part| {
            RowKey::Mark(
                node.clone(),
                Epoch {
                    generation: part,
                    number: part,
                },
            )
        };
        let range = || bound(0)..=bound(u64::MAX);
        let keys = self
            .ledger
            .rows
            .range(range())
            .chain(self.changes.range(range()));
        let mut epochs: Vec<Epoch> = keys
            .filter(|(_, row)| row.is_some())
            .filter_map(|(key, _)| {
                if let RowKey::Mark(_, epoch) = key {
                    Some(*epoch)
                } else {
                    None
                }
            })
            .collect();
        epochs.sort_unstable();
        epochs.dedup();
        Ok(epochs)
    }
}
