//! Which candidate should have an address.

use std::cmp::Ordering;

use buoy_api::binding::{Binding, Candidate};

/// Orders candidates, the best first: ready, then the one that a person moved the address to, then priority, then the
/// present owner or its next incarnation, then the oldest, then the name.
pub fn compare(binding: &Binding, a: &Candidate, b: &Candidate) -> Ordering {
    let moved = |c: &Candidate| {
        c.ready
            && binding
                .spec
                .requested_move
                .as_ref()
                .is_some_and(|m| c.matches(&m.to))
    };
    let owner = |c: &Candidate| {
        binding
            .spec
            .owner
            .as_ref()
            .is_some_and(|owner| c.continues(owner))
    };
    b.ready
        .cmp(&a.ready)
        .then_with(|| moved(b).cmp(&moved(a)))
        .then_with(|| b.priority.cmp(&a.priority))
        .then_with(|| owner(b).cmp(&owner(a)))
        .then_with(|| a.since.cmp(&b.since))
        .then_with(|| (&a.node, &a.workload, &a.endpoint).cmp(&(&b.node, &b.workload, &b.endpoint)))
}

/// The candidate that should have the address.
pub fn best<'a>(
    binding: &Binding,
    candidates: impl IntoIterator<Item = &'a Candidate>,
) -> Option<&'a Candidate> {
    candidates.into_iter().min_by(|a, b| compare(binding, a, b))
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
