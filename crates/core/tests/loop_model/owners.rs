//! I3 on one node: a binding has one owner per epoch, epochs rise also across deletion, whoever is due gets the address,
//! and nothing is left in the end. Duties run as the agent runs them, in random interleavings, with late news, lost
//! answers and crashes.

mod rules;
mod world;

use buoy_api::binding::Epoch;
use buoy_api::names::binding_name;
use buoy_core::store::Key;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use self::world::World;
use crate::cases;
use crate::inputs::{container, pod};
use crate::tasks::Fate;
use crate::universe::floating;

#[derive(Clone, Debug)]
enum Act {
    Attach {
        pod: usize,
        container: usize,
        asks: u8,
        priority: i32,
    },
    Detach(usize, usize),
    /// `buoyctl fip attach` and `detach`.
    Ask(usize, u8),
    Move(usize, usize),
    /// `buoyctl fip release` of an address that nobody owns.
    EndHold(usize),
    /// The pool of the floating IPs: for everybody, for one namespace, gone.
    Pool(u8),
    Pass(u16),
    /// The agent learns of so many changes.
    Learn(usize),
    /// The agent begins what it owes.
    Begin,
    Run(Index, Fate),
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        1 => select(&[Fate::AnswerLost, Fate::QuestionLost, Fate::Refused][..]),
    ];
    prop_oneof![
        3 => (pod(), container(), any::<u8>(), 0..2i32)
            .prop_map(|(pod, container, asks, priority)| Act::Attach { pod, container, asks, priority }),
        2 => (pod(), container()).prop_map(|(p, c)| Act::Detach(p, c)),
        2 => (pod(), any::<u8>()).prop_map(|(p, asks)| Act::Ask(p, asks)),
        1 => (0..2usize, pod()).prop_map(|(f, p)| Act::Move(f, p)),
        1 => (0..2usize).prop_map(Act::EndHold),
        1 => (0..4u8).prop_map(Act::Pool),
        2 => select(&[1u16, 30, 300, 700][..]).prop_map(Act::Pass),
        6 => (1..5usize).prop_map(Act::Learn),
        6 => Just(Act::Begin),
        16 => (any::<Index>(), fate).prop_map(|(index, fate)| Act::Run(index, fate)),
        1 => Just(Act::Crash),
    ]
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn i3_one_owner_whose_epoch_rises_and_nothing_left_in_the_end(
        acts in proptest::collection::vec(act(), 1..120),
    ) {
        let mut world = World::new();
        for act in &acts {
            world.act(act).map_err(TestCaseError::fail)?;
        }
        world.settle().map_err(TestCaseError::fail)?;
        world.check_rest().map_err(TestCaseError::fail)?;
        world.wind_down().map_err(TestCaseError::fail)?;
    }
}

#[test]
fn i3_an_address_made_again_has_a_higher_epoch() {
    let mut world = World::new();
    let epoch = |world: &World| {
        let binding = world.view.bindings.get(&floating(0)).unwrap();
        (binding.spec.epoch, binding.spec.owner.clone().unwrap().workload)
    };
    world.attach(0, 0, 1, 0);
    world.settle().unwrap();
    assert_eq!(epoch(&world), (Epoch(1), "web-0".to_owned()));
    world.wind_down().unwrap();
    assert!(
        !world
            .store
            .records
            .contains_key(&Key::Binding(binding_name(floating(0).addr())))
    );
    // Released at epoch 2, so the floor is 2.
    world.attach(2, 0, 1, 0);
    world.settle().unwrap();
    assert_eq!(epoch(&world), (Epoch(3), "db-0".to_owned()));
    world.check_rest().unwrap();
}
