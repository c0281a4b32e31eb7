use super::*;

fn route(address: &str, link: &str) -> Row {
    let key = RouteKey::host(address.parse().unwrap(), OWN_METRIC);
    Row::Route(key, Hop::Link(IfName(link.to_owned())))
}

fn endpoint(name: &str) -> Subject {
    Subject::Endpoint(EndpointId {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    })
}

fn via(desired: &NodeDesired, link: &str) -> Vec<String> {
    desired
        .routes_via(&IfName(link.to_owned()))
        .map(|key| key.prefix.to_string())
        .collect()
}

#[test]
fn two_subjects_that_want_one_row_are_settled_by_their_order() {
    let (first, second) = (endpoint("a"), endpoint("b"));
    let rows = [
        (&first, route("10.65.0.7", "cali1")),
        (&second, route("10.65.0.7", "cali2")),
    ];
    let fill = |order: [usize; 2]| {
        let mut desired = NodeDesired::default();
        for at in order {
            desired.replace(rows[at].0, vec![rows[at].1.clone()]);
        }
        desired
    };
    let mut desired = fill([0, 1]);
    assert_eq!(desired, fill([1, 0]));
    let key = rows[0].1.key();
    assert_eq!(desired.get(&key), Some((&rows[0].1, &first)));
    assert_eq!(desired.replace(&first, Vec::new()), BTreeSet::from([key.clone()]));
    assert_eq!(desired.get(&key), Some((&rows[1].1, &second)));
}

#[test]
fn only_what_changes_is_said_to_change() {
    let mut desired = NodeDesired::default();
    let (seven, eight) = (route("10.65.0.7", "cali1"), route("10.65.0.8", "cali1"));
    let subject = endpoint("a");
    let keys = |rows: &[&Row]| rows.iter().map(|row| row.key()).collect::<BTreeSet<_>>();
    assert_eq!(
        desired.replace(&subject, vec![seven.clone(), eight.clone()]),
        keys(&[&seven, &eight])
    );
    assert_eq!(
        desired.replace(&subject, vec![eight.clone(), seven.clone()]),
        keys(&[])
    );
    assert_eq!(desired.replace(&subject, vec![eight.clone()]), keys(&[&seven]));
    assert_eq!(
        desired.keys_of(&subject).cloned().collect::<BTreeSet<_>>(),
        keys(&[&eight])
    );
    assert_eq!(
        desired.replace(&subject, vec![route("10.65.0.8", "cali2")]),
        keys(&[&eight])
    );
    assert_eq!(desired.replace(&subject, Vec::new()), keys(&[&eight]));
    assert_eq!(desired, NodeDesired::default());
}

#[test]
fn the_routes_of_a_link_are_known_by_it() {
    let mut desired = NodeDesired::default();
    desired.replace(&endpoint("a"), vec![route("10.65.0.7", "cali1")]);
    desired.replace(
        &endpoint("b"),
        vec![route("10.65.0.8", "cali1"), route("10.65.0.9", "cali2")],
    );
    assert_eq!(via(&desired, "cali1"), ["10.65.0.7/32", "10.65.0.8/32"]);
    desired.replace(&endpoint("b"), vec![route("10.65.0.8", "cali2")]);
    assert_eq!(via(&desired, "cali1"), ["10.65.0.7/32"]);
    assert_eq!(via(&desired, "cali2"), ["10.65.0.8/32"]);
    assert!(via(&desired, "cali3").is_empty());
}

#[test]
fn a_newer_epoch_is_preferred_within_the_range_of_floating_ips() {
    assert_eq!(floating_metric(Epoch(7)), 999_999_993);
    assert!(floating_metric(Epoch(8)) < floating_metric(Epoch(7)));
    for epoch in [u64::from(FLOATING_METRIC_RANGE), u64::MAX] {
        assert_eq!(
            floating_metric(Epoch(epoch)),
            FLOATING_METRIC_BASE - FLOATING_METRIC_RANGE
        );
    }
}

#[test]
fn keys_read_well() {
    let floating: FloatingIp = "172.16.1.3".parse().unwrap();
    for (key, text) in [
        (
            RowKey::Sysctl("net/ipv4/ip_forward".to_owned()),
            "sysctl net/ipv4/ip_forward",
        ),
        (RowKey::Link(IfName("cali1".to_owned())), "link cali1"),
        (route("fd65::7", "cali1").key(), "route fd65::7/128 metric 1024"),
        (RowKey::Nat(floating), "translation of 172.16.1.3"),
    ] {
        assert_eq!(key.to_string(), text);
    }
}
