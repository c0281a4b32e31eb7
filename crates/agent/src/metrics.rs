//! What the agent counts, in Prometheus' terms.
//!
//! Counters and durations are kept where things happen, and cost no more than an atomic addition. What is so at a moment
//! is read from the loop when somebody asks ([`Glance`](crate::inspect::Glance)).

pub(crate) mod attachments;
pub(crate) mod datastore;
mod floating;
mod node;

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::inspect::Glance;

/// All metrics of an agent. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    pub(crate) datastore: datastore::Counts,
    pub(crate) attachments: attachments::Counts,
    pub(crate) floating: floating::Counts,
    pub(crate) node: node::Counts,
}

impl Metrics {
    /// Metrics of an agent that has done nothing yet.
    pub(crate) fn new() -> Self {
        let mut registry = buoy_daemon::metrics::registry();
        Self {
            datastore: datastore::Counts::register(&mut registry),
            attachments: attachments::Counts::register(&mut registry),
            floating: floating::Counts::register(&mut registry),
            node: node::Counts::register(&mut registry),
            registry: Arc::new(registry),
        }
    }

    /// Takes over what is so now.
    pub(crate) fn show(&self, glance: &Glance) {
        self.datastore.show(glance);
        self.attachments.show(glance);
        self.floating.show(glance);
        self.node.show(glance);
    }

    /// All of them, for whoever reads them.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
