//! `fip why`: what is known about an address, and why it is so. The agent knows best; where there is none, the
//! datastore says what it can.

use buoy_api::v3::{IpPool, WorkloadEndpoint};
use buoy_api::{Binding, FloatingIp, Kind, names};
use buoy_cni_spec::agent::Inspect;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::attach::asks;
use super::workload_name;
use crate::agent::Agent;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::store::Store;

/// An explanation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Why {
    /// The address.
    #[serde(default)]
    pub address: String,
    /// In one paragraph.
    #[serde(default)]
    pub answer: String,
    /// What the answer rests on.
    #[serde(default)]
    pub facts: Vec<Fact>,
}

/// What one record or one part of the kernel says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    /// Who says it.
    #[serde(default)]
    pub subject: String,
    /// What it says.
    #[serde(default)]
    pub says: String,
}

/// Explains an address: asks the agent, or else the datastore.
pub(crate) fn why(
    agent: &Agent,
    open: impl FnOnce() -> Result<Store, Failure>,
    address: FloatingIp,
    format: Format,
) -> Result<Output, Failure> {
    let asked = agent.inspect(Inspect::Why { ip: address.addr() });
    let (why, warning) = match asked {
        Ok(document) => (crate::agent::read::<Why>(document)?, None),
        Err(failure) if failure.is_absent() => {
            let store = open().map_err(|other| Failure::new(format!("{failure}\nand {other}")))?;
            let why = from_store(
                address,
                &store.bindings()?.items,
                &store.endpoints()?.items,
                &store.pools()?.items,
            );
            let warning = format!("{failure}\nthis is what the datastore says: {}", store.name());
            (why, Some(warning))
        }
        Err(failure) => return Err(failure.into()),
    };
    let output = Output::render(format, &why, || text(&why))?;
    Ok(output.warning(warning))
}

fn text(why: &Why) -> String {
    let mut lines = vec![why.answer.clone()];
    let width = why
        .facts
        .iter()
        .map(|fact| fact.subject.chars().count())
        .max()
        .unwrap_or(0);
    if !why.facts.is_empty() {
        lines.push(String::new());
    }
    for Fact { subject, says } in &why.facts {
        let mut said = says.lines();
        lines.push(format!(
            "  {subject:<width$}  {}",
            said.next().unwrap_or_default()
        ));
        lines.extend(said.map(|more| format!("  {:width$}  {more}", "")));
    }
    lines.join("\n")
}

/// What the records alone say about an address.
fn from_store(
    address: FloatingIp,
    bindings: &[Binding],
    endpoints: &[WorkloadEndpoint],
    pools: &[IpPool],
) -> Why {
    let name = names::binding_name(address.addr());
    let binding = bindings.iter().find(|binding| binding.name() == name);
    let asking: Vec<&WorkloadEndpoint> = endpoints
        .iter()
        .filter(|endpoint| asks(endpoint, address))
        .collect();
    let pool = pools.iter().find(|pool| pool.spec.cidr.contains(&address.addr()));
    let mut facts: Vec<Fact> = Vec::new();
    facts.extend(binding.map(binding_fact));
    facts.extend(asking.iter().map(|endpoint| endpoint_fact(endpoint)));
    facts.push(pool_fact(pool));
    Why {
        address: address.to_string(),
        answer: answer(address, binding, &asking, pool),
        facts,
    }
}

fn answer(
    address: FloatingIp,
    binding: Option<&Binding>,
    asking: &[&WorkloadEndpoint],
    pool: Option<&IpPool>,
) -> String {
    let Some(binding) = binding else {
        return match (asking.is_empty(), pool) {
            (true, _) => format!("{address} is nobody's: no workload asks for it"),
            (false, None) => {
                format!("{address} is asked for, but no IPPool covers it, so nobody may have it")
            }
            (false, Some(_)) => format!("{address} is asked for, but no agent has claimed it yet"),
        };
    };
    let spec = &binding.spec;
    match (&spec.owner, spec.released) {
        (Some(owner), _) => format!(
            "{address} fronts {}/{} ({}) on {} since epoch {}",
            spec.namespace, owner.workload, owner.internal_ip, owner.node, spec.epoch.0
        ),
        (None, Some(since)) if since > Timestamp::UNIX_EPOCH => format!(
            "{address} has no owner since {since}; it is kept for namespace {} for a while",
            spec.namespace
        ),
        (None, _) => format!("{address} has no owner and is not held; it will be freed"),
    }
}

fn binding_fact(binding: &Binding) -> Fact {
    let spec = &binding.spec;
    let mut says = vec![format!(
        "for namespace {}, epoch {}",
        spec.namespace, spec.epoch.0
    )];
    if let Some(wanted) = &spec.requested_move {
        says.push(format!("a move to {} was asked for", wanted.to.workload));
    }
    for candidate in &binding.status.candidates {
        let role = if spec.owner.as_ref().is_some_and(|owner| candidate.is(owner)) {
            "owner"
        } else if candidate.ready {
            "stands by"
        } else {
            "not ready"
        };
        says.push(format!("{} on {}: {role}", candidate.workload, candidate.node));
    }
    for condition in binding
        .status
        .conditions
        .iter()
        .filter(|condition| !condition.message.is_empty())
    {
        says.push(format!(
            "{}={}: {}",
            condition.kind, condition.status, condition.message
        ));
    }
    Fact {
        subject: format!("{} {}", buoy_api::binding::BindingSpec::KIND, binding.name()),
        says: says.join("\n"),
    }
}

fn endpoint_fact(endpoint: &WorkloadEndpoint) -> Fact {
    Fact {
        subject: format!(
            "WorkloadEndpoint {}/{}",
            endpoint.metadata.namespace.as_deref().unwrap_or_default(),
            endpoint.name()
        ),
        says: format!(
            "{} on {} asks for it",
            workload_name(endpoint),
            endpoint.spec.node
        ),
    }
}

fn pool_fact(pool: Option<&IpPool>) -> Fact {
    match pool {
        Some(pool) => Fact {
            subject: format!("IPPool {}", pool.name()),
            says: format!("covers it: {}", pool.spec.cidr),
        },
        None => Fact {
            subject: "IPPools".to_owned(),
            says: "none covers it".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use buoy_api::ObjectMeta;
    use buoy_api::v3::IpPoolSpec;

    use super::super::fixtures::{binding, endpoint};
    use super::*;

    fn address() -> FloatingIp {
        "172.16.1.3".parse().unwrap()
    }

    fn pool() -> IpPool {
        IpPool::new(
            ObjectMeta::named("fips"),
            IpPoolSpec::new("172.16.0.0/16".parse().unwrap()),
        )
    }

    #[test]
    fn an_owned_address_is_explained() {
        let endpoints = [endpoint("web-0", "n1", &["10.65.0.7/32"], &["172.16.1.3"])];
        let why = from_store(address(), &[binding(&["web-0", "web-1"])], &endpoints, &[pool()]);
        assert_eq!(
            text(&why),
            "\
172.16.1.3 fronts shop/web-0 (10.65.0.7) on n1 since epoch 7

  FloatingIPBinding 172-16-1-3             for namespace shop, epoch 7
                                           web-0 on n1: owner
                                           web-1 on n1: stands by
  WorkloadEndpoint shop/n1-k8s-web-0-eth0  web-0 on n1 asks for it
  IPPool fips                              covers it: 172.16.0.0/16"
        );
    }

    #[test]
    fn each_way_of_having_no_owner_has_its_reason() {
        let asking = [endpoint("web-0", "n1", &["10.65.0.7/32"], &["172.16.1.3"])];
        let answer = |bindings: &[Binding], endpoints: &[WorkloadEndpoint], pools: &[IpPool]| {
            from_store(address(), bindings, endpoints, pools).answer
        };
        assert!(answer(&[], &[], &[pool()]).ends_with("no workload asks for it"));
        assert!(answer(&[], &asking, &[]).contains("no IPPool covers it"));
        assert!(answer(&[], &asking, &[pool()]).contains("no agent has claimed it yet"));
        let mut held = binding(&[]);
        assert!(answer(&[held.clone()], &[], &[pool()]).contains("it will be freed"));
        held.spec.released = Some(Timestamp::now());
        assert!(answer(&[held], &[], &[pool()]).contains("kept for namespace shop"));
    }
}
