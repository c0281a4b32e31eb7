use buoy_api::ip::Family;
use buoy_api::meta::ObjectMeta;
use buoy_api::v3::{FelixConfiguration, FelixConfigurationSpec};

use super::*;
use crate::fixtures::{FLOATING, candidate as expected, endpoint, floating, pod, pool, put, record, view};
use crate::store::Value;

fn web_0(view: &View) -> Result<Candidate, Refusal> {
    candidate(view, floating(FLOATING), &endpoint("web-0"))
}

fn felix(view: &mut View, says: &str) {
    let spec = FelixConfigurationSpec {
        floating_ips: Some(says.to_owned()),
        ..Default::default()
    };
    put(
        view,
        Value::Felix(FelixConfiguration::new(ObjectMeta::named("default"), spec)),
    );
}

#[test]
fn a_running_pod_that_asks_is_a_candidate() {
    let view = view();
    assert_eq!(web_0(&view), Ok(expected(&pod("web-0", 7))));
    assert_eq!(
        of(&view, floating(FLOATING), "shop"),
        vec![expected(&pod("web-0", 7))]
    );
    assert_eq!(of(&view, floating(FLOATING), "bank"), vec![]);
    assert_eq!(namespaces(&view, floating(FLOATING)), vec!["shop".to_owned()]);
}

#[test]
fn one_without_addresses_or_a_link_or_on_its_way_out_is_none() {
    for change in [
        (|a: &mut Attachment| a.addresses = None) as fn(&mut Attachment),
        |a| a.phase = crate::endpoint::Phase::Adding,
        |a| a.phase = crate::endpoint::Phase::Removing,
        |a| a.phase = crate::endpoint::Phase::Down,
        |a| a.request.link = false,
    ] {
        let mut view = view();
        let mut attachment = pod("web-0", 7);
        change(&mut attachment);
        view.put_attachment(attachment);
        assert_eq!(web_0(&view), Err(Refusal::NotRunning));
    }
}

#[test]
fn the_gate_is_open_if_the_network_or_felix_says_so_and_the_agent_overrides_both() {
    for (agent, network, felix_says, open) in [
        (Gate::Auto, true, "Disabled", true),
        (Gate::Auto, false, "Disabled", false),
        (Gate::Auto, false, "Enabled", true),
        (Gate::On, false, "Disabled", true),
        (Gate::Off, true, "Enabled", false),
    ] {
        let mut view = view();
        view.settings.floating = agent;
        let mut attachment = pod("web-0", 7);
        attachment.request.gate = network;
        view.put_attachment(attachment);
        felix(&mut view, felix_says);
        let is_open = web_0(&view) != Err(Refusal::GateOff);
        assert_eq!(is_open, open, "{agent:?} {network} {felix_says}");
    }
}

#[test]
fn an_address_of_a_family_that_the_pod_lacks_is_refused() {
    let mut view = view();
    put(&mut view, Value::Pool(pool("2001:db8::/64")));
    let six = floating("2001:db8::1");
    assert_eq!(
        candidate(&view, six, &endpoint("web-0")),
        Err(Refusal::NoAddressOfFamily(Family::V6))
    );
}

#[test]
fn the_request_may_name_which_of_the_pods_addresses_it_leads_to() {
    let mut two = pod("web-0", 7);
    two.addresses = Some(vec![
        "10.65.0.7/26".parse().unwrap(),
        "10.65.0.9/26".parse().unwrap(),
    ]);
    for (named, internal) in [
        ("10.65.0.9", "10.65.0.9"),
        ("10.65.0.7", "10.65.0.7"),
        ("10.65.0.99", "10.65.0.7"),
        ("?", "10.65.0.7"),
    ] {
        let mut view = view();
        view.put_attachment(two.clone());
        put(&mut view, Value::Endpoint(record(&two, &[(named, FLOATING)])));
        assert_eq!(web_0(&view).unwrap().internal_ip.to_string(), internal, "{named}");
    }
}

#[test]
fn a_pool_that_cannot_be_read_gives_nothing_and_takes_nothing_away() {
    let mut view = view();
    let key = crate::store::Key::Pool("floating".to_owned());
    view.apply(
        crate::store::Delta {
            key: key.clone(),
            revision: crate::store::Revision(5),
            value: None,
        },
        crate::time::Mono::default(),
    );
    crate::fixtures::spoil(&mut view, key);
    let refused = Refusal::PoolUnreadable {
        pool: "floating".to_owned(),
    };
    assert_eq!(web_0(&view), Err(refused.clone()));
    assert_eq!(
        refused.to_string(),
        "outside every IP pool that can be read, and floating cannot\nmend or delete IPPool floating"
    );
    let owner = expected(&pod("web-0", 7));
    put(&mut view, Value::Binding(crate::fixtures::binding(Some(&owner))));
    assert_eq!(web_0(&view), Ok(owner));
}
