//! The independent checker on a cluster: its records are what the API says.

use std::sync::PoisonError;

use anyhow::Result;

use super::{Cluster, SOON};
use crate::checker::{Checker, Place, Places, Source};
use crate::cluster::Standing;

/// Where every agent on a node has the control socket of its BIRD, be it a process or a pod.
const BIRD: &str = "/run/buoy/bird.ctl";

impl Cluster {
    /// Waits until kernels, network and API agree with the invariants, by the independent checker. Error: what still does
    /// not after a while.
    pub fn check(&self) -> Result<()> {
        let mut checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
        checker.wait(&self.places(), SOON)
    }

    /// What does not agree now, a line each.
    pub fn disagreements(&self) -> Result<Vec<String>> {
        Checker::default().check(&self.places())
    }

    fn places(&self) -> Places {
        let nodes = self.nodes.iter().map(|node| Place {
            name: node.name().to_owned(),
            netns: node.netns().path().to_owned(),
            bird: (node.standing() == Standing::Live).then(|| node.seen(BIRD)),
            standing: node.standing(),
        });
        Places {
            records: Source::Api(self.api()),
            nodes: nodes.collect(),
            router: Some(Place::of_router(&self.router)),
        }
    }
}
