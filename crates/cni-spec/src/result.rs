//! Results of ADD: one type for all versions, rendered for the version that was asked for.
//!
//! Sources: CNI specification, section 5 "Result types" (0.3.0 to 1.1.0), and the result of 0.1.0 and 0.2.0. Details
//! that follow recorded answers of Calico's plugins: `dns` is present up to 0.4.0 and left out when empty since 1.0.0;
//! a route's destination keeps its host bits.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::error::{CniError, ErrorCode};
use crate::fields::{Object, Origin};
use crate::version::CniVersion;

const ORIGIN: Origin = Origin {
    what: "CNI result",
    code: ErrorCode::DECODE,
    hint: "the plugin that made this result does not keep to the CNI specification",
};

/// A result of ADD, of whatever version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    /// Interfaces that were made; empty for an IPAM plugin.
    pub interfaces: Vec<Interface>,
    /// Addresses that were given.
    pub ips: Vec<IpConfig>,
    /// Routes that were made, or that an IPAM plugin asks for.
    pub routes: Vec<Route>,
    /// Name resolution.
    pub dns: Dns,
}

/// An interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name of the link.
    pub name: String,
    /// Hardware address, as text.
    pub mac: Option<String>,
    /// MTU in bytes; rendered since 1.0.0.
    pub mtu: Option<u32>,
    /// The network namespace's path; absent for a link of the host.
    pub sandbox: Option<String>,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpConfig {
    /// Address with prefix length.
    pub address: IpNet,
    /// The default gateway of this family.
    pub gateway: Option<IpAddr>,
    /// Index into [`CniResult::interfaces`].
    pub interface: Option<u32>,
}

/// A route of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; the address's gateway where absent.
    pub gw: Option<IpAddr>,
    /// MTU along the path (1.1.0).
    pub mtu: Option<u32>,
    /// Maximum segment size to advertise (1.1.0).
    pub advmss: Option<u32>,
    /// Metric (1.1.0).
    pub priority: Option<u32>,
    /// Routing table (1.1.0).
    pub table: Option<u32>,
    /// Scope as the kernel numbers it (1.1.0).
    pub scope: Option<u32>,
}

/// Name resolution of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers' addresses.
    pub nameservers: Vec<String>,
    /// Local domain.
    pub domain: Option<String>,
    /// Search list.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

impl Route {
    /// A route without next hop.
    pub fn to(dst: IpNet) -> Self {
        Self {
            dst,
            gw: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

impl CniResult {
    /// The document for standard output.
    ///
    /// Versions 0.1.0 and 0.2.0 have room for one address of each family: the first of each.
    pub fn render(&self, version: CniVersion) -> Value {
        let mut document = Map::new();
        document.insert("cniVersion".to_owned(), version.as_str().into());
        if version.has_legacy_result() {
            self.render_legacy(&mut document);
        } else {
            put_list(
                &mut document,
                "interfaces",
                self.interfaces.iter().map(|it| it.render(version)),
            );
            put_list(&mut document, "ips", self.ips.iter().map(|ip| ip.render(version)));
            put_list(
                &mut document,
                "routes",
                self.routes.iter().map(|route| route.render(version)),
            );
        }
        let dns = self.dns.render();
        if version < CniVersion::V1_0_0 || !dns.is_empty() {
            document.insert("dns".to_owned(), dns.into());
        }
        document.into()
    }

    /// Reads a result of any version; the form decides, because a result inside a configuration may lack its version.
    /// Error: code 6, with the key.
    pub fn parse(document: &Value) -> Result<Self, CniError> {
        let root = Object::root(document, ORIGIN)?;
        let mut result = Self {
            dns: Dns::parse(&root.object("dns")?)?,
            ..Self::default()
        };
        if root.value("ip4").is_some() || root.value("ip6").is_some() {
            for key in ["ip4", "ip6"] {
                result.add_legacy(&root, key)?;
            }
            return Ok(result);
        }
        result.interfaces = each(&root, "interfaces", Interface::parse)?;
        result.ips = each(&root, "ips", IpConfig::parse)?;
        result.routes = each(&root, "routes", Route::parse)?;
        match result
            .ips
            .iter()
            .filter_map(|ip| ip.interface)
            .find(|at| *at as usize >= result.interfaces.len())
        {
            Some(at) => Err(root.invalid("ips", format!("interface {at} is not among the interfaces"))),
            None => Ok(result),
        }
    }

    fn render_legacy(&self, document: &mut Map<String, Value>) {
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4) else {
                continue;
            };
            let mut family = Map::new();
            family.insert("ip".to_owned(), ip.address.to_string().into());
            put(&mut family, "gateway", ip.gateway);
            let routes = self
                .routes
                .iter()
                .filter(|route| route.dst.addr().is_ipv4() == v4);
            put_list(
                &mut family,
                "routes",
                routes.map(|route| route.render(CniVersion::V0_2_0)),
            );
            document.insert(key.to_owned(), family.into());
        }
    }

    fn add_legacy(&mut self, root: &Object<'_>, key: &str) -> Result<(), CniError> {
        if root.value(key).is_none() {
            return Ok(());
        }
        let family = root.object(key)?;
        let address = required(&family, "ip")?;
        self.ips.push(IpConfig {
            address,
            gateway: family.parsed("gateway")?,
            interface: None,
        });
        self.routes.extend(each(&family, "routes", Route::parse)?);
        Ok(())
    }
}

impl Interface {
    fn render(&self, version: CniVersion) -> Value {
        let mut document = Map::new();
        document.insert("name".to_owned(), self.name.as_str().into());
        put(&mut document, "mac", self.mac.as_deref());
        if let Some(mtu) = self.mtu.filter(|_| version >= CniVersion::V1_0_0) {
            document.insert("mtu".to_owned(), mtu.into());
        }
        put(&mut document, "sandbox", self.sandbox.as_deref());
        document.into()
    }

    fn parse(object: &Object<'_>) -> Result<Self, CniError> {
        Ok(Self {
            name: object.text("name")?.unwrap_or_default(),
            mac: object.text("mac")?,
            mtu: object.number("mtu")?,
            sandbox: object.text("sandbox")?,
        })
    }
}

impl IpConfig {
    fn render(&self, version: CniVersion) -> Value {
        let mut document = Map::new();
        if version < CniVersion::V1_0_0 {
            let family = if self.address.addr().is_ipv4() { "4" } else { "6" };
            document.insert("version".to_owned(), family.into());
        }
        if let Some(interface) = self.interface {
            document.insert("interface".to_owned(), interface.into());
        }
        document.insert("address".to_owned(), self.address.to_string().into());
        put(&mut document, "gateway", self.gateway);
        document.into()
    }

    fn parse(object: &Object<'_>) -> Result<Self, CniError> {
        Ok(Self {
            address: required(object, "address")?,
            gateway: object.parsed("gateway")?,
            interface: object.number("interface")?,
        })
    }
}

impl Route {
    fn render(&self, version: CniVersion) -> Value {
        let mut document = Map::new();
        document.insert("dst".to_owned(), self.dst.to_string().into());
        put(&mut document, "gw", self.gw);
        if version >= CniVersion::V1_1_0 {
            for (key, value) in self.numbers() {
                if let Some(value) = value {
                    document.insert(key.to_owned(), value.into());
                }
            }
        }
        document.into()
    }

    fn parse(object: &Object<'_>) -> Result<Self, CniError> {
        Ok(Self {
            dst: required(object, "dst")?,
            gw: object.parsed("gw")?,
            mtu: object.number("mtu")?,
            advmss: object.number("advmss")?,
            priority: object.number("priority")?,
            table: object.number("table")?,
            scope: object.number("scope")?,
        })
    }

    fn numbers(&self) -> [(&'static str, Option<u32>); 5] {
        [
            ("mtu", self.mtu),
            ("advmss", self.advmss),
            ("priority", self.priority),
            ("table", self.table),
            ("scope", self.scope),
        ]
    }
}

impl Dns {
    fn render(&self) -> Map<String, Value> {
        let mut document = Map::new();
        let lists = [
            ("nameservers", &self.nameservers),
            ("search", &self.search),
            ("options", &self.options),
        ];
        for (key, list) in lists {
            put_list(&mut document, key, list.iter().map(|text| json!(text)));
        }
        put(&mut document, "domain", self.domain.as_deref());
        document
    }

    fn parse(object: &Object<'_>) -> Result<Self, CniError> {
        Ok(Self {
            nameservers: object.texts("nameservers")?,
            domain: object.text("domain")?,
            search: object.texts("search")?,
            options: object.texts("options")?,
        })
    }
}

fn put(document: &mut Map<String, Value>, key: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        document.insert(key.to_owned(), value.to_string().into());
    }
}

fn put_list(document: &mut Map<String, Value>, key: &str, values: impl Iterator<Item = Value>) {
    let values: Vec<Value> = values.collect();
    if !values.is_empty() {
        document.insert(key.to_owned(), values.into());
    }
}

fn required(object: &Object<'_>, key: &str) -> Result<IpNet, CniError> {
    object
        .parsed(key)?
        .ok_or_else(|| object.invalid(key, "expected an address with prefix length, got nothing"))
}

fn each<T>(
    object: &Object<'_>,
    key: &str,
    parse: impl Fn(&Object<'_>) -> Result<T, CniError>,
) -> Result<Vec<T>, CniError> {
    object.objects(key)?.iter().map(parse).collect()
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
