//! The memory against a history of one key and its account, with answers and changes that come late, in any order of each other.

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::ZERO;

#[derive(Debug, Clone, Copy)]
enum Step {
    ChangeKey,
    ChangeAccount,
    /// The next change is heard of.
    Hear,
    /// The next change gets lost on its way.
    Lose,
    /// A replica answers from this many versions ago, unless that is too old.
    Ask {
        behind: u64,
    },
    /// The answer that waits at this place arrives.
    Answer {
        at: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::ChangeKey),
        2 => Just(Step::ChangeAccount),
        4 => Just(Step::Hear),
        1 => Just(Step::Lose),
        3 => (0_u64..4).prop_map(|behind| Step::Ask { behind }),
        4 => (0_usize..4).prop_map(|at| Step::Answer { at }),
    ]
}

fn version(revision: u64) -> Version {
    Version {
        generation: 1,
        revision,
    }
}

fn id() -> KeyId {
    KeyId::new("keykeykey000").unwrap()
}

const DIGEST: KeyDigest = KeyDigest([4; 16]);

/// The key and its account, each named after the version that it changed at.
#[derive(Debug, Clone, Copy, Default)]
struct Truth {
    key: u64,
    account: u64,
}

impl Truth {
    fn answer(self) -> (proto::VirtualKey, Vec<proto::Account>) {
        let key = proto::VirtualKey {
            id: id().as_str().into(),
            account_id: "a".into(),
            name: self.key.to_string(),
            digest: DIGEST.0.to_vec(),
            ..proto::VirtualKey::default()
        };
        let account = proto::Account {
            id: "a".into(),
            parent_id: "root".into(),
            name: self.account.to_string(),
            ..proto::Account::default()
        };
        let root = proto::Account {
            id: "root".into(),
            name: "root".into(),
            ..proto::Account::default()
        };
        (key, vec![account, root])
    }
}

fn name(of_key: bool) -> ResourceName {
    let (kind, id) = match of_key {
        true => (ResourceKind::VirtualKey, id().as_str().to_owned()),
        false => (ResourceKind::Account, "a".to_owned()),
    };
    ResourceName { kind, id }
}

/// The versions at which what is found changed.
fn found(memory: &Memory) -> Option<Truth> {
    let Recall::Found(resolved, _) = memory.recall(&id(), &DIGEST) else {
        return None;
    };
    let key = memory.keys.get(&id()).unwrap();
    let path = resolved.accounts.path(resolved.key.record.account);
    Some(Truth {
        key: key.key.name.parse().unwrap(),
        account: path.rsplit('/').next().unwrap().parse().unwrap(),
    })
}

proptest! {
    #[test]
    fn law_11_nothing_from_before_a_change_that_was_noted_is_found(steps in prop::collection::vec(step(), 1..60)) {
        let memory = Memory::new(100);
        let mut history = vec![Truth::default()];
        let (mut changes, mut sent) = (std::collections::VecDeque::new(), 0);
        let mut in_flight: Vec<(u64, Truth)> = Vec::new();
        // The last change of each that the node was told of, or may have missed.
        let mut heard = Truth::default();
        for step in steps {
            let last = *history.last().unwrap();
            let next = u64::try_from(history.len()).unwrap();
            let head = next.saturating_sub(1);
            let mut change = |of_key: bool| {
                history.push(if of_key { Truth { key: next, ..last } } else { Truth { account: next, ..last } });
                changes.push_back((next, of_key));
            };
            match step {
                Step::ChangeKey => change(true),
                Step::ChangeAccount => change(false),
                Step::Hear => if let Some((at, of_key)) = changes.pop_front() {
                    let missed = version(sent) > memory.through();
                    memory.take(version(sent), version(at), [name(of_key)]);
                    sent = at;
                    heard = match (missed, of_key) {
                        (true, _) => history[usize::try_from(at).unwrap()],
                        (false, true) => Truth { key: at, ..heard },
                        (false, false) => Truth { account: at, ..heard },
                    };
                },
                Step::Lose => if let Some((at, _)) = changes.pop_front() {
                    sent = at;
                },
                Step::Ask { behind } => {
                    let as_of = head.saturating_sub(behind);
                    if version(as_of) >= memory.at_least() {
                        in_flight.push((as_of, history[usize::try_from(as_of).unwrap()]));
                    }
                }
                Step::Answer { at } => if at < in_flight.len() {
                    let (as_of, truth) = in_flight.remove(at);
                    let learned = memory.learn(id(), DIGEST, version(as_of), Some(truth.answer()), NOW);
                    let stale = truth.key < heard.key || truth.account < heard.account;
                    prop_assert!(!(stale && matches!(learned, Learned::Admitted(_))), "{as_of} {truth:?} {heard:?}");
                    memory.forget(in_flight.iter().map(|(as_of, _)| version(*as_of)).min());
                },
            }
            if let Some(found) = found(&memory) {
                prop_assert!(found.key >= heard.key && found.account >= heard.account, "{found:?} {heard:?}");
            }
        }
    }
}

#[test]
fn a_change_between_an_answer_and_its_use_is_seen() {
    let memory = Memory::new(10);
    let (key, accounts) = Truth::default().answer();
    let learned = memory.learn(id(), DIGEST, version(1), Some((key, accounts)), NOW);
    let Learned::Admitted(answer) = learned else {
        panic!("the answer is good")
    };
    assert_eq!(answer.noted, memory.noted());
    memory.take(version(0), version(2), [name(true)]);
    assert_ne!(
        answer.noted,
        memory.noted(),
        "whoever waited for it asks again"
    );
    assert!(found(&memory).is_none());
}

#[test]
fn a_newer_answer_does_not_give_way_to_an_older_one() {
    let memory = Memory::new(10);
    for (as_of, truth) in [(5, Truth { key: 4, account: 3 }), (2, Truth::default())] {
        memory.learn(id(), DIGEST, version(as_of), Some(truth.answer()), NOW);
    }
    let found = found(&memory).unwrap();
    assert_eq!((found.key, found.account), (4, 3));
}

#[test]
fn a_key_is_found_by_the_secret_before_its_last_rotation() {
    let memory = Memory::new(10);
    let (current, previous) = (DIGEST, KeyDigest([5; 16]));
    let (key, accounts) = Truth::default().answer();
    let key = proto::VirtualKey {
        previous_digest: previous.0.to_vec(),
        previous_expires_unix_ms: 7_000,
        expires_unix_ms: 9_000,
        ..key
    };
    let learned = memory.learn(id(), previous, version(1), Some((key, accounts)), NOW);
    let Learned::Admitted(answer) = learned else {
        panic!("the answer is good")
    };
    assert_eq!(answer.found.unwrap().key.terms.expires_unix_ms, 7_000);
    let expires = |digest| match memory.recall(&id(), &digest) {
        Recall::Found(found, _) => Some(found.key.terms.expires_unix_ms),
        Recall::Absent | Recall::Unknown => None,
    };
    assert_eq!(expires(current), Some(9_000));
    assert_eq!(expires(previous), Some(7_000));
    assert_eq!(expires(KeyDigest([6; 16])), None);
}
