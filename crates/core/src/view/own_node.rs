//! This node's own record, and whether somebody else writes it too.

use std::time::Duration;

use super::View;
use crate::edit::Change;
use crate::records;
use crate::store::Value;
use crate::time::Mono;

/// Whoever writes over a node's record is answered so many times in a [`TRUCE`].
const ANSWERS: u32 = 3;
/// How long an agent leaves its node's record alone once it was written over more often. A person would have stopped;
/// another agent under the same name never does.
const TRUCE: Duration = Duration::from_secs(60);

/// What this agent saw of its node's record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnNode {
    right: bool,
    /// When somebody wrote over it first, of late, and how often since.
    spoilt: Option<(Mono, u32)>,
}

impl View {
    /// Whether this node's record says what this agent would write, or does not decode: that is not written over.
    pub fn node_is_right(&self) -> bool {
        let name = &self.settings.node;
        let found = self.nodes.versioned(name.as_str());
        let found = found.map(|(node, _)| Value::Node(node.clone()));
        if found.is_none() && self.nodes.contains(name) {
            return true;
        }
        let change = records::node(found.as_ref(), name, &self.settings.version, &self.addresses);
        change == Change::Keep
    }

    /// Until when this agent leaves its node's record to another one that writes it, too.
    pub fn truce(&self, now: Mono) -> Option<Mono> {
        let (since, _) = self
            .own_node
            .spoilt
            .filter(|(_, times)| !self.own_node.right && *times > ANSWERS)?;
        Some(since.after(TRUCE)).filter(|end| now < *end)
    }

    /// This node's record may be another.
    pub(super) fn note_own_node(&mut self, now: Mono) {
        let right = self.node_is_right();
        let OwnNode { right: was, spoilt } = self.own_node;
        let spoilt = if was && !right {
            let (since, times) = spoilt
                .filter(|(since, _)| now < since.after(TRUCE))
                .unwrap_or((now, 0));
            Some((since, times + 1))
        } else {
            spoilt
        };
        self.own_node = OwnNode { right, spoilt };
    }
}
