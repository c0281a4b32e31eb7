use buoy_api::meta::ObjectMeta;
use buoy_api::v3::IpPoolSpec;

use super::*;

fn pool(name: &str, cidr: &str, change: impl FnOnce(&mut IpPool)) -> IpPool {
    let mut pool = IpPool::new(ObjectMeta::named(name), IpPoolSpec::new(cidr.parse().unwrap()));
    change(&mut pool);
    pool
}

fn pools() -> Vec<IpPool> {
    vec![
        pool("pool1", "10.65.0.0/16", |_| {}),
        pool("pool6", "fd00:65::/64", |_| {}),
        pool("rack", "10.70.0.0/24", |pool| {
            pool.spec.node_selector = Some("rack == 'b'".to_owned())
        }),
        pool("shop", "10.71.0.0/24", |pool| {
            pool.spec.namespace_selector = Some("projectcalico.org/name == 'shop'".to_owned());
        }),
        pool("manual", "10.72.0.0/24", |pool| {
            pool.spec.assignment_mode = AssignmentMode::Manual
        }),
        pool("tunonly", "10.69.0.0/24", |pool| {
            pool.spec.allowed_uses = vec![AllowedUse::Tunnel]
        }),
        pool("off", "10.68.0.0/24", |pool| pool.spec.disabled = true),
    ]
}

fn asker(rack: &str, namespace: &str) -> Asker {
    let label = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    Asker {
        host: "node1".to_owned(),
        node_labels: label("rack", rack),
        namespace_labels: label("projectcalico.org/name", namespace),
    }
}

fn names(pools: Vec<&IpPool>) -> Vec<&str> {
    pools.into_iter().map(IpPool::name).collect()
}

fn texts(wanted: &[&str]) -> Vec<String> {
    wanted.iter().map(|text| (*text).to_owned()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn unasked_only_open_pools_give() {
    let pools = pools();
    let automatic =
        |family, rack, namespace| names(automatic(&pools, family, &asker(rack, namespace)).unwrap());
    assert_eq!(automatic(Family::V4, "a", "default"), ["pool1"]);
    assert_eq!(automatic(Family::V4, "b", "shop"), ["pool1", "rack", "shop"]);
    assert_eq!(automatic(Family::V6, "a", "default"), ["pool6"]);
}

#[test]
fn with_no_pool_the_message_is_calicos() {
    let asker = asker("a", "default");
    let automatic = |pools: &[IpPool], family| automatic(pools, family, &asker).unwrap_err().to_string();
    let all = pools();
    assert_eq!(
        automatic(&all[..1], Family::V6),
        "cannot find a qualified ippool\nno enabled pool of this family: IPv6"
    );
    insta::assert_snapshot!(automatic(&all[2..5], Family::V4), @r#"
    no configured Calico pools for node node1
    IP pool "rack": its nodeSelector does not match node node1: rack == 'b'
    IP pool "shop": its namespaceSelector does not match the namespace: projectcalico.org/name == 'shop'
    IP pool "manual": its assignmentMode is Manual
    "#);
    insta::assert_snapshot!(automatic(&all[5..], Family::V4), @r#"
    cannot find a qualified ippool, no pools match the required use (Workload)
    IP pool "tunonly": which is not allowed for use "Workload" (allowedUses: [Tunnel])
    "#);
}

#[test]
fn pools_are_asked_for_by_name_or_prefix_and_their_rules_hold() {
    let pools = pools();
    let requested = |wanted: &[&str], rack| {
        let asker = asker(rack, "default");
        requested(&pools, Family::V4, &texts(wanted), &asker)
            .map(names)
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        requested(&["10.65.0.0/16", "manual", "pool1"], "a").unwrap(),
        ["pool1", "manual"]
    );
    assert_eq!(requested(&["rack"], "b").unwrap(), ["rack"]);
    assert_eq!(requested(&["rack", "pool1"], "a").unwrap(), ["pool1"]);
    assert_eq!(
        requested(&["rack"], "a").unwrap_err(),
        "IP pool \"rack\": its nodeSelector does not match node node1: rack == 'b'"
    );
    assert!(
        requested(&["rack", "shop"], "a")
            .unwrap_err()
            .starts_with("no configured Calico pools for node node1\n")
    );
    let first_line = |wanted: &str| {
        requested(&[wanted], "a")
            .unwrap_err()
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    for (wanted, message) in [
        (
            "nopool",
            "error parsing pool \"nopool\": invalid CIDR address: nopool",
        ),
        ("off", "error parsing pool \"off\": invalid CIDR address: off"),
        (
            "10.99.0.0/16",
            "the given pool (10.99.0.0/16) does not exist, or is not enabled",
        ),
        (
            "10.68.0.0/24",
            "the given pool (10.68.0.0/24) does not exist, or is not enabled",
        ),
        (
            "10.65.0.0/17",
            "the given pool (10.65.0.0/17) does not exist, or is not enabled",
        ),
        ("fd00::/64", "\"fd00::\" isn't a IPv4 address"),
        ("pool6", "\"fd00:65::\" isn't a IPv4 address"),
        (
            "tunonly",
            "cannot find a qualified ippool, no pools match the required use (Workload)",
        ),
    ] {
        assert_eq!(first_line(wanted), message);
    }
}

#[test]
fn chosen_addresses_obey_their_pool() {
    let pools = pools();
    let chosen = |address: &str, rack, namespace| {
        let found = for_address(&pools, ip(address), &asker(rack, namespace));
        found
            .map(|pool| pool.name().to_owned())
            .map_err(|error| error.to_string())
    };
    assert_eq!(chosen("10.72.0.9", "a", "default").unwrap(), "manual");
    assert_eq!(chosen("10.71.0.9", "a", "shop").unwrap(), "shop");
    assert_eq!(
        chosen("10.71.0.9", "a", "default").unwrap_err(),
        "IP address 10.71.0.9 is in IP pool \"shop\", its namespaceSelector does not match the namespace: \
         projectcalico.org/name == 'shop'"
    );
    assert!(
        chosen("10.70.0.9", "a", "shop")
            .unwrap_err()
            .contains("its nodeSelector does not match node node1")
    );
    assert_eq!(
        chosen("10.69.0.5", "a", "default").unwrap_err(),
        "IP address 10.69.0.5 is in IP pool \"tunonly\", which is not allowed for use \"Workload\" \
         (allowedUses: [Tunnel])"
    );
    for address in ["192.168.77.1", "10.68.0.5", "fd00::1"] {
        let message = chosen(address, "a", "default").unwrap_err();
        assert!(
            message.starts_with("The provided IP address is not in a configured pool\n"),
            "{message}"
        );
    }
    assert!(
        chosen("10.68.0.5", "a", "default")
            .unwrap_err()
            .ends_with("its pool is disabled")
    );
}

#[test]
fn floating_ips_come_from_ranges_that_are_set_aside() {
    let mut pools = pools();
    let floating = |pools: &[IpPool], address: &str| {
        let found = for_floating(pools, ip(address), &asker("a", "shop").namespace_labels);
        found
            .map(|pool| pool.name().to_owned())
            .map_err(|error| error.to_string())
    };
    for (address, name) in [
        ("10.65.1.1", "pool1"),
        ("10.70.0.1", "rack"),
        ("10.71.0.1", "shop"),
        ("10.72.0.1", "manual"),
        ("10.68.0.1", "off"),
    ] {
        assert_eq!(floating(&pools, address).unwrap(), name);
    }
    assert!(
        floating(&pools, "10.69.0.1")
            .unwrap_err()
            .contains("allowedUses: [Tunnel]")
    );
    assert!(
        floating(&pools, "192.0.2.1")
            .unwrap_err()
            .contains("no pool covers it")
    );
    let nobody = for_floating(&pools, ip("10.71.0.1"), &Labels::new()).unwrap_err();
    assert!(nobody.to_string().contains("namespaceSelector"));

    let says = |pool: &mut IpPool, text: &str| {
        pool.metadata
            .annotations
            .insert(FLOATING_ANNOTATION.to_owned(), text.to_owned());
    };
    says(&mut pools[0], "Deny");
    assert!(
        floating(&pools, "10.65.1.1")
            .unwrap_err()
            .ends_with("its annotation buoy.dev/floatingIPs says Deny")
    );
    says(&mut pools[0], "Only");
    assert_eq!(floating(&pools, "10.65.1.1").unwrap(), "pool1");
    assert!(automatic(&pools, Family::V4, &asker("a", "default")).is_err());
    let own = for_address(&pools, ip("10.65.1.1"), &asker("a", "default"));
    assert_eq!(
        own.unwrap_err().to_string(),
        "IP address 10.65.1.1 is in IP pool \"pool1\", it is for floating IPs only\n\
         ask for an address of another pool, or change its annotation buoy.dev/floatingIPs"
    );
}

#[test]
fn a_pool_that_is_wrong_hides_no_other() {
    let mut pools = pools();
    pools[2].spec.node_selector = Some("rack ==".to_owned());
    pools.push(pool("vast", "fd00:66::/64", |pool| {
        pool.spec.block_size = Some(65)
    }));
    pools.push(pool("small", "10.73.0.0/28", |_| {}));
    let asker = asker("b", "default");
    assert_eq!(names(automatic(&pools, Family::V4, &asker).unwrap()), ["pool1"]);
    assert_eq!(names(automatic(&pools, Family::V6, &asker).unwrap()), ["pool6"]);
    let message = |address: &str| for_address(&pools, ip(address), &asker).unwrap_err().to_string();
    assert!(
        message("10.70.0.1").contains("its nodeSelector is wrong: selector does not parse at character 8")
    );
    assert!(message("fd00:66::1").contains("its blockSize does not fit fd00:66::/64: 65"));
    assert!(message("10.73.0.1").contains("its blockSize does not fit 10.73.0.0/28: 26"));
}

#[test]
fn of_overlapping_pools_the_enabled_one_covers() {
    let pools = [
        pool("old", "10.0.0.0/16", |pool| pool.spec.disabled = true),
        pool("new", "10.0.0.0/17", |_| {}),
    ];
    assert_eq!(covering(&pools, ip("10.0.0.1")).unwrap().name(), "new");
    assert_eq!(covering(&pools, ip("10.0.200.1")).unwrap().name(), "old");
}
