//! Whether workloads can serve, as the records say.
//!
//! A workload that was ready and is so no more counts as ready for the yield time: an address does not move for a moment of
//! weakness. One that was never ready, or is being deleted, does not get that time.

use std::collections::BTreeSet;

use buoy_api::annotations::Readiness;

use super::View;
use crate::endpoint::EndpointId;
use crate::subject::Subject;
use crate::time::Mono;

/// How an endpoint is, as far as somebody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    /// It serves.
    Ready,
    /// It was ready until then, and still counts as such.
    Failing(Mono),
    /// It does not serve.
    NotReady,
}

impl View {
    /// Whether an endpoint can serve. One of which nobody says anything can, from ADD to DEL.
    pub fn serves(&self, endpoint: &EndpointId) -> bool {
        self.serving.get(endpoint) != Some(&Serving::NotReady)
    }

    /// When to look again at what is ready here, though nothing is heard of it.
    pub fn readiness_due(&self) -> Option<Mono> {
        let failing = self
            .serving
            .values()
            .filter_map(|serving| self.yields_at(*serving));
        failing.chain(self.daemon_due()).min()
    }

    /// Looks whether the routing daemon or a workload has been not ready for too long, or is well again, and says whom that
    /// concerns.
    pub fn look_at_readiness(&mut self, now: Mono) -> BTreeSet<Subject> {
        let mut dirty = self.look_at_daemon(now);
        let due = self
            .serving
            .iter()
            .filter(|(_, serving)| self.yields_at(**serving).is_some_and(|at| at <= now));
        let due: Vec<EndpointId> = due.map(|(endpoint, _)| endpoint.clone()).collect();
        for endpoint in due {
            dirty.extend(self.asked_by(&endpoint).map(Subject::Binding));
            self.serving.insert(endpoint, Serving::NotReady);
        }
        dirty
    }

    /// Takes in what the record of an endpoint says now. What the endpoint asks for is looked at again anyway.
    pub(super) fn note_readiness(&mut self, endpoint: &EndpointId, now: Mono) {
        let record = self.endpoints.get(endpoint);
        let said = record.and_then(|record| Readiness::of(&record.metadata.annotations));
        let before = self.serving.get(endpoint);
        let serving = match (said, before) {
            (None, _) => {
                self.serving.remove(endpoint);
                return;
            }
            (Some(Readiness::Ready), _) => Serving::Ready,
            (Some(Readiness::NotReady), Some(Serving::Ready)) => Serving::Failing(now),
            (Some(Readiness::NotReady), Some(Serving::Failing(since))) => Serving::Failing(*since),
            (Some(Readiness::NotReady | Readiness::Going), _) => Serving::NotReady,
        };
        self.serving.insert(endpoint.clone(), serving);
    }

    fn yields_at(&self, serving: Serving) -> Option<Mono> {
        match serving {
            Serving::Failing(since) => Some(since.after(self.settings.yield_time)),
            Serving::Ready | Serving::NotReady => None,
        }
    }
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;
