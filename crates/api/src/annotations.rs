//! Annotations of pods, pools and nodes: their names, and what a pod's say when it is added.
//!
//! What depends on other records (is the address in a pool, is it free) is not decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;

use crate::ip::{AddressError, Family, FloatingIp};

/// Chosen addresses of a pod, from IPAM: at most one of each family.
pub const IP_ADDRS: &str = "cni.projectcalico.org/ipAddrs";
/// Chosen addresses of a pod that IPAM does not know.
pub const IP_ADDRS_NO_IPAM: &str = "cni.projectcalico.org/ipAddrsNoIpam";
/// Floating IPs that a pod asks for.
pub const FLOATING_IPS: &str = "cni.projectcalico.org/floatingIPs";
/// Pools, by name or prefix, for the pod's IPv4 address.
pub const IPV4_POOLS: &str = "cni.projectcalico.org/ipv4pools";
/// Pools, by name or prefix, for the pod's IPv6 address.
pub const IPV6_POOLS: &str = "cni.projectcalico.org/ipv6pools";
/// Families of which the pod gets an address.
pub const IP_FAMILIES: &str = "cni.projectcalico.org/ipFamilies";
/// MAC address inside the pod.
pub const HW_ADDR: &str = "cni.projectcalico.org/hwAddr";
/// Prefixes the pod may send from besides its own addresses.
pub const ALLOWED_SOURCE_PREFIXES: &str = "cni.projectcalico.org/allowedSourcePrefixes";
/// Preference among the candidates of a floating IP: higher wins, 0 by default.
pub const FLOATING_IP_PRIORITY: &str = "buoy.dev/floatingIPPriority";
/// `exclusive`: when a floating IP leaves this pod it is withdrawn first and given afterwards.
pub const FLOATING_IP_MOVE: &str = "buoy.dev/floatingIPMove";
/// How long established flows go on after a floating IP has left this pod for another of its node, such as `30s`; at most
/// [`MAX_DRAIN`].
pub const FLOATING_IP_DRAIN: &str = "buoy.dev/floatingIPDrain";
/// On a BGPPeer, or on BGPConfiguration `default` for the mesh: `true` watches the sessions by BFD.
pub const BFD: &str = "buoy.dev/bfd";
/// On a BGPPeer, or on BGPConfiguration `default` for the mesh: hold time of the sessions, such as `9s`.
pub const BGP_HOLD_TIME: &str = "buoy.dev/holdTime";
/// On an IPPool: whether it takes floating IPs ([`FloatingUse`]).
pub const POOL_FLOATING_IPS: &str = "buoy.dev/floatingIPs";
/// On a Node: version of the agent that works there.
pub const AGENT: &str = "buoy.dev/agent";

/// On a WorkloadEndpoint that is a view of a pod: how the pod is ([`Readiness`]).
pub const READINESS: &str = "buoy.dev/readiness";

/// How a workload is, as whoever runs it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// It does not serve now.
    NotReady,
    /// It is being deleted.
    Going,
}

impl Readiness {
    /// The value of [`READINESS`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::NotReady => "NotReady",
            Self::Going => "Going",
        }
    }

    /// What a record's annotations say; `None` if nothing.
    pub fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let text = annotations.get(READINESS)?;
        let all = [Self::Ready, Self::NotReady, Self::Going];
        all.into_iter().find(|readiness| readiness.as_str() == text)
    }
}

/// Longest accepted value, in bytes.
pub const MAX_VALUE: usize = 16 * 1024;
/// Most floating IPs of one workload.
pub const MAX_FLOATING_IPS: usize = 32;
/// Longest time that flows go on after a move.
pub const MAX_DRAIN: Duration = Duration::from_secs(60 * 60);

/// What a pod's annotations ask of a CNI ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRequest {
    /// Chosen addresses, at most one of each family, never empty.
    pub ip_addrs: Option<Vec<IpAddr>>,
    /// The same, past IPAM. Never together with `ip_addrs`.
    pub ip_addrs_no_ipam: Option<Vec<IpAddr>>,
    /// Floating IPs in the order asked, each once.
    pub floating_ips: Vec<FloatingIp>,
    /// Names or prefixes of pools. An empty list restricts nothing, but beats the namespace's.
    pub ipv4_pools: Option<Vec<String>>,
    /// Names or prefixes of pools. An empty list restricts nothing, but beats the namespace's.
    pub ipv6_pools: Option<Vec<String>>,
    /// Families wanted, never empty.
    pub ip_families: Option<BTreeSet<Family>>,
    /// MAC address inside the pod: six octets, of one interface.
    pub hw_addr: Option<[u8; 6]>,
    /// Masked prefixes the pod may send from besides its own addresses.
    pub allowed_source_prefixes: Vec<IpNet>,
    /// Preference among candidates.
    pub priority: i32,
    /// Withdraw first, give afterwards.
    pub exclusive_move: bool,
    /// How long old flows go on after a move.
    pub drain: Duration,
}

impl PodRequest {
    /// Reads a pod's annotations; those of others are passed over, and an empty value is an absent one.
    ///
    /// Error: everything that is wrong, not only the first.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, AnnotationErrors> {
        let mut reader = Reader {
            annotations,
            errors: Vec::new(),
        };
        let request = Self {
            ip_addrs: reader.read(IP_ADDRS, chosen_addresses),
            ip_addrs_no_ipam: reader.read(IP_ADDRS_NO_IPAM, chosen_addresses),
            floating_ips: reader.read(FLOATING_IPS, floating_ips).unwrap_or_default(),
            ipv4_pools: reader.read(IPV4_POOLS, strings),
            ipv6_pools: reader.read(IPV6_POOLS, strings),
            ip_families: reader.read(IP_FAMILIES, families),
            hw_addr: reader.read(HW_ADDR, mac),
            allowed_source_prefixes: reader.read(ALLOWED_SOURCE_PREFIXES, prefixes).unwrap_or_default(),
            priority: reader.read(FLOATING_IP_PRIORITY, priority).unwrap_or_default(),
            exclusive_move: reader.read(FLOATING_IP_MOVE, exclusive).unwrap_or_default(),
            drain: reader.read(FLOATING_IP_DRAIN, drain).unwrap_or_default(),
        };
        if request.ip_addrs.is_some() && request.ip_addrs_no_ipam.is_some() {
            reader.fail(IP_ADDRS, Problem::BothKinds);
        }
        if reader.errors.is_empty() {
            Ok(request)
        } else {
            Err(AnnotationErrors(reader.errors))
        }
    }
}

/// Whether a pool takes floating IPs: the annotation [`POOL_FLOATING_IPS`] of an IPPool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatingUse {
    /// Yes, also where `allowedUses` says otherwise.
    Allow,
    /// No.
    Deny,
    /// Yes, and nothing else takes addresses from it.
    Only,
}

impl FloatingUse {
    /// What a pool's annotations say; `None` if they do not.
    pub fn of_pool(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, AnnotationError> {
        let mut reader = Reader {
            annotations,
            errors: Vec::new(),
        };
        let floating = reader.read(POOL_FLOATING_IPS, |text| match text {
            "Allow" => Ok(Self::Allow),
            "Deny" => Ok(Self::Deny),
            "Only" => Ok(Self::Only),
            _ => Err(Problem::FloatingUse(text.to_owned())),
        });
        match reader.errors.pop() {
            Some(error) => Err(error),
            None => Ok(floating),
        }
    }
}

/// An annotation that cannot be granted as it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{annotation}: {problem}")]
pub struct AnnotationError {
    /// Which annotation.
    pub annotation: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

impl AnnotationError {
    /// An error of one annotation.
    pub fn new(annotation: &'static str, problem: Problem) -> Self {
        Self { annotation, problem }
    }
}

/// Everything that is wrong with a set of annotations; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationErrors(Vec<AnnotationError>);

impl AnnotationErrors {
    /// The errors, in the order in which the annotations are documented.
    pub fn iter(&self) -> impl Iterator<Item = &AnnotationError> {
        self.0.iter()
    }
}

impl From<AnnotationError> for AnnotationErrors {
    fn from(error: AnnotationError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for AnnotationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for AnnotationErrors {}

/// What is wrong with an annotation. Where Calico has words for it, the message begins with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Longer than [`MAX_VALUE`].
    #[error("value is too long: {0} bytes\nat most {MAX_VALUE} are read")]
    TooLong(usize),
    /// Not a JSON list of strings.
    #[error("not a JSON list of strings: {0}\nwrite it as '[\"10.0.0.1\"]'")]
    Json(String),
    /// An empty list where one cannot mean anything.
    #[error("specified but empty\nname an address, or leave the annotation out")]
    Empty,
    /// Not an address.
    #[error("invalid IP format: {0}\nwrite an address without a prefix length")]
    Syntax(String),
    /// An address that no workload can have.
    #[error(transparent)]
    Address(AddressError),
    /// Two of one family.
    #[error("cannot have more than one {0} address\nleave one of each family")]
    SecondOfFamily(Family),
    /// `ipAddrs` together with `ipAddrsNoIpam`.
    #[error("cannot be used together with {IP_ADDRS_NO_IPAM}\nleave one of them out")]
    BothKinds,
    /// More than [`MAX_FLOATING_IPS`].
    #[error("too many floating IPs: {0}\na workload can have at most {MAX_FLOATING_IPS}")]
    TooManyFloating(usize),
    /// Neither `IPv4` nor `IPv6`.
    #[error("unknown IP family: {0}\nuse IPv4 or IPv6")]
    Family(String),
    /// Not a MAC address of one interface.
    #[error("not the MAC address of an interface: {0}\nwrite six octets such as 0a:1b:2c:3d:4e:5f")]
    Mac(String),
    /// Not a prefix.
    #[error("not a prefix: {0}\nwrite address and length, such as 10.0.0.0/24")]
    Prefix(String),
    /// Not a whole number of 32 bits.
    #[error("not a whole number: {0}\nwrite a number from {min} to {max}", min = i32::MIN, max = i32::MAX)]
    Number(String),
    /// Not `exclusive`.
    #[error("unknown way to move: {0}\nwrite exclusive, or leave the annotation out")]
    Move(String),
    /// Not a length of time.
    #[error("not a length of time: {0}\nwrite it as 30s or 2m")]
    Duration(String),
    /// Longer than [`MAX_DRAIN`].
    #[error("too long: {0}\nold flows go on for at most 1h")]
    TooLongDrain(String),
    /// Neither `Allow` nor `Deny` nor `Only`.
    #[error("unknown use: {0}\nwrite Allow, Deny or Only")]
    FloatingUse(String),
    /// The feature that the annotation needs is off: the key of `feature_control`.
    #[error(
        "requested feature is not enabled: {0}\nset \"feature_control\": {{\"{0}\": true}} in the network configuration"
    )]
    NotEnabled(&'static str),
    /// The addresses of the network come from another IPAM plugin.
    #[error("not compatible with configured IPAM: {0}\nuse calico-ipam, or leave the annotation out")]
    OtherIpam(String),
    /// A floating IP of a family in which the workload has no address of its own.
    #[error("workload has no {family} address for floating IP: {floating}\ngive it one, or ask for another family",
        family = .0.family(), floating = .0)]
    NoInternal(FloatingIp),
}

/// Looks annotations up and gathers what is wrong with them.
struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    errors: Vec<AnnotationError>,
}

impl Reader<'_> {
    fn read<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, Problem>) -> Option<T> {
        let text = self.annotations.get(name).filter(|text| !text.is_empty())?;
        let parsed = if text.len() > MAX_VALUE {
            Err(Problem::TooLong(text.len()))
        } else {
            parse(text)
        };
        parsed.map_err(|problem| self.fail(name, problem)).ok()
    }

    fn fail(&mut self, name: &'static str, problem: Problem) {
        self.errors.push(AnnotationError::new(name, problem));
    }
}

fn strings(text: &str) -> Result<Vec<String>, Problem> {
    serde_json::from_str(text).map_err(|error| Problem::Json(error.to_string()))
}

fn address(text: &str) -> Result<FloatingIp, Problem> {
    text.parse().map_err(|error| match error {
        AddressError::Syntax(text) => Problem::Syntax(text),
        other => Problem::Address(other),
    })
}

fn chosen_addresses(text: &str) -> Result<Vec<IpAddr>, Problem> {
    let mut chosen: BTreeMap<Family, IpAddr> = BTreeMap::new();
    let list = strings(text)?;
    if list.is_empty() {
        return Err(Problem::Empty);
    }
    for entry in &list {
        let address = address(entry)?;
        if chosen.insert(address.family(), address.addr()).is_some() {
            return Err(Problem::SecondOfFamily(address.family()));
        }
    }
    Ok(chosen.into_values().collect())
}

fn floating_ips(text: &str) -> Result<Vec<FloatingIp>, Problem> {
    let mut floating = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in strings(text)? {
        let address = address(&entry)?;
        if seen.insert(address) {
            floating.push(address);
        }
    }
    if floating.len() > MAX_FLOATING_IPS {
        return Err(Problem::TooManyFloating(floating.len()));
    }
    Ok(floating)
}

fn families(text: &str) -> Result<BTreeSet<Family>, Problem> {
    let families: BTreeSet<Family> = strings(text)?
        .into_iter()
        .map(|name| match name.as_str() {
            "IPv4" => Ok(Family::V4),
            "IPv6" => Ok(Family::V6),
            _ => Err(Problem::Family(name)),
        })
        .collect::<Result<_, _>>()?;
    if families.is_empty() {
        return Err(Problem::Empty);
    }
    Ok(families)
}

fn mac(text: &str) -> Result<[u8; 6], Problem> {
    let refuse = || Problem::Mac(text.to_owned());
    let octets: Vec<u8> = text
        .trim()
        .split(if text.contains('-') { '-' } else { ':' })
        .map(|part| match part.as_bytes() {
            [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => u8::from_str_radix(part, 16).ok(),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(refuse)?;
    let octets: [u8; 6] = octets.try_into().map_err(|_| refuse())?;
    let of_a_group = octets[0] & 1 == 1;
    if of_a_group || octets == [0; 6] {
        return Err(refuse());
    }
    Ok(octets)
}

fn prefixes(text: &str) -> Result<Vec<IpNet>, Problem> {
    strings(text)?
        .into_iter()
        .map(|entry| {
            IpNet::from_str(&entry)
                .map(|prefix| prefix.trunc())
                .map_err(|_| Problem::Prefix(entry))
        })
        .collect()
}

fn priority(text: &str) -> Result<i32, Problem> {
    text.trim().parse().map_err(|_| Problem::Number(text.to_owned()))
}

fn exclusive(text: &str) -> Result<bool, Problem> {
    match text {
        "exclusive" => Ok(true),
        _ => Err(Problem::Move(text.to_owned())),
    }
}

/// Reads how long established flows go on, such as `30s`: of [`FLOATING_IP_DRAIN`], or of a move that a person asks for.
///
/// Error: it is no length of time, or longer than [`MAX_DRAIN`].
pub fn drain(text: &str) -> Result<Duration, Problem> {
    let refuse = || Problem::Duration(text.to_owned());
    let duration: SignedDuration = text.trim().parse().map_err(|_| refuse())?;
    let duration = Duration::try_from(duration).map_err(|_| refuse())?;
    if duration > MAX_DRAIN {
        return Err(Problem::TooLongDrain(text.to_owned()));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    #[test]
    fn a_pool_says_whether_it_takes_floating_ips() {
        let of = |value: &str| {
            FloatingUse::of_pool(&BTreeMap::from([(
                POOL_FLOATING_IPS.to_owned(),
                value.to_owned(),
            )]))
        };
        assert_eq!(of("Only"), Ok(Some(FloatingUse::Only)));
        assert_eq!(of(""), Ok(None));
        assert_eq!(FloatingUse::of_pool(&BTreeMap::new()), Ok(None));
        assert_eq!(
            of("only").unwrap_err().to_string(),
            "buoy.dev/floatingIPs: unknown use: only\nwrite Allow, Deny or Only"
        );
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
}
