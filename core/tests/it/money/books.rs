//! A core's book: what it holds, and what becomes of it.

use std::time::Duration;

use proptest::{collection::vec, prelude::any};
use proxyxai_core::money::{
    amounts::Amounts,
    lease::book::{Book, PoolId, Short, Slice},
    nano::NanoUsd,
    record::{Charge, Target},
};

fn of(amount: i64) -> Amounts {
    Amounts::even(1, NanoUsd(amount), NanoUsd(0)).unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn put(book: &mut Book, pool: PoolId, lease: u64, amount: i64, ends: u64, single: bool) {
    book.put(
        pool,
        Slice {
            lease,
            ends: at(ends),
            unheld: of(amount),
            single,
        },
    );
}

fn charged(charges: &[Charge]) -> Vec<(u64, i64)> {
    let lease = |target: &Target| {
        if let Target::Lease(number) = target {
            *number
        } else {
            0
        }
    };
    charges
        .iter()
        .map(|charge| (lease(&charge.target), charge.amounts.largest().0))
        .collect()
}

fn returned(book: &mut Book, now: u64) -> Vec<(u64, i64)> {
    let mut out = Vec::new();
    book.returns(at(now), &mut out);
    out.iter()
        .map(|back| (back.lease, back.amounts.largest().0))
        .collect()
}

#[test]
fn a_hold_fills_leases_in_order_and_the_rest_is_free_again() {
    let mut book = Book::default();
    let pool = book.add_pool(1);
    put(&mut book, pool, 1, 4, 60, false);
    put(&mut book, pool, 2, 10, 60, false);
    let hold = book.hold(&[(pool, of(9))], at(1)).unwrap();
    assert_eq!(
        book.held(&hold)
            .map(|(lease, amount)| (lease, amount.largest().0))
            .collect::<Vec<_>>(),
        [(1, 4), (2, 5)]
    );
    assert_eq!(book.hold(&[(pool, of(6))], at(1)), Err(Short(pool)));
    let mut out = Vec::new();
    let over = book.settle(hold, &[(pool, of(6), NanoUsd(6))], at(2), &mut out);
    assert_eq!((charged(&out), over.0), (vec![(1, 4), (2, 2)], NanoUsd(0)));
    assert_eq!(
        out.iter().map(|charge| charge.listed.0).collect::<Vec<_>>(),
        [6, 0],
        "list cost is told once"
    );
    let hold = book.hold(&[(pool, of(8))], at(3)).unwrap();
    // A cost beyond the hold is settled as far as the hold goes.
    out.clear();
    assert_eq!(
        book.settle(hold, &[(pool, of(11), NanoUsd(11))], at(3), &mut out)
            .0,
        NanoUsd(3)
    );
    assert_eq!(charged(&out), [(2, 8)]);
    assert_eq!(returned(&mut book, 3), []);
}

#[test]
fn leases_that_are_over_give_back_what_is_unheld() {
    let mut book = Book::default();
    let pool = book.add_pool(1);
    put(&mut book, pool, 1, 10, 60, false);
    put(&mut book, pool, 2, 10, 90, false);
    let hold = book.hold(&[(pool, of(7))], at(1)).unwrap();
    assert_eq!(returned(&mut book, 59), []);
    assert_eq!(returned(&mut book, 60), [(1, 3)]);
    book.recall(2);
    assert_eq!(book.hold(&[(pool, of(1))], at(60)), Err(Short(pool)));
    assert_eq!(returned(&mut book, 60), [(2, 10)]);
    // An older hold settles on its lease, and the rest of it comes back then.
    let mut out = Vec::new();
    book.settle(hold, &[(pool, of(2), NanoUsd(2))], at(70), &mut out);
    assert_eq!(
        (charged(&out), returned(&mut book, 70)),
        (vec![(1, 2)], vec![(1, 5)])
    );
    // A lease for one request goes back with it.
    put(&mut book, pool, 3, 10, 200, true);
    assert_eq!(returned(&mut book, 100), []);
    let hold = book.hold(&[(pool, of(10))], at(100)).unwrap();
    book.settle(hold, &[], at(101), &mut out);
    assert_eq!(returned(&mut book, 101), [(3, 10)]);
}

#[test]
fn an_answer_counts_once_and_asks_follow_what_is_spent() {
    let mut book = Book::default();
    let pool = book.add_pool(1);
    assert_eq!(book.ask(pool, &of(0), at(1)), None, "nothing is needed");
    assert_eq!(book.ask(pool, &of(3), at(1)), Some(of(3)));
    book.asked(pool, 1);
    let slice = Slice {
        lease: 1,
        ends: at(60),
        unheld: of(20),
        single: false,
    };
    assert!(book.answered(pool, 1, Some(slice)));
    assert!(
        !book.answered(pool, 1, Some(slice)),
        "a repeated answer fills nothing"
    );
    let hold = book.hold(&[(pool, of(16))], at(2)).unwrap();
    book.settle(hold, &[(pool, of(12), NanoUsd(12))], at(3), &mut Vec::new());
    // 12 were spent lately and 8 are there: more than half.
    assert_eq!(book.ask(pool, &of(0), at(4)), None);
    let hold = book.hold(&[(pool, of(4))], at(4)).unwrap();
    // 16 are the target and 4 are there.
    assert_eq!(book.ask(pool, &of(0), at(4)), Some(of(12)));
    book.asked(pool, 2);
    assert_eq!(
        book.ask(pool, &of(0), at(4)),
        None,
        "one ask at a time, unless a request waits"
    );
    assert_eq!(book.ask(pool, &of(5), at(4)), Some(of(12)));
    book.settle(hold, &[], at(5), &mut Vec::new());
}

proptest::proptest! {
    /// Slices of one lease in several books, holds over two pools: nothing is made or lost, and a hold that fails holds nothing.
    #[test]
    fn law_14_holds_take_from_every_pool_or_from_none(
        leases in vec((1_i64..40, any::<bool>()), 1..8),
        steps in vec((0_usize..3, 0_u8..4, 1_i64..30, 0_i64..30), 1..120),
    ) {
        let mut books: Vec<Book> = vec![Book::default(); 3];
        let pools = [(); 2].map(|()| {
            let ids: Vec<PoolId> = books.iter_mut().map(|book| book.add_pool(1)).collect();
            ids[0]
        });
        let mut there = [0, 0];
        for (number, (amount, second)) in (1..).zip(leases) {
            let pool = usize::from(second);
            there[pool] += amount;
            put(&mut books[0], pools[pool], number, amount, 1_000, false);
        }
        let mut spent = [0, 0];
        let mut holds = Vec::new();
        for (core, what, amount, cost) in steps {
            match what {
                0 => {
                    let slices: Vec<_> = pools.iter().filter_map(|pool| Some((*pool, books[0].carve(*pool, &of(amount), at(1))?))).collect();
                    slices.into_iter().for_each(|(pool, slice)| books[core].put(pool, slice));
                }
                1 => {
                    let before = books[core].clone();
                    let asks = [(pools[0], of(amount)), (pools[1], of(cost))];
                    match books[core].hold(&asks, at(1)) {
                        Ok(id) => holds.push((core, id, amount, cost)),
                        Err(_) => proptest::prop_assert_eq!(format!("{:?}", &books[core]), format!("{before:?}")),
                    }
                }
                _ => {
                    let Some((core, id, first, second)) = holds.pop() else { continue };
                    let (first, second) = (first.min(amount), second.min(cost));
                    let mut out = Vec::new();
                    let over = books[core].settle(id, &[(pools[0], of(first), NanoUsd(0)), (pools[1], of(second), NanoUsd(0))], at(1), &mut out);
                    proptest::prop_assert_eq!(over.0, NanoUsd(0));
                    let sum: i64 = charged(&out).iter().map(|(_, amount)| amount).sum();
                    proptest::prop_assert_eq!(sum, first + second);
                    spent[0] += first;
                    spent[1] += second;
                }
            }
        }
        for (core, id, ..) in holds {
            books[core].settle(id, &[], at(1), &mut Vec::new());
        }
        let back: i64 = books.iter_mut().flat_map(|book| returned(book, 1_000)).map(|(_, amount)| amount).sum();
        proptest::prop_assert_eq!(back, there[0] + there[1] - spent[0] - spent[1]);
    }
}
