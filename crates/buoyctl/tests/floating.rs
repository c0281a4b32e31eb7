//! The built program and a real store: floating IPs, with a stand-in for the agent.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use buoy_api::Term;
use buoy_api::names;
use buoy_api::v3::IpNat;
use buoy_cni_spec::agent::Response;
use buoy_cni_spec::frame;
use buoy_core::store::{Key, Reply, StoreOp, Value};
use common::{Place, candidate, endpoint, pool};
use serde_json::{Value as Json, json};

fn nats(place: &Place, pod: &str) -> Vec<IpNat> {
    let key = Key::Endpoint {
        namespace: "shop".to_owned(),
        name: format!("n1-k8s-{}-eth0", pod.replace('-', "--")),
    };
    match place.get(key).unwrap().value {
        Ok(Value::Endpoint(endpoint)) => endpoint.spec.ip_nats,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_made_and_taken_back() {
    let place = Place::new();
    place.apply(&pool("fips", "172.16.0.0/16"));
    place.apply(&endpoint("web-0", "10.65.0.7/32"));
    let attach = ["fip", "attach", "172.16.1.3", "web-0", "-n", "shop"];
    let said = place.done(&attach);
    assert!(said.starts_with("shop/web-0 now asks for 172.16.1.3"), "{said}");
    let own = "10.65.0.7".parse().unwrap();
    assert_eq!(
        nats(&place, "web-0"),
        [IpNat::new(own, "172.16.1.3".parse().unwrap())]
    );
    assert!(place.done(&attach).contains("already"));
    assert_eq!(nats(&place, "web-0").len(), 1);
    let listed = place.done(&["fip", "list"]);
    assert!(
        listed.contains("172.16.1.3   shop        -       -      Requested"),
        "{listed}"
    );
    let said = place.done(&["fip", "detach", "172.16.1.3"]);
    assert_eq!(said, "shop/web-0 no longer asks for 172.16.1.3\n");
    assert_eq!(nats(&place, "web-0"), []);
    let again = place.run(&["fip", "detach", "172.16.1.3"]);
    assert_eq!(again.code, 1);
    assert!(
        again.err.contains("nobody there asks for 172.16.1.3"),
        "{again:?}"
    );
}

#[test]
fn a_request_that_will_be_refused_is_warned_of() {
    let place = Place::new();
    place.apply(&endpoint("web-0", "10.65.0.7/32"));
    let outside = place.run(&["fip", "attach", "172.16.1.3", "web-0", "-n", "shop", "-o", "json"]);
    assert_eq!(outside.code, 0);
    assert!(
        outside.err.starts_with("warning: no IPPool covers 172.16.1.3"),
        "{outside:?}"
    );
    let document: Json = serde_json::from_str(&outside.out).unwrap();
    assert_eq!(document["internalIP"], "10.65.0.7");
    let other_family = place.run(&["fip", "attach", "2001:db8::1", "web-0", "-n", "shop"]);
    assert_eq!(other_family.code, 1);
    assert!(
        other_family.err.contains("has no IPv6 address"),
        "{other_family:?}"
    );
    let nobody = place.run(&["fip", "attach", "172.16.1.3", "web-0"]);
    assert!(
        nobody.err.contains("no such workload: default/web-0"),
        "{nobody:?}"
    );
}

/// Waits for a wish and makes the candidate it names the owner, as an agent would.
fn fulfil(place: &Place, address: &str) {
    let store = place.store();
    let key = Key::Binding(names::binding_name(address.parse().unwrap()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Reply::Record(Some(record)) = store.run(&StoreOp::Get(key.clone()))
            && let Ok(Value::Binding(mut binding)) = record.value
            && let Some(wish) = binding.spec.requested_move.take()
        {
            binding.spec.owner = Some(candidate(&wish.to.workload).as_owner(Term(1)));
            binding.spec.epoch = binding.spec.epoch.next();
            common::wrote(&store.run(&StoreOp::Update(key, Value::Binding(binding), record.revision)));
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("no wish came");
}

#[test]
fn a_move_is_a_wish_that_an_agent_fulfils() {
    let place = Place::new();
    place.bind("172.16.1.3", &["web-0", "web-1"]);
    let said = thread::scope(|scope| {
        scope.spawn(|| fulfil(&place, "172.16.1.3"));
        place.done(&["fip", "move", "172.16.1.3", "--to", "web-1", "--timeout", "15s"])
    });
    assert!(said.starts_with("172.16.1.3 moved to web-1 on n1 in "), "{said}");
    assert!(said.ends_with(", epoch 8\n"), "{said}");
    let again = place.done(&["fip", "move", "172.16.1.3", "--to", "web-1", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Json>(&again).unwrap()["changed"], false);
}

#[test]
fn a_move_that_nobody_fulfils_fails_and_the_wish_stands() {
    let place = Place::new();
    place.bind("172.16.1.3", &["web-0", "web-1"]);
    let late = place.run(&["fip", "move", "172.16.1.3", "--to", "web-1", "--timeout", "100ms"]);
    assert_eq!(late.code, 1);
    assert!(late.err.contains("the wish stands"), "{late:?}");
    let wish = place.binding("172.16.1.3").spec.requested_move.unwrap();
    assert_eq!((wish.to.workload.as_str(), wish.exclusive), ("web-1", false));
    let drained = [
        "fip",
        "move",
        "172.16.1.3",
        "--to",
        "web-1",
        "--timeout",
        "10ms",
        "--drain",
        "30s",
        "--exclusive",
    ];
    assert_eq!(place.run(&drained).code, 1);
    let wish = place.binding("172.16.1.3").spec.requested_move.unwrap();
    assert_eq!((wish.drain.as_deref(), wish.exclusive), (Some("30s"), true));
    let wrong = place.run(&["fip", "move", "172.16.1.3", "--to", "web-1", "--drain", "soon"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("not a length of time: soon"), "{wrong:?}");
    let stranger = place.run(&["fip", "move", "172.16.1.3", "--to", "web-9", "--exclusive"]);
    assert_eq!(stranger.code, 1);
    assert!(
        stranger.err.contains("candidates are web-0 on n1, web-1 on n1"),
        "{stranger:?}"
    );
    let unbound = place.run(&["fip", "move", "172.16.1.4", "--to", "web-1"]);
    assert!(
        unbound.err.contains("nobody has floating IP: 172.16.1.4"),
        "{unbound:?}"
    );
}

#[test]
fn a_hold_is_ended_only_without_owner() {
    let place = Place::new();
    place.bind("172.16.1.3", &["web-0"]);
    place.bind("172.16.1.4", &[]);
    let owned = place.run(&["fip", "release", "172.16.1.3"]);
    assert_eq!(owned.code, 1);
    assert!(owned.err.contains("in use: 172.16.1.3: web-0 on n1"), "{owned:?}");
    assert_eq!(
        place.done(&["fip", "release", "172.16.1.4"]),
        "172.16.1.4 is no longer held for namespace shop\n"
    );
    let released = place.binding("172.16.1.4").spec.released.unwrap();
    assert_eq!(released, jiff::Timestamp::UNIX_EPOCH);
    let absent = place.run(&["fip", "release", "172.16.1.5"]);
    assert!(absent.err.contains("not held: 172.16.1.5"), "{absent:?}");
}

/// Answers one question as the agent.
fn answer(listener: &UnixListener, document: Json) -> Json {
    let (mut stream, _) = listener.accept().unwrap();
    let mut header = [0; frame::HEADER];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; frame::body_len(header).unwrap()];
    stream.read_exact(&mut body).unwrap();
    let response: Response = Ok(document);
    stream.write_all(&frame::encode(&response).unwrap()).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn why_asks_the_agent_and_without_one_the_datastore() {
    let place = Place::new();
    place.bind("172.16.1.3", &["web-0"]);
    let alone = place.run(&["fip", "why", "172.16.1.3"]);
    assert_eq!(alone.code, 0);
    assert!(
        alone
            .out
            .starts_with("172.16.1.3 fronts shop/web-0 (10.65.0.7) on n1"),
        "{alone:?}"
    );
    assert!(
        alone.err.contains("agent is not running") && alone.err.contains("this is what the datastore says")
    );

    let listener = UnixListener::bind(place.socket()).unwrap();
    let facts = json!([{"subject": "Pool fips", "says": "covers it"}]);
    let why = json!({"address": "172.16.1.3", "answer": "because", "facts": facts, "more": 1});
    let (asked, said) = thread::scope(|scope| {
        let agent = scope.spawn(|| answer(&listener, why));
        let said = place.done(&["fip", "why", "172.16.1.3"]);
        (agent.join().unwrap(), said)
    });
    assert_eq!(asked["body"], json!({"inspect": {"why": {"ip": "172.16.1.3"}}}));
    assert_eq!(said, "because\n\n  Pool fips  covers it\n");
}

#[test]
fn the_node_is_asked_over_the_socket() {
    let place = Place::new();
    let listener = UnixListener::bind(place.socket()).unwrap();
    let said = thread::scope(|scope| {
        scope.spawn(|| {
            answer(&listener, json!({"node": "n1", "synced": true}));
            answer(&listener, json!({"operations": ["put route 172.16.1.3"]}));
        });
        let status = place.done(&["node", "status"]);
        format!("{status}{}", place.done(&["node", "plan", "-o", "yaml"]))
    });
    assert!(said.starts_with("Node:           n1\n"), "{said}");
    assert!(said.ends_with("operations:\n- put route 172.16.1.3\n"), "{said}");
}
