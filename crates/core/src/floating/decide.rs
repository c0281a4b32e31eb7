//! What this node should do about one floating IP now.

use std::time::Duration;

use buoy_api::binding::{Binding, Candidate, Owner, Term};
use jiff::{SignedDuration, Timestamp};

use crate::floating::order;

/// What is known of one address.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    /// Its binding, if there is one.
    pub binding: Option<&'a Binding>,
    /// This node.
    pub node: &'a str,
    /// Candidates of this node, of the binding's namespace, or, without a binding, of the namespace whose candidate is
    /// oldest.
    pub mine: &'a [Candidate],
    /// How long a namespace keeps an address that nobody owns.
    pub hold: Duration,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, until something changes.
    Hold,
    /// Nothing before this time.
    Wait(Timestamp),
    /// Make this candidate the owner.
    Claim(Owner, Reason),
    /// Leave the address without an owner.
    Release,
    /// Say in the binding's status who stands by here.
    Publish(Vec<Candidate>),
    /// Nobody wants the address and its hold is over: delete the binding.
    Collect,
}

/// Why an owner changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Nobody had it.
    Free,
    /// The owner is gone.
    OwnerGone,
    /// A person moved it, or a candidate has a higher priority.
    Better,
    /// The owner's own address changed.
    Renumbered,
}

/// Decides. Depends on its arguments alone.
pub fn decide(case: &Case, now: Timestamp) -> Decision {
    let Some(binding) = case.binding else {
        let oldest = case
            .mine
            .iter()
            .min_by_key(|c| (c.since, c.workload.clone(), c.endpoint.clone()));
        return oldest.map_or(Decision::Hold, |c| {
            Decision::Claim(c.as_owner(Term(0)), Reason::Free)
        });
    };
    let best = order::best(binding, case.mine);
    let decision = match &binding.spec.owner {
        Some(owner) if owner.node != case.node => Decision::Hold,
        Some(owner) => owned_here(case, owner, best),
        None => match best {
            Some(best) => Decision::Claim(best.as_owner(Term(0)), Reason::Free),
            None => Decision::Hold,
        },
    };
    match decision {
        Decision::Hold => publish(case, binding).unwrap_or_else(|| collect(case, binding, now)),
        decision => decision,
    }
}

fn owned_here(case: &Case, owner: &Owner, best: Option<&Candidate>) -> Decision {
    let Some(best) = best else {
        return Decision::Release;
    };
    match case.mine.iter().find(|c| c.is(owner)) {
        None => Decision::Claim(best.as_owner(owner.term), Reason::OwnerGone),
        Some(present) if !best.is(owner) && best.ready >= present.ready => {
            Decision::Claim(best.as_owner(owner.term), Reason::Better)
        }
        Some(present) if present.internal_ip != owner.internal_ip => {
            Decision::Claim(present.as_owner(owner.term), Reason::Renumbered)
        }
        Some(_) => Decision::Hold,
    }
}

/// Publishes when the status does not say what is so.
fn publish(case: &Case, binding: &Binding) -> Option<Decision> {
    let mut mine = case.mine.to_vec();
    mine.sort();
    let mut said: Vec<Candidate> = binding
        .status
        .candidates
        .iter()
        .filter(|c| c.node == case.node)
        .cloned()
        .collect();
    said.sort();
    (mine != said).then_some(Decision::Publish(mine))
}

fn collect(case: &Case, binding: &Binding, now: Timestamp) -> Decision {
    if binding.spec.owner.is_some() || !binding.status.candidates.is_empty() {
        return Decision::Hold;
    }
    let over = hold_ends(binding, case.hold);
    if now >= over {
        Decision::Collect
    } else {
        Decision::Wait(over)
    }
}

/// When a namespace's hold on an address that nobody owns is over.
pub fn hold_ends(binding: &Binding, hold: Duration) -> Timestamp {
    let released = binding
        .spec
        .released
        .or(binding.metadata.creation_timestamp)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let hold = SignedDuration::try_from(hold).unwrap_or(SignedDuration::MAX);
    released.checked_add(hold).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::binding::{BindingSpec, Epoch, Move, Target};
    use buoy_api::meta::ObjectMeta;

    const HOLD: Duration = Duration::from_secs(600);

    fn candidate(workload: &str, since: i64) -> Candidate {
        Candidate {
            node: "n1".into(),
            workload: workload.into(),
            endpoint: "eth0".into(),
            uid: format!("uid-{workload}"),
            internal_ip: "10.65.0.7".parse().unwrap(),
            ready: true,
            priority: 0,
            since: Timestamp::from_second(since).unwrap(),
        }
    }

    fn binding(owner: Option<&Candidate>, said: &[Candidate]) -> Binding {
        let mut binding = Binding::new(
            ObjectMeta::named("172-16-1-3"),
            BindingSpec {
                address: "172.16.1.3".parse().unwrap(),
                namespace: "shop".into(),
                owner: owner.map(|c| c.as_owner(Term(0))),
                epoch: Epoch(7),
                released: owner.is_none().then(|| Timestamp::from_second(1000).unwrap()),
                ..BindingSpec::default()
            },
        );
        binding.status.candidates = said.to_vec();
        binding
    }

    fn decision(binding: Option<&Binding>, mine: &[Candidate], now: i64) -> Decision {
        let case = Case {
            binding,
            node: "n1",
            mine,
            hold: HOLD,
        };
        decide(&case, Timestamp::from_second(now).unwrap())
    }

    #[test]
    fn the_oldest_candidate_gets_a_new_address() {
        let (old, young) = (candidate("b", 1), candidate("a", 2));
        let expected = Decision::Claim(old.as_owner(Term(0)), Reason::Free);
        assert_eq!(decision(None, &[young, old], 5), expected);
        assert_eq!(decision(None, &[], 5), Decision::Hold);
    }

    #[test]
    fn an_owner_stays_and_a_standby_is_published() {
        let (owner, standby) = (candidate("a", 5), candidate("b", 1));
        let both = [owner.clone(), standby.clone()];
        assert_eq!(
            decision(Some(&binding(Some(&owner), &both)), &both, 9),
            Decision::Hold
        );
        let unsaid = binding(Some(&owner), std::slice::from_ref(&owner));
        assert_eq!(
            decision(Some(&unsaid), &both, 9),
            Decision::Publish(both.to_vec())
        );
    }

    #[test]
    fn the_standby_takes_over_when_the_owner_is_gone() {
        let (owner, standby) = (candidate("a", 1), candidate("b", 2));
        let mine = [standby.clone()];
        let expected = Decision::Claim(standby.as_owner(Term(0)), Reason::OwnerGone);
        assert_eq!(decision(Some(&binding(Some(&owner), &[])), &mine, 9), expected);
        assert_eq!(
            decision(Some(&binding(Some(&owner), &[])), &[], 9),
            Decision::Release
        );
    }

    #[test]
    fn a_move_and_a_priority_outrank_the_owner() {
        let (owner, mut standby) = (candidate("a", 1), candidate("b", 2));
        let both = [owner.clone(), standby.clone()];
        let mut moved = binding(Some(&owner), &both);
        let to = Target {
            node: None,
            workload: "b".into(),
            endpoint: None,
        };
        moved.spec.requested_move = Some(Move {
            id: "1".into(),
            to,
            exclusive: false,
            drain: None,
        });
        let expected = Decision::Claim(standby.as_owner(Term(0)), Reason::Better);
        assert_eq!(decision(Some(&moved), &both, 9), expected);
        standby.priority = 1;
        let both = [owner.clone(), standby.clone()];
        assert_eq!(decision(Some(&binding(Some(&owner), &both)), &both, 9), expected);
    }

    #[test]
    fn another_nodes_address_is_left_alone() {
        let mut elsewhere = candidate("a", 1);
        elsewhere.node = "n2".into();
        let mine = [candidate("b", 2)];
        let said = [elsewhere.clone(), mine[0].clone()];
        assert_eq!(
            decision(Some(&binding(Some(&elsewhere), &said)), &mine, 9),
            Decision::Hold
        );
    }

    #[test]
    fn an_address_that_another_node_waits_for_is_not_collected() {
        let mut elsewhere = candidate("a", 1);
        elsewhere.node = "n2".into();
        assert_eq!(
            decision(Some(&binding(None, &[elsewhere])), &[], 1700),
            Decision::Hold
        );
    }

    #[test]
    fn an_owner_whose_address_changed_claims_anew() {
        let owner = candidate("a", 1);
        let mut renumbered = owner.clone();
        renumbered.internal_ip = "10.65.0.8".parse().unwrap();
        let expected = Decision::Claim(renumbered.as_owner(Term(0)), Reason::Renumbered);
        let owned = binding(Some(&owner), std::slice::from_ref(&owner));
        assert_eq!(decision(Some(&owned), &[renumbered], 9), expected);
    }

    #[test]
    fn one_that_is_not_ready_takes_nothing_from_one_that_is() {
        let (owner, mut standby) = (candidate("a", 5), candidate("b", 1));
        standby.ready = false;
        standby.priority = 9;
        let both = [owner.clone(), standby.clone()];
        assert_eq!(
            decision(Some(&binding(Some(&owner), &both)), &both, 9),
            Decision::Hold
        );
        let alone = [standby.clone()];
        let expected = Decision::Claim(standby.as_owner(Term(0)), Reason::Free);
        assert_eq!(decision(Some(&binding(None, &alone)), &alone, 9), expected);
    }

    #[test]
    fn an_address_is_held_for_its_namespace_and_then_collected() {
        let free = binding(None, &[]);
        assert_eq!(
            decision(Some(&free), &[], 1599),
            Decision::Wait(Timestamp::from_second(1600).unwrap())
        );
        assert_eq!(decision(Some(&free), &[], 1600), Decision::Collect);
        let back = candidate("a", 1100);
        let expected = Decision::Claim(back.as_owner(Term(0)), Reason::Free);
        assert_eq!(decision(Some(&free), &[back], 1700), expected);
    }
}
