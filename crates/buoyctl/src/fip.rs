//! Floating IPs: see them, ask for them, give them back, move them.

mod attach;
mod list;
mod release;
mod relocate;
mod why;

use buoy_api::binding::Owner;
use buoy_api::v3::WorkloadEndpoint;
use buoy_api::{Binding, names};
use buoy_core::store::{Key, Record, Value};
use jiff::Timestamp;

use crate::failure::Failure;

pub(crate) use attach::{Workload, attach, detach};
pub(crate) use list::list;
pub(crate) use release::release;
pub(crate) use relocate::{Relocation, relocate};
pub(crate) use why::why;

/// How people call the workload of an endpoint: its pod, or its container.
pub(crate) fn workload_name(endpoint: &WorkloadEndpoint) -> &str {
    let spec = &endpoint.spec;
    [&spec.pod, &spec.container_id, &spec.workload]
        .into_iter()
        .find(|name| !name.is_empty())
        .map_or(endpoint.name(), String::as_str)
}

/// What is going on with a binding, in one word.
pub(crate) fn state(binding: &Binding) -> String {
    let spec = &binding.spec;
    let told = binding
        .status
        .conditions
        .iter()
        .find_map(|condition| match condition.kind.as_str() {
            "Contested" if condition.status == "True" => Some("Contested"),
            "Accepted" if condition.status == "False" => Some("Refused"),
            _ => None,
        });
    let word = match (&spec.owner, told) {
        (_, Some(told)) => told,
        (Some(owner), None) if is_leaving(binding, owner) => "Moving",
        (Some(_), None) => "Owned",
        (None, None) if spec.offer.is_some() => "Offered",
        (None, None) if spec.released.is_some_and(|since| since > Timestamp::UNIX_EPOCH) => "Held",
        (None, None) => "Free",
    };
    word.to_owned()
}

/// Whether a move that was asked for can be done and is not.
fn is_leaving(binding: &Binding, owner: &Owner) -> bool {
    binding.spec.requested_move.as_ref().is_some_and(|wanted| {
        !owner.matches(&wanted.to)
            && binding
                .status
                .candidates
                .iter()
                .any(|candidate| candidate.ready && candidate.matches(&wanted.to))
    })
}

/// The record that binds an address.
fn binding_key(address: std::net::IpAddr) -> Key {
    Key::Binding(names::binding_name(address))
}

/// The binding in a record, if there is one that can be read.
fn binding_in(record: Option<&Record>) -> Result<Option<&Binding>, Failure> {
    match record.map(|record| &record.value) {
        Some(Ok(Value::Binding(binding))) => Ok(Some(binding)),
        Some(Err(bad)) => Err(bad.clone().into()),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod fixtures {
    use buoy_api::binding::{BindingSpec, BindingStatus};
    use buoy_api::v3::{IpNat, WorkloadEndpointSpec};
    use buoy_api::{Candidate, ObjectMeta, Term};

    use super::*;

    pub(super) fn endpoint(pod: &str, node: &str, own: &[&str], floating: &[&str]) -> WorkloadEndpoint {
        let spec = WorkloadEndpointSpec {
            orchestrator: "k8s".to_owned(),
            node: node.to_owned(),
            pod: pod.to_owned(),
            endpoint: "eth0".to_owned(),
            ip_networks: own.iter().map(|text| text.parse().unwrap()).collect(),
            ip_nats: floating
                .iter()
                .map(|external| IpNat {
                    internal_ip: own[0].split('/').next().unwrap().to_owned(),
                    external_ip: (*external).to_owned(),
                })
                .collect(),
            ..WorkloadEndpointSpec::default()
        };
        WorkloadEndpoint::new(
            ObjectMeta::namespaced("shop", format!("{node}-k8s-{pod}-eth0")),
            spec,
        )
    }

    pub(super) fn candidate(workload: &str, node: &str) -> Candidate {
        Candidate {
            node: node.to_owned(),
            workload: workload.to_owned(),
            endpoint: "eth0".to_owned(),
            uid: format!("{workload}-uid"),
            internal_ip: "10.65.0.7".parse().unwrap(),
            ready: true,
            priority: 0,
            since: Timestamp::UNIX_EPOCH,
        }
    }

    /// A binding of 172.16.1.3 for candidates of node n1, the first of which owns it.
    pub(super) fn binding(candidates: &[&str]) -> Binding {
        let candidates: Vec<Candidate> = candidates.iter().map(|name| candidate(name, "n1")).collect();
        let mut binding = Binding::new(
            ObjectMeta::named("172-16-1-3"),
            BindingSpec {
                address: "172.16.1.3".parse().unwrap(),
                namespace: "shop".to_owned(),
                owner: candidates.first().map(|candidate| candidate.as_owner(Term(1))),
                epoch: buoy_api::Epoch(7),
                ..BindingSpec::default()
            },
        );
        binding.status = BindingStatus {
            candidates,
            ..BindingStatus::default()
        };
        binding
    }
}

#[cfg(test)]
mod tests {
    use buoy_api::binding::Target;
    use buoy_api::{Condition, Move};

    use super::fixtures::binding;
    use super::*;

    #[test]
    fn a_state_is_one_word() {
        let mut record = binding(&["web-0", "web-1"]);
        assert_eq!(state(&record), "Owned");
        record.spec.requested_move = Some(Move {
            id: "1".to_owned(),
            to: Target {
                node: None,
                workload: "web-1".to_owned(),
                endpoint: None,
            },
            exclusive: false,
            drain: None,
        });
        assert_eq!(state(&record), "Moving");
        record.status.candidates[1].ready = false;
        assert_eq!(state(&record), "Owned");
        record.spec.owner = None;
        assert_eq!(state(&record), "Free");
        record.spec.released = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(state(&record), "Free");
        record.spec.released = Some(Timestamp::now());
        assert_eq!(state(&record), "Held");
        record.spec.offer = record
            .spec
            .requested_move
            .as_ref()
            .map(|wanted| buoy_api::binding::Offer {
                to: wanted.to.clone(),
                from: "n1".to_owned(),
            });
        assert_eq!(state(&record), "Offered");
        record.status.conditions.push(Condition {
            kind: "Contested".to_owned(),
            status: "True".to_owned(),
            reason: String::new(),
            message: String::new(),
        });
        assert_eq!(state(&record), "Contested");
    }
}
