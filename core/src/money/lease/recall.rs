//! Which leases are asked back when money is short somewhere or a limit was narrowed.
//!
//! A recall is a request, not a taking: the node stops new holds on the lease and returns what is unheld by a numbered record. Leases that
//! were given for one request are spared until that settles, and those of earlier epochs have no node to ask.

use super::row::Lease;
use crate::money::ledger::{
    budget::Place,
    draft::Ledger,
    id::{LeaseId, RowKey},
};

/// The leases that have money of this row: a refusal is final when there is none.
pub fn candidates(ledger: &Ledger, row: &RowKey) -> Vec<LeaseId> {
    let takes = |lease: &Lease| {
        let open = lease.place == Place::Leased && !lease.terms.single && !lease.left.is_zero();
        open && lease.terms.scope.rows().contains(row)
    };
    let found = ledger.leases().filter(|(_, lease)| takes(lease));
    found.map(|(id, _)| id.clone()).collect()
}
