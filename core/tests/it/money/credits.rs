//! Credits: funding, expiry, refunds, closing.

use std::sync::Arc;

use proxyxai_core::money::{
    ledger::{
        account::AccountState,
        fund::{self, FundRefusal},
        limit::{Closing, close},
        wallet::MAX_GRANTS,
    },
    nano::NanoUsd,
    window::Stamp,
};

use super::desk::Desk;

const DAY: i64 = 86_400_000;

/// Each open grant: free, funded down, expired, refunded, days that it lives.
fn grants(desk: &Desk, account: &str) -> Vec<[i64; 5]> {
    let row = |grant: &proxyxai_core::money::ledger::grant::Grant| {
        [
            grant.free().unwrap(),
            grant.funded_down,
            grant.expired,
            grant.refunded,
        ]
        .map(|amount| amount.0)
    };
    desk.wallet(account)
        .grants()
        .iter()
        .map(|grant| {
            let [a, b, c, d] = row(grant);
            [a, b, c, d, (grant.expires.0 - desk.at) / DAY]
        })
        .collect()
}

#[test]
fn funding_from_two_sources_makes_two_grants_that_do_not_outlive_them() {
    let mut desk = Desk::new();
    desk.fund(None, "root", 100, 30 * DAY).unwrap();
    desk.fund(None, "root", 50, 10 * DAY).unwrap();
    desk.fund(Some("root"), "team", 70, 20 * DAY).unwrap();
    // The one that ends soonest gives first, and its part ends with it.
    assert_eq!(
        grants(&desk, "root"),
        [[80, 20, 0, 0, 30], [0, 50, 0, 0, 10]]
    );
    assert_eq!(
        grants(&desk, "team"),
        [[50, 0, 0, 0, 10], [20, 0, 0, 0, 20]]
    );
    // The same source and the same end are one grant.
    desk.fund(Some("root"), "team", 5, 20 * DAY).unwrap();
    assert_eq!(
        grants(&desk, "team"),
        [[50, 0, 0, 0, 10], [25, 0, 0, 0, 20]]
    );
    // What lives longest goes back first, to where it came from.
    let refund = |desk: &mut Desk, amount| {
        desk.transact(|draft, now| fund::refund(draft, &Arc::from("team"), NanoUsd(amount), now))
    };
    refund(&mut desk, 30).unwrap();
    assert_eq!(
        grants(&desk, "root"),
        [[100, 0, 0, 0, 30], [5, 45, 0, 0, 10]]
    );
    assert_eq!(grants(&desk, "team"), [[45, 0, 0, 5, 10]]);
    let free = NanoUsd(45);
    assert_eq!(
        refund(&mut desk, 46),
        Err(FundRefusal::NotEnough {
            account: Arc::from("team"),
            free
        })
    );
    desk.at += 10 * DAY;
    assert!(
        refund(&mut desk, 1).is_err(),
        "a grant that is over gives nothing back"
    );
}

#[test]
fn what_cannot_be_funded_is_refused_and_changes_nothing() {
    let mut desk = Desk::new();
    let check = |desk: &mut Desk, from: Option<&str>, amount, lives, want: FundRefusal| {
        let before = desk.ledger.clone();
        assert_eq!(desk.fund(from, "team", amount, lives), Err(want));
        assert!(desk.ledger == before);
    };
    check(&mut desk, None, 0, DAY, FundRefusal::NotPositive);
    check(&mut desk, None, -5, DAY, FundRefusal::NotPositive);
    check(&mut desk, None, 5, 0, FundRefusal::Expired);
    desk.fund(None, "root", 40, DAY).unwrap();
    check(
        &mut desk,
        Some("root"),
        41,
        DAY,
        FundRefusal::NotEnough {
            account: Arc::from("root"),
            free: NanoUsd(40),
        },
    );
    for grant in 1..=i64::try_from(MAX_GRANTS).unwrap() {
        desk.fund(None, "team", 1, grant * DAY).unwrap();
    }
    check(&mut desk, None, 5, 99 * DAY, FundRefusal::TooManyGrants);
    desk.fund(None, "team", 5, DAY).unwrap();
    // A grant that is over and not leased makes room.
    desk.at += DAY;
    desk.fund(None, "team", 5, 99 * DAY).unwrap();
    assert_eq!(desk.wallet("team").grants().len(), MAX_GRANTS);
    assert_eq!(desk.wallet("team").closed().expired, NanoUsd(6));
}

#[test]
fn a_lease_consumes_the_soonest_end_first_and_a_late_return_expires() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    desk.fund(None, "root", 10, 5_000).unwrap();
    desk.fund(None, "root", 100, 30 * DAY).unwrap();
    let granted = desk.ask(epoch, 1, &["root"], (30, 30), true).unwrap();
    let parts: Vec<i64> = granted.parts.iter().map(|(_, amount)| amount.0).collect();
    assert_eq!(parts, [10, 20]);
    assert_eq!(
        (granted.lifetime_ms, granted.terms.ends),
        (5_000, Stamp(desk.at + 5_000))
    );
    desk.at += 6_000;
    super::applied::give_back(&mut desk, epoch, 1, 1, 25);
    // The last part comes back first; what comes to the one that is over expires.
    assert_eq!(grants(&desk, "root"), [[0, 0, 5, 0, 0], [100, 0, 0, 0, 29]]);
}

#[test]
fn an_account_closes_when_nothing_is_out_and_its_credit_goes_back() {
    let mut desk = Desk::new();
    let epoch = desk.register("n", 1);
    desk.fund(None, "root", 100, DAY).unwrap();
    desk.fund(Some("root"), "team", 60, DAY).unwrap();
    desk.ask(epoch, 1, &["root", "team"], (10, 10), true)
        .unwrap();
    let close = |desk: &mut Desk| {
        desk.transact(|draft, now| close(draft, &Arc::from("team"), now).map(Ok::<_, ()>))
            .unwrap()
    };
    assert_eq!(close(&mut desk), Closing::Waits { out: NanoUsd(10) });
    assert_eq!(desk.account("team").state, AccountState::Closing);
    assert!(desk.ask(epoch, 2, &["root", "team"], (1, 1), true).is_err());
    assert_eq!(
        desk.fund(Some("root"), "team", 1, DAY),
        Err(FundRefusal::Closing(Arc::from("team")))
    );
    super::applied::give_back(&mut desk, epoch, 1, 1, 10);
    assert_eq!(close(&mut desk), Closing::Closed);
    assert_eq!(grants(&desk, "root")[0][..2], [100, 0]);
    assert_eq!(close(&mut desk), Closing::Closed);
}
