//! What accounts may say of the age of a node's configuration: less than those above them, and past the limit of the deployment only
//! what root or an account above gives.

use proxyxai_core::{
    access::{Caller, Permission, may_call},
    account::{
        staleness::{Looser, Staleness},
        tree::AccountIndex,
    },
};
use proxyxai_proto::config::v1::Account;

use crate::{
    config_store::State,
    status::{Fault, WrongField},
};

/// What an account says, if it can be used.
pub(super) fn staleness_of(account: &Account) -> Result<Staleness, Fault> {
    Staleness::of(account).map_err(|wrong| Fault::field(wrong.field, wrong.what))
}

/// Refuses what says more than an account above does, as far as it is `written` now. The root account has none above: it is changed by
/// root alone.
pub(super) fn check_staleness(
    (state, caller): (&State, &Caller),
    above: Option<AccountIndex>,
    said: Staleness,
    written: impl Fn(&Looser) -> bool,
) -> Result<(), Fault> {
    let Some(above) = above else { return Ok(()) };
    let gives = may_call(caller, Permission::WriteDeployment).is_ok();
    let found = state.snapshot.accounts.looser(above, said, gives);
    let written = found.into_iter().filter(written);
    let wrong: Vec<WrongField> = written
        .map(|looser| WrongField {
            field: looser.field(),
            what: looser.to_string(),
        })
        .collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Fault::Fields(wrong)),
    }
}
