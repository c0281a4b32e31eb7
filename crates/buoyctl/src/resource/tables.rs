//! A table for each kind, with calicoctl's columns.

use buoy_api::Binding;
use buoy_api::v3::{AssignmentMode, IpPool, IpReservation, Node, WorkloadEndpoint};
use buoy_core::store::Value;
use ipnet::IpNet;
use jiff::Timestamp;

use crate::age::age;
use crate::fip::state;
use crate::kind::{KindName, metadata};
use crate::table::Table;

/// Calico's AS number for a cluster that does not say otherwise.
const DEFAULT_AS: u32 = 64512;

/// The records as a table.
pub(super) fn table(
    kind: KindName,
    values: &[&Value],
    wide: bool,
    all_namespaces: bool,
    now: Timestamp,
) -> Table {
    let mut header = columns(kind, wide).to_vec();
    if all_namespaces {
        header.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(&header);
    for value in values {
        let mut cells = cells(value, wide, now);
        if all_namespaces {
            let namespace = metadata(value).and_then(|metadata| metadata.namespace.clone());
            cells.insert(0, namespace.unwrap_or_default());
        }
        table.row(cells);
    }
    table
}

fn columns(kind: KindName, wide: bool) -> &'static [&'static str] {
    match (kind, wide) {
        (KindName::Pool, false) => &["NAME", "CIDR", "SELECTOR"],
        (KindName::Pool, true) => &[
            "NAME",
            "CIDR",
            "NAT",
            "IPIPMODE",
            "VXLANMODE",
            "DISABLED",
            "DISABLEBGPEXPORT",
            "SELECTOR",
            "ASSIGNMENTMODE",
        ],
        (KindName::Reservation, true) => &["NAME", "CIDRS"],
        (KindName::Node, true) => &["NAME", "ASN", "IPV4", "IPV6"],
        (KindName::Endpoint, false) => &["WORKLOAD", "NODE", "NETWORKS", "INTERFACE"],
        (KindName::Endpoint, true) => &[
            "NAME",
            "WORKLOAD",
            "NODE",
            "NETWORKS",
            "INTERFACE",
            "PROFILES",
            "NATS",
        ],
        (KindName::Binding, false) => &["ADDRESS", "NAMESPACE", "OWNER", "NODE", "STATE", "EPOCH", "AGE"],
        (KindName::Binding, true) => &[
            "ADDRESS",
            "NAMESPACE",
            "OWNER",
            "NODE",
            "STATE",
            "EPOCH",
            "AGE",
            "INTERNAL",
            "STANDBY",
        ],
        (KindName::Reservation | KindName::Node, false) | (KindName::Felix | KindName::Profile, _) => {
            &["NAME"]
        }
    }
}

fn cells(value: &Value, wide: bool, now: Timestamp) -> Vec<String> {
    match value {
        Value::Pool(pool) => pool_cells(pool, wide),
        Value::Reservation(reservation) => reservation_cells(reservation),
        Value::Node(node) => node_cells(node),
        Value::Endpoint(endpoint) => endpoint_cells(endpoint, wide),
        Value::Felix(felix) => vec![felix.name().to_owned()],
        Value::Profile(profile) => vec![profile.name().to_owned()],
        Value::Binding(binding) => binding_cells(binding, wide, now),
        _ => Vec::new(),
    }
}

fn pool_cells(pool: &IpPool, wide: bool) -> Vec<String> {
    let spec = &pool.spec;
    let name = pool.name().to_owned();
    let cidr = spec.cidr.to_string();
    let selector = spec
        .node_selector
        .clone()
        .filter(|selector| !selector.is_empty())
        .unwrap_or_else(|| "all()".to_owned());
    if !wide {
        return vec![name, cidr, selector];
    }
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Never".to_owned());
    let assignment = match spec.assignment_mode {
        AssignmentMode::Automatic => "Automatic",
        AssignmentMode::Manual => "Manual",
    };
    vec![
        name,
        cidr,
        spec.nat_outgoing.to_string(),
        mode(&spec.ipip_mode),
        mode(&spec.vxlan_mode),
        spec.disabled.to_string(),
        spec.disable_bgp_export.to_string(),
        selector,
        assignment.to_owned(),
    ]
}

fn reservation_cells(reservation: &IpReservation) -> Vec<String> {
    vec![
        reservation.name().to_owned(),
        prefixes(&reservation.spec.reserved_cidrs),
    ]
}

fn node_cells(node: &Node) -> Vec<String> {
    let bgp = node.spec.bgp.clone().unwrap_or_default();
    let text = |address: Option<IpNet>| address.map_or_else(String::new, |address| address.to_string());
    vec![
        node.name().to_owned(),
        bgp.as_number
            .map_or_else(|| format!("({DEFAULT_AS})"), |number| number.to_string()),
        text(bgp.ipv4_address),
        text(bgp.ipv6_address),
    ]
}

fn endpoint_cells(endpoint: &WorkloadEndpoint, wide: bool) -> Vec<String> {
    let spec = &endpoint.spec;
    let mut cells = vec![
        crate::fip::workload_name(endpoint).to_owned(),
        spec.node.clone(),
        prefixes(&spec.ip_networks),
        spec.interface_name.clone(),
    ];
    if wide {
        cells.insert(0, endpoint.name().to_owned());
        cells.push(spec.profiles.join(","));
        let nats = spec
            .ip_nats
            .iter()
            .map(|nat| format!("{{{} {}}}", nat.internal_ip, nat.external_ip));
        cells.push(nats.collect::<Vec<_>>().join(","));
    }
    cells
}

fn binding_cells(binding: &Binding, wide: bool, now: Timestamp) -> Vec<String> {
    let spec = &binding.spec;
    let owner = spec.owner.as_ref();
    let of_owner = |field: fn(&buoy_api::Owner) -> String| owner.map_or_else(|| "-".to_owned(), field);
    let mut cells = vec![
        spec.address.to_string(),
        spec.namespace.clone(),
        of_owner(|owner| owner.workload.clone()),
        of_owner(|owner| owner.node.clone()),
        state(binding),
        spec.epoch.0.to_string(),
        age(binding.metadata.creation_timestamp, now),
    ];
    if wide {
        let standby = binding
            .status
            .candidates
            .iter()
            .filter(|candidate| !owner.is_some_and(|owner| candidate.is(owner)))
            .map(|candidate| format!("{}@{}", candidate.workload, candidate.node));
        let standby: Vec<String> = standby.collect();
        cells.push(of_owner(|owner| owner.internal_ip.to_string()));
        cells.push(if standby.is_empty() {
            "-".to_owned()
        } else {
            standby.join(",")
        });
    }
    cells
}

fn prefixes(list: &[IpNet]) -> String {
    list.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: KindName, yaml: &str) -> Value {
        crate::manifest::parse("test", yaml)
            .unwrap()
            .remove(0)
            .decode("demo")
            .map(|wanted| wanted.value)
            .unwrap_or_else(|failure| panic!("{} {failure}", kind.kind()))
    }

    fn show(kind: KindName, yaml: &str, wide: bool, all: bool) -> String {
        let now: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        table(kind, &[&value(kind, yaml)], wide, all, now).columns()
    }

    const POOL: &str = "{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: p},
        spec: {cidr: 10.65.0.0/16, natOutgoing: true, vxlanMode: CrossSubnet, assignmentMode: Manual}}";
    const ENDPOINT: &str = "{kind: WorkloadEndpoint, apiVersion: projectcalico.org/v3,
        metadata: {name: node--a-k8s-web--0-eth0},
        spec: {orchestrator: k8s, node: node-a, pod: web-0, endpoint: eth0, interfaceName: cali50aeaf5a85d,
               ipNetworks: [10.65.0.7/32, 'fd00::7/128'], profiles: [kns.demo, ksa.demo.default],
               ipNATs: [{internalIP: 10.65.0.7, externalIP: 10.70.0.1}]}}";

    #[test]
    fn pools() {
        assert_eq!(
            show(KindName::Pool, POOL, false, false),
            "NAME   CIDR           SELECTOR\np      10.65.0.0/16   all()\n"
        );
        assert_eq!(
            show(KindName::Pool, POOL, true, false),
            "\
NAME   CIDR           NAT    IPIPMODE   VXLANMODE     DISABLED   DISABLEBGPEXPORT   SELECTOR   ASSIGNMENTMODE
p      10.65.0.0/16   true   Never      CrossSubnet   false      false              all()      Manual
"
        );
    }

    #[test]
    fn endpoints() {
        assert_eq!(
            show(KindName::Endpoint, ENDPOINT, false, true),
            "\
NAMESPACE   WORKLOAD   NODE     NETWORKS                   INTERFACE
demo        web-0      node-a   10.65.0.7/32,fd00::7/128   cali50aeaf5a85d
"
        );
        let wide = show(KindName::Endpoint, ENDPOINT, true, false);
        assert!(
            wide.starts_with("NAME                      WORKLOAD   NODE "),
            "{wide}"
        );
        assert!(
            wide.ends_with("kns.demo,ksa.demo.default   {10.65.0.7 10.70.0.1}\n"),
            "{wide}"
        );
    }

    #[test]
    fn nodes_and_reservations() {
        let node = "{kind: Node, apiVersion: projectcalico.org/v3, metadata: {name: n1},
            spec: {bgp: {ipv4Address: 192.0.2.1/24}}}";
        assert_eq!(
            show(KindName::Node, node, true, false),
            "NAME   ASN       IPV4           IPV6\nn1     (64512)   192.0.2.1/24\n"
        );
        assert_eq!(show(KindName::Node, node, false, false), "NAME\nn1\n");
        let reservation = "{kind: IPReservation, apiVersion: projectcalico.org/v3, metadata: {name: r},
            spec: {reservedCIDRs: [10.65.0.0/30, 10.65.9.0/24]}}";
        assert_eq!(
            show(KindName::Reservation, reservation, true, false),
            "NAME   CIDRS\nr      10.65.0.0/30,10.65.9.0/24\n"
        );
    }

    #[test]
    fn bindings() {
        let owner = "{node: n1, workload: web-0, endpoint: eth0, internalIP: 10.65.0.7, uid: u0, term: 1}";
        let candidate = |workload: &str, uid: &str| {
            format!(
                "{{node: n1, workload: {workload}, endpoint: eth0, uid: {uid}, internalIP: 10.65.0.7, ready: true, \
                 since: 2026-01-01T00:00:00Z}}"
            )
        };
        let yaml = format!(
            "{{kind: FloatingIPBinding, apiVersion: buoy.dev/v1alpha1, metadata: {{name: 172-16-1-3}},
              spec: {{address: 172.16.1.3, namespace: shop, owner: {owner}, epoch: 7}},
              status: {{candidates: [{}, {}]}}}}",
            candidate("web-0", "u0"),
            candidate("web-1", "u1")
        );
        assert_eq!(
            show(KindName::Binding, &yaml, true, false),
            "\
ADDRESS      NAMESPACE   OWNER   NODE   STATE   EPOCH   AGE   INTERNAL    STANDBY
172.16.1.3   shop        web-0   n1     Owned   7       -     10.65.0.7   web-1@n1
"
        );
    }
}
