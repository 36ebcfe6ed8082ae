//! Gateways behind gateways: attempts over random trees, loops over random graphs, and the time that is left.

use std::{sync::Arc, time::Duration};

use proptest::{prelude::*, sample::select};
use proxyxai_core::{
    account::pattern::PatternList,
    route::{
        cascade::{
            Allowance, Loop, MARGIN, MAX_HOPS, Used, check_way, judge_parent, time_for_parent,
            time_of_child,
        },
        pool::{Candidates, Level, Member, Pool, SwitchOver, UpstreamKeyIndex},
        retry::{AttemptEnd, MAX_ATTEMPTS, Verdict, judge},
    },
    snapshot::ProviderIndex,
};

/// What a gateway calls, with how many keys.
#[derive(Debug, Clone)]
struct Upstream {
    keys: usize,
    level: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Ends so, again and again.
    Provider(Vec<AttemptEnd>),
    /// Another gateway, whose answers get lost where it says so.
    Parent(Gateway, Option<AttemptEnd>),
}

#[derive(Debug, Clone)]
struct Gateway {
    upstreams: Vec<Upstream>,
    switch_over: SwitchOver,
    turn: usize,
}

/// How an answer of a gateway looks to its child.
struct Answer {
    status: u16,
    used: usize,
    should_retry: Option<&'static [u8]>,
}

impl Gateway {
    fn pool(&self) -> (Pool, Vec<usize>) {
        let (mut levels, mut owners) = (vec![Vec::new(), Vec::new()], Vec::new());
        for (at, upstream) in self.upstreams.iter().enumerate() {
            for _ in 0..upstream.keys {
                levels[upstream.level].push(Member {
                    key: UpstreamKeyIndex(owners.len()),
                    provider: ProviderIndex(at),
                    weight: 1,
                    models: Arc::new(PatternList::default()),
                });
                owners.push(at);
            }
        }
        let pool = Pool {
            name: "p".into(),
            levels: levels.into_iter().map(Level::new).collect(),
            switch_over: self.switch_over,
            mapping: None,
        };
        (pool, owners)
    }

    /// Serves a request as a node does; `calls` counts those to providers.
    fn serve(&self, said: Option<usize>, calls: &mut usize) -> Answer {
        let said = said.map(|left| left.to_string());
        let mut allowance = Allowance::of_child(said.as_ref().map(|said| said.as_bytes()));
        let (pool, owners) = self.pool();
        let mut candidates = Candidates::new(&pool, self.turn, None);
        let (mut last, mut attempts) = (None, 0);
        while let Some(key) = candidates.next(last, allowance.left()) {
            attempts += 1;
            let upstream = &self.upstreams[owners[key.0]];
            let (end, verdict) = match &upstream.kind {
                Kind::Provider(ends) => {
                    assert_eq!(allowance.take(false, false), 1);
                    *calls += 1;
                    let end = ends[*calls % ends.len()];
                    (end, judge(end))
                }
                Kind::Parent(parent, fault) => {
                    let another = candidates.another_than(key);
                    let handed = allowance.take(true, another);
                    assert!(handed > 0, "a parent is asked with nothing left");
                    let (end, should_retry) = match fault {
                        Some(AttemptEnd::ConnectFailed) => {
                            allowance.give_back(handed, Used::Nothing);
                            (AttemptEnd::ConnectFailed, None)
                        }
                        fault => {
                            let answer = parent.serve(Some(handed), calls);
                            let used = answer.used.to_string();
                            let used = match fault {
                                None => Used::Said(used.as_bytes()),
                                Some(_) => Used::NotSaid,
                            };
                            allowance.give_back(handed, used);
                            let end = fault.unwrap_or(AttemptEnd::Status(answer.status));
                            (end, answer.should_retry)
                        }
                    };
                    let judged = judge_parent(end, should_retry, candidates.another_than(key));
                    if judged.leave {
                        candidates.leave_out(key);
                    }
                    (end, judged.verdict)
                }
            };
            if verdict == Verdict::Return {
                let AttemptEnd::Status(status) = end else {
                    unreachable!("only an answer is returned");
                };
                return Answer {
                    status,
                    used: allowance.used(),
                    should_retry: None,
                };
            }
            last = Some(end);
        }
        Answer {
            status: 502,
            used: allowance.used(),
            should_retry: (attempts > 1).then_some(b"false"),
        }
    }
}

fn provider() -> impl Strategy<Value = Kind> {
    use AttemptEnd::{ConnectFailed, Status, TimedOut};
    let ends = select(vec![
        Status(500),
        Status(503),
        Status(429),
        Status(401),
        ConnectFailed,
        TimedOut,
        Status(200),
    ]);
    prop::collection::vec(ends, 1..4).prop_map(Kind::Provider)
}

fn gateway(kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Gateway> {
    let upstream = (1_usize..4, 0_usize..2, kind).prop_map(|(keys, level, kind)| Upstream {
        keys,
        level,
        kind,
    });
    let rules = select(SwitchOver::ALL.to_vec());
    (prop::collection::vec(upstream, 0..4), rules, 0_usize..9).prop_map(
        |(upstreams, switch_over, turn)| Gateway {
            upstreams,
            switch_over,
            turn,
        },
    )
}

fn tree() -> impl Strategy<Value = Gateway> {
    let faults = select(vec![
        None,
        None,
        None,
        Some(AttemptEnd::ConnectFailed),
        Some(AttemptEnd::ConnectionLost),
        Some(AttemptEnd::TimedOut),
    ]);
    let kind = provider().prop_recursive(4, 40, 4, move |inner| {
        let parent = (gateway(inner.clone()), faults.clone())
            .prop_map(|(gateway, fault)| Kind::Parent(gateway, fault));
        prop_oneof![1 => inner, 3 => parent]
    });
    gateway(kind)
}

proptest! {
    #[test]
    fn law_16_a_whole_tree_of_gateways_calls_providers_three_times_at_most(tree in tree()) {
        let mut calls = 0;
        let answer = tree.serve(None, &mut calls);
        prop_assert!(calls <= MAX_ATTEMPTS, "{calls} calls: {tree:?}");
        prop_assert!((calls..=MAX_ATTEMPTS).contains(&answer.used), "{} said of {calls}", answer.used);
    }

    #[test]
    fn law_16_a_child_never_gets_more_than_it_leaves(tree in tree(), left in 0_usize..9) {
        let mut calls = 0;
        let answer = tree.serve(Some(left), &mut calls);
        prop_assert!(calls <= left.min(MAX_ATTEMPTS) && answer.used <= left, "{calls} calls of {left}");
    }

    #[test]
    fn law_17_a_request_in_a_graph_of_gateways_ends(edges in prop::collection::vec(prop::collection::vec(0_usize..12, 0..3), 12)) {
        let mut way: Vec<usize> = Vec::new();
        let mut visits = 0;
        walk(&edges, 0, &mut way, &mut visits);
    }

    #[test]
    fn law_17_time_shrinks_at_every_hop(limits in prop::collection::vec((1_u64..700_000, 0_u64..500), 1..9)) {
        let mut said: Option<u64> = None;
        for (limit, spent) in limits {
            let text = said.map(|ms| ms.to_string());
            let time = time_of_child(Duration::from_millis(limit), text.as_ref().map(|text| text.as_bytes()));
            let left = time.saturating_sub(Duration::from_millis(spent));
            let Some(next) = time_for_parent(left) else { return Ok(()) };
            prop_assert!(said.is_none_or(|said| next < said), "{next} after {said:?}");
            prop_assert!(Duration::from_millis(next) + MARGIN.0 <= left);
            said = Some(next);
        }
    }

    #[test]
    fn any_way_can_be_read(values in prop::collection::vec("[a-c,;\"\\\\ =]{0,20}", 0..4)) {
        let _it_does_not_panic = check_way(Some("a"), values.iter().map(String::as_bytes));
    }
}

/// Goes to every upstream, as an attempt after another would; a circle is an answer, so nothing is tried after one.
fn walk(edges: &[Vec<usize>], at: usize, way: &mut Vec<usize>, visits: &mut usize) -> bool {
    *visits += 1;
    assert!(*visits < 10_000, "it does not end");
    let header: Vec<String> = way.iter().map(|id| format!("g{id}")).collect();
    let own = format!("g{at}");
    let refused = check_way(Some(&own), [header.join(", ").as_bytes()]);
    let again = way.contains(&at);
    assert_eq!(refused == Err(Loop::Again), again, "{way:?} then {at}");
    assert_eq!(
        refused == Err(Loop::TooLong),
        !again && way.len() > MAX_HOPS
    );
    if refused.is_err() {
        return true;
    }
    way.push(at);
    let looped = edges[at].iter().any(|next| {
        let looped = walk(edges, *next, way, visits);
        let verdict = judge_parent(AttemptEnd::Status(508), None, true).verdict;
        looped && verdict == Verdict::Return
    });
    way.pop();
    looped
}

#[test]
fn law_17_a_circle_ends_at_its_second_visit() {
    for length in [1_usize, 2, 5] {
        let (mut way, mut at) = (Vec::new(), 0);
        let visits = loop {
            let header = way.join(", ");
            let own = format!("g{at}");
            match check_way(Some(&own), [header.as_bytes()]) {
                Err(Loop::Again) => break way.len(),
                other => assert_eq!(other, Ok(()), "{header}"),
            }
            way.push(own);
            at = (at + 1) % length;
        };
        assert_eq!(
            visits, length,
            "the first gateway is met again, and that is the end"
        );
    }
}

#[test]
fn ways_are_read_as_the_standard_writes_them() {
    let check = |own: Option<&str>, values: &[&str], want: Result<(), Loop>| {
        let got = check_way(own, values.iter().map(|value| value.as_bytes()));
        assert_eq!(got, want, "{own:?} in {values:?}");
    };
    check(Some("a"), &[], Ok(()));
    check(Some("a"), &[""], Ok(()));
    check(Some("a"), &["b, c"], Ok(()));
    check(Some("a"), &["b, a"], Err(Loop::Again));
    check(Some("a"), &["b", "c,A ; x=1"], Err(Loop::Again));
    check(
        Some("a"),
        &["foo123.foocdn.example, barcdn.example; trace=\"a, a\""],
        Ok(()),
    );
    check(Some("a"), &["b; x=\"\\\",a\", c"], Ok(()));
    check(Some("a"), &["b; x=\"\\\\\",a"], Err(Loop::Again));
    check(None, &["a,b,c,d,e,f,g,h"], Ok(()));
    check(None, &["a,b,c,d,e,f,g,h", "i"], Err(Loop::TooLong));
    check(Some("i"), &["a,b,c,d,e,f,g,h", "i"], Err(Loop::Again));
}

#[test]
fn an_allowance_is_kept_for_another_upstream() {
    // What is handed to a parent, and what is left: with another upstream, and without one.
    for (said, another, want) in [
        (None, true, (2, 1)),
        (None, false, (3, 0)),
        (Some("2"), true, (1, 1)),
        (Some("1"), true, (1, 0)),
        (Some("9"), false, (3, 0)),
        (Some("many"), false, (1, 0)),
        (Some("0"), false, (0, 0)),
    ] {
        let mut allowance = Allowance::of_child(said.map(str::as_bytes));
        let handed = allowance.take(true, another);
        assert_eq!((handed, allowance.left()), want, "{said:?} {another}");
    }
    let mut allowance = Allowance::default();
    let handed = allowance.take(true, true);
    allowance.give_back(handed, Used::Said(b"1"));
    assert_eq!((allowance.left(), allowance.used()), (2, 1));
    let handed = allowance.take(true, false);
    allowance.give_back(handed, Used::Said(b"77"));
    assert_eq!(
        (allowance.left(), allowance.used()),
        (0, 3),
        "never more than was handed"
    );
}

#[test]
fn what_a_parent_says_decides_where_it_is_tried_again() {
    let check = |end, said: Option<&str>, another, want: (bool, bool)| {
        let judged = judge_parent(end, said.map(str::as_bytes), another);
        let again = matches!(judged.verdict, Verdict::TryNext { .. });
        assert_eq!((again, judged.leave), want, "{end:?} {said:?}");
    };
    use AttemptEnd::{ConnectFailed, Status, TimedOut};
    check(Status(200), None, true, (false, false));
    check(Status(400), None, true, (false, false));
    check(Status(508), Some("false"), true, (false, true));
    check(Status(502), Some("false"), true, (true, true));
    check(Status(503), Some("true"), true, (true, false));
    check(Status(503), None, true, (true, false));
    check(Status(429), Some("false"), true, (true, false));
    check(Status(401), Some("false"), true, (true, false));
    check(ConnectFailed, None, true, (true, true));
    check(ConnectFailed, None, false, (true, false));
    check(TimedOut, None, true, (true, false));
}
