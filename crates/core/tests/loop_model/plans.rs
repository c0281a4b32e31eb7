//! I4, second half: a plan brings the kernel to what should be, in an order that is always safe, and the next plan is
//! empty. I5: so it does after a crash between any two operations. I7: strangers' links are left alone.

use std::net::IpAddr;
use std::time::Duration;

use buoy_core::desired::RouteKey;
use buoy_core::observed::Ending;
use buoy_core::op::{Element, NftTransaction, Op, Pass};
use buoy_core::plan::{Plan, SECOND_PASS, Scope};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;

use crate::cases;
use crate::inputs::{self, Input, input, pod};
use crate::kernel::Tables;
use crate::node::{Luck, NodeSim, told};
use crate::universe::{FLOATING, floating, link_name};

#[derive(Clone, Debug)]
enum Step {
    Input(Box<Input>),
    /// A floating IP goes from one pod to another, of which the first may ask for a drain.
    HandOver(usize, bool, u64, u64),
    /// Plan and apply; some operations fail.
    Turn(u32),
    /// The agent dies after so many operations of its plan, and comes back.
    Crash(usize),
    /// A link that is being deleted is gone at last.
    LetGo,
    /// A link is deleted by somebody else.
    Vanish(usize),
    /// A link is set down by somebody else, who may set it up again.
    Fall(usize, bool),
    /// Somebody else makes a link of the name.
    Stranger(usize),
    /// What an agent of another time left.
    Remains(usize, u8),
    Tables(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => input().prop_map(|input| Step::Input(Box::new(input))),
        2 => hand_over(),
        8 => prop_oneof![3 => Just(0), 1 => any::<u32>()].prop_map(Step::Turn),
        2 => (0..12usize).prop_map(Step::Crash),
        3 => Just(Step::LetGo),
        1 => pod().prop_map(Step::Vanish),
        1 => (pod(), any::<bool>()).prop_map(|(pod, and_rise)| Step::Fall(pod, and_rise)),
        1 => pod().prop_map(Step::Stranger),
        1 => (0..4usize, any::<u8>()).prop_map(|(what, which)| Step::Remains(what, which)),
        1 => any::<u8>().prop_map(Step::Tables),
        2 => (0..300u64).prop_map(Step::Pass),
    ]
}

fn hand_over() -> impl Strategy<Value = Step> {
    let drain = select(&[0, 250, 700][..]);
    (0..FLOATING.len(), any::<bool>(), drain, 1..6u64)
        .prop_map(|(index, back, drain, epoch)| Step::HandOver(index, back, drain, epoch))
}

/// Steps without failures, crashes and other people.
fn calm_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => input().prop_map(|input| Step::Input(Box::new(input))),
        1 => hand_over(),
        3 => Just(Step::Turn(0)),
        1 => Just(Step::LetGo),
        1 => (0..300u64).prop_map(Step::Pass),
    ]
}

fn run(node: &mut NodeSim, step: &Step) -> Result<(), String> {
    match step {
        Step::Input(input) => node.take(input),
        Step::HandOver(index, back, drain, epoch) => {
            for inputs in inputs::hand_over(*index, *back, *drain, *epoch) {
                inputs.iter().for_each(|input| node.take(input));
                node.turn(Luck::default())?;
            }
        }
        Step::Turn(fails) => {
            node.turn(Luck {
                fails: *fails,
                dies_after: None,
            })?;
        }
        Step::Crash(after) => {
            node.turn(Luck {
                fails: 0,
                dies_after: Some(*after),
            })?;
        }
        Step::LetGo => node.let_go(),
        Step::Vanish(pod) => node.vanish(&link_name(*pod)),
        Step::Fall(pod, and_rise) => node.fall(&link_name(*pod), *and_rise),
        Step::Stranger(pod) => {
            if node
                .kernel
                .add_link(&link_name(*pod), Some("uplink".to_owned()))
                .is_ok()
            {
                node.distrust();
            }
        }
        Step::Remains(what, which) => remains(node, *what, *which),
        Step::Tables(how) => {
            node.kernel.tables = [Tables::Absent, Tables::Old, Tables::Strange][usize::from(how % 3)];
            if node.kernel.tables == Tables::Absent {
                node.kernel.empty();
            }
            node.distrust();
        }
        Step::Pass(millis) => node.pass_time(*millis),
    }
    Ok(())
}

fn remains(node: &mut NodeSim, what: usize, which: u8) {
    let kernel = &mut node.kernel;
    let address = floating(usize::from(which));
    let old = IpAddr::from([10, 65, 0, 10 + which % 8]);
    match what {
        0 => {
            kernel.members.insert(1000 + u32::from(which));
            kernel.sources.insert((1000 + u32::from(which), old.into()));
        }
        1 => {
            kernel.routes.insert(
                RouteKey::host(address.addr(), 999_999_990 + u32::from(which % 8)),
                None,
            );
        }
        2 if address.addr().is_ipv4() => {
            kernel.nat.insert(address, old);
        }
        _ => {
            let old = if address.addr().is_ipv4() {
                old
            } else {
                address.addr()
            };
            kernel.ending.insert((address, old));
            if which >= 128 {
                let until = node.now.after(Duration::from_millis(300));
                kernel.draining.insert((address, old), until);
            }
        }
    }
    node.distrust();
}

fn told_to_fail(result: Result<(), String>) -> Result<(), TestCaseError> {
    result.map_err(TestCaseError::fail)
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn i4_any_path_ends_in_what_is_desired(steps in proptest::collection::vec(step(), 1..60)) {
        let mut node = NodeSim::new();
        for step in &steps {
            told_to_fail(run(&mut node, step))?;
        }
        told_to_fail(node.settle())?;
    }

    #[test]
    fn i4_the_second_plan_is_empty(steps in proptest::collection::vec(calm_step(), 1..40)) {
        let mut node = NodeSim::new();
        for step in &steps {
            told_to_fail(run(&mut node, step))?;
            if matches!(step, Step::Turn(_)) {
                // A name that is on its way out is waited for: the rest of the plan comes then.
                for _ in 0..8 {
                    node.let_go();
                }
                node.turn(Luck::default()).map_err(TestCaseError::fail)?;
                for _ in 0..8 {
                    node.let_go();
                }
                told_to_fail(only_time_is_left(&mut node))?;
            }
        }
    }

    #[test]
    fn i5_a_crash_between_any_two_operations_heals(
        steps in proptest::collection::vec(calm_step(), 1..25),
        after in 0..30usize,
    ) {
        let mut node = NodeSim::new();
        for step in &steps {
            told_to_fail(run(&mut node, step))?;
        }
        node.turn(Luck { fails: 0, dies_after: Some(after) }).map_err(TestCaseError::fail)?;
        let pairs = node.kernel.ending.clone();
        node.kernel.ended.clear();
        told_to_fail(node.settle())?;
        for (floating, _) in pairs {
            for pass in [Pass::First, Pass::Second] {
                let ended = node.kernel.ended.iter().any(|end| end.floating == floating && end.pass == pass);
                prop_assert!(ended, "{floating}: no {pass:?} pass for flows left by a crash");
            }
        }
    }
}

/// Drains are begun, given up, come to their end, and are found by an agent that begins amid them.
#[test]
fn i5_the_generator_reaches_drains() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = proptest::collection::vec(calm_step(), 60..80);
    let mut seen = std::collections::BTreeMap::<&str, u32>::new();
    for _ in 0..200 {
        let mut node = NodeSim::new();
        for step in strategy.new_tree(&mut runner).unwrap().current() {
            run(&mut node, &step).unwrap();
            *seen.entry("begun").or_default() += u32::from(drains(&node));
            let planned = node.turn(Luck::default()).unwrap();
            for what in planned.ops.iter().filter_map(drain_in) {
                *seen.entry(what).or_default() += 1;
            }
        }
        node.restart();
        node.turn(Luck::default()).unwrap();
        *seen.entry("found").or_default() += u32::from(drains(&node));
        node.settle().unwrap();
    }
    for what in ["begun", "given up", "spared", "found"] {
        assert!(seen.get(what) > Some(&10), "{what}: {seen:?}");
    }
}

fn drains(node: &NodeSim) -> bool {
    let mut endings = node.observed.ending.values();
    endings.any(|ending| matches!(ending, Ending::Draining(until) if node.now < *until))
}

fn drain_in(op: &Op) -> Option<&'static str> {
    match op {
        Op::Nft(NftTransaction { del, .. }) => {
            let given_up = del.iter().any(|element| matches!(element, Element::Draining(..)));
            given_up.then_some("given up")
        }
        Op::EndFlows(end) => (end.keep.len() > 1).then_some("spared"),
        _ => None,
    }
}

/// The next plan is empty; once the time for it has come, the one after ends flows a second time and forgets them; and
/// the one after that is empty again.
fn only_time_is_left(node: &mut NodeSim) -> Result<(), String> {
    let next = node.plan(&Scope::All);
    if next.ops.iter().any(|op| !is_second_pass(op)) {
        return Err(format!("the second plan is not empty:\n{}", told(&next)));
    }
    let next = end_of_drains(node)?;
    node.now = next.wake.unwrap_or(node.now).max(node.now.after(SECOND_PASS));
    let due = node.plan(&Scope::All);
    let floating: std::collections::BTreeSet<_> = node
        .observed
        .ending
        .keys()
        .map(|(floating, _)| *floating)
        .collect();
    let ended = due.ops.iter().filter(|op| matches!(op, Op::EndFlows(_))).count();
    if due.ops.iter().any(|op| !is_second_pass(op)) || ended != floating.len() || due.wake.is_some() {
        return Err(format!(
            "flows of {floating:?} are to be ended a second time:\n{}",
            told(&due)
        ));
    }
    node.turn(Luck::default())?;
    let last = node.plan(&Scope::All);
    if !last.ops.is_empty() || last.wake.is_some() || !node.observed.ending.is_empty() {
        return Err(format!("the last plan is not empty:\n{}", told(&last)));
    }
    Ok(())
}

/// Waits until nothing is drained any more; only flows end meanwhile. Returns the plan after it.
fn end_of_drains(node: &mut NodeSim) -> Result<Plan, String> {
    let last = |node: &NodeSim| {
        let until = |ending: &Ending| match ending {
            Ending::Draining(until) => Some(*until),
            _ => None,
        };
        node.observed.ending.values().filter_map(until).max()
    };
    while let Some(until) = last(node) {
        node.now = node.now.max(until);
        let planned = node.turn(Luck::default())?;
        let ends = |op: &Op| matches!(op, Op::EndFlows(_)) || is_second_pass(op);
        if !planned.ops.iter().all(ends) {
            return Err(format!("a drain ends with more than flows:\n{}", told(&planned)));
        }
    }
    Ok(node.plan(&Scope::All))
}

fn is_second_pass(op: &Op) -> bool {
    match op {
        Op::EndFlows(end) => end.pass == Pass::Second,
        Op::Nft(NftTransaction { del, add }) => {
            add.is_empty() && del.iter().all(|e| matches!(e, Element::Ending(..)))
        }
        _ => false,
    }
}
