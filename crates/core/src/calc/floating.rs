//! Translation and route of a floating IP.

use std::time::Duration;

use buoy_api::annotations;
use buoy_api::binding::{Binding, BindingSpec, Owner};
use buoy_api::ip::FloatingIp;

use crate::desired::{Hop, Nat, RouteKey, Row, UNOWNED_METRIC, floating_metric};
use crate::floating::candidates;
use crate::view::{Routing, View};

/// Whether what the kernel has of a floating IP stays as it is: nobody can know what it should be, for its record does not
/// decode and never did as far as this agent remembers; or it was given away, and nobody else is heard of yet who would
/// serve it.
pub fn stays(view: &View, floating: FloatingIp) -> bool {
    match view.bindings.get(&floating) {
        None => view.bindings.contains(&floating),
        Some(binding) => is_given_away(view, floating, binding),
    }
}

fn is_given_away(view: &View, floating: FloatingIp, binding: &Binding) -> bool {
    let elsewhere = match &binding.spec.owner {
        Some(owner) => owner.node != view.settings.node,
        None => binding.spec.offer.is_some(),
    };
    elsewhere
        && view.settings.routing == Routing::Bird
        && view.withdrawal(floating).is_none()
        && view.asking(floating).next().is_some()
        && !view.is_learnt(floating)
}

/// Where the owner is a workload of this node, its translation and route. Where it is not and somebody here waits, a
/// route that tells senders so.
pub(super) fn rows(view: &View, floating: FloatingIp) -> Vec<Row> {
    let Some(binding) = view.bindings.get(&floating) else {
        return Vec::new();
    };
    let owner = binding.spec.owner.as_ref();
    let Some(owner) = owner.filter(|owner| owner.node == view.settings.node) else {
        return unowned(view, floating, binding);
    };
    let attachment = view
        .attachment_of_owner(&binding.spec.namespace, owner)
        .filter(|attachment| {
            attachment
                .own_addresses()
                .any(|address| address == owner.internal_ip)
        });
    let Some(attachment) = attachment.filter(|_| view.withdrawal(floating).is_none()) else {
        return Vec::new();
    };
    let epoch = binding.spec.epoch;
    let nat = Nat {
        internal: owner.internal_ip,
        endpoint: attachment.endpoint.clone(),
        epoch,
        drain: asked_drain(&binding.spec, owner),
    };
    let key = RouteKey::host(floating.addr(), floating_metric(epoch));
    vec![
        Row::Nat(floating, nat),
        Row::Route(key, Hop::Link(attachment.request.host_ifname.clone())),
    ]
}

/// The last of all routes. Somebody else who announces an owner elsewhere may do so by a default route, which it must not
/// hide.
fn unowned(view: &View, floating: FloatingIp, binding: &Binding) -> Vec<Row> {
    let hides = binding.spec.owner.is_some() && view.settings.routing == Routing::Kernel;
    if hides || candidates::of(view, floating, &binding.spec.namespace).is_empty() {
        return Vec::new();
    }
    let key = RouteKey::host(floating.addr(), UNOWNED_METRIC);
    vec![Row::Route(key, Hop::Unreachable)]
}

/// How long flows to the former owner go on, as whoever asked for the move to this one says.
fn asked_drain(spec: &BindingSpec, owner: &Owner) -> Option<Duration> {
    let asked = spec
        .requested_move
        .as_ref()
        .filter(|asked| owner.matches(&asked.to))?;
    annotations::drain(asked.drain.as_deref()?).ok()
}
