use buoy_api::ipam::{AffinityOwner, AffinityState, BlockAffinity};
use buoy_api::meta::{Extra, ObjectMeta};
use buoy_api::v3::{BgpPeer, BgpPeerSpec};

use super::*;
use crate::calc;
use crate::desired::{BORROWED_METRIC, OWN_METRIC, Row};
use crate::fixtures::{empty_view, endpoint, node, pod, put};
use crate::store::{Delta, Key, Revision, Value};

fn routed() -> View {
    let mut view = empty_view();
    view.settings.routing = Routing::Bird;
    put(&mut view, Value::Node(node("n1", "192.0.2.1/24")));
    view
}

fn affinity(view: &mut View, state: Option<AffinityState>) -> BTreeSet<Subject> {
    let affinity = state.map(|state| BlockAffinity {
        state,
        deleted: false,
        extra: Extra::new(),
    });
    let key = Key::Affinity {
        owner: AffinityOwner::Host("n1".to_owned()),
        cidr: "10.65.0.0/26".parse().unwrap(),
    };
    view.apply(
        Delta {
            key,
            revision: Revision(1),
            value: affinity.map(|affinity| Ok(Value::Affinity(affinity))),
        },
        Mono::default(),
    )
}

fn metric(view: &View) -> Option<u32> {
    let rows = calc::rows(view, &Subject::Endpoint(endpoint("web-0")));
    rows.iter().find_map(|row| match row {
        Row::Route(key, _) => Some(key.metric),
        _ => None,
    })
}

#[test]
fn an_address_outside_this_nodes_blocks_is_known_by_its_metric() {
    let mut view = routed();
    view.put_attachment(pod("web-0", 7));
    assert_eq!(metric(&view), Some(BORROWED_METRIC));
    affinity(&mut view, Some(AffinityState::Pending));
    assert_eq!(
        metric(&view),
        Some(BORROWED_METRIC),
        "the block may not come to be ours"
    );
    let dirty = affinity(&mut view, Some(AffinityState::Confirmed));
    assert_eq!(metric(&view), Some(OWN_METRIC));
    let block = Subject::Block("10.65.0.0/26".parse().unwrap());
    assert!(dirty.contains(&Subject::Endpoint(endpoint("web-0"))) && dirty.contains(&block));
    affinity(&mut view, None);
    assert_eq!(metric(&view), Some(BORROWED_METRIC));
    view.settings.routing = Routing::Kernel;
    assert_eq!(metric(&view), Some(OWN_METRIC), "whoever announces it knows");
}

#[test]
fn a_node_concerns_itself_its_namesakes_and_its_peers() {
    let mut view = routed();
    put(&mut view, Value::Node(node("n2", "192.0.2.2/24")));
    put(&mut view, Value::Node(node("n3", "192.0.2.3/24")));
    let peer = BgpPeer::new(ObjectMeta::named("r"), BgpPeerSpec::default());
    put(&mut view, Value::BgpPeer(peer));
    let sessions = |dirty: BTreeSet<Subject>| -> Vec<String> {
        let is_session = |s: &Subject| matches!(s, Subject::OtherNode(_) | Subject::Peer(_));
        dirty
            .iter()
            .filter(|s| is_session(s))
            .map(ToString::to_string)
            .collect()
    };
    let dirty = put(&mut view, Value::Node(node("n2", "192.0.2.3/24")));
    assert_eq!(sessions(dirty), ["node n2", "node n3", "BGP peer r"]);
    let dirty = put(&mut view, Value::Node(node("n1", "192.0.2.9/24")));
    assert_eq!(sessions(dirty), ["node n2", "node n3", "BGP peer r"]);
    view.settings.routing = Routing::Kernel;
    let dirty = put(&mut view, Value::Node(node("n1", "192.0.2.1/24")));
    assert_eq!(sessions(dirty), Vec::<String>::new());
}
