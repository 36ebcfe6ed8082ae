//! What every store does, one case after the other, each under keys of its own.

use std::pin::Pin;

use proxyxai_control_plane::store::{
    Compare, Entry, Event, MAX_BYTES, MAX_OPS, Op, Page, Range, StoreError, WatchEvent,
};

use super::{Subject, delete, in_time, next, put, write};

type Case = for<'a> fn(&'a Subject) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
/// A key, and its value unless it was deleted.
type Seen = (String, Option<Vec<u8>>);

/// Runs all cases.
pub(super) async fn check(subject: &Subject) {
    macro_rules! cases {
        ($($case:ident),+ $(,)?) => { [$((stringify!($case), |subject| Box::pin($case(subject)))),+] };
    }
    let cases: [(&str, Case); 17] = cases![
        what_is_not_there_is_not_read,
        revisions_and_versions_count_from_the_creation,
        a_transaction_that_changes_nothing_leaves_the_revision_alone,
        compares_decide_over_everything_or_nothing,
        compares_see_the_state_before,
        too_much_is_refused_and_nothing_of_it_written,
        the_largest_transaction_is_taken_and_watched_as_one,
        ranges_are_ordered_and_bounded_by_the_prefix,
        pages_show_the_state_of_the_first_one,
        states_that_are_not_kept_are_refused,
        a_watch_begins_at_its_revision,
        a_watch_tells_each_revision_once_and_whole,
        a_watch_sees_its_prefix_only,
        a_watch_from_a_forgotten_revision_is_told,
        a_running_watch_outlives_compaction,
        one_leads_and_its_fence_holds,
        a_large_range_comes_whole,
    ];
    for (name, case) in cases {
        Subject::say(name);
        case(subject).await;
    }
}

async fn get(subject: &Subject, key: &str) -> Option<Entry> {
    in_time(subject.store.get(key)).await.unwrap()
}

async fn range(subject: &Subject, range: Range) -> Result<Page, StoreError> {
    in_time(subject.store.range(range)).await
}

async fn done(subject: &Subject, then: Vec<Op>) -> u64 {
    let result = write(&*subject.store, Vec::new(), then).await.unwrap();
    assert!(result.succeeded);
    result.revision
}

fn keys(page: &Page) -> Vec<&str> {
    page.entries
        .iter()
        .map(|entry| entry.key.as_str())
        .collect()
}

async fn what_is_not_there_is_not_read(subject: &Subject) {
    assert_eq!(get(subject, "none/a").await, None);
    let page = range(subject, Range::prefix("none/")).await.unwrap();
    assert_eq!((page.entries.len(), page.more), (0, false));
}

async fn revisions_and_versions_count_from_the_creation(subject: &Subject) {
    let created = done(subject, vec![put("count/a", "1")]).await;
    let written = done(subject, vec![put("count/a", "2"), put("count/b", "")]).await;
    assert!(written > created);
    let entry = |key: &str, value: &str, create_revision, mod_revision, version| Entry {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
        create_revision,
        mod_revision,
        version,
    };
    assert_eq!(
        get(subject, "count/a").await,
        Some(entry("count/a", "2", created, written, 2))
    );
    assert_eq!(
        get(subject, "count/b").await,
        Some(entry("count/b", "", written, written, 1))
    );
    done(subject, vec![delete("count/a")]).await;
    assert_eq!(get(subject, "count/a").await, None);
    let again = done(subject, vec![put("count/a", "3")]).await;
    assert_eq!(
        get(subject, "count/a").await,
        Some(entry("count/a", "3", again, again, 1))
    );
    let same = done(subject, vec![put("count/a", "3")]).await;
    assert!(same > again, "the same value again is a change");
}

async fn a_transaction_that_changes_nothing_leaves_the_revision_alone(subject: &Subject) {
    let before = done(subject, vec![put("still/a", "1")]).await;
    let absent = done(subject, vec![delete("still/b"), delete("still/c")]).await;
    let empty = done(subject, Vec::new()).await;
    let compares = vec![Compare::absent("still/a")];
    let refused = write(&*subject.store, compares, vec![put("still/a", "2")]).await;
    let refused = refused.unwrap();
    assert!(!refused.succeeded);
    let read = range(subject, Range::prefix("still/")).await.unwrap();
    assert_eq!(
        [absent, empty, refused.revision, read.revision],
        [before; 4]
    );
    let mixed = done(subject, vec![delete("still/b"), put("still/d", "1")]).await;
    assert!(mixed > before);
}

async fn compares_decide_over_everything_or_nothing(subject: &Subject) {
    let first = done(subject, vec![put("if/a", "1"), put("if/b", "1")]).await;
    let second = done(subject, vec![put("if/a", "2")]).await;
    let modified = |key: &str, revision| Compare::ModRevision(key.to_owned(), revision);
    let created = |key: &str, revision| Compare::CreateRevision(key.to_owned(), revision);
    let read = get(subject, "if/a").await;
    let table = [
        (vec![modified("if/a", second)], true),
        (vec![modified("if/a", first)], false),
        (vec![created("if/a", first)], true),
        (vec![created("if/a", second)], false),
        (vec![Compare::absent("if/none")], true),
        (vec![created("if/none", 0)], true),
        (vec![Compare::absent("if/a")], false),
        (vec![Compare::unchanged("if/a", read.as_ref())], true),
        (vec![Compare::unchanged("if/none", None)], true),
        (
            vec![modified("if/a", second), modified("if/b", first)],
            true,
        ),
        (
            vec![modified("if/a", second), modified("if/b", second)],
            false,
        ),
    ];
    for (number, (compares, holds)) in table.into_iter().enumerate() {
        let shown = format!("{compares:?}");
        let (x, y) = (format!("if/x{number}"), format!("if/y{number}"));
        let then = vec![put(&x, "1"), put(&y, "1")];
        let result = write(&*subject.store, compares, then).await.unwrap();
        assert_eq!(result.succeeded, holds, "{shown}");
        let written = [
            get(subject, &x).await.is_some(),
            get(subject, &y).await.is_some(),
        ];
        assert_eq!(written, [holds; 2], "{shown}");
    }
}

async fn compares_see_the_state_before(subject: &Subject) {
    let compares = vec![Compare::absent("before/a")];
    let then = vec![put("before/a", "1")];
    let first = write(&*subject.store, compares.clone(), then.clone()).await;
    assert!(first.unwrap().succeeded);
    assert!(
        !write(&*subject.store, compares, then)
            .await
            .unwrap()
            .succeeded
    );
}

async fn too_much_is_refused_and_nothing_of_it_written(subject: &Subject) {
    let before = done(subject, vec![put("large/a", "1")]).await;
    let many = |n: usize| (0..n).map(|i| put(&format!("large/{i}"), "")).collect();
    let compares = |n: usize| {
        (0..n)
            .map(|i| Compare::absent(format!("large/{i}")))
            .collect()
    };
    let twice = vec![put("large/b", "1"), delete("large/b")];
    let long = vec![Op::Put("large/b".to_owned(), vec![0; MAX_BYTES])];
    let long_compare = vec![Compare::absent("k".repeat(MAX_BYTES + 1))];
    let store = &*subject.store;
    for (compares, then) in [
        (Vec::new(), many(MAX_OPS + 1)),
        (compares(MAX_OPS + 1), Vec::new()),
        (Vec::new(), long),
        (long_compare, Vec::new()),
    ] {
        let refused = write(store, compares, then).await;
        assert!(
            matches!(refused, Err(StoreError::TooLarge { .. })),
            "{refused:?}"
        );
    }
    let refused = write(store, Vec::new(), twice).await;
    assert!(matches!(&refused, Err(StoreError::Twice(key)) if key == "large/b"));
    let page = range(subject, Range::prefix("large/")).await.unwrap();
    assert_eq!((keys(&page), page.revision), (vec!["large/a"], before));
}

async fn the_largest_transaction_is_taken_and_watched_as_one(subject: &Subject) {
    let key = |i: usize| format!("most/{i:03}");
    let part = MAX_BYTES / MAX_OPS - key(0).len() * 2;
    let then: Vec<Op> = (0..MAX_OPS)
        .map(|i| Op::Put(key(i), vec![7; part]))
        .collect();
    let compares = (0..MAX_OPS).map(|i| Compare::absent(key(i))).collect();
    let result = write(&*subject.store, compares, then.clone())
        .await
        .unwrap();
    assert!(result.succeeded);
    done(subject, then).await;
    let from = result.revision;
    let mut watch = in_time(subject.store.watch("most/", from)).await.unwrap();
    let mut last = from - 1;
    for _ in 0..2 {
        match next(&mut watch).await {
            WatchEvent::Changes { revision, events } => {
                assert!(revision > last);
                assert_eq!(events.len(), MAX_OPS);
                last = revision;
            }
            other @ (WatchEvent::Compacted | WatchEvent::Lost) => panic!("{other:?}"),
        }
    }
}

async fn ranges_are_ordered_and_bounded_by_the_prefix(subject: &Subject) {
    let inside = [
        "order/",
        "order/B",
        "order/a",
        "order/a/b",
        "order/b",
        "order/é",
        "order/\u{10ffff}",
    ];
    let outside = ["order", "order0", "ordes/", "orde/z"];
    let all = inside.iter().chain(&outside);
    done(subject, all.map(|key| put(key, key)).collect()).await;
    let page = range(subject, Range::prefix("order/")).await.unwrap();
    assert_eq!((keys(&page), page.more), (inside.to_vec(), false));
    for (after, limit, found, more) in [
        (None, 2, &inside[..2], true),
        (Some("order/B"), 3, &inside[2..5], true),
        (Some("order/a/a"), 0, &inside[3..], false),
        (Some("order/b"), 2, &inside[5..], false),
        (Some("order/\u{10ffff}"), 2, &inside[7..], false),
        (Some("a"), 7, &inside[..], false),
        (Some("z"), 0, &inside[7..], false),
    ] {
        let asked = Range {
            prefix: "order/".to_owned(),
            after: after.map(str::to_owned),
            limit,
            at_revision: None,
        };
        let page = range(subject, asked).await.unwrap();
        assert_eq!(
            (keys(&page), page.more),
            (found.to_vec(), more),
            "{after:?}"
        );
    }
}

async fn pages_show_the_state_of_the_first_one(subject: &Subject) {
    let five = (1..=5).map(|i| put(&format!("page/{i}"), "old")).collect();
    done(subject, five).await;
    let mut asked = Range {
        limit: 2,
        ..Range::prefix("page/")
    };
    let mut page = range(subject, asked.clone()).await.unwrap();
    let revision = page.revision;
    done(
        subject,
        vec![
            put("page/3", "new"),
            delete("page/4"),
            put("page/45", "new"),
        ],
    )
    .await;
    done(
        subject,
        vec![
            put("page/4", "new"),
            put("page/3", "newer"),
            delete("page/1"),
        ],
    )
    .await;
    let mut seen = page.entries.clone();
    while page.more {
        asked.after = page.entries.last().map(|entry| entry.key.clone());
        asked.at_revision = Some(revision);
        page = range(subject, asked.clone()).await.unwrap();
        assert_eq!(page.revision, revision);
        seen.extend(page.entries.clone());
    }
    let seen: Vec<(&str, &[u8], u64, u64)> = seen
        .iter()
        .map(|e| {
            (
                e.key.as_str(),
                e.value.as_slice(),
                e.mod_revision,
                e.version,
            )
        })
        .collect();
    let old = |key| (key, b"old".as_slice(), revision, 1);
    assert_eq!(
        seen,
        ["page/1", "page/2", "page/3", "page/4", "page/5"].map(old)
    );
}

async fn states_that_are_not_kept_are_refused(subject: &Subject) {
    let at = |revision| Range {
        at_revision: Some(revision),
        ..Range::prefix("kept/")
    };
    let first = done(subject, vec![put("kept/a", "1")]).await;
    let second = done(subject, vec![put("kept/a", "2")]).await;
    assert_eq!(
        range(subject, at(first)).await.unwrap().entries[0].value,
        b"1"
    );
    (subject.compact)(second).await;
    let refused = range(subject, at(first)).await;
    assert!(matches!(refused, Err(StoreError::Compacted)), "{refused:?}");
    assert_eq!(
        range(subject, at(second)).await.unwrap().entries[0].value,
        b"2"
    );
    let ahead = range(subject, at(second + 1_000_000)).await;
    assert!(matches!(ahead, Err(StoreError::Compacted)), "{ahead:?}");
}

fn events(said: WatchEvent) -> (u64, Vec<Seen>) {
    match said {
        WatchEvent::Changes { revision, events } => {
            let plain = events.into_iter().map(|event| match event {
                Event::Put(entry) => {
                    assert_eq!(entry.mod_revision, revision);
                    (entry.key, Some(entry.value))
                }
                Event::Delete(key) => (key, None),
            });
            (revision, plain.collect())
        }
        other @ (WatchEvent::Compacted | WatchEvent::Lost) => panic!("{other:?}"),
    }
}

async fn a_watch_begins_at_its_revision(subject: &Subject) {
    let mut revisions = Vec::new();
    for value in ["1", "2", "3"] {
        revisions.push(done(subject, vec![put("begin/a", value)]).await);
    }
    let mut past = in_time(subject.store.watch("begin/", revisions[1]))
        .await
        .unwrap();
    assert_eq!(events(next(&mut past).await).0, revisions[1]);
    assert_eq!(events(next(&mut past).await).0, revisions[2]);
    let ahead = revisions[2] + 2;
    let mut future = in_time(subject.store.watch("begin/", ahead)).await.unwrap();
    loop {
        let revision = done(subject, vec![put("begin/a", "x")]).await;
        assert_eq!(events(next(&mut past).await).0, revision);
        if revision >= ahead {
            assert_eq!(events(next(&mut future).await).0, revision);
            break;
        }
    }
}

async fn a_watch_tells_each_revision_once_and_whole(subject: &Subject) {
    let begun = done(subject, vec![put("once/z", "0")]).await;
    let mut watch = in_time(subject.store.watch("once/", begun + 1))
        .await
        .unwrap();
    let one = done(
        subject,
        vec![put("once/b", "1"), put("once/a", "2"), delete("once/z")],
    )
    .await;
    done(subject, vec![delete("once/none")]).await;
    let two = done(subject, vec![delete("once/none"), put("once/a", "3")]).await;
    let some = |key: &str, value: &str| (key.to_owned(), Some(value.as_bytes().to_vec()));
    let first = vec![
        some("once/b", "1"),
        some("once/a", "2"),
        ("once/z".to_owned(), None),
    ];
    assert_eq!(events(next(&mut watch).await), (one, first));
    assert_eq!(
        events(next(&mut watch).await),
        (two, vec![some("once/a", "3")])
    );
}

async fn a_watch_sees_its_prefix_only(subject: &Subject) {
    let begun = done(subject, vec![put("mine/a", "0")]).await;
    let mut watch = in_time(subject.store.watch("mine/", begun + 1))
        .await
        .unwrap();
    done(
        subject,
        vec![put("mine", "1"), put("mine0", "1"), put("nine/", "1")],
    )
    .await;
    let both = done(subject, vec![put("other/a", "1"), put("mine/b", "1")]).await;
    let seen = events(next(&mut watch).await);
    assert_eq!(
        seen,
        (both, vec![("mine/b".to_owned(), Some(b"1".to_vec()))])
    );
}

async fn a_watch_from_a_forgotten_revision_is_told(subject: &Subject) {
    let first = done(subject, vec![put("forgot/a", "1")]).await;
    let second = done(subject, vec![delete("forgot/a")]).await;
    let third = done(subject, vec![put("forgot/a", "3")]).await;
    (subject.compact)(second).await;
    for from in [1, first, second] {
        let mut watch = in_time(subject.store.watch("forgot/", from)).await.unwrap();
        assert_eq!(next(&mut watch).await, WatchEvent::Compacted, "from {from}");
        assert_eq!(next(&mut watch).await, WatchEvent::Lost, "nothing follows");
    }
    let mut watch = in_time(subject.store.watch("forgot/", third))
        .await
        .unwrap();
    assert_eq!(events(next(&mut watch).await).0, third);
}

async fn a_running_watch_outlives_compaction(subject: &Subject) {
    let begun = done(subject, vec![put("live/a", "1")]).await;
    let mut watch = in_time(subject.store.watch("live/", begun)).await.unwrap();
    assert_eq!(events(next(&mut watch).await).0, begun);
    (subject.compact)(begun).await;
    let after = done(subject, vec![put("live/a", "2")]).await;
    assert_eq!(events(next(&mut watch).await).0, after);
}

async fn one_leads_and_its_fence_holds(subject: &Subject) {
    let first = in_time(subject.store.campaign("case")).await.unwrap();
    let other = in_time(subject.store.campaign("another")).await.unwrap();
    let by = |fence: &Compare| vec![fence.clone()];
    let wrote = write(&*subject.store, by(&first.fence), vec![put("led/a", "1")]).await;
    assert!(wrote.unwrap().succeeded);
    let mut waiting = subject.store.campaign("case");
    // Polled once, it has asked for its turn; whether it waits shows in the order below.
    tokio::select! {
        biased;
        won = &mut waiting => panic!("two lead: {won:?}"),
        wrote = write(&*subject.store, by(&first.fence), vec![put("led/a", "2")]) => assert!(wrote.unwrap().succeeded),
    }
    let old = first.fence.clone();
    drop(first);
    let second = in_time(waiting).await.unwrap();
    let stale = write(&*subject.store, by(&old), vec![put("led/a", "3")]).await;
    assert!(!stale.unwrap().succeeded, "the fence of a deposed leader");
    for leader in [&second, &other] {
        let wrote = write(&*subject.store, by(&leader.fence), vec![put("led/a", "4")]).await;
        assert!(wrote.unwrap().succeeded);
    }
}

async fn a_large_range_comes_whole(subject: &Subject) {
    const LARGE: usize = 6;
    for number in 0..LARGE {
        let key = format!("big/{number}");
        done(subject, vec![Op::Put(key, vec![1; MAX_BYTES - 100])]).await;
    }
    let small = |part: usize| {
        (0..MAX_OPS)
            .map(|i| put(&format!("big/s{part:02}{i:02}"), ""))
            .collect()
    };
    for part in 0..12 {
        done(subject, small(part)).await;
    }
    let page = range(subject, Range::prefix("big/")).await.unwrap();
    assert_eq!(
        (page.entries.len(), page.more),
        (LARGE + 12 * MAX_OPS, false)
    );
    assert!(page.entries.is_sorted_by(|a, b| a.key < b.key));
}
