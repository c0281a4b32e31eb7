use super::*;
use crate::endpoint::Attachment;
use crate::op::{EndFlows, Pass};

const DRAIN: Duration = Duration::from_secs(30);

fn ends(planned: &Plan) -> Vec<EndFlows> {
    let end = |op: &Op| match op {
        Op::EndFlows(end) => Some(end.clone()),
        _ => None,
    };
    planned.ops.iter().filter_map(end).collect()
}

#[test]
fn flows_are_ended_again_a_moment_later_and_then_forgotten() {
    let mut node = Node::settled();
    node.give_to(&pod("web-0", 7));
    node.step(&Scope::All);
    let waits = node.plan(&Scope::Keys(BTreeSet::new()));
    assert_eq!(
        (waits.ops.len(), waits.wake),
        (0, Some(node.now.after(SECOND_PASS)))
    );
    node.now = node.now.after(SECOND_PASS);
    assert_eq!(
        node.step(&Scope::Keys(BTreeSet::new())),
        [
            "end flows of 172.16.1.3 but those to 10.65.0.7",
            "nft -ending 172.16.1.3 to 172.16.1.3"
        ]
    );
    assert_eq!(node.plan(&Scope::All), Plan::default());
}

#[test]
fn a_second_pass_does_not_come_before_the_sockets_of_the_next_owner_to_go_are_reset() {
    let mut node = Node::new();
    let (from, to) = (pod("web-0", 7), pod("web-1", 8));
    node.view.put_attachment(to.clone());
    node.give_to(&from);
    node.step(&Scope::All);
    node.now = node.now.after(SECOND_PASS);
    node.move_to(&to);
    let planned = node.plan(&Scope::All);
    assert_eq!(ends(&planned).len(), 1, "{planned:?}");
    assert_eq!(ends(&planned)[0].pass, Pass::First);
    assert_eq!(ends(&planned)[0].gone.len(), 1);
    node.step(&Scope::All);
    node.now = node.now.after(SECOND_PASS);
    let planned = node.plan(&Scope::All);
    assert_eq!(ends(&planned)[0].pass, Pass::Second);
    node.step(&Scope::All);
    assert_eq!(node.plan(&Scope::All), Plan::default());
}

/// Its routes led elsewhere, for a newer owner was announced or somebody took its own away, and what is tracked since then
/// is untranslated.
#[test]
fn flows_that_led_elsewhere_end_when_the_route_comes_though_the_translation_stood() {
    let mut node = Node::settled();
    let web = pod("web-0", 7);
    node.give_to(&web);
    node.rest();
    node.move_to(&web);
    let ends = "end flows of 172.16.1.3 but those to 10.65.0.7";
    assert_eq!(
        node.step(&Scope::All),
        [
            "nft +ending 172.16.1.3 to 172.16.1.3",
            "put route 172.16.1.3/32 dev cali-web-0 metric 999999992",
            "delete route 172.16.1.3/32 metric 999999993",
            ends,
        ]
    );
    node.rest();
    let route = RouteKey::host(
        floating(FLOATING).addr(),
        floating_metric(buoy_api::binding::Epoch(8)),
    );
    assert!(node.observed.routes.remove(&route).is_some());
    let told = node.step(&Scope::Keys(BTreeSet::from([RowKey::Route(route)])));
    assert_eq!(told.last().map(String::as_str), Some(ends), "{told:#?}");
    node.rest();
    assert_eq!(node.plan(&Scope::All), Plan::default());
}

/// `web-0` has the address and asked for a drain; `web-1` stands by.
fn before() -> (Node, Attachment, Attachment) {
    let mut node = Node::new();
    let (mut from, to) = (pod("web-0", 7), pod("web-1", 8));
    from.request.drain = DRAIN;
    node.view.put_attachment(from.clone());
    node.view.put_attachment(to.clone());
    node.give_to(&from);
    node.rest();
    (node, from, to)
}

/// `web-1` has it now, and flows to `web-0` go on.
fn drained() -> (Node, Attachment, Attachment) {
    let (mut node, from, to) = before();
    node.move_to(&to);
    node.rest();
    (node, from, to)
}

impl Node {
    /// Carries out what is due and what follows from it.
    fn rest(&mut self) {
        for _ in 0..3 {
            self.step(&Scope::All);
            self.now = self.now.after(SECOND_PASS);
        }
    }
}

#[test]
fn flows_to_the_owner_before_go_on_as_long_as_it_asked() {
    let (mut node, from, to) = before();
    node.move_to(&to);
    let until = node.now.after(DRAIN);
    assert_eq!(
        node.step(&Scope::All),
        [
            "nft -172.16.1.3 to 10.65.0.7, +172.16.1.3 to 10.65.0.8, +ending 172.16.1.3 to 172.16.1.3, \
             +ending 172.16.1.3 to 10.65.0.7, +draining 172.16.1.3 to 10.65.0.7 for 30.0s",
            "put route 172.16.1.3/32 dev cali-web-1 metric 999999992",
            "delete route 172.16.1.3/32 metric 999999993",
            "end flows of 172.16.1.3 but those to 10.65.0.7 and 10.65.0.8",
        ]
    );
    node.rest();
    let waits = node.plan(&Scope::All);
    assert_eq!((waits.ops.len(), waits.wake), (0, Some(until)));
    node.now = until;
    let due = node.plan(&Scope::Keys(BTreeSet::new()));
    let gone = (
        from.own_addresses().next().unwrap(),
        Some(from.request.netns.clone()),
    );
    assert_eq!(ends(&due)[0].gone, [gone]);
    assert_eq!(
        node.step(&Scope::Keys(BTreeSet::new())),
        ["end flows of 172.16.1.3 but those to 10.65.0.8"]
    );
    node.rest();
    assert_eq!(node.plan(&Scope::All), Plan::default());
}

#[test]
fn whoever_asks_for_the_move_says_how_long_flows_go_on() {
    for (asked, time) in [("5s", Some("5.0s")), ("0s", None), ("soon", Some("30.0s"))] {
        let (mut node, _, to) = before();
        let mut asks = node.view.bindings.get(&floating(FLOATING)).unwrap().clone();
        asks.spec.requested_move = Some(buoy_api::binding::Move {
            id: "1".to_owned(),
            to: buoy_api::binding::Target {
                node: None,
                workload: "web-1".to_owned(),
                endpoint: None,
            },
            exclusive: false,
            drain: Some(asked.to_owned()),
        });
        put(&mut node.view, Value::Binding(asks));
        node.move_to(&to);
        let told = node.step(&Scope::All);
        let found = told[0].split_once("+draining 172.16.1.3 to 10.65.0.7 for ");
        assert_eq!(found.map(|(_, time)| time), time, "{asked}: {told:#?}");
    }
}

#[test]
fn an_agent_that_begins_amid_a_drain_goes_on_with_it() {
    let (mut node, ..) = drained();
    let until = node.plan(&Scope::All).wake;
    for ending in node.observed.ending.values_mut() {
        assert!(matches!(ending, Ending::Draining(_)), "{ending:?}");
    }
    // It has not read the records yet.
    let known = std::mem::take(&mut node.desired);
    let planned = plan(
        &node.desired,
        &node.observed,
        &Scope::Keys(BTreeSet::new()),
        &|_| None,
        node.now,
    );
    assert_eq!((planned.ops, planned.wake), (Vec::new(), until));
    node.desired = known;
    node.now = node.now.after(DRAIN);
    assert_eq!(
        node.step(&Scope::All),
        ["end flows of 172.16.1.3 but those to 10.65.0.8"]
    );
}

#[test]
fn an_agent_that_does_not_know_the_records_yet_ends_no_flow_of_the_present_owner() {
    let mut node = Node::new();
    node.give_to(&pod("web-0", 7));
    node.step(&Scope::All);
    let planned = plan(
        &NodeDesired::default(),
        &node.observed,
        &Scope::Keys(BTreeSet::new()),
        &|_| None,
        node.now.after(SECOND_PASS),
    );
    assert_eq!(
        told(&planned),
        [
            "end flows of 172.16.1.3 but those to 10.65.0.7",
            "nft -ending 172.16.1.3 to 172.16.1.3"
        ]
    );
}

#[test]
fn a_drain_ends_with_its_workload() {
    let (mut node, mut from, _) = drained();
    from.phase = Phase::Removing;
    node.view.put_attachment(from);
    let told = node.step(&Scope::All);
    assert!(
        told[0].starts_with("nft -draining 172.16.1.3 to 10.65.0.7 for 29."),
        "{told:#?}"
    );
    assert!(
        told.contains(&"end flows of 172.16.1.3 but those to 10.65.0.8".to_owned()),
        "{told:#?}"
    );
    node.rest();
    assert_eq!(node.plan(&Scope::All), Plan::default());
}

#[test]
fn an_address_that_comes_back_is_not_drained_any_more() {
    let (mut node, from, _) = drained();
    node.move_to(&from);
    let told = node.step(&Scope::All);
    assert!(
        told[0].contains("-draining 172.16.1.3 to 10.65.0.7 for "),
        "{told:#?}"
    );
    assert!(told[0].ends_with("+ending 172.16.1.3 to 10.65.0.8"), "{told:#?}");
    assert_eq!(
        told.last().map(String::as_str),
        Some("end flows of 172.16.1.3 but those to 10.65.0.7")
    );
    node.rest();
    assert_eq!(node.plan(&Scope::All), Plan::default());
}

#[test]
fn several_drains_of_one_address_end_each_in_its_time() {
    let (mut node, from, mut to) = drained();
    to.request.drain = DRAIN * 2;
    node.view.put_attachment(to.clone());
    let third = pod("web-2", 9);
    node.view.put_attachment(third.clone());
    let first = node.plan(&Scope::All).wake.unwrap();
    node.move_to(&third);
    node.rest();
    assert_eq!(node.plan(&Scope::All).wake, Some(first));
    node.now = first;
    let due = ends(&node.plan(&Scope::All));
    let gone: Vec<IpAddr> = due[0].gone.iter().map(|(old, _)| *old).collect();
    assert_eq!(gone, from.own_addresses().collect::<Vec<_>>());
    assert_eq!(
        due[0].keep,
        to.own_addresses().chain(third.own_addresses()).collect()
    );
    node.rest();
    assert!(node.plan(&Scope::All).wake > Some(first));
}
