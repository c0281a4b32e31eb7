//! Names that are computed from other names: links, records, handles. They must come out exactly as Calico's, where
//! Calico has them, because both find each other's work by name.

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use sha1::{Digest, Sha1};

/// Begins the name of every workload link.
pub const LINK_PREFIX: &str = "cali";

/// Begins the ID of the IPAM handle that reserves a floating IP.
pub const FLOATING_HANDLE_PREFIX: &str = "buoy-fip-";

/// Begins the name under which a node's agent owns its part of a status.
const FIELD_MANAGER_PREFIX: &str = "node.buoy.dev/";

/// Begins the name of a Kubernetes namespace's profile.
const NAMESPACE_PROFILE_PREFIX: &str = "kns.";

/// Longest DNS-1123 label, in bytes.
const MAX_LABEL: usize = 63;

/// Longest DNS-1123 subdomain, in bytes.
const MAX_SUBDOMAIN: usize = 253;

/// Characters of a hash or container ID that follow [`LINK_PREFIX`]: together the kernel's 15.
const LINK_SUFFIX: usize = 11;

/// The link of a Kubernetes pod on its node. It depends on the pod's *name* only: a pod made again under the same
/// name has the same link name.
pub fn pod_link(namespace: &str, pod: &str) -> String {
    let mut digest = sha1_hex(&format!("{namespace}.{pod}"));
    digest.truncate(LINK_SUFFIX);
    format!("{LINK_PREFIX}{digest}")
}

/// The link of a container that is no Kubernetes pod.
pub fn container_link(container_id: &str) -> String {
    LINK_PREFIX
        .chars()
        .chain(container_id.chars().take(LINK_SUFFIX))
        .collect()
}

/// The MAC address of a workload that asks for none: it follows from container and interface, so that asking again gives
/// the same. Locally administered and unicast.
pub fn workload_mac(container_id: &str, ifname: &str) -> [u8; 6] {
    let digest = Sha1::digest(format!("{container_id}/{ifname}").as_bytes());
    let mut mac = [0; 6];
    mac.copy_from_slice(&digest[..6]);
    mac[0] = (mac[0] & 0xfc) | 0x02;
    mac
}

/// Who runs a workload, as the name of its endpoint says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Orchestrator {
    /// Kubernetes: the workload is named by its pod.
    K8s,
    /// Any other user of CNI: the workload is named by its container.
    Cni,
}

impl Orchestrator {
    /// As in `spec.orchestrator` of a workload endpoint.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::K8s => "k8s",
            Self::Cni => "cni",
        }
    }
}

impl FromStr for Orchestrator {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "k8s" => Ok(Self::K8s),
            "cni" => Ok(Self::Cni),
            _ => Err(NameError::Orchestrator(text.to_owned())),
        }
    }
}

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part of an endpoint's name is empty, or begins or ends with `-`, or holds a character that no key can hold.
    #[error(
        "not usable in the name of a workload endpoint: {0:?}\nit must not be empty, begin or end with '-', or hold '/' or white space"
    )]
    Segment(String),
    /// Neither `k8s` nor `cni`.
    #[error("unknown orchestrator: {0:?}\nuse k8s or cni")]
    Orchestrator(String),
    /// Not four parts.
    #[error(
        "not the name of a workload endpoint: {0:?}\nwrite <node>-k8s-<pod>-<interface> or <node>-cni-<container>-<interface>, with every '-' inside a part doubled"
    )]
    Shape(String),
}

/// The name of a workload endpoint: `<node>-k8s-<pod>-<endpoint>` or `<node>-cni-<container>-<endpoint>`, with every
/// dash inside a part doubled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName {
    node: String,
    orchestrator: Orchestrator,
    workload: String,
    endpoint: String,
}

impl EndpointName {
    /// The name of an endpoint; `workload` is a pod's name or a container's ID, `endpoint` the interface inside it.
    ///
    /// Error: a part that cannot be told apart from its neighbours once joined.
    pub fn new(
        node: &str,
        orchestrator: Orchestrator,
        workload: &str,
        endpoint: &str,
    ) -> Result<Self, NameError> {
        for segment in [node, workload, endpoint] {
            check_segment(segment)?;
        }
        Ok(Self {
            node: node.to_owned(),
            orchestrator,
            workload: workload.to_owned(),
            endpoint: endpoint.to_owned(),
        })
    }

    /// Node the workload runs on.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Who runs it.
    pub fn orchestrator(&self) -> Orchestrator {
        self.orchestrator
    }

    /// Pod name or container ID.
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// Interface inside the workload.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let double = |segment: &str| segment.replace('-', "--");
        write!(
            f,
            "{}-{}-{}-{}",
            double(&self.node),
            self.orchestrator.as_str(),
            double(&self.workload),
            double(&self.endpoint)
        )
    }
}

impl FromStr for EndpointName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let shape = || NameError::Shape(text.to_owned());
        let segments = split_segments(text).ok_or_else(shape)?;
        let [node, orchestrator, workload, endpoint] = segments.as_slice() else {
            return Err(shape());
        };
        Self::new(node, orchestrator.parse()?, workload, endpoint)
    }
}

/// Splits at single dashes and halves doubled ones. `None` where that has no single meaning.
fn split_segments(text: &str) -> Option<Vec<String>> {
    let mut segments = vec![String::new()];
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest.find('-').unwrap_or(rest.len());
        let (word, tail) = rest.split_at(plain);
        let dashes = tail.bytes().take_while(|byte| *byte == b'-').count();
        segments.last_mut()?.push_str(word);
        match dashes {
            1 => segments.push(String::new()),
            even if even % 2 == 0 => segments.last_mut()?.push_str(&"-".repeat(even / 2)),
            _ => return None,
        }
        rest = &tail[dashes..];
    }
    Some(segments)
}

fn check_segment(segment: &str) -> Result<(), NameError> {
    let unusable = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if segment.is_empty() || segment.starts_with('-') || segment.ends_with('-') || segment.contains(unusable)
    {
        return Err(NameError::Segment(segment.to_owned()));
    }
    Ok(())
}

/// The name of the binding of a floating IP: `172-16-1-3`; IPv6 with all eight groups, `2001-db8-0-0-0-0-0-1`.
pub fn binding_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.octets().map(|octet| octet.to_string()).join("-"),
        IpAddr::V6(v6) => v6.segments().map(|group| format!("{group:x}")).join("-"),
    }
}

/// The address that a binding's name stands for; `None` for every spelling but the canonical one.
pub fn address_of_binding(name: &str) -> Option<IpAddr> {
    let groups: Vec<&str> = name.split('-').collect();
    let address = match groups.len() {
        4 => IpAddr::V4(Ipv4Addr::from_str(&groups.join(".")).ok()?),
        8 => IpAddr::V6(Ipv6Addr::from_str(&groups.join(":")).ok()?),
        _ => return None,
    };
    // Leading zeroes, capitals and IPv4-mapped addresses would give one address two records.
    (binding_name(address) == name && address.to_canonical() == address).then_some(address)
}

/// The object name of a prefix: `10.65.0.0/26` is `10-65-0-0-26`, `fd80::/122` is `fd80---122`.
pub fn cidr_name(prefix: &IpNet) -> String {
    prefix.to_string().replace(['.', ':', '/'], "-")
}

/// The prefix that an object's name stands for; `None` for every spelling but the canonical one.
pub fn cidr_of_name(name: &str) -> Option<IpNet> {
    let (address, length) = name.rsplit_once('-')?;
    let v4 = || Ipv4Addr::from_str(&address.replace('-', ".")).map(IpAddr::from);
    let v6 = || Ipv6Addr::from_str(&address.replace('-', ":")).map(IpAddr::from);
    let address = v4().or_else(|_| v6()).ok()?;
    let prefix = IpNet::new(address, length.parse().ok()?).ok()?;
    (prefix == prefix.trunc() && cidr_name(&prefix) == name).then_some(prefix)
}

/// The IPAM handle of a workload's own addresses.
pub fn workload_handle(network: &str, container_id: &str) -> String {
    format!("{network}.{container_id}")
}

/// The IPAM handle that reserves a floating IP.
pub fn floating_handle(address: IpAddr) -> String {
    format!("{FLOATING_HANDLE_PREFIX}{}", binding_name(address))
}

/// The floating IP that a handle reserves; `None` if it is another sort of handle.
pub fn address_of_floating_handle(handle: &str) -> Option<IpAddr> {
    address_of_binding(handle.strip_prefix(FLOATING_HANDLE_PREFIX)?)
}

/// The name under which a node's agent owns its part of a status in Kubernetes. A node's name that does not fit is replaced by
/// its SHA-1.
pub fn field_manager(node: &str) -> String {
    if node.len() <= MAX_LABEL {
        return format!("{FIELD_MANAGER_PREFIX}{node}");
    }
    format!("{FIELD_MANAGER_PREFIX}{}", sha1_hex(node))
}

/// The profile of a Kubernetes namespace.
pub fn namespace_profile(namespace: &str) -> String {
    format!("{NAMESPACE_PROFILE_PREFIX}{namespace}")
}

/// The namespace of such a profile; `None` if it is another's.
pub fn namespace_of_profile(profile: &str) -> Option<&str> {
    profile.strip_prefix(NAMESPACE_PROFILE_PREFIX)
}

/// Whether a text is a DNS-1123 label, as the names of Kubernetes namespaces are.
pub fn is_dns_label(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| is_lower_alphanumeric(*byte));
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LABEL
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| is_lower_alphanumeric(*byte) || *byte == b'-')
}

/// Whether a text is a DNS-1123 subdomain, as the names of Kubernetes objects are: labels joined by dots, which alone
/// are not bounded to 63 bytes.
pub fn is_dns_subdomain(text: &str) -> bool {
    let word = |part: &str| {
        part.bytes()
            .all(|byte| is_lower_alphanumeric(byte) || byte == b'-')
            && !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(word)
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn sha1_hex(text: &str) -> String {
    Sha1::digest(text.as_bytes())
        .iter()
        .fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_are_named_as_calico_names_them() {
        assert_eq!(pod_link("demo", "web-0"), "cali50aeaf5a85d");
        assert_eq!(container_link("0123456789abcdef"), "cali0123456789a");
        assert_eq!(container_link("short"), "calishort");
    }

    #[test]
    fn endpoint_names_double_their_dashes() {
        let name = EndpointName::new("node-a", Orchestrator::K8s, "web-0", "eth0").unwrap();
        assert_eq!(name.to_string(), "node--a-k8s-web--0-eth0");
        assert_eq!("node--a-k8s-web--0-eth0".parse(), Ok(name));
        let name = EndpointName::new("n1", Orchestrator::Cni, "c0ffee", "eth0").unwrap();
        assert_eq!(name.to_string(), "n1-cni-c0ffee-eth0");
    }

    #[test]
    fn an_endpoint_name_with_two_meanings_is_refused() {
        for (node, workload, endpoint) in [
            ("", "w", "e"),
            ("n-", "w", "e"),
            ("n", "-w", "e"),
            ("n", "w", "a/b"),
        ] {
            assert!(
                matches!(
                    EndpointName::new(node, Orchestrator::Cni, workload, endpoint),
                    Err(NameError::Segment(_))
                ),
                "{node} {workload} {endpoint}"
            );
        }
        for text in [
            "",
            "n-k8s-w",
            "n-k8s-w-e-x",
            "n---k8s-w-e",
            "-n-k8s-w-e",
            "n-k8s-w-e-",
        ] {
            assert!(text.parse::<EndpointName>().is_err(), "{text}");
        }
        assert_eq!(
            "n-lxc-w-e".parse::<EndpointName>(),
            Err(NameError::Orchestrator("lxc".to_owned()))
        );
    }

    #[test]
    fn a_binding_has_one_name() {
        for (address, name) in [
            ("172.16.1.3", "172-16-1-3"),
            ("2001:db8::1", "2001-db8-0-0-0-0-0-1"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(binding_name(address), name);
            assert_eq!(address_of_binding(name), Some(address));
            assert_eq!(
                address_of_floating_handle(&floating_handle(address)),
                Some(address)
            );
        }
        for text in [
            "",
            "172-16-1",
            "172-16-1-03",
            "172-16-1-256",
            "2001-DB8-0-0-0-0-0-1",
            "2001-0db8-0-0-0-0-0-1",
            "0-0-0-0-0-ffff-a00-1",
            "web-0-a-b",
        ] {
            assert_eq!(address_of_binding(text), None, "{text}");
        }
        assert_eq!(
            floating_handle("172.16.1.3".parse().unwrap()),
            "buoy-fip-172-16-1-3"
        );
        assert_eq!(address_of_floating_handle("net.172-16-1-3"), None);
    }

    #[test]
    fn prefixes_become_object_names() {
        for (prefix, name) in [("10.65.0.0/26", "10-65-0-0-26"), ("fd80::/122", "fd80---122")] {
            assert_eq!(cidr_name(&prefix.parse().unwrap()), name);
            assert_eq!(cidr_of_name(name), Some(prefix.parse().unwrap()));
        }
        for other in [
            "10-65-0-1-26",
            "10-65-0-0-026",
            "10-65-0-0",
            "FD80---122",
            "fd80-0---122",
            "a",
            "",
        ] {
            assert_eq!(cidr_of_name(other), None, "{other}");
        }
    }

    #[test]
    fn the_manager_of_a_long_node_name_is_its_hash() {
        assert_eq!(field_manager("n2"), "node.buoy.dev/n2");
        let long = field_manager(&"n".repeat(64));
        assert_eq!(long.len(), FIELD_MANAGER_PREFIX.len() + 40);
    }

    #[test]
    fn namespaces_have_profiles() {
        assert_eq!(namespace_profile("shop"), "kns.shop");
        assert_eq!(namespace_of_profile("kns.shop"), Some("shop"));
        assert_eq!(namespace_of_profile("ksa.shop.default"), None);
    }

    #[test]
    fn dns_names() {
        for good in ["a", "web-0", "0a"] {
            assert!(is_dns_label(good) && is_dns_subdomain(good), "{good}");
        }
        assert!(is_dns_subdomain("node.example.org"));
        for bad in ["", "-a", "a-", "A", "a_b", "ä", "a..b", ".a", "a."] {
            assert!(!is_dns_label(bad) && !is_dns_subdomain(bad), "{bad}");
        }
        assert!(!is_dns_label(&"a".repeat(64)));
        assert!(!is_dns_subdomain(&"a".repeat(254)));
    }

    proptest! {
        #[test]
        fn an_endpoint_name_reads_back(
            node in "[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?",
            workload in "[a-z0-9]([a-zA-Z0-9_.-]{0,12}[a-z0-9])?",
            k8s in any::<bool>(),
        ) {
            let orchestrator = if k8s { Orchestrator::K8s } else { Orchestrator::Cni };
            let name = EndpointName::new(&node, orchestrator, &workload, "eth0").unwrap();
            prop_assert_eq!(name.to_string().parse::<EndpointName>(), Ok(name));
        }

        #[test]
        fn any_text_is_a_name_or_an_error(text in "\\PC*") {
            if let Ok(name) = text.parse::<EndpointName>() {
                prop_assert_eq!(name.to_string(), text.clone());
            }
            if let Some(address) = address_of_binding(&text) {
                prop_assert_eq!(binding_name(address), text);
            }
        }

        #[test]
        fn every_address_reads_back_from_its_binding(bits in any::<u128>(), v4 in any::<u32>()) {
            let v6 = IpAddr::V6(Ipv6Addr::from(bits));
            prop_assert_eq!(address_of_binding(&binding_name(v6)), Some(v6));
            let v4 = IpAddr::V4(Ipv4Addr::from(v4));
            prop_assert_eq!(address_of_binding(&binding_name(v4)), Some(v4));
        }
    }
}
