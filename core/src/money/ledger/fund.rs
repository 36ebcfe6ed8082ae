//! Credits: money from an account to one below it, and back.
//!
//! Invariants: one transaction moves it, so it is nowhere twice and nowhere missing; from k grants it makes k grants; none of them
//! outlives its source; a refund goes back to the grants that it came from.

use super::{
    super::{nano::NanoUsd, window::Stamp},
    account::AccountState,
    draft::Draft,
    fault::Fault,
    grant::Source,
    id::{AccountId, GrantId, RowKey},
    now::Now,
    parts::Parts,
    restore,
    wallet::{MAX_GRANTS, TooManyGrants},
};

/// A grant that got money. It is an effect: a restored ledger is brought forward by effects, for deciding again on older balances could
/// choose other grants than those that later records name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funded {
    /// Which one.
    pub grant: GrantId,
    /// From where.
    pub source: Option<Source>,
    /// How much it got.
    pub amount: NanoUsd,
    /// Its end: the one asked for, or that of its source if that is sooner.
    pub expires: Stamp,
}

/// What went back from a grant to where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refunded {
    /// From which grant.
    pub grant: GrantId,
    /// How much.
    pub amount: NanoUsd,
}

/// Why no money was moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FundRefusal {
    /// Nothing, or less.
    #[error("an amount to move must be more than 0")]
    NotPositive,
    /// The grant would be over at once.
    #[error("the grant would have expired already; choose a later end")]
    Expired,
    /// The source does not have it.
    #[error("the account `{account}` has only {free} USD of credit to give")]
    NotEnough {
        /// Whose wallet.
        account: AccountId,
        /// What is in it and free.
        free: NanoUsd,
    },
    /// What seems free in a restored ledger may be with a node that did not report yet.
    #[error(
        "the ledger was restored from a backup and waits for its nodes; see `xai nodes`, then try again"
    )]
    Recovering,
    /// Of the one that would get it.
    #[error(
        "the account has {MAX_GRANTS} open grants already; wait until one is spent, or choose an end that one of them has"
    )]
    TooManyGrants,
    /// It is being deleted.
    #[error("the account `{0}` is being closed")]
    Closing(AccountId),
}

/// Moves money into an account: from the wallet of one above it, or issued by the operator where there is none above.
///
/// # Errors
/// When a row is not loaded. `Ok(Err(_))` says why nothing was moved; the draft must be dropped then.
pub fn fund(
    draft: &mut Draft<'_>,
    from: Option<&AccountId>,
    to: &AccountId,
    amount: NanoUsd,
    expires: Stamp,
    now: Now<'_>,
) -> Result<Result<Vec<Funded>, FundRefusal>, Fault> {
    let keys: Vec<RowKey> = from
        .into_iter()
        .chain([to])
        .cloned()
        .map(RowKey::Account)
        .collect();
    let (at, windows) = now.of(draft, &keys)?;
    for (key, account) in keys.iter().zip(from.into_iter().chain([to])) {
        draft.roll(key, &windows, at)?;
        if draft.account(key, |row| Ok(row.state))? != AccountState::Open {
            return Ok(Err(FundRefusal::Closing(account.clone())));
        }
    }
    if amount.0 <= 0 {
        return Ok(Err(FundRefusal::NotPositive));
    }
    if expires <= at {
        return Ok(Err(FundRefusal::Expired));
    }
    if from.is_some() && restore::is_recovering(draft)? {
        return Ok(Err(FundRefusal::Recovering));
    }
    let slices = match from {
        None => vec![(None, expires, amount)],
        Some(account) => match from_wallet(draft, account, amount, at)? {
            Ok(slices) => slices
                .into_iter()
                .map(|(source, end, amount)| (Some(source), end.min(expires), amount))
                .collect(),
            Err(refusal) => return Ok(Err(refusal)),
        },
    };
    draft.account(&RowKey::Account(to.clone()), |row| {
        let wallet = row.wallet.get_or_insert_default();
        let mut funded = Vec::new();
        for (source, expires, amount) in slices {
            match wallet.receive(source.clone(), expires, amount)? {
                Ok(grant) => funded.push(Funded {
                    grant,
                    source,
                    amount,
                    expires,
                }),
                Err(TooManyGrants) => return Ok(Err(FundRefusal::TooManyGrants)),
            }
        }
        Ok(Ok(funded))
    })
}

type Slice = (Source, Stamp, NanoUsd);

fn from_wallet(
    draft: &mut Draft<'_>,
    account: &AccountId,
    amount: NanoUsd,
    at: Stamp,
) -> Result<Result<Vec<Slice>, FundRefusal>, Fault> {
    draft.account(&RowKey::Account(account.clone()), |row| {
        let wallet = row.wallet.get_or_insert_default();
        let free = wallet.free(at)?;
        if free < amount {
            return Ok(Err(FundRefusal::NotEnough {
                account: account.clone(),
                free,
            }));
        }
        let parts = wallet.fund_down(amount, at)?;
        let slice = |(grant, amount)| {
            let end = wallet.grant(grant).map_or(at, |grant| grant.expires);
            (
                Source {
                    account: account.clone(),
                    grant,
                },
                end,
                amount,
            )
        };
        Ok(Ok(parts.iter().map(slice).collect()))
    })
}

/// Gives free money of an account back to where it came from; what the operator issued leaves the ledger.
///
/// # Errors
/// When a row is not loaded. `Ok(Err(_))` says why nothing was moved; the draft must be dropped then.
pub fn refund(
    draft: &mut Draft<'_>,
    account: &AccountId,
    amount: NanoUsd,
    now: Now<'_>,
) -> Result<Result<Vec<Refunded>, FundRefusal>, Fault> {
    let key = RowKey::Account(account.clone());
    let (at, windows) = now.of(draft, std::slice::from_ref(&key))?;
    draft.roll(&key, &windows, at)?;
    let free = draft.account(&key, |row| {
        row.wallet
            .as_ref()
            .map_or(Ok(NanoUsd(0)), |wallet| wallet.free(at))
    })?;
    if amount.0 <= 0 {
        return Ok(Err(FundRefusal::NotPositive));
    }
    if restore::is_recovering(draft)? {
        return Ok(Err(FundRefusal::Recovering));
    }
    if free < amount {
        return Ok(Err(FundRefusal::NotEnough {
            account: account.clone(),
            free,
        }));
    }
    give_back(draft, account, amount, at).map(Ok)
}

/// Gives an amount that is free back to its sources.
pub(super) fn give_back(
    draft: &mut Draft<'_>,
    account: &AccountId,
    amount: NanoUsd,
    at: Stamp,
) -> Result<Vec<Refunded>, Fault> {
    let key = RowKey::Account(account.clone());
    let parts = draft.account(&key, |row| {
        row.wallet
            .as_ref()
            .map_or(Ok(Parts::default()), |wallet| wallet.refundable(amount, at))
    })?;
    let refunds: Vec<Refunded> = parts
        .iter()
        .map(|(grant, amount)| Refunded { grant, amount })
        .collect();
    refunds
        .iter()
        .try_for_each(|refund| refunded(draft, account, *refund))?;
    draft.account(&key, |row| {
        row.wallet.as_mut().map_or(Ok(()), |wallet| wallet.roll(at))
    })?;
    Ok(refunds)
}

/// Books a refund as it was decided, also on a restored ledger.
///
/// # Errors
/// When a row is not loaded, or a grant is not there.
pub fn refunded(draft: &mut Draft<'_>, account: &AccountId, refund: Refunded) -> Result<(), Fault> {
    let Refunded { grant, amount } = refund;
    let source = draft.account(&RowKey::Account(account.clone()), |row| {
        let wallet = row
            .wallet
            .as_mut()
            .ok_or(Fault::Broken("what gives a refund has no wallet"))?;
        wallet.refund(grant, amount)
    })?;
    let Some(source) = source else { return Ok(()) };
    draft.account(&RowKey::Account(source.account), |row| {
        let wallet = row
            .wallet
            .as_mut()
            .ok_or(Fault::Broken("the source of a grant has no wallet"))?;
        wallet.take_back(source.grant, amount)
    })
}

/// Books on a restored ledger what was funded after its backup, as it was decided then; free may go negative at the source.
///
/// # Errors
/// When a row is not loaded, or a source is not there.
pub fn funded(draft: &mut Draft<'_>, to: &AccountId, funded: &Funded) -> Result<(), Fault> {
    if let Some(source) = &funded.source {
        draft.account(&RowKey::Account(source.account.clone()), |row| {
            let wallet = row
                .wallet
                .as_mut()
                .ok_or(Fault::Broken("the source of a grant has no wallet"))?;
            wallet.give_on(source.grant, funded.amount)
        })?;
    }
    draft.account(&RowKey::Account(to.clone()), |row| {
        let wallet = row.wallet.get_or_insert_default();
        wallet.receive_as(
            funded.grant,
            funded.source.clone(),
            funded.expires,
            funded.amount,
        )
    })
}
