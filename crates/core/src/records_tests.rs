use std::collections::BTreeMap;

use super::*;
use crate::fixtures::{floating, node as node_record, pod, record};

fn put_endpoint(change: Change) -> WorkloadEndpoint {
    let Change::Put(value) = change else {
        panic!("{change:?}")
    };
    let Value::Endpoint(record) = *value else {
        panic!("{value:?}")
    };
    record
}

fn put_node(change: Change) -> Node {
    let Change::Put(value) = change else {
        panic!("{change:?}")
    };
    let Value::Node(record) = *value else {
        panic!("{value:?}")
    };
    record
}

#[test]
fn a_new_record_says_what_the_attachment_is() {
    let mut attachment = pod("web-0", 7);
    attachment.addresses = Some(vec![
        "10.65.0.7/26".parse().unwrap(),
        "fd65::7/122".parse().unwrap(),
    ]);
    attachment.request.floating = vec![floating("172.16.1.3"), floating("2001:db8::1")];
    attachment.request.mac = Some([2, 0, 0, 0, 0xab, 1]);
    attachment.request.labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let record = put_endpoint(published(None, &attachment, "n1"));
    assert_eq!(record.name(), "n1-k8s-web--0-eth0");
    assert_eq!(record.metadata.labels, attachment.request.labels);
    let spec = record.spec;
    let said = [
        &spec.node,
        &spec.container_id,
        &spec.pod,
        &spec.endpoint,
        &spec.interface_name,
        &spec.mac,
    ];
    assert_eq!(
        said,
        [
            "n1",
            "c-web-0",
            "web-0",
            "eth0",
            "cali-web-0",
            "02:00:00:00:ab:01"
        ]
    );
    assert_eq!(spec.profiles, ["kns.shop"]);
    let networks: Vec<String> = spec.ip_networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.65.0.7/32", "fd65::7/128"]);
    let nats: Vec<_> = spec
        .ip_nats
        .iter()
        .map(|n| (n.internal_ip.as_str(), n.external_ip.as_str()))
        .collect();
    assert_eq!(nats, [("10.65.0.7", "172.16.1.3"), ("fd65::7", "2001:db8::1")]);
}

#[test]
fn outside_kubernetes_there_is_no_pod_and_the_profile_is_the_networks() {
    let mut attachment = pod("c0ffee", 7);
    attachment.request.orchestrator = "cni".to_owned();
    let spec = put_endpoint(published(None, &attachment, "n1")).spec;
    assert_eq!((spec.pod.as_str(), spec.profiles), ("", vec!["net".to_owned()]));
}

#[test]
fn a_record_of_its_own_container_is_left_as_people_edited_it() {
    let attachment = pod("web-0", 7);
    let edited = Value::Endpoint(record(&attachment, &[("10.65.0.7", "172.16.1.9")]));
    assert_eq!(published(Some(&edited), &attachment, "n1"), Change::Keep);
}

#[test]
fn a_record_of_an_earlier_container_is_written_anew_under_its_identity() {
    let attachment = pod("web-0", 7);
    let mut before = record(&attachment, &[("10.65.0.6", "172.16.1.9")]);
    before.spec.container_id = "c-before".to_owned();
    before.metadata.uid = Some("u1".to_owned());
    let after = put_endpoint(published(Some(&Value::Endpoint(before)), &attachment, "n1"));
    assert_eq!(after.spec.container_id, "c-web-0");
    assert_eq!(after.metadata.uid.as_deref(), Some("u1"));
    assert_eq!(
        after.spec.ip_nats,
        vec![IpNat::new(
            "10.65.0.7".parse().unwrap(),
            "172.16.1.3".parse().unwrap()
        )]
    );
}

#[test]
fn a_record_that_names_another_node_is_mended() {
    let attachment = pod("web-0", 7);
    let mut strayed = record(&attachment, &[]);
    strayed.spec.node = "n2".to_owned();
    assert_eq!(
        put_endpoint(published(Some(&Value::Endpoint(strayed)), &attachment, "n1"))
            .spec
            .node,
        "n1"
    );
}

#[test]
fn only_its_own_record_goes_with_an_attachment() {
    let attachment = pod("web-0", 7);
    let mut newer = record(&attachment, &[]);
    assert_eq!(
        retired(Some(&Value::Endpoint(newer.clone())), &attachment),
        Change::Delete
    );
    newer.spec.container_id = "c-newer".to_owned();
    assert_eq!(retired(Some(&Value::Endpoint(newer)), &attachment), Change::Keep);
    assert_eq!(retired(None, &attachment), Change::Keep);
}

#[test]
fn a_node_marks_its_record_and_keeps_what_people_wrote() {
    let v4: IpNet = "10.0.0.1/24".parse().unwrap();
    let made = put_node(node(None, "n1", "0.1.0", &[v4]));
    assert_eq!(
        made.metadata
            .annotations
            .get(annotations::AGENT)
            .map(String::as_str),
        Some("0.1.0")
    );
    assert_eq!(made.spec.bgp.as_ref().unwrap().ipv4_address, Some(v4));
    assert_eq!(node(Some(&Value::Node(made)), "n1", "0.1.0", &[v4]), Change::Keep);

    let mut people = node_record("n1", "10.0.0.7/24");
    people.spec.bgp.as_mut().unwrap().as_number = Some(64512);
    people.spec.bgp.as_mut().unwrap().ipv6_address = Some("fd00::7/64".parse().unwrap());
    people.metadata.labels = BTreeMap::from([("rack".to_owned(), "3".to_owned())]);
    let after = put_node(node(Some(&Value::Node(people.clone())), "n1", "0.1.0", &[v4]));
    let bgp = after.spec.bgp.unwrap();
    assert_eq!((bgp.ipv4_address, bgp.as_number), (Some(v4), Some(64512)));
    assert_eq!(bgp.ipv6_address, people.spec.bgp.unwrap().ipv6_address);
    assert_eq!(after.metadata.labels, people.metadata.labels);
}

#[test]
fn a_node_without_addresses_of_its_own_writes_none() {
    assert_eq!(put_node(node(None, "n1", "0.1.0", &[])).spec.bgp, None);
}

#[test]
fn a_store_is_made_ready_once() {
    let made = cluster(None, "guid-1");
    let Change::Put(value) = made else { panic!() };
    let Value::ClusterInformation(record) = *value.clone() else {
        panic!()
    };
    assert_eq!(
        (record.spec.cluster_guid.as_str(), record.spec.datastore_ready),
        ("guid-1", Some(true))
    );
    assert_eq!(cluster(Some(&value), "guid-2"), Change::Keep);
}
