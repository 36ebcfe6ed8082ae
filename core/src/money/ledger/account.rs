//! The ledger's row of an account: its windows, its wallet, and whether it is still open.

use super::{budget::BudgetRow, wallet::Wallet};

/// How an account ends: OPEN → CLOSING → CLOSED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AccountState {
    /// It may spend.
    #[default]
    Open,
    /// No new lease; what is leased comes back or is spent.
    Closing,
    /// Nothing is leased and its credit went back; the row is kept for statements.
    Closed,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AccountRow {
    /// Limits and windows.
    pub budget: BudgetRow,
    /// Its grants, if it ever had one.
    pub wallet: Option<Wallet>,
    /// Whether it may spend.
    pub state: AccountState,
}

impl AccountRow {
    /// Whether what it debits must hold exactly.
    pub fn is_hard(&self) -> bool {
        self.wallet.is_some() || self.budget.is_hard()
    }
}
