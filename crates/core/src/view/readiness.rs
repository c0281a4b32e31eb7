//! Whether workloads can serve, as the records say.
//!
//! A workload that was ready and is so no more counts as ready for the yield time: an address does not move for a moment of
//! weakness. One that was never ready, or is being deleted, does not get that time; and where it is no owner it is known to
//! be weak at once, so that nothing moves to it.

use std::collections::{BTreeMap, BTreeSet};

use buoy_api::annotations::Readiness;

use super::View;
use crate::endpoint::EndpointId;
use crate::subject::Subject;
use crate::time::Mono;

/// How endpoints are, as far as somebody says. What is done now and then costs as much as there are that fail.
#[derive(Clone, Debug, Default)]
pub(super) struct Serving {
    /// Whether they count as ready.
    ready: BTreeMap<EndpointId, bool>,
    /// Those that were ready until then, and still count as such.
    failing: BTreeMap<EndpointId, Mono>,
}

impl Serving {
    fn set(&mut self, endpoint: EndpointId, is_ready: bool) {
        self.failing.remove(&endpoint);
        self.ready.insert(endpoint, is_ready);
    }

    fn counts_as_ready(&self, endpoint: &EndpointId) -> Option<bool> {
        self.ready.get(endpoint).copied()
    }

    fn forget(&mut self, endpoint: &EndpointId) {
        self.failing.remove(endpoint);
        self.ready.remove(endpoint);
    }
}

impl View {
    /// Whether an endpoint can serve. One of which nobody says anything can, from ADD to DEL.
    pub fn serves(&self, endpoint: &EndpointId) -> bool {
        self.serving.counts_as_ready(endpoint).unwrap_or(true)
    }

    /// Whether an endpoint counts as ready, and is not.
    pub fn is_weak(&self, endpoint: &EndpointId) -> bool {
        self.serving.failing.contains_key(endpoint)
    }

    /// When to look again at what is ready here, though nothing is heard of it.
    pub fn readiness_due(&self) -> Option<Mono> {
        let failing = self.serving.failing.values().map(|since| self.yields_at(*since));
        failing.chain(self.daemon_due()).min()
    }

    /// Looks whether the routing daemon or a workload has been not ready for too long, or is well again, and says whom that
    /// concerns.
    pub fn look_at_readiness(&mut self, now: Mono) -> BTreeSet<Subject> {
        let mut dirty = self.look_at_daemon(now);
        let failing = self.serving.failing.iter();
        let due = failing.filter(|(_, since)| self.yields_at(**since) <= now);
        let due: Vec<EndpointId> = due.map(|(endpoint, _)| endpoint.clone()).collect();
        for endpoint in due {
            dirty.extend(self.asked_by(&endpoint).map(Subject::Binding));
            self.serving.set(endpoint, false);
        }
        dirty
    }

    /// Takes in what the record of an endpoint says now. What the endpoint asks for is looked at again anyway.
    pub(super) fn note_readiness(&mut self, endpoint: &EndpointId, now: Mono) {
        let record = self.endpoints.get(endpoint);
        let said = record.and_then(|record| Readiness::of(&record.metadata.annotations));
        let serving = &mut self.serving;
        match (said, serving.counts_as_ready(endpoint)) {
            (None, _) => serving.forget(endpoint),
            (Some(Readiness::Ready), _) => serving.set(endpoint.clone(), true),
            (Some(Readiness::NotReady), Some(true)) => {
                serving.failing.entry(endpoint.clone()).or_insert(now);
            }
            (Some(Readiness::NotReady | Readiness::Going), _) => serving.set(endpoint.clone(), false),
        }
    }

    fn yields_at(&self, since: Mono) -> Mono {
        since.after(self.settings.yield_time)
    }
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;
