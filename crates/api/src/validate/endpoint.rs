//! Rules of a WorkloadEndpoint.

use std::net::IpAddr;

use super::{Check, Invalid};
use crate::annotations::MAX_FLOATING_IPS;
use crate::ip::{Family, FloatingIp};
use crate::names::{self, EndpointName, Orchestrator};
use crate::v3::{IpNat, WorkloadEndpoint, WorkloadEndpointSpec};

/// Checks a WorkloadEndpoint.
pub fn workload_endpoint(endpoint: &WorkloadEndpoint) -> Result<(), Invalid> {
    let mut check = Check::default();
    let namespace = endpoint.metadata.namespace.as_deref().unwrap_or_default();
    if !names::is_dns_label(namespace) {
        check.fail(
            "metadata.namespace",
            &format!("not the name of a namespace: {namespace:?}"),
            "name the namespace of the workload",
        );
    }
    name(&mut check, endpoint);
    let spec = &endpoint.spec;
    for (index, network) in spec.ip_networks.iter().enumerate() {
        if network.prefix_len() != network.max_prefix_len() {
            check.fail(
                format!("spec.ipNetworks[{index}]"),
                &format!("not a single address: {network}"),
                &format!("write {}/{}", network.addr(), network.max_prefix_len()),
            );
        }
    }
    if spec.ip_nats.len() > MAX_FLOATING_IPS {
        check.fail(
            "spec.ipNATs",
            &format!("too many floating IPs: {}", spec.ip_nats.len()),
            &format!("a workload can have at most {MAX_FLOATING_IPS}"),
        );
    }
    for (index, nat) in spec.ip_nats.iter().enumerate() {
        ip_nat(&mut check, spec, index, nat);
    }
    check.finish::<WorkloadEndpointSpec>(&endpoint.metadata)
}

/// The name says node, orchestrator, workload and interface; the fields must say the same. Of orchestrators that are
/// neither Kubernetes nor CNI the name is their own affair.
fn name(check: &mut Check, endpoint: &WorkloadEndpoint) {
    let spec = &endpoint.spec;
    let Ok(orchestrator) = spec.orchestrator.parse::<Orchestrator>() else {
        if endpoint.name().is_empty() || endpoint.name().contains('/') {
            check.fail(
                "metadata.name",
                &format!("not a name: {:?}", endpoint.name()),
                "write one without '/'",
            );
        }
        return;
    };
    let (field, workload) = match orchestrator {
        Orchestrator::K8s => ("spec.pod", &spec.pod),
        Orchestrator::Cni => ("spec.containerID", &spec.container_id),
    };
    match EndpointName::new(&spec.node, orchestrator, workload, &spec.endpoint) {
        Err(error) => {
            check.told(format!("spec.node, {field} or spec.endpoint"), &error.to_string());
        }
        Ok(expected) if expected.to_string() != endpoint.name() => {
            check.fail(
                "metadata.name",
                &format!(
                    "does not fit spec.node, {field} and spec.endpoint: {:?}",
                    endpoint.name()
                ),
                &format!("name it {expected}"),
            );
        }
        Ok(_) => {}
    }
}

fn ip_nat(check: &mut Check, spec: &WorkloadEndpointSpec, index: usize, nat: &IpNat) {
    let field = |name: &str| format!("spec.ipNATs[{index}].{name}");
    let external = nat.external_ip.parse::<FloatingIp>();
    if let Err(error) = &external {
        check.fail(
            field("externalIP"),
            &error.to_string(),
            "name an address that can float",
        );
    }
    let Ok(internal) = nat.internal_ip.parse::<IpAddr>() else {
        check.fail(
            field("internalIP"),
            &format!("not an IP address: {}", nat.internal_ip),
            "name one of spec.ipNetworks",
        );
        return;
    };
    if !spec.ip_networks.iter().any(|network| network.addr() == internal) {
        check.fail(
            field("internalIP"),
            &format!("not an address of the workload: {internal}"),
            "name one of spec.ipNetworks",
        );
    }
    if let Ok(external) = external
        && external.family() != Family::of(internal)
    {
        check.fail(
            field("internalIP"),
            &format!("not of the family of {external}: {internal}"),
            "name the workload's own address of that family",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fields;
    use super::*;
    use crate::meta::ObjectMeta;

    fn endpoint() -> WorkloadEndpoint {
        let spec = WorkloadEndpointSpec {
            orchestrator: "k8s".to_owned(),
            node: "node-a".to_owned(),
            pod: "web-0".to_owned(),
            endpoint: "eth0".to_owned(),
            ip_networks: vec!["10.65.0.7/32".parse().unwrap(), "fd00::7/128".parse().unwrap()],
            ip_nats: vec![nat("10.65.0.7", "10.70.0.1"), nat("fd00::7", "2001:db8::1")],
            ..WorkloadEndpointSpec::default()
        };
        WorkloadEndpoint::new(ObjectMeta::namespaced("demo", "node--a-k8s-web--0-eth0"), spec)
    }

    fn nat(internal: &str, external: &str) -> IpNat {
        IpNat {
            internal_ip: internal.to_owned(),
            external_ip: external.to_owned(),
        }
    }

    #[test]
    fn requests_lead_to_the_workloads_own_address_of_the_same_family() {
        assert_eq!(workload_endpoint(&endpoint()), Ok(()));
        for (bad, field) in [
            (nat("10.65.0.7", "10.70.0.1/32"), "spec.ipNATs[0].externalIP"),
            (nat("<nil>", "10.70.0.1"), "spec.ipNATs[0].internalIP"),
            (nat("10.65.0.8", "10.70.0.1"), "spec.ipNATs[0].internalIP"),
            (nat("fd00::7", "10.70.0.1"), "spec.ipNATs[0].internalIP"),
        ] {
            let mut endpoint = endpoint();
            endpoint.spec.ip_nats = vec![bad];
            assert_eq!(fields(workload_endpoint(&endpoint)), [field]);
        }
    }

    #[test]
    fn the_name_says_what_the_fields_say() {
        let mut other = endpoint();
        other.metadata.name = "node-a-k8s-web-0-eth0".to_owned();
        let error = workload_endpoint(&other).unwrap_err();
        assert_eq!(error.problems[0].hint, "name it node--a-k8s-web--0-eth0");
        other.spec.pod = String::new();
        assert_eq!(
            fields(workload_endpoint(&other)),
            ["spec.node, spec.pod or spec.endpoint"]
        );
        other.spec.orchestrator = "openstack".to_owned();
        assert_eq!(workload_endpoint(&other), Ok(()));
        other.metadata = ObjectMeta::named("a/b");
        assert_eq!(
            fields(workload_endpoint(&other)),
            ["metadata.namespace", "metadata.name"]
        );
    }

    #[test]
    fn networks_are_single_addresses_and_requests_are_bounded() {
        let mut wide = endpoint();
        wide.spec.ip_networks[1] = "fd00::7/64".parse().unwrap();
        assert_eq!(fields(workload_endpoint(&wide)), ["spec.ipNetworks[1]"]);
        let mut many = endpoint();
        many.spec.ip_nats = (0..33)
            .map(|i| nat("10.65.0.7", &format!("10.70.0.{i}")))
            .collect();
        assert_eq!(fields(workload_endpoint(&many)), ["spec.ipNATs"]);
    }
}
