//! Which pools give addresses to whom. The rules of a pool hold on every path: for what is given unasked, for pools
//! named by hand, and for single addresses. What exists to be asked for by hand stays open to it: `assignmentMode:
//! Manual` and reserved ranges.

use std::net::IpAddr;

use buoy_api::ip::Family;
use buoy_api::selector::{Labels, Selector};
use buoy_api::v3::{AllowedUse, AssignmentMode, IpPool};
use ipnet::IpNet;

use super::range::Range;
use super::request::Asker;

#[cfg(test)]
mod tests;

/// Pool annotation that says whether floating IPs may come from it: `Allow`, `Deny` or `Only`.
pub const FLOATING_ANNOTATION: &str = "buoy.dev/floatingIPs";

/// Why no pool gives what is asked. First lines are Calico's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// There is no enabled pool of the family.
    #[error("cannot find a qualified ippool\nno enabled pool of this family: {family}")]
    NoneEnabled {
        /// IPv4 or IPv6.
        family: Family,
    },
    /// Pools exist, but none selects this node and namespace.
    #[error("no configured Calico pools for node {host}{}", hints(.refused))]
    NoneSelects {
        /// The node.
        host: String,
        /// Why not, pool by pool.
        refused: Vec<Refused>,
    },
    /// Pools select this node and namespace, but are for something else.
    #[error("cannot find a qualified ippool, no pools match the required use (Workload){}", hints(.refused))]
    NoneForUse {
        /// Why not, pool by pool.
        refused: Vec<Refused>,
    },
    /// A pool asked for by name is not there.
    #[error("error parsing pool \"{name}\": invalid CIDR address: {name}\n{hint}")]
    UnknownName {
        /// What was asked for.
        name: String,
        /// Unknown, or disabled.
        hint: &'static str,
    },
    /// A pool asked for by prefix is not there or disabled.
    #[error(
        "the given pool ({cidr}) does not exist, or is not enabled\nlist pools: buoyctl get ippools -o wide"
    )]
    UnknownPrefix {
        /// What was asked for.
        cidr: IpNet,
    },
    /// A pool was asked for in the list of the other family.
    #[error("\"{}\" isn't a {wanted} address\nlist the pool under the other family", .cidr.addr())]
    WrongFamily {
        /// The pool's prefix.
        cidr: IpNet,
        /// The family of the list.
        wanted: Family,
    },
    /// No enabled pool covers the address.
    #[error("The provided IP address is not in a configured pool\n{address}: {hint}")]
    NotInPool {
        /// The address.
        address: IpAddr,
        /// No pool covers it, or only a disabled one.
        hint: &'static str,
    },
    /// The pool that was asked for, or that covers the address, refuses.
    #[error("{}{}", .0, .0.hint())]
    Refused(Refused),
}

/// One pool's refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Refused {
    /// Name of the pool.
    pub pool: String,
    /// The address asked for, if it was one.
    pub address: Option<IpAddr>,
    /// Why.
    pub why: Why,
}

/// Why a pool refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// `nodeSelector` does not match.
    #[error("its nodeSelector does not match node {host}: {selector}")]
    Node {
        /// The node.
        host: String,
        /// The selector.
        selector: String,
    },
    /// `namespaceSelector` does not match.
    #[error("its namespaceSelector does not match the namespace: {selector}")]
    Namespace {
        /// The selector.
        selector: String,
    },
    /// `allowedUses` lacks Workload.
    #[error("which is not allowed for use \"Workload\" (allowedUses: [{}])", uses(.0))]
    Use(Vec<AllowedUse>),
    /// Only for what is asked for by hand.
    #[error("its assignmentMode is Manual")]
    Manual,
    /// A selector of the pool does not parse.
    #[error("its {field} is wrong: {reason}")]
    Selector {
        /// `nodeSelector` or `namespaceSelector`.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// `blockSize` does not fit the prefix.
    #[error("its blockSize does not fit {cidr}: {block_len}")]
    BlockSize {
        /// Prefix of the pool.
        cidr: IpNet,
        /// Prefix length of blocks.
        block_len: u8,
    },
    /// The annotation `buoy.dev/floatingIPs` is `Deny`.
    #[error("its annotation buoy.dev/floatingIPs says Deny")]
    FloatingDenied,
    /// The annotation `buoy.dev/floatingIPs` is `Only`, and this is not for a floating IP.
    #[error("it is for floating IPs only")]
    FloatingOnly,
}

impl Refused {
    pub(super) fn new(pool: &IpPool, address: Option<IpAddr>, why: Why) -> Self {
        Self {
            pool: pool.name().to_owned(),
            address,
            why,
        }
    }

    fn sentence(&self) -> String {
        match self.address {
            Some(address) => format!(
                "IP address {address} is in IP pool \"{}\", {}",
                self.pool, self.why
            ),
            None => format!("IP pool \"{}\": {}", self.pool, self.why),
        }
    }

    /// What to do, on a line of its own, where the reason alone does not say it.
    fn hint(&self) -> &'static str {
        match self.why {
            Why::FloatingOnly => {
                "\nask for an address of another pool, or change its annotation buoy.dev/floatingIPs"
            }
            _ => "",
        }
    }
}

/// Pools that give addresses unasked: enabled, automatic, and open to this node and namespace.
pub fn automatic<'a>(
    pools: &'a [IpPool],
    family: Family,
    asker: &Asker,
) -> Result<Vec<&'a IpPool>, PoolError> {
    let enabled: Vec<_> = enabled(pools).filter(|pool| family_of(pool) == family).collect();
    if enabled.is_empty() {
        return Err(PoolError::NoneEnabled { family });
    }
    let judged = enabled
        .into_iter()
        .map(|pool| (pool, admits_unasked(pool, asker)));
    let (open, refused) = split(judged);
    if !open.is_empty() {
        return Ok(open);
    }
    if refused.iter().any(|refused| matches!(refused.why, Why::Use(_))) {
        return Err(PoolError::NoneForUse { refused });
    }
    Err(PoolError::NoneSelects {
        host: asker.host.clone(),
        refused,
    })
}

/// Pools asked for by name or prefix, in this order: those of them that admit the asker, at least one.
pub fn requested<'a>(
    pools: &'a [IpPool],
    family: Family,
    wanted: &[String],
    asker: &Asker,
) -> Result<Vec<&'a IpPool>, PoolError> {
    let mut found: Vec<&IpPool> = Vec::new();
    for text in wanted {
        let pool = by_name_or_prefix(pools, family, text)?;
        if !found.contains(&pool) {
            found.push(pool);
        }
    }
    let (open, mut refused) = split(found.into_iter().map(|pool| (pool, admits(pool, asker))));
    if !open.is_empty() {
        return Ok(open);
    }
    if refused.iter().all(|refused| matches!(refused.why, Why::Use(_))) {
        return Err(PoolError::NoneForUse { refused });
    }
    match refused.pop() {
        Some(only) if refused.is_empty() => Err(PoolError::Refused(only)),
        last => Err(PoolError::NoneSelects {
            host: asker.host.clone(),
            refused: refused.into_iter().chain(last).collect(),
        }),
    }
}

/// The pool of an address that a workload asks for as its own. Its rules hold.
pub fn for_address<'a>(pools: &'a [IpPool], address: IpAddr, asker: &Asker) -> Result<&'a IpPool, PoolError> {
    let Some(pool) = enabled(pools).find(|pool| pool.spec.cidr.contains(&address)) else {
        return Err(PoolError::NotInPool {
            address,
            hint: match covering(pools, address) {
                Some(_) => "its pool is disabled",
                None => "no pool covers it; list them: buoyctl get ippools",
            },
        });
    };
    match admits(pool, asker) {
        Ok(()) => Ok(pool),
        Err(why) => Err(PoolError::Refused(Refused::new(pool, Some(address), why))),
    }
}

/// The pool of an address that is asked for as a floating IP: it may be disabled, manual or reserved.
pub fn for_floating<'a>(
    pools: &'a [IpPool],
    address: IpAddr,
    namespace_labels: &Labels,
) -> Result<&'a IpPool, PoolError> {
    let Some(pool) = covering(pools, address) else {
        let hint = "no pool covers it; list them: buoyctl get ippools";
        return Err(PoolError::NotInPool { address, hint });
    };
    let refused = |why| PoolError::Refused(Refused::new(pool, Some(address), why));
    if pool
        .metadata
        .annotations
        .get(FLOATING_ANNOTATION)
        .is_some_and(|says| says == "Deny")
    {
        return Err(refused(Why::FloatingDenied));
    }
    admits_use(pool).map_err(refused)?;
    admits_namespace(pool, namespace_labels).map_err(refused)?;
    admits_blocks(pool).map_err(refused)?;
    Ok(pool)
}

/// The pool that covers an address, whatever its state. An enabled one is preferred where pools overlap.
pub fn covering(pools: &[IpPool], address: IpAddr) -> Option<&IpPool> {
    let covers = |pool: &&IpPool| pool.spec.cidr.contains(&address);
    enabled(pools).find(covers).or_else(|| pools.iter().find(covers))
}

fn enabled(pools: &[IpPool]) -> impl Iterator<Item = &IpPool> {
    pools.iter().filter(|pool| !pool.spec.disabled)
}

fn family_of(pool: &IpPool) -> Family {
    Family::of_net(&pool.spec.cidr)
}

fn by_name_or_prefix<'a>(pools: &'a [IpPool], family: Family, text: &str) -> Result<&'a IpPool, PoolError> {
    let of_family = |pool: &'a IpPool| match family_of(pool) == family {
        true => Ok(pool),
        false => Err(PoolError::WrongFamily {
            cidr: pool.spec.cidr,
            wanted: family,
        }),
    };
    if let Some(pool) = enabled(pools).find(|pool| pool.name() == text) {
        return of_family(pool);
    }
    let Ok(cidr) = text.parse::<IpNet>() else {
        return Err(PoolError::UnknownName {
            name: text.to_owned(),
            hint: match pools.iter().any(|pool| pool.name() == text) {
                true => "the pool is disabled",
                false => "there is no pool of this name; list them: buoyctl get ippools",
            },
        });
    };
    if Family::of_net(&cidr) != family {
        return Err(PoolError::WrongFamily { cidr, wanted: family });
    }
    let pool = enabled(pools).find(|pool| pool.spec.cidr == cidr);
    pool.ok_or(PoolError::UnknownPrefix { cidr })
}

fn split<'a>(judged: impl Iterator<Item = (&'a IpPool, Result<(), Why>)>) -> (Vec<&'a IpPool>, Vec<Refused>) {
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    for (pool, verdict) in judged {
        match verdict {
            Ok(()) => open.push(pool),
            Err(why) => refused.push(Refused::new(pool, None, why)),
        }
    }
    (open, refused)
}

fn admits_unasked(pool: &IpPool, asker: &Asker) -> Result<(), Why> {
    match pool.spec.assignment_mode {
        AssignmentMode::Manual => Err(Why::Manual),
        AssignmentMode::Automatic => admits(pool, asker),
    }
}

/// The rules that hold on every path. The use comes last, so that its refusal means that all else fits.
fn admits(pool: &IpPool, asker: &Asker) -> Result<(), Why> {
    admits_blocks(pool)?;
    if let Some(text) = pool.spec.node_selector.as_deref()
        && !parsed("nodeSelector", text)?.matches(&asker.node_labels)
    {
        return Err(Why::Node {
            host: asker.host.clone(),
            selector: text.to_owned(),
        });
    }
    admits_namespace(pool, &asker.namespace_labels)?;
    if pool
        .metadata
        .annotations
        .get(FLOATING_ANNOTATION)
        .is_some_and(|says| says == "Only")
    {
        return Err(Why::FloatingOnly);
    }
    admits_use(pool)
}

fn admits_namespace(pool: &IpPool, labels: &Labels) -> Result<(), Why> {
    match pool.spec.namespace_selector.as_deref() {
        Some(text) if !parsed("namespaceSelector", text)?.matches(labels) => Err(Why::Namespace {
            selector: text.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn admits_use(pool: &IpPool) -> Result<(), Why> {
    match pool.spec.allows(AllowedUse::Workload) {
        true => Ok(()),
        false => Err(Why::Use(pool.spec.allowed_uses.clone())),
    }
}

fn admits_blocks(pool: &IpPool) -> Result<(), Why> {
    match Range::of(pool) {
        Some(_) => Ok(()),
        None => Err(Why::BlockSize {
            cidr: pool.spec.cidr,
            block_len: pool.spec.block_len(),
        }),
    }
}

fn parsed(field: &'static str, text: &str) -> Result<Selector, Why> {
    text.parse()
        .map_err(|error: buoy_api::selector::SelectorError| Why::Selector {
            field,
            reason: error.to_string(),
        })
}

fn hints(refused: &[Refused]) -> String {
    refused.iter().map(|refused| format!("\n{refused}")).collect()
}

fn uses(uses: &[AllowedUse]) -> String {
    uses.iter()
        .map(|used| format!("{used:?}"))
        .collect::<Vec<_>>()
        .join(" ")
}
