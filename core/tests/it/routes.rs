//! Which upstream keys a request tries, and what the upstream calls its model.

use std::sync::Arc;

use proptest::{prelude::*, sample::select};
use proxyxai_core::{
    account::pattern::{Pattern, PatternList},
    route::{
        mapping::Mapping,
        pool::{Candidates, Level, Member, Pool, SwitchOver, UpstreamKeyIndex},
        retry::{AttemptEnd, MAX_ATTEMPTS},
    },
    snapshot::ProviderIndex,
};

const SLOW: AttemptEnd = AttemptEnd::Status(429);
const DOWN: AttemptEnd = AttemptEnd::Status(503);

fn member(key: usize, weight: u32, models: &[&str]) -> Member {
    Member {
        key: UpstreamKeyIndex(key),
        provider: ProviderIndex(0),
        weight,
        models: Arc::new(PatternList::parse(models).unwrap()),
    }
}

/// Levels of so many keys each, numbered through.
fn pool(sizes: &[usize], switch_over: SwitchOver) -> Pool {
    let mut next = 0..;
    let level = |size: &usize| {
        let keys = next.by_ref().take(*size);
        Level::new(keys.map(|key| member(key, 1, &[])).collect())
    };
    Pool {
        name: "p".into(),
        levels: sizes.iter().map(level).collect(),
        switch_over,
        mapping: None,
    }
}

fn tried(pool: &Pool, turn: usize, model: Option<&str>, ends: &[AttemptEnd]) -> Vec<usize> {
    let mut candidates = Candidates::new(pool, turn, model);
    let mut last = None;
    let mut ends = ends.iter().copied().cycle();
    let mut keys = Vec::new();
    while let Some(UpstreamKeyIndex(key)) = candidates.next(last, MAX_ATTEMPTS) {
        keys.push(key);
        last = ends.next();
    }
    keys
}

#[test]
fn the_next_level_has_its_turn_by_rule() {
    use SwitchOver::{AnyFailure, Exhausted, RateLimited};
    let check = |sizes: &[usize], rule, turn, ends: &[AttemptEnd], want: &[usize]| {
        let keys = tried(&pool(sizes, rule), turn, None, ends);
        assert_eq!(keys, want, "{sizes:?} {rule:?} {ends:?}");
    };
    check(&[], Exhausted, 0, &[DOWN], &[]);
    check(&[1], Exhausted, 5, &[DOWN], &[0]);
    check(&[3], Exhausted, 1, &[DOWN], &[1, 2, 0]);
    check(&[5], Exhausted, 4, &[DOWN], &[4, 0, 1]);
    check(&[1, 1, 1], Exhausted, 0, &[DOWN], &[0, 1, 2]);
    check(&[2, 2], Exhausted, 0, &[DOWN], &[0, 1, 2]);
    // The last attempt goes to the next level, however many keys are left in this one.
    check(&[5, 2], Exhausted, 0, &[DOWN], &[0, 1, 5]);
    check(&[5, 2], Exhausted, 3, &[SLOW], &[3, 4, 6]);
    check(&[5, 2], RateLimited, 0, &[SLOW], &[0, 5, 6]);
    check(&[5, 2], RateLimited, 0, &[DOWN, SLOW], &[0, 1, 5]);
    check(
        &[5, 2, 1],
        RateLimited,
        0,
        &[AttemptEnd::FirstEventError(429)],
        &[0, 5, 7],
    );
    check(&[5, 2, 1], AnyFailure, 0, &[DOWN], &[0, 5, 7]);
    // After the last level, those that were passed over.
    check(&[2, 1], AnyFailure, 1, &[DOWN], &[1, 2, 0]);
}

#[test]
fn keys_take_turns_by_weight_and_serve_their_models_alone() {
    let level = Level::new(vec![
        member(0, 3, &[]),
        member(1, 1, &["gpt-*"]),
        member(2, 1, &["o3"]),
    ]);
    let pool = Pool {
        levels: vec![level, Level::new(vec![member(3, 1, &["o3"])])],
        ..pool(&[], SwitchOver::Exhausted)
    };
    let firsts = |model| -> Vec<usize> {
        (0..5)
            .map(|turn| tried(&pool, turn, model, &[DOWN])[0])
            .collect()
    };
    let mut all = firsts(None);
    all.sort_unstable();
    assert_eq!(all, [0, 0, 0, 1, 2], "one round");
    assert!(!firsts(Some("gpt-5")).contains(&2));
    assert_eq!(tried(&pool, 0, Some("gpt-5"), &[DOWN]), [0, 1]);
    assert_eq!(tried(&pool, 0, Some("o3"), &[DOWN]), [0, 2, 3]);
    let only = pool.only(|key| key.0 >= 2);
    assert_eq!(only.keys().map(|key| key.0).collect::<Vec<_>>(), [2, 3]);
    assert!(only.serves(Some("o3")) && !only.serves(Some("gpt-5")) && only.serves(None));
}

#[test]
fn names_are_mapped_with_what_the_stars_matched() {
    let check = |pattern: &str, upstream: &str, model: &str, want: Option<&str>| {
        let mapping = Mapping::parse(&Pattern::parse(pattern).unwrap(), upstream).unwrap();
        let got = mapping.unwrap().apply(model);
        assert_eq!(got.as_deref(), want, "{pattern} → {upstream} of {model}");
    };
    check(
        "gpt-4o*",
        "openai/gpt-4o*",
        "gpt-4o-mini",
        Some("openai/gpt-4o-mini"),
    );
    check("gpt-4o*", "openai/gpt-4o*", "gpt-4o", Some("openai/gpt-4o"));
    check("fast", "gpt-4o-mini", "fast", Some("gpt-4o-mini"));
    check("fast", "gpt-4o-mini", "faster", None);
    check("*", "gpt-4o", "whatever", Some("gpt-4o"));
    check("*/*", "*:*", "a/b/c", Some("a:b/c"));
    check("*-x-*", "*", "a-x-b-x-c", Some("a"));
    check("a*a", "b*", "a", None);
    check("**", "*|*", "ab", Some("|ab"));
    check("é*", "*é", "éü", Some("üé"));
    let wrong = |pattern: &str, upstream: &str| {
        Mapping::parse(&Pattern::parse(pattern).unwrap(), upstream)
            .unwrap_err()
            .to_string()
    };
    assert!(wrong("gpt", "x/*").contains("it has 1 `*`, but the pattern of the route has 0"));
    assert_eq!(Mapping::parse(&Pattern::parse("a").unwrap(), ""), Ok(None));
}

proptest! {
    #[test]
    fn law_16_each_key_is_tried_once_and_three_at_most(
        sizes in prop::collection::vec(1_usize..5, 0..4), turn in any::<usize>(),
        rule in select(SwitchOver::ALL.to_vec()), ends in prop::collection::vec(select(vec![SLOW, DOWN]), 3),
    ) {
        let all: usize = sizes.iter().sum();
        let keys = tried(&pool(&sizes, rule), turn, None, &ends);
        prop_assert_eq!(keys.len(), all.min(MAX_ATTEMPTS));
        let mut once = keys.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), keys.len());
        if let Some(first) = keys.first() {
            prop_assert!(*first < sizes[0], "the first level has the first attempt");
            prop_assert!(sizes.len() == 1 || all <= 3 || keys.iter().any(|key| *key >= sizes[0]), "a further level has one attempt");
        }
    }

    #[test]
    fn a_name_maps_to_itself_exactly_when_it_matches(pattern in "[ab*]{1,8}", name in "[ab]{0,10}") {
        let pattern = Pattern::parse(&pattern).unwrap();
        let mapping = Mapping::parse(&pattern, pattern.as_str()).unwrap().unwrap();
        prop_assert_eq!(mapping.apply(&name), pattern.matches(&name).then_some(name));
    }
}
