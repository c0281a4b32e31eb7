use super::*;
use crate::calc;
use crate::desired::floating_metric;
use crate::endpoint::{Attachment, Phase};
use crate::fixtures::{FLOATING, binding, candidate, floating, pod, put, record, view};
use crate::observed::{Ending, ObservedLink};
use crate::op::Effect;
use crate::store::Value;
use crate::subject::Subject;
use crate::view::View;

/// A node, what it should be, and what the kernel has, as operations leave it.
struct Node {
    view: View,
    desired: NodeDesired,
    observed: Observed,
    now: Mono,
    next_index: u32,
}

impl Node {
    fn new() -> Self {
        let (view, desired) = (view(), NodeDesired::default());
        Self {
            view,
            desired,
            observed: Observed::default(),
            now: Mono::default(),
            next_index: 10,
        }
    }

    /// With `web-0` up, on its own address alone.
    fn settled() -> Self {
        let mut node = Self::new();
        node.step(&Scope::All);
        node
    }

    /// With somebody else's link of the name that `web-0` needs.
    fn beside_a_stranger() -> Self {
        let mut node = Self::new();
        let stranger = ObservedLink {
            index: IfIndex(2),
            alias: Some("uplink to rack 3".to_owned()),
            leaving: false,
            up: true,
            gateway_v6: false,
        };
        let name = IfName("cali-web-0".to_owned());
        node.observed.links.insert(name, stranger);
        node.observed.ruleset = true;
        node
    }

    fn plan(&mut self, scope: &Scope) -> Plan {
        let mut subjects = BTreeSet::from([Subject::Node, Subject::Binding(floating(FLOATING))]);
        subjects.extend(
            ["web-0", "web-1", "web-2"].map(|name| Subject::Endpoint(crate::fixtures::endpoint(name))),
        );
        for subject in subjects {
            self.desired.replace(&subject, calc::rows(&self.view, &subject));
        }
        plan(
            &self.desired,
            &self.observed,
            scope,
            &|internal| self.view.netns_of(internal),
            self.now,
        )
    }

    /// Plans, does it, and tells it.
    fn step(&mut self, scope: &Scope) -> Vec<String> {
        let planned = self.plan(scope);
        for op in &planned.ops {
            let effect = match op {
                Op::AddLink(..) => {
                    self.next_index += 1;
                    Effect::Link(IfIndex(self.next_index))
                }
                _ => Effect::Done,
            };
            self.observed.absorb(op, &effect, self.now);
        }
        told(&planned)
    }

    fn give_to(&mut self, owner: &Attachment) {
        put(&mut self.view, Value::Binding(binding(Some(&candidate(owner)))));
    }

    /// The next owner of the floating IP.
    fn move_to(&mut self, owner: &Attachment) {
        let before = self.view.bindings.get(&floating(FLOATING)).unwrap();
        let mut moved = before.clone();
        moved.spec.owner = Some(candidate(owner).as_owner(buoy_api::binding::Term(0)));
        moved.spec.epoch = moved.spec.epoch.next();
        put(&mut self.view, Value::Binding(moved));
    }
}

#[path = "plan/flows_tests.rs"]
mod flows;

/// A plan in words, but for the node's own settings.
fn told(planned: &Plan) -> Vec<String> {
    let others = planned.ops.iter().filter(|op| !matches!(op, Op::SetSysctl(..)));
    others.map(ToString::to_string).collect()
}

#[test]
fn settings_of_the_node_are_made_once() {
    let mut node = Node::new();
    let settings = |planned: &Plan| {
        planned
            .ops
            .iter()
            .filter(|op| matches!(op, Op::SetSysctl(..)))
            .count()
    };
    assert_eq!(
        settings(&node.plan(&Scope::All)),
        calc::rows(&node.view, &Subject::Node).len()
    );
    node.step(&Scope::All);
    node.observed
        .sysctls
        .insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
    assert_eq!(settings(&node.plan(&Scope::All)), 1);
}

#[test]
fn from_nothing_to_a_workload_with_a_floating_ip() {
    let mut node = Node::new();
    node.give_to(&pod("web-0", 7));
    assert_eq!(
        node.step(&Scope::All),
        [
            "load ruleset",
            "add link cali-web-0 for shop/n1-k8s-web--0-eth0",
            "nft +workload link cali-web-0, +source 10.65.0.7/32 on cali-web-0, +172.16.1.3 to 10.65.0.7, \
             +ending 172.16.1.3 to 172.16.1.3",
            "put route 10.65.0.7/32 dev cali-web-0 metric 1024",
            "put route 172.16.1.3/32 dev cali-web-0 metric 999999993",
            "end flows of 172.16.1.3 but those to 10.65.0.7",
        ]
    );
    assert!(node.plan(&Scope::All).ops.is_empty());
}

#[test]
fn a_move_on_one_node_changes_the_translation_and_then_the_route() {
    let mut node = Node::new();
    let (from, to) = (pod("web-0", 7), pod("web-1", 8));
    node.view.put_attachment(to.clone());
    node.give_to(&from);
    node.step(&Scope::All);
    node.move_to(&to);
    let told = [
        "nft -172.16.1.3 to 10.65.0.7, +172.16.1.3 to 10.65.0.8, +ending 172.16.1.3 to 10.65.0.7",
        "put route 172.16.1.3/32 dev cali-web-1 metric 999999992",
        "delete route 172.16.1.3/32 metric 999999993",
        "end flows of 172.16.1.3 but those to 10.65.0.8",
    ];
    // Whoever asks for the translation alone gets the rest with it.
    let planned = node.plan(&Scope::Keys(BTreeSet::from([RowKey::Nat(floating(FLOATING))])));
    let end = planned.ops.iter().find_map(|op| {
        if let Op::EndFlows(end) = op {
            Some(end.clone())
        } else {
            None
        }
    });
    let gone = ("10.65.0.7".parse().unwrap(), Some(from.request.netns));
    assert_eq!(end.map(|end| end.gone), Some(vec![gone]));
    assert_eq!(node.step(&Scope::All), told);
}

#[test]
fn on_the_way_out_traffic_is_turned_away_first_and_the_link_goes_last() {
    let mut node = Node::new();
    let mut attachment = pod("web-0", 7);
    node.give_to(&attachment);
    node.step(&Scope::All);
    attachment.phase = Phase::Removing;
    node.view.put_attachment(attachment);
    assert_eq!(
        node.step(&Scope::All),
        [
            "delete route 10.65.0.7/32 metric 1024",
            "delete route 172.16.1.3/32 metric 999999993",
            "nft -workload link link#11, -source 10.65.0.7/32 on link#11, -172.16.1.3 to 10.65.0.7, \
             +ending 172.16.1.3 to 10.65.0.7",
            "end flows of 172.16.1.3",
            "delete link cali-web-0: index 11",
        ]
    );
}

#[test]
fn a_newer_container_of_the_same_name_gets_a_new_link_and_its_routes() {
    let mut node = Node::settled();
    let mut newer = pod("web-0", 9);
    newer.id.container = "c-newer".to_owned();
    newer.order = 2;
    node.view.put_attachment(newer);
    let link = RowKey::Link(IfName("cali-web-0".to_owned()));
    assert_eq!(
        told(&node.plan(&Scope::Keys(BTreeSet::from([link])))),
        [
            "delete link cali-web-0: index 11",
            "add link cali-web-0 for shop/n1-k8s-web--0-eth0",
            "nft +workload link cali-web-0, +source 10.65.0.9/32 on cali-web-0",
            "put route 10.65.0.9/32 dev cali-web-0 metric 1024",
            "delete route 10.65.0.7/32 metric 1024",
            "nft -workload link link#11, -source 10.65.0.7/32 on link#11",
        ]
    );
}

#[test]
fn a_name_whose_link_is_on_its_way_out_is_waited_for() {
    let mut node = Node::settled();
    let name = IfName("cali-web-0".to_owned());
    node.observed.begin_leaving(&name);
    let mut newer = pod("web-0", 9);
    newer.id.container = "c-newer".to_owned();
    newer.order = 2;
    node.view.put_attachment(newer);
    assert_eq!(node.step(&Scope::All), ["delete route 10.65.0.7/32 metric 1024"]);
    let again = node.observed.forget_link(&name, IfIndex(11));
    let told = node.step(&Scope::Keys(again));
    assert!(
        told.contains(&"put route 10.65.0.9/32 dev cali-web-0 metric 1024".to_owned()),
        "{told:#?}"
    );
}

#[test]
fn a_link_that_was_set_down_is_raised_before_its_routes_come_back() {
    let mut node = Node::settled();
    let name = IfName("cali-web-0".to_owned());
    let fallen = node.observed.link_fell(&name, IfIndex(11));
    let told = node.step(&Scope::Keys(fallen));
    assert_eq!(
        told,
        [
            "raise link cali-web-0: index 11",
            "put route 10.65.0.7/32 dev cali-web-0 metric 1024",
        ]
    );
    assert_eq!(node.step(&Scope::All), [""; 0]);
}

#[test]
fn a_link_that_somebody_set_up_again_lacks_its_gateway() {
    let mut node = Node::new();
    let mut web = pod("web-0", 7);
    web.addresses = Some(
        ["10.65.0.7/26", "fd65::7/122"]
            .map(|net| net.parse().unwrap())
            .to_vec(),
    );
    node.view.put_attachment(web);
    node.step(&Scope::All);
    let link = node.observed.links.values_mut().next().unwrap();
    assert!(link.gateway_v6);
    link.gateway_v6 = false;
    assert_eq!(node.step(&Scope::All), ["raise link cali-web-0: index 11"]);
}

#[test]
fn a_strangers_link_of_the_name_is_asked_for_and_not_touched() {
    let mut node = Node::beside_a_stranger();
    assert_eq!(
        told(&node.plan(&Scope::All)),
        ["add link cali-web-0 for shop/n1-k8s-web--0-eth0"]
    );
}

#[test]
fn a_route_that_leads_elsewhere_does_not_stay_while_its_link_is_awaited() {
    let mut node = Node::beside_a_stranger();
    let own = RouteKey::host(IpAddr::from([10, 65, 0, 7]), crate::desired::OWN_METRIC);
    node.observed.routes.insert(own, ObservedHop::Unreachable);
    let told = told(&node.plan(&Scope::All));
    assert_eq!(told[1..], ["delete route 10.65.0.7/32 metric 1024"]);
}

#[test]
fn source_prefixes_change_in_one_transaction() {
    let mut node = Node::settled();
    let attachment = pod("web-0", 7);
    let mut edited = record(&attachment, &[]);
    edited.spec.allow_spoofed_source_prefixes = vec!["10.8.0.0/16".parse().unwrap()];
    put(&mut node.view, Value::Endpoint(edited.clone()));
    assert_eq!(node.step(&Scope::All), ["nft +source 10.8.0.0/16 on link#11"]);
    // Overlapping ones are one: the kernel's set of intervals takes no others.
    edited.spec.allow_spoofed_source_prefixes =
        vec!["10.8.1.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    put(&mut node.view, Value::Endpoint(edited));
    assert_eq!(
        node.step(&Scope::All),
        ["nft -source 10.8.0.0/16 on link#11, +source 10.0.0.0/8 on link#11"]
    );
}

#[test]
fn what_an_earlier_agent_left_goes() {
    let mut node = Node::settled();
    let old = IpAddr::from([10, 65, 0, 99]);
    node.observed.nat.insert(floating("172.16.1.9"), old);
    node.observed
        .routes
        .insert(RouteKey::host(old, 1024), ObservedHop::Unreachable);
    node.observed.filters.insert(
        IfIndex(99),
        Filter {
            member: true,
            sources: BTreeSet::new(),
        },
    );
    node.observed
        .ending
        .insert((floating("172.16.1.8"), old), Ending::Open);
    assert_eq!(
        node.step(&Scope::All),
        [
            "delete route 10.65.0.99/32 metric 1024",
            "nft -172.16.1.9 to 10.65.0.99, -workload link link#99, +ending 172.16.1.9 to 10.65.0.99",
            "end flows of 172.16.1.8",
            "end flows of 172.16.1.9",
        ]
    );
}

#[test]
fn an_address_without_an_owner_that_somebody_waits_for_is_unreachable() {
    let mut node = Node::settled();
    put(&mut node.view, Value::Binding(binding(None)));
    assert_eq!(
        node.step(&Scope::All),
        ["put route unreachable 172.16.1.3/32 metric 4294967295"]
    );
}

#[test]
fn a_route_that_nobody_knows_does_not_outlive_what_its_link_was() {
    let mut node = Node::settled();
    let mut attachment = pod("web-0", 7);
    node.give_to(&attachment);
    node.step(&Scope::All);
    node.desired.freeze(floating(FLOATING), true);
    attachment.phase = Phase::Removing;
    node.view.put_attachment(attachment);
    assert_eq!(
        node.step(&Scope::All),
        [
            "delete route 172.16.1.3/32 metric 999999993",
            "delete route 10.65.0.7/32 metric 1024",
            "nft -workload link link#11, -source 10.65.0.7/32 on link#11",
            "delete link cali-web-0: index 11",
        ]
    );
}

#[test]
fn what_nobody_knows_stays_until_it_is_known_again() {
    let mut node = Node::settled();
    let (address, internal) = (floating(FLOATING), IpAddr::from([10, 65, 0, 7]));
    let name = IfName("cali-web-0".to_owned());
    let index = node.observed.index_of(&name).unwrap();
    let route = RouteKey::host(address.addr(), floating_metric(buoy_api::binding::Epoch(7)));
    node.observed.nat.insert(address, internal);
    node.observed.routes.insert(route, ObservedHop::Link(index));
    node.observed
        .ending
        .insert((address, IpAddr::from([10, 65, 0, 6])), Ending::Open);
    crate::fixtures::spoil(&mut node.view, crate::floating::claim::binding_key(address));
    assert!(calc::stays(&node.view, address));
    assert!(node.desired.freeze(address, true).is_empty());
    assert_eq!(
        node.step(&Scope::All),
        ["end flows of 172.16.1.3 but those to 10.65.0.7"]
    );
    put(&mut node.view, Value::Binding(binding(None)));
    assert!(!calc::stays(&node.view, address));
    let thawed = node.desired.freeze(address, false);
    let told = node.step(&Scope::Keys(thawed));
    assert_eq!(told[0], "delete route 172.16.1.3/32 metric 999999993");
    assert!(told[1].starts_with("nft -172.16.1.3 to 10.65.0.7"), "{told:#?}");
}
