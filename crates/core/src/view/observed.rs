//! What of the kernel and of the routing daemon bears upon what is said of addresses.

use std::collections::{BTreeMap, BTreeSet};

use buoy_api::ip::FloatingIp;

use super::View;
use crate::subject::Subject;

/// Whether the kernel has what a floating IP of this node needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Programmed {
    /// It has.
    Yes,
    /// Not yet.
    Pending,
    /// It could not be brought about.
    Failed(String),
}

/// What was observed of this node's floating IPs.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    programmed: BTreeMap<FloatingIp, Programmed>,
    heard: bool,
}

impl View {
    /// Whether the kernel has what an address needs; nothing where it should have nothing of it.
    pub fn programmed(&self, floating: FloatingIp) -> Option<&Programmed> {
        self.seen.programmed.get(&floating)
    }

    /// Takes in what the kernel has of an address and says whom that concerns.
    pub fn set_programmed(&mut self, floating: FloatingIp, is: Option<Programmed>) -> BTreeSet<Subject> {
        let known = &mut self.seen.programmed;
        let before = match is.clone() {
            Some(is) => known.insert(floating, is),
            None => known.remove(&floating),
        };
        let changed = (before != is).then_some(Subject::Binding(floating));
        changed.into_iter().collect()
    }

    /// Whether the routing daemon has somebody to announce to.
    pub fn is_heard(&self) -> bool {
        self.seen.heard
    }

    /// Takes in whether the routing daemon has an established session, and says whom that concerns.
    pub fn set_heard(&mut self, heard: bool) -> BTreeSet<Subject> {
        if std::mem::replace(&mut self.seen.heard, heard) == heard {
            return BTreeSet::new();
        }
        let owned = self.seen.programmed.keys().copied();
        owned.map(Subject::Binding).collect()
    }
}
