//! Random histories; `PROPTEST_CASES` asks for more of them than each run has.

use proptest::{collection::vec, prelude::ProptestConfig};
use proxyxai_core::money::ledger::node::Forget;

use super::{
    audit::{audit, nothing_is_out},
    steps::step,
    world::{NODES, World},
};

proptest::proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn law_1_to_7_and_14_hold_through_any_history(steps in vec(step(), 1..400)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            audit(&world);
        }
        settle_down(&mut world);
        audit(&world);
        nothing_is_out(&world);
    }
}

/// Every node comes back, or is forgotten, and brings what it has.
fn settle_down(world: &mut World) {
    world.network.clear();
    for at in 0..usize::from(NODES) {
        world.report(at);
        let id = world.nodes[at].id.clone();
        if world.lost.iter().any(|(node, _)| *node == id) {
            world.forget(at, Forget::Charged);
        }
    }
    for at in 0..usize::from(NODES) {
        world.crash(at);
        world.start(at);
        let id = world.nodes[at].id.clone();
        for epoch in world.epochs(at) {
            let last = world.nodes[at].journal(epoch).last();
            while world.mark(&id, epoch).unwrap().applied_through < last {
                let first = world.mark(&id, epoch).unwrap().applied_through + 1;
                let records = world.nodes[at].journal(epoch).from(first, 7);
                world.deliver(super::world::Message::Batch {
                    node: at,
                    epoch,
                    first,
                    records,
                });
                assert!(
                    world.mark(&id, epoch).unwrap().applied_through >= first,
                    "law 5: applying got stuck"
                );
            }
        }
        for _ in 0..100 {
            world.seal(at);
        }
    }
}
