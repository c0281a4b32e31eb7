//! What is owed for a floating IP.

use std::time::Duration;

use buoy_api::binding::{Binding, Candidate, Offer};
use buoy_api::ip::FloatingIp;

use super::{Duty, ORPHAN_GRACE, Owed, SETTLING};
use crate::floating::decide::{self, Case, Decision, Rival, Standing};
use crate::floating::lease::Own;
use crate::floating::{candidates, collect, conditions};
use crate::time::Now;
use crate::view::{View, Withdrawal};

pub(super) fn owed(view: &View, floating: FloatingIp, now: Now) -> Owed {
    if let Some(owed) = reassertion(view, floating, now) {
        return owed;
    }
    // Others may have what they did not write again yet. Everything is looked at when the time is over.
    if view.is_held() {
        return Owed::default();
    }
    let Some((binding, revision)) = view.bindings.versioned(&floating) else {
        return if view.bindings.contains(&floating) {
            Owed::default()
        } else {
            first(view, floating, now)
        };
    };
    let mine = candidates::of(view, floating, &binding.spec.namespace);
    let decision = decide::decide(&case(view, floating, binding, &mine, now), now);
    let seen = || Box::new((binding.clone(), revision));
    match decision {
        Decision::Offer {
            exclusive: true,
            offer,
            ..
        } => match view.withdrawal(floating) {
            None => Duty::Withdraw(floating).into(),
            Some(Withdrawal::Begun) => Owed::default(),
            Some(Withdrawal::Done) => Duty::Offer {
                floating,
                seen: seen(),
                offer,
            }
            .into(),
        },
        _ if view.withdrawal(floating).is_some() => Duty::Restore(floating).into(),
        Decision::Hold => Owed {
            again: view.hears_again(floating, now.mono),
            ..condition(view, floating, binding, mine)
        },
        Decision::Wait(until) => Owed {
            again: Some(until),
            ..Owed::default()
        },
        Decision::NeedLease => Owed::lease(),
        Decision::Claim(owner, reason) => Duty::Claim {
            floating,
            seen: seen(),
            owner,
            reason,
        }
        .into(),
        Decision::Restamp(term) => Duty::Restamp {
            floating,
            seen: seen(),
            term,
        }
        .into(),
        Decision::Offer { offer, .. } => Duty::Offer {
            floating,
            seen: seen(),
            offer,
        }
        .into(),
        Decision::Release => Duty::Release {
            floating,
            seen: seen(),
        }
        .into(),
        Decision::Publish(candidates) => publish(view, floating, binding, candidates),
        Decision::Collect => Duty::Collect {
            floating,
            seen: seen(),
            reservation: collect::reservation(view, floating),
        }
        .into(),
    }
}

/// This node's part of the status. What it says of an address that it owns is still changing while its kernel and BIRD take
/// it up; who stands by is for others to act on, and waits for nothing: but for whoever was just offered the address, whose
/// claim would find another revision of the record.
fn publish(view: &View, floating: FloatingIp, binding: &Binding, candidates: Vec<Candidate>) -> Owed {
    let conditions = conditions::of(view, floating, binding);
    let said = binding.status.candidates.iter();
    let mut said: Vec<&Candidate> = said.filter(|c| c.node == view.settings.node).collect();
    said.sort();
    let is_quiet = said.iter().copied().eq(&candidates) || (said.is_empty() && candidates.len() == 1);
    let spec = &binding.spec;
    let offers = |offer: &Offer| offer.from == view.settings.node;
    let is_offered = spec.owner.is_none() && spec.offer.as_ref().is_some_and(offers);
    Owed {
        grace: if is_offered || (is_quiet && !conditions.is_empty()) {
            SETTLING
        } else {
            Duration::ZERO
        },
        duty: Some(Duty::Candidates {
            floating,
            candidates,
            conditions,
        }),
        ..Owed::default()
    }
}

/// What this node says of an address that it owns, where the status says otherwise.
fn condition(view: &View, floating: FloatingIp, binding: &Binding, mut mine: Vec<Candidate>) -> Owed {
    let conditions = conditions::of(view, floating, binding);
    if conditions.is_empty() || !conditions::are_news(binding, &conditions) {
        return Owed::default();
    }
    mine.sort();
    publish(view, floating, binding, mine)
}

/// What was this node's before the store was restored from a copy is written again.
fn reassertion(view: &View, floating: FloatingIp, now: Now) -> Option<Owed> {
    let (before, above) = view.to_reassert(floating)?;
    let Standing::Holder(term) = standing(view, now) else {
        return Some(Owed::lease());
    };
    let duty = Duty::Reassert {
        floating,
        before: Box::new(before.clone()),
        above,
        term,
        overrules: view.is_held(),
    };
    Some(duty.into())
}

/// What is known of an address that has a binding.
fn case<'a>(
    view: &'a View,
    floating: FloatingIp,
    binding: &'a Binding,
    mine: &'a [Candidate],
    now: Now,
) -> Case<'a> {
    let owner = binding.spec.owner.as_ref();
    let sighting = owner.and_then(|owner| view.sighting(&owner.node));
    let rival = sighting.and_then(|seen| {
        Some(Rival {
            term: seen.term()?,
            since: seen.since,
        })
    });
    Case {
        binding,
        node: &view.settings.node,
        mine,
        hold: view.settings.hold,
        standing: standing(view, now),
        rival,
        since: view.turn_of(floating),
        can_announce: view.can_announce(),
        deaf: view.deaf(floating, now.mono),
        giving: view.is_giving(floating),
        exclusive: candidates::is_exclusive(view, binding),
        successor: candidates::has_successor(view, floating, binding),
    }
}

fn standing(view: &View, now: Now) -> Standing {
    match view.own_lease() {
        Own::Foreign(_) => Standing::Foreign,
        own => own
            .live_term(now.mono)
            .map_or(Standing::Without, Standing::Holder),
    }
}

/// A binding that does not exist yet is made for the oldest candidate, whatever its namespace.
fn first(view: &View, floating: FloatingIp, now: Now) -> Owed {
    let all = candidates::namespaces(view, floating);
    let all = all.iter().flat_map(|namespace| {
        let mine = candidates::of(view, floating, namespace);
        decide::first(&mine).map(|first| (first.since, namespace, first.clone()))
    });
    let Some((_, namespace, candidate)) = all.min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1))) else {
        return orphan(view, floating);
    };
    match standing(view, now) {
        _ if !view.can_announce() => Owed::default(),
        Standing::Without | Standing::Foreign => Owed::lease(),
        Standing::Holder(term) => Duty::FirstClaim {
            floating,
            namespace: namespace.clone(),
            owner: candidate.as_owner(term),
            floor: view.epoch_floor_of(floating),
        }
        .into(),
    }
}

/// A reservation without a binding, that nobody here asks for, is a leak once it has stood for a while.
fn orphan(view: &View, floating: FloatingIp) -> Owed {
    let asked = view.asking(floating).next().is_some();
    match collect::reservation(view, floating) {
        Some(stamp) if !asked => Owed {
            duty: Some(Duty::Free { floating, stamp }),
            grace: ORPHAN_GRACE,
            ..Owed::default()
        },
        _ => Owed::default(),
    }
}
