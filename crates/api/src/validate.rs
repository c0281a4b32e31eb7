//! What a record must fulfil before it is written: rules that a type cannot say.
//!
//! Each check gathers everything that is wrong, names the field and says what to do. A record that is read is not
//! checked again: what others wrote stays readable.

mod bgp;
mod endpoint;
mod pool;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::binding::{Binding, BindingSpec};
use crate::ip::{Family, FloatingIp};
use crate::meta::ObjectMeta;
use crate::names;
use crate::resource::Kind;
use crate::v3::{
    FelixConfiguration, FelixConfigurationSpec, IpReservation, IpReservationSpec, Node, NodeSpec, Profile,
    ProfileSpec,
};

pub use bgp::{bgp_configuration, bgp_peer};
pub use endpoint::workload_endpoint;
pub use pool::ip_pool;

/// One thing that is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `spec.cidr`.
    pub field: String,
    /// What is wrong, for people.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// A record that must not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// All that is wrong with it; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} is not valid", self.kind, self.name)?;
        for Problem { field, what, hint } in &self.problems {
            write!(f, "\n{field}: {what}\n{hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// Checks an IPReservation.
pub fn ip_reservation(reservation: &IpReservation) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.object_name(&reservation.metadata);
    for (index, prefix) in reservation.spec.reserved_cidrs.iter().enumerate() {
        check.masked(format!("spec.reservedCIDRs[{index}]"), prefix);
    }
    check.finish::<IpReservationSpec>(&reservation.metadata)
}

/// Checks a Node.
pub fn node(node: &Node) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.object_name(&node.metadata);
    if let Some(bgp) = &node.spec.bgp {
        let addresses = [
            ("spec.bgp.ipv4Address", Family::V4, bgp.ipv4_address),
            ("spec.bgp.ipv6Address", Family::V6, bgp.ipv6_address),
        ];
        for (field, family, address) in addresses {
            if let Some(address) = address {
                check.node_address(field, family, address);
            }
        }
        check.as_number(
            "spec.bgp.asNumber",
            bgp.as_number,
            "leave it out for the cluster's own",
        );
    }
    check.finish::<NodeSpec>(&node.metadata)
}

/// Checks a FelixConfiguration.
pub fn felix_configuration(felix: &FelixConfiguration) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.object_name(&felix.metadata);
    if let Some(switch) = &felix.spec.floating_ips {
        check.one_of("spec.floatingIPs", switch, &["Enabled", "Disabled"]);
    }
    check.finish::<FelixConfigurationSpec>(&felix.metadata)
}

/// Checks a Profile.
pub fn profile(profile: &Profile) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.object_name(&profile.metadata);
    check.finish::<ProfileSpec>(&profile.metadata)
}

/// Checks a FloatingIPBinding.
pub fn binding(binding: &Binding) -> Result<(), Invalid> {
    let mut check = Check::default();
    let address = binding.spec.address;
    if let Err(error) = FloatingIp::try_from(address) {
        check.fail(
            "spec.address",
            &error.to_string(),
            "name an address that can float",
        );
    }
    let expected = names::binding_name(address);
    if binding.name() != expected {
        check.fail(
            "metadata.name",
            &format!("does not fit spec.address: {address}"),
            &format!("name it {expected}"),
        );
    }
    if !names::is_dns_label(&binding.spec.namespace) {
        check.fail(
            "spec.namespace",
            &format!("not the name of a namespace: {:?}", binding.spec.namespace),
            "name the namespace whose workloads may have the address",
        );
    }
    if let Some(owner) = &binding.spec.owner
        && Family::of(owner.internal_ip) != Family::of(address)
    {
        check.fail(
            "spec.owner.internalIP",
            &format!("not of the family of {address}: {}", owner.internal_ip),
            "name the workload's own address of that family",
        );
    }
    check.finish::<BindingSpec>(&binding.metadata)
}

/// Gathers what is wrong with one record.
#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn fail(&mut self, field: impl Into<String>, what: &str, hint: &str) {
        self.problems.push(Problem {
            field: field.into(),
            what: what.to_owned(),
            hint: hint.to_owned(),
        });
    }

    /// Fails with a message that ends with a hint on its own line.
    fn told(&mut self, field: impl Into<String>, message: &str) {
        let (what, hint) = message.split_once('\n').unwrap_or((message, "correct it"));
        self.fail(field, what, hint);
    }

    fn finish<S: Kind>(self, metadata: &ObjectMeta) -> Result<(), Invalid> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Invalid {
            kind: S::KIND,
            name: metadata.name.clone(),
            problems: self.problems,
        })
    }

    fn object_name(&mut self, metadata: &ObjectMeta) {
        if !names::is_dns_subdomain(&metadata.name) {
            self.fail(
                "metadata.name",
                &format!("not a name: {:?}", metadata.name),
                "use lower-case letters, digits, '-' and '.', at most 253",
            );
        }
        if let Some(namespace) = &metadata.namespace {
            self.fail(
                "metadata.namespace",
                &format!("this kind has no namespace: {namespace}"),
                "leave it out",
            );
        }
    }

    fn masked(&mut self, field: impl Into<String>, prefix: &IpNet) {
        if *prefix != prefix.trunc() {
            self.fail(
                field,
                &format!("has bits set behind its length: {prefix}"),
                &format!("write {}", prefix.trunc()),
            );
        }
    }

    fn one_of(&mut self, field: &str, value: &str, allowed: &[&str]) {
        if !allowed.contains(&value) {
            self.fail(
                field,
                &format!("unknown value: {value:?}"),
                &format!("use {}", allowed.join(" or ")),
            );
        }
    }

    fn node_address(&mut self, field: &str, family: Family, address: IpNet) {
        let addr: IpAddr = address.addr();
        if Family::of(addr) != family {
            self.fail(
                field,
                &format!("not an {family} address: {address}"),
                "swap it with the other field",
            );
        } else if let Err(error) = FloatingIp::try_from(addr) {
            self.fail(
                field,
                &error.to_string(),
                "name the address other nodes reach this one by",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Extra;
    use crate::v3::NodeBgp;
    use crate::{Owner, Term};

    #[test]
    fn a_reservation_is_masked() {
        let mut reservation = IpReservation::new(
            ObjectMeta::named("held"),
            IpReservationSpec {
                reserved_cidrs: vec!["10.0.0.0/25".parse().unwrap(), "fd00::1/128".parse().unwrap()],
                extra: Extra::new(),
            },
        );
        assert_eq!(ip_reservation(&reservation), Ok(()));
        reservation.spec.reserved_cidrs[1] = "fd00::1/64".parse().unwrap();
        assert_eq!(
            ip_reservation(&reservation).unwrap_err().to_string(),
            "IPReservation \"held\" is not valid\n\
             spec.reservedCIDRs[1]: has bits set behind its length: fd00::1/64\nwrite fd00::/64"
        );
    }

    #[test]
    fn a_node_has_addresses_of_the_right_family() {
        let mut node = Node::new(ObjectMeta::named("n1"), NodeSpec::default());
        let bgp = NodeBgp {
            ipv4_address: Some("192.0.2.1/24".parse().unwrap()),
            ipv6_address: Some("2001:db8::1/64".parse().unwrap()),
            as_number: Some(64512),
            extra: Extra::new(),
        };
        node.spec.bgp = Some(bgp);
        assert_eq!(self::node(&node), Ok(()));
        let bgp = node.spec.bgp.as_mut().unwrap();
        bgp.ipv6_address = Some("192.0.2.1/24".parse().unwrap());
        bgp.ipv4_address = Some("127.0.0.1/8".parse().unwrap());
        bgp.as_number = Some(0);
        assert_eq!(
            fields(self::node(&node)),
            [
                "spec.bgp.ipv4Address",
                "spec.bgp.ipv6Address",
                "spec.bgp.asNumber"
            ]
        );
    }

    #[test]
    fn names_and_switches() {
        let mut felix =
            FelixConfiguration::new(ObjectMeta::named("default"), FelixConfigurationSpec::default());
        assert_eq!(felix_configuration(&felix), Ok(()));
        felix.spec.floating_ips = Some("Enabled".to_owned());
        assert_eq!(felix_configuration(&felix), Ok(()));
        felix.spec.floating_ips = Some("true".to_owned());
        felix.metadata = ObjectMeta::namespaced("shop", "Default");
        assert_eq!(
            fields(felix_configuration(&felix)),
            ["metadata.name", "metadata.namespace", "spec.floatingIPs"]
        );
        let mut profile = Profile::new(ObjectMeta::named("kns.shop"), ProfileSpec::default());
        assert_eq!(self::profile(&profile), Ok(()));
        profile.metadata = ObjectMeta::namespaced("shop", "kns/shop");
        assert_eq!(
            fields(self::profile(&profile)),
            ["metadata.name", "metadata.namespace"]
        );
    }

    #[test]
    fn a_binding_is_named_by_its_address() {
        let address: IpAddr = "172.16.1.3".parse().unwrap();
        let spec = BindingSpec {
            address,
            namespace: "shop".to_owned(),
            ..BindingSpec::default()
        };
        let mut record = Binding::new(ObjectMeta::named("172-16-1-3"), spec);
        assert_eq!(binding(&record), Ok(()));
        record.metadata.name = "172-16-1-4".to_owned();
        record.spec.namespace = String::new();
        record.spec.owner = Some(Owner {
            node: "n1".to_owned(),
            workload: "web-0".to_owned(),
            endpoint: "eth0".to_owned(),
            internal_ip: "fd00::1".parse().unwrap(),
            uid: String::new(),
            term: Term(1),
        });
        assert_eq!(
            fields(binding(&record)),
            ["metadata.name", "spec.namespace", "spec.owner.internalIP"]
        );
        record.spec.address = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(fields(binding(&record))[0], "spec.address");
    }

    pub(super) fn fields(result: Result<(), Invalid>) -> Vec<String> {
        result
            .unwrap_err()
            .problems
            .into_iter()
            .map(|problem| problem.field)
            .collect()
    }
}
