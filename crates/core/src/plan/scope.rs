//! Which rows a plan looks at.

use std::collections::BTreeSet;

use buoy_api::ip::FloatingIp;

use super::{Draft, Scope};
use crate::desired::{Hop, RouteKey, Row, RowKey, floating_metric};
use crate::endpoint::{IfIndex, IfName};

impl Draft<'_> {
    /// The rows to look at, and what these stand on or carry.
    pub(super) fn keys(&self, scope: &Scope) -> BTreeSet<RowKey> {
        let Scope::Keys(asked) = scope else {
            return self
                .desired
                .rows()
                .map(|(key, ..)| key.clone())
                .chain(self.observed.keys())
                .collect();
        };
        let mut keys = asked.clone();
        let mut open: Vec<RowKey> = asked.iter().cloned().collect();
        while let Some(key) = open.pop() {
            open.extend(
                self.along(&key)
                    .into_iter()
                    .filter(|along| keys.insert(along.clone())),
            );
        }
        keys
    }

    /// Rows that must be looked at together with one, so that their order holds whoever asks for which: a route with its
    /// link and its translation, a link or a translation that changes with its routes.
    fn along(&self, key: &RowKey) -> Vec<RowKey> {
        match (key, self.desired.get(key).map(|(row, _)| row)) {
            (RowKey::Link(name), wanted) => {
                let observed = self.observed.links.get(name).filter(|link| !link.leaving);
                let index = observed
                    .filter(|link| link.attachment().is_some())
                    .map(|link| link.index);
                if wanted.is_some() && index.is_some_and(|index| self.is_ready(name, index)) {
                    return Vec::new();
                }
                let there = index.into_iter().flat_map(|index| self.observed.routes_to(index));
                self.desired
                    .routes_via(name)
                    .chain(there)
                    .map(RowKey::Route)
                    .collect()
            }
            (RowKey::Route(key), Some(Row::Route(_, Hop::Link(name)))) => {
                let floating = FloatingIp::try_from(key.prefix.addr()).ok();
                let nat = floating
                    .filter(|floating| self.desired.nat(*floating).is_some())
                    .map(RowKey::Nat);
                nat.into_iter().chain([RowKey::Link(name.clone())]).collect()
            }
            (RowKey::Nat(floating), wanted) => {
                let route = match wanted {
                    Some(Row::Nat(_, nat)) => {
                        Some(RouteKey::host(floating.addr(), floating_metric(nat.epoch)))
                    }
                    _ => None,
                };
                self.observed
                    .routes_of(floating.addr())
                    .chain(route)
                    .map(RowKey::Route)
                    .collect()
            }
            (RowKey::Sysctl(_) | RowKey::Route(_) | RowKey::Bird(_), _) => Vec::new(),
        }
    }

    /// Whether a link is the one that is wanted and up, and the packet filter knows it for a workload's.
    fn is_ready(&self, name: &IfName, index: IfIndex) -> bool {
        self.present(name) == Some(index)
            && self.observed.links.get(name).is_some_and(|link| link.up)
            && self
                .observed
                .filters
                .get(&index)
                .is_some_and(|filter| filter.member)
    }

    /// Index of the link of this name, if it is there to stay and was made for the attachment that is wanted.
    pub(super) fn present(&self, name: &IfName) -> Option<IfIndex> {
        let (Row::Link(_, wanted), _) = self.desired.get(&RowKey::Link(name.clone()))? else {
            return None;
        };
        let link = self.observed.links.get(name).filter(|link| !link.leaving)?;
        (link.attachment()? == wanted.attachment).then_some(link.index)
    }
}
