//! A table for each kind, with calicoctl's columns.

use buoy_api::v3::{
    AssignmentMode, BgpConfiguration, BgpPeer, IpPool, IpReservation, Node, WorkloadEndpoint,
};
use buoy_api::{Binding, NodeLease};
use buoy_core::store::Value;
use ipnet::IpNet;
use jiff::Timestamp;

use crate::age::age;
use crate::fip::state;
use crate::kind::{KindName, metadata};
use crate::table::Table;

/// What a table depends on besides its records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// With every column.
    pub wide: bool,
    /// With a column for namespaces.
    pub all_namespaces: bool,
    /// AS number of nodes that have none of their own.
    pub as_number: u32,
    /// The time that ages are told at.
    pub now: Timestamp,
}

/// The records as a table.
pub(super) fn table(kind: KindName, values: &[&Value], setting: Setting) -> Table {
    let mut header = columns(kind, setting.wide).to_vec();
    if setting.all_namespaces {
        header.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(&header);
    for value in values {
        let mut cells = cells(value, setting);
        if setting.all_namespaces {
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
        (KindName::BgpPeer, _) => &["NAME", "PEERIP", "NODE", "ASN"],
        (KindName::BgpConfiguration, _) => &["NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"],
        (KindName::Lease, _) => &["NAME", "HOLDER", "TERM", "DURATION", "RENEWED"],
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

fn cells(value: &Value, setting: Setting) -> Vec<String> {
    let Setting {
        wide, as_number, now, ..
    } = setting;
    match value {
        Value::Pool(pool) => pool_cells(pool, wide),
        Value::Reservation(reservation) => reservation_cells(reservation),
        Value::Node(node) => node_cells(node, as_number),
        Value::Endpoint(endpoint) => endpoint_cells(endpoint, wide),
        Value::Felix(felix) => vec![felix.name().to_owned()],
        Value::Profile(profile) => vec![profile.name().to_owned()],
        Value::BgpPeer(peer) => peer_cells(peer),
        Value::BgpConfiguration(configuration) => configuration_cells(configuration),
        Value::Binding(binding) => binding_cells(binding, wide, now),
        Value::Lease(lease) => lease_cells(lease, now),
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

fn node_cells(node: &Node, as_number: u32) -> Vec<String> {
    let bgp = node.spec.bgp.clone().unwrap_or_default();
    let text = |address: Option<IpNet>| address.map_or_else(String::new, |address| address.to_string());
    vec![
        node.name().to_owned(),
        bgp.as_number
            .map_or_else(|| format!("({as_number})"), |number| number.to_string()),
        text(bgp.ipv4_address),
        text(bgp.ipv6_address),
    ]
}

fn peer_cells(peer: &BgpPeer) -> Vec<String> {
    let spec = &peer.spec;
    let nodes = [&spec.node, &spec.node_selector]
        .into_iter()
        .find(|text| !text.is_empty());
    vec![
        peer.name().to_owned(),
        spec.peer_ip.clone(),
        nodes.map_or_else(|| "(global)".to_owned(), String::clone),
        or_dash(spec.as_number),
    ]
}

fn configuration_cells(configuration: &BgpConfiguration) -> Vec<String> {
    let spec = &configuration.spec;
    vec![
        configuration.name().to_owned(),
        or_dash(spec.log_severity_screen.as_ref()),
        or_dash(spec.node_to_node_mesh_enabled),
        or_dash(spec.as_number),
    ]
}

fn lease_cells(lease: &NodeLease, now: Timestamp) -> Vec<String> {
    let spec = &lease.spec;
    vec![
        lease.name().to_owned(),
        or_dash(spec.holder.as_ref()),
        spec.term.0.to_string(),
        format!("{}s", spec.duration_seconds),
        age(spec.renewed, now),
    ]
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
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
        let setting = Setting {
            wide,
            all_namespaces: all,
            as_number: 64_600,
            now: "2026-01-01T00:05:00Z".parse().unwrap(),
        };
        table(kind, &[&value(kind, yaml)], setting).columns()
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
            "NAME   ASN       IPV4           IPV6\nn1     (64600)   192.0.2.1/24\n"
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
    fn peers() {
        for (spec, row) in [
            (
                "{peerIP: 192.0.2.1, asNumber: 64513}",
                "192.0.2.1   (global)   64513",
            ),
            (
                "{peerIP: 192.0.2.1, node: n1, asNumber: 64513}",
                "192.0.2.1   n1     64513",
            ),
            (
                "{peerIP: 192.0.2.1, nodeSelector: has(edge)}",
                "192.0.2.1   has(edge)   -",
            ),
        ] {
            let peer = format!(
                "{{kind: BGPPeer, apiVersion: projectcalico.org/v3, metadata: {{name: rack}}, spec: {spec}}}"
            );
            let shown = show(KindName::BgpPeer, &peer, false, false);
            assert!(shown.starts_with("NAME   PEERIP      NODE "), "{shown}");
            assert!(shown.ends_with(&format!("\nrack   {row}\n")), "{shown}");
            assert_eq!(show(KindName::BgpPeer, &peer, true, false), shown);
        }
    }

    #[test]
    fn the_settings_of_bgp() {
        let show_spec = |spec: &str| {
            let configuration = format!(
                "{{kind: BGPConfiguration, apiVersion: projectcalico.org/v3, metadata: {{name: default}}, spec: {spec}}}"
            );
            show(KindName::BgpConfiguration, &configuration, false, false)
        };
        assert_eq!(
            show_spec("{logSeverityScreen: Info, nodeToNodeMeshEnabled: false, asNumber: 64600}"),
            "\
NAME      LOGSEVERITY   MESHENABLED   ASNUMBER
default   Info          false         64600
"
        );
        assert_eq!(
            show_spec("{}"),
            "\
NAME      LOGSEVERITY   MESHENABLED   ASNUMBER
default   -             -             -
"
        );
    }

    #[test]
    fn leases() {
        let show_spec = |spec: &str| {
            let lease = format!(
                "{{kind: NodeLease, apiVersion: buoy.dev/v1alpha1, metadata: {{name: n1}}, spec: {spec}}}"
            );
            show(KindName::Lease, &lease, false, false)
        };
        assert_eq!(
            show_spec("{holder: a7f3, term: 4, durationSeconds: 6, renewed: 2026-01-01T00:04:58Z}"),
            "\
NAME   HOLDER   TERM   DURATION   RENEWED
n1     a7f3     4      6s         2s
"
        );
        assert_eq!(
            show_spec("{term: 5}"),
            "\
NAME   HOLDER   TERM   DURATION   RENEWED
n1     -        5      0s         -
"
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
