use buoy_api::ipam::{AffinityOwner, AffinityState, BlockAffinity};
use buoy_api::meta::{Extra, ObjectMeta};
use buoy_api::v3::{BgpPeer, BgpPeerSpec};

use super::*;
use crate::calc;
use crate::desired::{BORROWED_METRIC, OWN_METRIC, Row};
use crate::fixtures::{empty_view, endpoint, node, now, pod, put};
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

/// A view whose routing daemon can be told to be something at some second.
struct Told(View);

impl Told {
    fn is(&mut self, second: u64, daemon: Daemon) {
        self.looks(second);
        self.0.set_daemon(daemon, now(second).mono);
        self.looks(second);
    }

    fn looks(&mut self, second: u64) {
        if self.0.daemon_due().is_some_and(|due| due <= now(second).mono) {
            self.0.look_at_daemon(now(second).mono);
        }
    }

    fn is_ready(&mut self, second: u64) -> bool {
        self.looks(second);
        self.0.is_ready()
    }
}

fn not_ready(is_away: bool) -> Daemon {
    Daemon::NotReady {
        why: "BIRD ended".to_owned(),
        is_away,
    }
}

fn told() -> Told {
    let mut view = routed();
    view.settings.yield_time = Duration::from_secs(3);
    Told(view)
}

#[test]
fn a_daemon_that_is_away_for_a_moment_moves_nothing() {
    let mut told = told();
    told.is(100, not_ready(true));
    assert!(told.is_ready(102));
    told.is(102, Daemon::Ready);
    told.is(106, not_ready(true));
    assert!(told.is_ready(108), "one moment more");
    assert!(!told.is_ready(109), "and then too long");
    told.is(110, not_ready(false));
    assert!(!told.is_ready(111), "in recovery nothing new is announced");
    told.is(112, Daemon::Ready);
    assert!(told.is_ready(112));
}

#[test]
fn a_daemon_that_ends_again_and_again_is_away() {
    for moment in [Daemon::Ready, not_ready(false)] {
        let mut told = told();
        // It begins, and then ends four times.
        for second in [100, 102, 104, 106, 108] {
            told.is(second, not_ready(true));
            assert_eq!(told.is_ready(second), second < 108);
            told.is(second + 1, moment.clone());
        }
        told.is(110, Daemon::Ready);
        let well = if moment == Daemon::Ready { 119 } else { 120 };
        assert!(!told.is_ready(well - 1), "it may end again");
        assert!(told.is_ready(well));
        told.is(130, not_ready(true));
        assert!(told.is_ready(132), "that was long ago");
        assert!(!told.is_ready(133));
    }
}
