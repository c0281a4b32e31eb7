//! Leases, withdrawals and the readiness of this node: what ownership needs of the loop.

use std::collections::BTreeSet;

use buoy_api::{FloatingIp, NodeLease};
use buoy_core::desired::RowKey;
use buoy_core::duty::Duty;
use buoy_core::floating::lease::{GAP, Own};
use buoy_core::store::Revision;
use buoy_core::subject::Subject;
use buoy_core::time::{Mono, Now};
use buoy_core::view::Withdrawal;
use tracing::{debug, info, warn};

use super::Agent;

impl Agent {
    /// Looks at what time and the kernel bring about: a routing daemon that is away or a workload that is not ready for too
    /// long, addresses that have left the kernel.
    pub(super) fn look_at_ownership(&mut self, now: Mono) {
        self.dirty.extend(self.view.look_at_readiness(now));
        let gone: Vec<FloatingIp> = self
            .withdrawing
            .iter()
            .copied()
            .filter(|floating| self.is_withdrawn(*floating, now))
            .collect();
        for floating in gone {
            self.withdrawing.remove(&floating);
            self.withdraw(floating, Some(Withdrawal::Done));
        }
    }

    fn is_withdrawn(&self, floating: FloatingIp, now: Mono) -> bool {
        let translation = BTreeSet::from([RowKey::Nat(floating)]);
        !self.dirty.contains(&Subject::Binding(floating))
            && self.network.desired().nat(floating).is_none()
            && self.network.is_settled(&self.view, &translation, now)
    }

    /// Hands on what is owed. What waits for this node's lease says so, and then the lease itself is owed.
    pub(super) fn perform_duties(&mut self, now: Now) {
        self.begin_duties(now);
        if self.work.wants_lease() != self.view.lease_wanted {
            self.view.lease_wanted = self.work.wants_lease();
            let node = self.view.settings.node.clone();
            // Another agent may hold it, and is watched then.
            self.work.look_at([Subject::Lease, Subject::OtherNode(node)]);
            self.begin_duties(now);
        }
    }

    fn begin_duties(&mut self, now: Now) {
        for (subject, duty) in self.work.turn(&self.view, now) {
            if let Duty::Allocate(attachment) = &duty
                && let Err(error) = self.may_assign(attachment, now.mono)
            {
                self.assigned(&subject, Err(error), now);
                continue;
            }
            match duty {
                Duty::Withdraw(floating) => {
                    self.withdrawing.insert(floating);
                    self.withdraw(floating, Some(Withdrawal::Begun));
                    self.work.ended(&subject, None, now.mono);
                }
                Duty::Restore(floating) => {
                    self.withdrawing.remove(&floating);
                    self.withdraw(floating, None);
                    self.work.ended(&subject, None, now.mono);
                }
                duty => {
                    if let Duty::Offer { floating, .. } | Duty::Release { floating, .. } = &duty {
                        self.view.begin_giving(*floating);
                    }
                    self.store.perform(subject, duty, &self.view, now);
                }
            }
        }
    }

    fn withdraw(&mut self, floating: FloatingIp, withdrawal: Option<Withdrawal>) {
        self.dirty.extend(self.view.set_withdrawal(floating, withdrawal));
    }

    /// This node's lease was taken, renewed, left, or is another agent's.
    pub(super) fn lease_kept(&mut self, subject: &Subject, own: Own, ended: Mono, now: Mono) {
        self.work.ended(subject, None, now);
        match (self.view.own_lease(), &own) {
            (Own::Held(before), Own::Held(held)) if before.term != held.term => {
                self.metrics.floating.revoked.inc();
                warn!(
                    "this node's lease was revoked and is taken again: term {}",
                    held.term.0
                );
            }
            (Own::Held(before), Own::Held(_)) if ended > before.began.after(GAP) => {
                debug!(
                    "its lease could not be renewed for {} ms: who is silent may not be dead",
                    ended.since(before.began).as_millis()
                );
            }
            (Own::Nothing | Own::Foreign(_), Own::Held(held)) => {
                info!("holds its lease: term {}", held.term.0)
            }
            (Own::Nothing | Own::Held(_), Own::Foreign(holder)) => {
                warn!("another agent holds the lease of this node: {holder}\nname the nodes differently");
            }
            _ => {}
        }
        self.dirty.extend(self.view.own_lease_kept(own, ended));
        self.work.lease_is_here();
    }

    /// A lease was read, or revoked.
    pub(super) fn lease_sighted(
        &mut self,
        subject: &Subject,
        lease: Option<(NodeLease, Revision)>,
        ended: Mono,
    ) {
        let duty = self.work.ended(subject, None, ended);
        let Subject::OtherNode(node) = subject else { return };
        let before = self.view.sighting(node).map(|seen| seen.since);
        let dirty = if let Some(Duty::RevokeLease { .. }) = duty {
            tell_of_revocation(node, lease.as_ref());
            let is_revoked = lease
                .as_ref()
                .is_some_and(|(lease, _)| lease.spec.holder.is_none());
            self.metrics.floating.revocations.inc_by(u64::from(is_revoked));
            self.view.revoked(node, lease, ended)
        } else {
            self.view.sighted(node, lease, ended)
        };
        self.dirty.extend(dirty);
        self.tell_of_count(node, before);
    }

    /// A lease was to be revoked, and it is not known that it was.
    pub(super) fn lease_not_revoked(&mut self, node: &str, now: Mono) {
        let before = self.view.sighting(node).map(|seen| seen.since);
        self.dirty.extend(self.view.not_revoked(node, now));
        self.tell_of_count(node, before);
    }

    /// Says why an observer's count began anew, if it did: an address moves late, then.
    fn tell_of_count(&self, node: &str, before: Option<Mono>) {
        if let Some(seen) = self.view.sighting(node)
            && before != Some(seen.since)
        {
            let counted = before.map_or(0, |before| seen.since.since(before).as_millis());
            debug!(
                "counts anew how long the lease of {node} stands, after {counted} ms: {}",
                seen.begun
            );
        }
    }
}

/// A revocation ended: with a lease that has no holder any more, or with one that lives.
fn tell_of_revocation(node: &str, found: Option<&(NodeLease, Revision)>) {
    match found {
        Some((lease, _)) if lease.spec.holder.is_none() => warn!(
            "the lease of {node} was not renewed: revoked, term {}",
            lease.spec.term.0
        ),
        Some(_) => info!("the lease of {node} was to be revoked, and its holder lives"),
        None => info!("the lease of {node} was to be revoked, and is not there any more"),
    }
}
