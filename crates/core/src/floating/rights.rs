//! Whether a namespace may have a floating IP, as far as other records say.

use std::fmt;

use buoy_api::annotations::{self, FloatingUse};
use buoy_api::ip::{Family, FloatingIp};
use buoy_api::names;
use buoy_api::selector::Selector;
use buoy_api::v3::{AllowedUse, IpPool};
use jiff::Timestamp;

use crate::store::Key;
use crate::view::View;

/// Why a request is not granted now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The workload is starting or stopping.
    NotRunning,
    /// Floating IPs are off for it.
    GateOff,
    /// It has no address of this family.
    NoAddressOfFamily(Family),
    /// No pool covers the address.
    OutsidePools,
    /// No pool covers the address as far as pools can be read, and one cannot.
    PoolUnreadable {
        /// Name of the pool that cannot be read.
        pool: String,
    },
    /// The pool that covers it does not allow the namespace.
    NamespaceNotAllowed {
        /// Name of the pool.
        pool: String,
        /// The namespace.
        namespace: String,
    },
    /// The pool is for something else.
    UseNotAllowed {
        /// Name of the pool.
        pool: String,
    },
    /// The pool's selector does not parse.
    BadSelector {
        /// Name of the pool.
        pool: String,
        /// What is wrong.
        reason: String,
    },
    /// It is a node's own address.
    NodeAddress {
        /// Name of the node.
        node: String,
    },
    /// IPAM gave it to somebody as an address of their own.
    InUse {
        /// Handle that holds it, and whose it is.
        holder: String,
    },
    /// A node without an agent of this project serves it, too.
    Contested {
        /// Which, for people.
        why: String,
    },
    /// Its binding does not decode.
    BadRecord {
        /// What is wrong.
        reason: String,
    },
    /// Another namespace has it.
    HeldBy {
        /// The namespace.
        namespace: String,
        /// Until when, if nobody owns it any more.
        until: Option<Timestamp>,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => f.write_str("the workload is not running"),
            Self::GateOff => f.write_str(
                "requested feature is not enabled: floating_ips\nset \"feature_control\": {\"floating_ips\": true} in the network configuration, or floatingIPs: Enabled in FelixConfiguration default",
            ),
            Self::NoAddressOfFamily(family) => write!(f, "the workload has no {family} address"),
            Self::OutsidePools => {
                f.write_str("outside every IP pool\ncreate an IPPool that covers it (it may be disabled)")
            }
            Self::PoolUnreadable { pool } => {
                write!(f, "outside every IP pool that can be read, and {pool} cannot\nmend or delete IPPool {pool}")
            }
            Self::NamespaceNotAllowed { pool, namespace } => {
                write!(f, "IP pool {pool} does not allow the namespace: {namespace}\nchange its namespaceSelector")
            }
            Self::UseNotAllowed { pool } => write!(
                f,
                "IP pool {pool} takes no floating IPs\nchange its allowedUses or its annotation {}",
                annotations::POOL_FLOATING_IPS
            ),
            Self::BadSelector { pool, reason } => write!(f, "namespaceSelector of IP pool {pool}: {reason}"),
            Self::NodeAddress { node } => write!(f, "the address of a node: {node}"),
            Self::InUse { holder } => write!(f, "in use as a workload's own address: {holder}"),
            Self::Contested { why } => write!(f, "contested: {why}\ninstall the agent on that node, or take the request off the workload"),
            Self::BadRecord { reason } => write!(f, "its binding cannot be read: {reason}"),
            Self::HeldBy { namespace, until: None } => write!(f, "owned in another namespace: {namespace}"),
            Self::HeldBy { namespace, until: Some(until) } => write!(
                f,
                "held for another namespace: {namespace}, until {until:.0}\nbuoyctl fip release ends the hold"
            ),
        }
    }
}

/// Whether a namespace may have an address, whoever has it now.
pub fn check(view: &View, namespace: &str, floating: FloatingIp) -> Result<(), Refusal> {
    pool(view, namespace, floating)?;
    not_a_node(view, floating)?;
    not_contested(view, floating)?;
    not_in_use(view, floating)
}

fn not_contested(view: &View, floating: FloatingIp) -> Result<(), Refusal> {
    let binding = view.bindings.get(&floating);
    let why = binding.and_then(|binding| binding.status.contested());
    why.map_or(Ok(()), |why| Err(Refusal::Contested { why: why.to_owned() }))
}

fn outside(view: &View) -> Refusal {
    let unreadable = view.bad.keys().find_map(|key| match key {
        Key::Pool(pool) if view.pools.get(pool).is_none() => Some(pool.clone()),
        _ => None,
    });
    unreadable.map_or(Refusal::OutsidePools, |pool| Refusal::PoolUnreadable { pool })
}

fn pool(view: &View, namespace: &str, floating: FloatingIp) -> Result<(), Refusal> {
    // Pools do not overlap, so at most one covers the address.
    let pool = view
        .pools
        .values()
        .find(|pool| pool.spec.cidr.contains(&floating.addr()));
    let pool = pool.ok_or_else(|| outside(view))?;
    if !takes_floating(pool) {
        return Err(Refusal::UseNotAllowed {
            pool: pool.name().to_owned(),
        });
    }
    let text = pool.spec.namespace_selector.as_deref().unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(());
    }
    let selector = text.parse::<Selector>().map_err(|e| Refusal::BadSelector {
        pool: pool.name().to_owned(),
        reason: e.to_string(),
    })?;
    if selector.matches(&view.namespace_labels(namespace)) {
        Ok(())
    } else {
        Err(Refusal::NamespaceNotAllowed {
            pool: pool.name().to_owned(),
            namespace: namespace.to_owned(),
        })
    }
}

/// Whether a pool takes floating IPs. Disabled and manual pools do: that is how floating ranges are set aside.
fn takes_floating(pool: &IpPool) -> bool {
    match FloatingUse::of_pool(&pool.metadata.annotations) {
        Ok(Some(FloatingUse::Allow | FloatingUse::Only)) => true,
        Ok(Some(FloatingUse::Deny)) => false,
        Ok(None) | Err(_) => pool.spec.allows(AllowedUse::Workload),
    }
}

fn not_a_node(view: &View, floating: FloatingIp) -> Result<(), Refusal> {
    let has = |node: &buoy_api::v3::Node| {
        let Some(bgp) = &node.spec.bgp else { return false };
        [&bgp.ipv4_address, &bgp.ipv6_address]
            .into_iter()
            .flatten()
            .any(|p| p.addr() == floating.addr())
    };
    match view.nodes.values().find(|node| has(node)) {
        Some(node) => Err(Refusal::NodeAddress {
            node: node.name().to_owned(),
        }),
        None => Ok(()),
    }
}

fn not_in_use(view: &View, floating: FloatingIp) -> Result<(), Refusal> {
    let Some(attribute) = view
        .block_of(floating.addr())
        .and_then(|block| block.holder(block.ordinal(floating.addr())?))
    else {
        return Ok(());
    };
    let reservation = names::floating_handle(floating.addr());
    match &attribute.handle {
        Some(handle) if *handle == reservation => Ok(()),
        handle => {
            let whose = ["namespace", "pod", "node"]
                .iter()
                .filter_map(|key| attribute.secondary.get(*key));
            let whose: Vec<&str> = whose.map(String::as_str).collect();
            let handle = handle.as_deref().unwrap_or("no handle");
            let holder = if whose.is_empty() {
                handle.to_owned()
            } else {
                format!("{handle} ({})", whose.join("/"))
            };
            Err(Refusal::InUse { holder })
        }
    }
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
