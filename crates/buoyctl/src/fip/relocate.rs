//! `fip move`: writes the wish into the binding and waits for the agents to fulfil it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use buoy_api::binding::{Move, Target};
use buoy_api::{Binding, FloatingIp};
use buoy_core::store::{Prefix, Value};
use serde::Serialize;

use super::{binding_in, binding_key};
use crate::age::took;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::store::{Edit, Store};

/// A move that a person asks for.
#[derive(Clone, Debug)]
pub(crate) struct Relocation {
    /// Which address.
    pub address: FloatingIp,
    /// To whom.
    pub to: Target,
    /// Withdraw first, announce afterwards.
    pub exclusive: bool,
    /// How long established flows go on to an old owner on the same node, such as `30s`.
    pub drain: Option<String>,
    /// Distinguishes this wish from others.
    pub id: String,
    /// How long to wait for the move.
    pub timeout: Duration,
}

/// How a move ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Moved {
    address: IpAddr,
    workload: String,
    node: String,
    epoch: u64,
    /// Whether it had to move.
    changed: bool,
    milliseconds: f64,
}

/// Moves an address and waits until its owner is the target.
pub(crate) fn relocate(store: &Store, relocation: &Relocation, format: Format) -> Result<Output, Failure> {
    let address = relocation.address.addr();
    let key = binding_key(address);
    let begun = Instant::now();
    let mut warning = None;
    let asked = store.change(&key, |record| {
        let Some(binding) = binding_in(record)? else {
            return Err(unbound(address));
        };
        warning = vain_drain(binding, relocation);
        Ok(match wish(binding, relocation)? {
            Some(binding) => Edit::Put(Box::new(Value::Binding(binding)), true),
            None => Edit::Keep(false),
        })
    })?;
    let moved = store.wait(&key, Prefix::Bindings, begun + relocation.timeout, |record| {
        let binding = binding_in(record).ok().flatten()?;
        let owner = binding.spec.owner.as_ref()?;
        owner.matches(&relocation.to).then(|| Moved {
            address,
            workload: owner.workload.clone(),
            node: owner.node.clone(),
            epoch: binding.spec.epoch.0,
            changed: asked,
            milliseconds: begun.elapsed().as_secs_f64() * 1000.0,
        })
    })?;
    let elapsed = begun.elapsed();
    let moved = moved.ok_or_else(|| late(relocation, elapsed))?;
    let output = Output::render(format, &moved, || {
        let Moved {
            workload,
            node,
            epoch,
            ..
        } = &moved;
        if asked {
            format!(
                "{address} moved to {workload} on {node} in {}, epoch {epoch}",
                took(elapsed)
            )
        } else {
            format!("{address} belongs to {workload} on {node} already, epoch {epoch}")
        }
    })?;
    Ok(output.warning(warning))
}

/// That established flows will not go on: they do so only from one workload to another of its node.
fn vain_drain(binding: &Binding, relocation: &Relocation) -> Option<String> {
    let drain = relocation.drain.as_ref()?;
    let owner = binding.spec.owner.as_ref()?;
    let mut candidates = binding.status.candidates.iter();
    let stays = candidates.any(|candidate| candidate.matches(&relocation.to) && candidate.node == owner.node);
    (!stays).then(|| {
        format!(
            "flows are not drained across nodes: {} is on {}\nthose to {} end at once, not after {drain}",
            owner.workload, owner.node, binding.spec.address
        )
    })
}

/// The binding with the wish written into it; `None` if it is fulfilled already.
fn wish(binding: &Binding, relocation: &Relocation) -> Result<Option<Binding>, Failure> {
    let to = &relocation.to;
    if binding.spec.owner.as_ref().is_some_and(|owner| owner.matches(to)) {
        return Ok(None);
    }
    if !binding
        .status
        .candidates
        .iter()
        .any(|candidate| candidate.matches(to))
    {
        return Err(no_candidate(binding, relocation));
    }
    let mut binding = binding.clone();
    binding.spec.requested_move = Some(Move {
        id: relocation.id.clone(),
        to: to.clone(),
        exclusive: relocation.exclusive,
        drain: relocation.drain.clone(),
    });
    Ok(Some(binding))
}

fn unbound(address: IpAddr) -> Failure {
    Failure::new(format!(
        "nobody has floating IP: {address}\nbuoyctl fip attach {address} WORKLOAD lets a workload ask for it"
    ))
}

fn no_candidate(binding: &Binding, relocation: &Relocation) -> Failure {
    let Target { node, workload, .. } = &relocation.to;
    let place = node
        .as_ref()
        .map_or_else(String::new, |node| format!(" on {node}"));
    let candidates: Vec<String> = binding
        .status
        .candidates
        .iter()
        .map(|candidate| format!("{} on {}", candidate.workload, candidate.node))
        .collect();
    let known = if candidates.is_empty() {
        "nobody".to_owned()
    } else {
        candidates.join(", ")
    };
    Failure::new(format!(
        "not a candidate for {address}: {workload}{place}: candidates are {known}\n\
         let it ask first: buoyctl fip attach {address} {workload} -n {namespace}",
        address = relocation.address,
        namespace = binding.spec.namespace,
    ))
}

fn late(relocation: &Relocation, elapsed: Duration) -> Failure {
    Failure::new(format!(
        "not moved within {}: {} to {}\nthe wish stands: an agent fulfils it when {} is ready; buoyctl fip why {} says more",
        took(elapsed),
        relocation.address,
        relocation.to.workload,
        relocation.to.workload,
        relocation.address,
    ))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::binding;
    use super::*;

    fn to(workload: &str, node: Option<&str>) -> Relocation {
        Relocation {
            address: "172.16.1.3".parse().unwrap(),
            to: Target {
                node: node.map(str::to_owned),
                workload: workload.to_owned(),
                endpoint: None,
            },
            exclusive: false,
            drain: None,
            id: "m1".to_owned(),
            timeout: Duration::ZERO,
        }
    }

    #[test]
    fn a_wish_is_for_a_candidate_that_is_not_the_owner() {
        let before = binding(&["web-0", "web-1"]);
        assert_eq!(wish(&before, &to("web-0", None)), Ok(None));
        let after = wish(&before, &to("web-1", Some("n1"))).unwrap().unwrap();
        assert_eq!(after.spec.owner, before.spec.owner);
        assert_eq!(after.spec.epoch, before.spec.epoch);
        let wanted = after.spec.requested_move.unwrap();
        assert_eq!((wanted.id.as_str(), wanted.to.workload.as_str()), ("m1", "web-1"));
    }

    #[test]
    fn a_drain_is_part_of_the_wish_and_stays_on_its_node() {
        let mut before = binding(&["web-0", "web-1", "web-2"]);
        before.status.candidates[2].node = "n2".to_owned();
        let drained = |workload: &str| Relocation {
            drain: Some("30s".to_owned()),
            exclusive: true,
            ..to(workload, None)
        };
        let after = wish(&before, &drained("web-1")).unwrap().unwrap();
        let wanted = after.spec.requested_move.unwrap();
        assert_eq!((wanted.drain.as_deref(), wanted.exclusive), (Some("30s"), true));
        assert_eq!(vain_drain(&before, &drained("web-1")), None);
        assert_eq!(vain_drain(&before, &to("web-2", None)), None);
        assert_eq!(
            vain_drain(&before, &drained("web-2")).unwrap(),
            "flows are not drained across nodes: web-0 is on n1\nthose to 172.16.1.3 end at once, not after 30s"
        );
    }

    #[test]
    fn who_is_no_candidate_is_told_who_is() {
        let message = |relocation| {
            wish(&binding(&["web-0", "web-1"]), &relocation)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(to("web-1", Some("n2"))),
            "not a candidate for 172.16.1.3: web-1 on n2: candidates are web-0 on n1, web-1 on n1\n\
             let it ask first: buoyctl fip attach 172.16.1.3 web-1 -n shop"
        );
    }
}
