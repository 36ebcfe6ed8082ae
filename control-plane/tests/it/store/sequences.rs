//! Law 20, the second half: random sequences of operations give the same answers on every store.
//!
//! Revisions differ between stores (in etcd others write too), so they are told by the step that made them.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
};

use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use proxyxai_control_plane::store::{
    Compare, Entry, Event, Op, Range, StoreError, Watch, WatchEvent,
};

use super::{Subject, embedded_in, embedded_in_memory, in_time, next, simulated, write};

/// One step. Revisions are named by the step that made them.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Txn {
        compares: Vec<(bool, u8, Option<usize>)>,
        then: Vec<(u8, Option<u8>)>,
    },
    Get(u8),
    Page {
        prefix: u8,
        after: Option<u8>,
        limit: usize,
        at: Option<usize>,
    },
    Watch {
        prefix: u8,
        from: usize,
    },
    Compact(usize),
}

/// Ten keys under three prefixes, one of which is inside another.
fn key(number: u8) -> String {
    let prefix = ["a/", "a/b/", "c/"][usize::from(number % 3)];
    format!("{prefix}{}", number / 3)
}

fn prefix(number: u8) -> &'static str {
    ["", "a/", "a/b/", "c/", "d/"][usize::from(number)]
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0_u8..10;
    let compares = prop::collection::vec(
        (any::<bool>(), name.clone(), prop::option::of(0_usize..40)),
        0..3,
    );
    let then =
        prop::collection::btree_map(name.clone(), prop::option::weighted(0.7, any::<u8>()), 0..5);
    prop_oneof![
        8 => (prop::option::weighted(0.4, compares), then).prop_map(|(compares, then)| Step::Txn {
            compares: compares.unwrap_or_default(),
            then: then.into_iter().collect(),
        }),
        2 => name.clone().prop_map(Step::Get),
        3 => (0_u8..5, prop::option::of(name), 0_usize..4, prop::option::of(0_usize..40))
            .prop_map(|(prefix, after, limit, at)| Step::Page { prefix, after, limit, at }),
        2 => (0_u8..5, 0_usize..40).prop_map(|(prefix, from)| Step::Watch { prefix, from }),
        1 => (0_usize..40).prop_map(Step::Compact),
    ]
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..40)
}

/// Runs so many cases, and names the seed that makes them again.
pub(super) fn runner(cases: u32) -> TestRunner {
    let given = std::env::var("PROPTEST_RNG_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(cases));
    Subject::say(&format!("PROPTEST_RNG_SEED={seed}"));
    TestRunner::new(ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

/// A watch, and what it told so far.
struct Watching {
    step: usize,
    silent: bool,
    over: bool,
    watch: Watch,
    seen: Vec<String>,
}

/// Which step made a revision.
struct Clockwork {
    revisions: Vec<u64>,
    names: BTreeMap<u64, usize>,
    compacted: u64,
}

impl Clockwork {
    /// The revision that a step made, of those so far.
    fn revision(&self, step: usize) -> u64 {
        self.revisions[step % self.revisions.len()]
    }

    fn name(&self, revision: u64) -> String {
        let name = self.names.get(&revision);
        name.map_or_else(|| format!("unknown {revision}"), |step| format!("s{step}"))
    }

    fn entry(&self, entry: &Entry) -> String {
        let (created, modified) = (
            self.name(entry.create_revision),
            self.name(entry.mod_revision),
        );
        format!(
            "{}={:?} {created} {modified} {}",
            entry.key, entry.value, entry.version
        )
    }

    fn happened(&mut self, revision: u64) {
        if self.revisions.last() != Some(&revision) {
            self.names.insert(revision, self.revisions.len());
            self.revisions.push(revision);
        }
    }
}

/// Runs the steps and tells what happened, in words that do not depend on the store.
pub(super) async fn run(subject: &Subject, steps: &[Step]) -> Vec<String> {
    let store = &*subject.store;
    let begun = write(
        store,
        Vec::new(),
        vec![Op::Put("a/begin".to_owned(), Vec::new())],
    )
    .await;
    let begun = begun.unwrap().revision;
    let mut clock = Clockwork {
        revisions: vec![begun],
        names: BTreeMap::from([(begun, 0)]),
        compacted: 0,
    };
    let (mut told, mut watches) = (Vec::new(), Vec::<Watching>::new());
    for step in steps {
        let said = match step {
            Step::Txn { compares, then } => transaction(subject, &mut clock, compares, then).await,
            Step::Get(name) => {
                let entry = in_time(store.get(&key(*name))).await.unwrap();
                format!("{:?}", entry.map(|entry| clock.entry(&entry)))
            }
            Step::Page {
                prefix: from,
                after,
                limit,
                at,
            } => {
                let page = in_time(store.range(Range {
                    prefix: prefix(*from).to_owned(),
                    after: after.map(key),
                    limit: *limit,
                    at_revision: at.map(|step| clock.revision(step)),
                }))
                .await;
                match page {
                    Ok(page) => {
                        let entries: Vec<String> = page
                            .entries
                            .iter()
                            .map(|entry| clock.entry(entry))
                            .collect();
                        format!("{entries:?} at {} {}", clock.name(page.revision), page.more)
                    }
                    Err(error) => refused(&error),
                }
            }
            Step::Watch {
                prefix: under,
                from,
            } => {
                let from = clock.revision(*from);
                watches.push(Watching {
                    step: told.len(),
                    silent: *under == 4,
                    over: false,
                    watch: in_time(store.watch(prefix(*under), from)).await.unwrap(),
                    seen: Vec::new(),
                });
                "watches".to_owned()
            }
            Step::Compact(step) => {
                let revision = clock.revision(*step);
                // Watches that have not told everything yet may lose it.
                catch_up(subject, &mut clock, &mut watches).await;
                // A store may refuse to go back; so nobody asks it to.
                if revision > clock.compacted {
                    (subject.compact)(revision).await;
                    clock.compacted = revision;
                }
                format!("compacted to {}", clock.name(clock.compacted))
            }
        };
        told.push(said);
    }
    catch_up(subject, &mut clock, &mut watches).await;
    let seen = watches.iter();
    told.extend(seen.map(|w| format!("the watch of step {}: {:?}", w.step, w.seen)));
    told
}

/// Changes something under every prefix and reads all watches up to that.
async fn catch_up(subject: &Subject, clock: &mut Clockwork, watches: &mut [Watching]) {
    let marks = (0..3).map(|n| Op::Put(format!("{}mark", key(n)), Vec::new()));
    let marked = write(&*subject.store, Vec::new(), marks.collect()).await;
    let revision = marked.unwrap().revision;
    clock.happened(revision);
    for watching in watches.iter_mut().filter(|w| !w.silent) {
        watching.read(clock, revision).await;
    }
}

async fn transaction(
    subject: &Subject,
    clock: &mut Clockwork,
    compares: &[(bool, u8, Option<usize>)],
    then: &[(u8, Option<u8>)],
) -> String {
    let compares = compares.iter().map(|(created, name, step)| {
        let revision = step.map_or(0, |step| clock.revision(step));
        if *created {
            Compare::CreateRevision(key(*name), revision)
        } else {
            Compare::ModRevision(key(*name), revision)
        }
    });
    let then = then.iter().map(|(name, value)| match value {
        Some(value) => Op::Put(key(*name), vec![*value]),
        None => Op::Delete(key(*name)),
    });
    match write(&*subject.store, compares.collect(), then.collect()).await {
        Ok(done) => {
            clock.happened(done.revision);
            format!("{} {}", done.succeeded, clock.name(done.revision))
        }
        Err(error) => refused(&error),
    }
}

impl Watching {
    async fn read(&mut self, clock: &Clockwork, until: u64) {
        while !self.over {
            match next(&mut self.watch).await {
                WatchEvent::Changes { revision, events } => {
                    let events: Vec<String> = events
                        .iter()
                        .map(|event| match event {
                            Event::Put(entry) => clock.entry(entry),
                            Event::Delete(key) => format!("-{key}"),
                        })
                        .collect();
                    self.seen
                        .push(format!("{} {events:?}", clock.name(revision)));
                    if revision >= until {
                        return;
                    }
                }
                other @ (WatchEvent::Compacted | WatchEvent::Lost) => {
                    self.seen.push(format!("{other:?}"));
                    self.over = true;
                }
            }
        }
    }
}

fn refused(error: &StoreError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

#[test]
fn law_20_random_sequences_give_the_same_on_the_stores_of_this_process() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut runner = runner(100);
    let property = |steps: Vec<Step>| {
        runtime.block_on(async {
            let simulated = run(&simulated(), &steps).await;
            prop_assert_eq!(&run(&embedded_in_memory(), &steps).await, &simulated);
            Ok(())
        })
    };
    runner.run(&steps(), property).unwrap();
}

#[test]
fn law_20_random_sequences_give_the_same_on_a_file() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut runner = runner(8);
    let property = |steps: Vec<Step>| {
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let simulated = run(&simulated(), &steps).await;
            prop_assert_eq!(&run(&embedded_in(folder.path()), &steps).await, &simulated);
            Ok(())
        })
    };
    runner.run(&steps(), property).unwrap();
}
