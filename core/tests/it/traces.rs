//! Trace contexts, sampling and ids, as tables and properties.

use proptest::prelude::*;
use proxyxai_core::trace::{
    Conventions, IdSource, Outbox, Ratio, Sampling, SpanId, TraceContext, TraceId,
};

const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_traceparent_is_read_whole_or_not_at_all() {
    let check = |text: &str, read: bool| {
        let found = TraceContext::parse(text.as_bytes());
        assert_eq!(found.is_some(), read, "{text}");
    };
    check(GOOD, true);
    for (from, to) in [
        ("00-", "01-"),
        ("-01", "-00"),
        ("-01", "-ff"),
        ("-01", "-09"),
    ] {
        check(&GOOD.replace(from, to), true);
    }
    // A later version may say more; the first one may not.
    check(&format!("{}-more", GOOD.replace("00-4", "cc-4")), true);
    check(&format!("{}.more", GOOD.replace("00-4", "cc-4")), false);
    check(&format!("{GOOD}-more"), false);
    for wrong in [
        "",
        "00",
        &GOOD[1..],
        &GOOD[..54],
        &GOOD.to_uppercase(),
        &GOOD.replace('-', "_"),
        &GOOD.replace("00-4", "ff-4"),
        &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
        &GOOD.replace("00f067aa0ba902b7", "00f067aa0ba902bg"),
        &GOOD.replace("00f067aa0ba902b7", "+0f067aa0ba902b7"),
    ] {
        check(wrong, false);
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(trace in 1..u128::MAX, span in 1..u64::MAX, sampled: bool) {
        let context = TraceContext { trace_id: TraceId(trace), span_id: SpanId(span), sampled };
        prop_assert_eq!(TraceContext::parse(context.to_string().as_bytes()), Some(context));
    }

    #[test]
    fn any_bytes_are_read_without_a_fault(bytes: Vec<u8>) {
        let _read_or_not = TraceContext::parse(&bytes);
    }

    #[test]
    fn a_share_is_shown_as_it_is_read(millionths in 0_u32..=1_000_000) {
        let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
        let ratio: Ratio = text.parse().unwrap();
        prop_assert_eq!(ratio.to_string().parse(), Ok(ratio));
    }

    #[test]
    fn a_larger_share_keeps_what_a_smaller_one_keeps(id: u128, less in 0_u32..1_000_000, more in 0_u32..1_000_000) {
        let ratio = |n: u32| format!("0.{n:06}").parse::<Ratio>().unwrap();
        let (less, more) = (less.min(more), less.max(more));
        prop_assert!(!ratio(less).has(TraceId(id)) || ratio(more).has(TraceId(id)));
    }
}

#[test]
fn shares_are_numbers_from_0_to_1() {
    for (text, shown) in [
        ("0", Some("0")),
        ("1", Some("1")),
        ("1.0", Some("1")),
        ("0.01", Some("0.01")),
        ("0.000001", Some("0.000001")),
        ("0.0000001", None),
        ("1.1", None),
        ("2", None),
        ("", None),
        (".5", None),
        ("0.", None),
        ("-0.1", None),
        ("1e-2", None),
        ("nan", None),
    ] {
        let read = text.parse::<Ratio>().ok().map(|ratio| ratio.to_string());
        assert_eq!(read.as_deref(), shown, "{text}");
    }
}

#[test]
fn a_share_of_all_ids_is_kept() {
    let ids = IdSource::new(7);
    let all: Vec<TraceId> = std::iter::repeat_with(|| ids.trace_id())
        .take(100_000)
        .collect();
    for (text, least, most) in [
        ("0", 0, 0),
        ("0.01", 900, 1_100),
        ("0.5", 49_000, 51_000),
        ("1", 100_000, 100_000),
    ] {
        let ratio: Ratio = text.parse().unwrap();
        let kept = all.iter().filter(|id| ratio.has(**id)).count();
        assert!((least..=most).contains(&kept), "{text}: {kept}");
    }
    let mut unique: Vec<u128> = all.iter().map(|id| id.0).collect();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), all.len());
}

#[test]
fn the_parent_decides_where_it_may_and_failures_are_kept() {
    let sampling = |follow_parent, failures, ratio| Sampling {
        ratio,
        follow_parent,
        failures,
    };
    let parent = |sampled| TraceContext {
        trace_id: TraceId(1),
        span_id: SpanId(1),
        sampled,
    };
    for (follows, ratio, said, expected) in [
        (true, Ratio::NONE, Some(true), true),
        (true, Ratio::ALL, Some(false), false),
        (true, Ratio::ALL, None, true),
        (true, Ratio::NONE, None, false),
        (false, Ratio::NONE, Some(true), false),
        (false, Ratio::ALL, Some(false), true),
    ] {
        let parent = said.map(parent);
        let sampling = sampling(follows, true, ratio);
        assert_eq!(sampling.at_start(TraceId(9), parent.as_ref()), expected);
    }
    for (failures, sampled, failed, kept) in [
        (true, false, true, true),
        (true, false, false, false),
        (false, false, true, false),
        (false, true, false, true),
    ] {
        let sampling = sampling(true, failures, Ratio::NONE);
        assert_eq!(sampling.at_end(sampled, failed), kept);
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let outbox = Outbox::new(3);
    (0..5).for_each(|one| outbox.push(one));
    assert_eq!((outbox.take(2), outbox.dropped()), (vec![0, 1], 2));
    outbox.push(9);
    assert_eq!((outbox.take(9), outbox.dropped()), (vec![2, 9], 2));
    assert!(outbox.take(9).is_empty());
}

#[test]
fn conventions_are_named_by_their_version() {
    for one in Conventions::ALL {
        assert_eq!(one.to_string().parse(), Ok(one));
    }
    assert!("1.99".parse::<Conventions>().is_err());
}
