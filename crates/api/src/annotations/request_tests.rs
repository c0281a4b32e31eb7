use proptest::prelude::*;

use super::*;
use crate::annotations::{MAX_DRAIN, MAX_FLOATING_IPS, MAX_VALUE};

fn parse(pairs: &[(&str, &str)]) -> Result<PodRequest, AnnotationErrors> {
    let annotations = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    PodRequest::parse(&annotations)
}

fn message(name: &str, value: &str) -> String {
    parse(&[(name, value)]).unwrap_err().to_string()
}

#[test]
fn everything_that_can_be_asked() {
    let request = parse(&[
        (IP_ADDRS, r#"["fd00::9", "10.65.0.9"]"#),
        (FLOATING_IPS, r#"["10.70.0.1","2001:db8::1","10.70.0.1"]"#),
        (IPV4_POOLS, r#"["pool-a","10.65.0.0/16"]"#),
        (IPV6_POOLS, "[]"),
        (IP_FAMILIES, r#"["IPv6","IPv4"]"#),
        (HW_ADDR, "0A:1b:2c:3d:4e:5f"),
        (ALLOWED_SOURCE_PREFIXES, r#"["10.1.2.3/24"]"#),
        (FLOATING_IP_PRIORITY, "-7"),
        (FLOATING_IP_MOVE, "exclusive"),
        (FLOATING_IP_DRAIN, "1m30s"),
        ("example.org/else", "{"),
    ])
    .unwrap();
    let expected = PodRequest {
        ip_addrs: Some(vec!["10.65.0.9".parse().unwrap(), "fd00::9".parse().unwrap()]),
        ip_addrs_no_ipam: None,
        floating_ips: vec!["10.70.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        ipv4_pools: Some(vec!["pool-a".to_owned(), "10.65.0.0/16".to_owned()]),
        ipv6_pools: Some(Vec::new()),
        ip_families: Some(BTreeSet::from(Family::ALL)),
        hw_addr: Some([0x0a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f]),
        allowed_source_prefixes: vec!["10.1.2.0/24".parse().unwrap()],
        priority: -7,
        exclusive_move: true,
        drain: Duration::from_secs(90),
    };
    assert_eq!(request, expected);
}

#[test]
fn an_empty_value_is_an_absent_one() {
    let request = parse(&[
        (IP_ADDRS, ""),
        (FLOATING_IPS, ""),
        (HW_ADDR, ""),
        (FLOATING_IP_DRAIN, ""),
    ]);
    assert_eq!(request, Ok(PodRequest::default()));
    assert_eq!(parse(&[(FLOATING_IPS, "[]")]), Ok(PodRequest::default()));
}

#[test]
fn what_is_wrong_names_the_annotation_and_says_what_to_do() {
    for (name, value, begins) in [
        (IP_ADDRS, "10.0.0.1", "not a JSON list of strings: "),
        (IP_ADDRS, "[1]", "not a JSON list of strings: "),
        (IP_ADDRS, "[]", "specified but empty"),
        (IP_ADDRS, r#"["x"]"#, "invalid IP format: x"),
        (IP_ADDRS, r#"["10.0.0.1/32"]"#, "invalid IP format: 10.0.0.1/32"),
        (
            IP_ADDRS,
            r#"["10.0.0.1","10.0.0.2"]"#,
            "cannot have more than one IPv4 address",
        ),
        (
            IP_ADDRS_NO_IPAM,
            r#"["::1:1","::1:2"]"#,
            "cannot have more than one IPv6 address",
        ),
        (
            FLOATING_IPS,
            r#"["::ffff:10.0.0.1"]"#,
            "IPv4-mapped IPv6 address: ::ffff:10.0.0.1",
        ),
        (
            FLOATING_IPS,
            r#"["224.0.0.1"]"#,
            "not a unicast address that can be routed: 224.0.0.1",
        ),
        (IP_FAMILIES, r#"["ipv4"]"#, "unknown IP family: ipv4"),
        (IP_FAMILIES, "[]", "specified but empty"),
        (
            HW_ADDR,
            "01:00:5e:00:00:01",
            "not the MAC address of an interface: ",
        ),
        (HW_ADDR, "0a:1b", "not the MAC address of an interface: 0a:1b"),
        (
            ALLOWED_SOURCE_PREFIXES,
            r#"["10.0.0.1"]"#,
            "not a prefix: 10.0.0.1",
        ),
        (FLOATING_IP_PRIORITY, "high", "not a whole number: high"),
        (FLOATING_IP_MOVE, "never", "unknown way to move: never"),
        (FLOATING_IP_DRAIN, "soon", "not a length of time: soon"),
        (FLOATING_IP_DRAIN, "-5s", "not a length of time: -5s"),
        (FLOATING_IP_DRAIN, "3601s", "too long: 3601s"),
    ] {
        let message = message(name, value);
        assert!(message.starts_with(&format!("{name}: {begins}")), "{message}");
    }
    let hinted = message(FLOATING_IP_MOVE, "never");
    assert_eq!(
        hinted.lines().nth(1),
        Some("write exclusive, or leave the annotation out")
    );
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let errors = parse(&[
        (IP_ADDRS, r#"["10.0.0.1"]"#),
        (IP_ADDRS_NO_IPAM, r#"["10.0.0.2"]"#),
        (HW_ADDR, "?"),
    ])
    .unwrap_err();
    let named: Vec<&str> = errors.iter().map(|error| error.annotation).collect();
    assert_eq!(named, [HW_ADDR, IP_ADDRS]);
    assert!(errors.iter().any(|error| error.problem == Problem::BothKinds));
}

#[test]
fn limits_hold_at_their_edge() {
    let list = |n: usize| {
        let addresses: Vec<String> = (0..n).map(|i| format!("10.70.1.{i}")).collect();
        serde_json::to_string(&addresses).unwrap()
    };
    assert_eq!(
        parse(&[(FLOATING_IPS, &list(32))]).unwrap().floating_ips.len(),
        32
    );
    assert!(message(FLOATING_IPS, &list(33)).contains("too many floating IPs: 33"));
    let padded = |n: usize| format!("{:<n$}", "[]");
    assert!(parse(&[(FLOATING_IPS, &padded(MAX_VALUE))]).is_ok());
    assert_eq!(parse(&[(FLOATING_IP_DRAIN, "1h")]).unwrap().drain, MAX_DRAIN);
    assert!(message(FLOATING_IPS, &padded(MAX_VALUE + 1)).contains("value is too long: 16385 bytes"));
}

proptest! {
    #[test]
    fn no_value_panics(values in proptest::collection::vec(
        prop_oneof!["\\PC*", r#"\["[0-9a-f:./]{0,20}"(,"[0-9a-f:.]{0,20}")*\]"#, "[0-9a-f:-]{0,20}"],
        11,
    )) {
        let names = [
            IP_ADDRS, IP_ADDRS_NO_IPAM, FLOATING_IPS, IPV4_POOLS, IPV6_POOLS, IP_FAMILIES, HW_ADDR,
            ALLOWED_SOURCE_PREFIXES, FLOATING_IP_PRIORITY, FLOATING_IP_MOVE, FLOATING_IP_DRAIN,
        ];
        let annotations = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
        if let Ok(request) = PodRequest::parse(&annotations) {
            prop_assert!(request.floating_ips.len() <= MAX_FLOATING_IPS);
            prop_assert!(request.ip_addrs.is_none_or(|list| (1..=2).contains(&list.len())));
        }
    }
}
