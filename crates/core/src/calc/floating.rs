//! Translation and route of a floating IP.

use std::time::Duration;

use buoy_api::annotations;
use buoy_api::binding::{BindingSpec, Owner};
use buoy_api::ip::FloatingIp;

use crate::desired::{Hop, Nat, RouteKey, Row, UNOWNED_METRIC, floating_metric};
use crate::floating::candidates;
use crate::view::View;

/// Where the owner is a workload of this node, its translation and route. Where nobody is and somebody here waits, a
/// route that tells senders so.
pub(super) fn rows(view: &View, floating: FloatingIp) -> Vec<Row> {
    let binding = view.bindings.get(&floating);
    let Some(owner) = binding.and_then(|binding| binding.spec.owner.as_ref()) else {
        let waits = binding.is_some_and(|b| !candidates::of(view, floating, &b.spec.namespace).is_empty());
        let unowned = RouteKey::host(floating.addr(), UNOWNED_METRIC);
        return if waits {
            vec![Row::Route(unowned, Hop::Unreachable)]
        } else {
            Vec::new()
        };
    };
    let Some(binding) = binding else { return Vec::new() };
    let Some(attachment) = view.attachment_of_owner(&binding.spec.namespace, owner) else {
        return Vec::new();
    };
    if !attachment
        .own_addresses()
        .any(|address| address == owner.internal_ip)
    {
        return Vec::new();
    }
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

/// How long flows to the former owner go on, as whoever asked for the move to this one says.
fn asked_drain(spec: &BindingSpec, owner: &Owner) -> Option<Duration> {
    let asked = spec
        .requested_move
        .as_ref()
        .filter(|asked| owner.matches(&asked.to))?;
    annotations::drain(asked.drain.as_deref()?).ok()
}
