//! What is so on this node at one moment, in numbers and reasons: for metrics, readiness and status.

use std::time::Duration;

use buoy_core::floating::lease::Own;
use buoy_core::floating::standing::{Standing, standing};
use buoy_core::time::{Mono, Now};
use buoy_core::view::{Daemon, RESTORE_HOLD};

use super::lease;
use crate::agent::Agent;

/// How the requests of this node's workloads for floating IPs stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Owned, confirmed or not.
    pub(crate) owned: usize,
    /// Owned, and not confirmed: the lease is not live, or the record does not say so yet.
    pub(crate) unconfirmed: usize,
    pub(crate) standby: usize,
    pub(crate) refused: usize,
    pub(crate) undecided: usize,
}

/// This node's lease.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Lease {
    /// Held, and nobody can have revoked it.
    pub(crate) is_live: bool,
    /// Since it was renewed.
    pub(crate) age: Duration,
    pub(crate) term: u64,
}

/// What is so.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Glance {
    /// Why the agent is not ready; nothing if it is.
    pub(crate) unready: Vec<String>,
    /// All records were read at least once.
    pub(crate) synced: bool,
    /// Why there is no contact with the datastore.
    pub(crate) lost: Option<String>,
    /// For how long what is known of the datastore may have been out of date.
    pub(crate) sync_age: Duration,
    /// For how long nothing is allocated yet, after a restore.
    pub(crate) hold: Duration,
    /// Why the datastore takes no writes.
    pub(crate) refused: Option<String>,
    /// Records that do not decode.
    pub(crate) unreadable: usize,
    pub(crate) duties_running: usize,
    pub(crate) duties_failed: usize,
    pub(crate) rows_failed: usize,
    pub(crate) workloads: usize,
    /// Requests of CNI plugins that are not answered yet.
    pub(crate) waiting: usize,
    pub(crate) floating: Requests,
    pub(crate) lease: Lease,
    pub(crate) can_announce: bool,
    pub(crate) sessions: usize,
    pub(crate) sessions_established: usize,
    /// What waits in which queue.
    pub(crate) queues: Vec<(&'static str, usize)>,
}

/// Looks once. Costs as much as there are workloads and requests.
pub(crate) fn glance(agent: &Agent, now: Now) -> Glance {
    let sessions = agent.report.iter().flat_map(|report| &report.sessions);
    let established = sessions.clone().filter(|session| session.is_established());
    Glance {
        unready: unready(agent, now),
        synced: agent.contact.synced,
        lost: agent.contact.lost.as_ref().map(|lost| lost.error.clone()),
        sync_age: agent.sync_age(now.mono),
        hold: hold(agent, now.mono),
        refused: agent.writes_refused(now.mono),
        unreadable: agent.view.bad.len(),
        duties_running: agent.work.under_way(),
        duties_failed: agent.work.failures().count(),
        rows_failed: agent.network.troubles().count(),
        workloads: workloads(agent),
        waiting: agent.waiting(),
        floating: requests(agent, now.mono),
        lease: own_lease(agent, now.mono),
        can_announce: agent.view.can_announce(),
        sessions: sessions.count(),
        sessions_established: established.count(),
        queues: agent.queues(),
    }
}

/// Interfaces of workloads that are there, or are made.
pub(super) fn workloads(agent: &Agent) -> usize {
    agent.view.attachments().filter(|a| a.is_wanted()).count()
}

/// How long nothing is allocated yet.
fn hold(agent: &Agent, now: Mono) -> Duration {
    match agent.view.held_until() {
        Some(until) => until.since(now),
        // It begins when all was read.
        None if agent.view.is_held() => RESTORE_HOLD,
        None => Duration::ZERO,
    }
}

fn own_lease(agent: &Agent, now: Mono) -> Lease {
    match agent.view.own_lease() {
        Own::Held(held) => Lease {
            is_live: held.is_live(now),
            age: now.since(held.began),
            term: held.term.0,
        },
        Own::Nothing | Own::Foreign(_) => Lease::default(),
    }
}

/// How requests for floating IPs stand.
pub(super) fn requests(agent: &Agent, now: Mono) -> Requests {
    let mut counts = Requests::default();
    let current = agent.view.attachments().filter(|a| agent.view.is_current(a));
    for attachment in current {
        for floating in agent.view.asked_by(&attachment.endpoint) {
            match standing(&agent.view, &attachment.endpoint, floating) {
                Standing::Owner => {
                    counts.owned += 1;
                    counts.unconfirmed += usize::from(!agent.view.is_confirmed(floating, now));
                }
                Standing::Standby { .. } => counts.standby += 1,
                Standing::Undecided => counts.undecided += 1,
                Standing::Refused(_) => counts.refused += 1,
            }
        }
    }
    counts
}

/// Why the agent is not ready: what a new workload, or a floating IP that comes here, would lack.
pub(super) fn unready(agent: &Agent, now: Now) -> Vec<String> {
    let mut reasons = Vec::new();
    let lost = agent.contact.lost.as_ref();
    match (agent.contact.synced, lost) {
        (true, None) => {}
        (true, Some(lost)) => reasons.push(format!(
            "no contact with the datastore for {} s: {}",
            now.mono.since(lost.since).as_secs(),
            lost.error
        )),
        (false, Some(lost)) => reasons.push(format!("the datastore was not read yet: {}", lost.error)),
        (false, None) => reasons.push("the datastore was not read yet".to_owned()),
    }
    if agent.contact.synced && !agent.is_announced() {
        reasons.push("the first comparison with the kernel is not applied yet".to_owned());
    }
    if let (None, Some(error)) = (lost, agent.writes_refused(now.mono)) {
        reasons.push(format!("the datastore takes no writes: {error}"));
    }
    if let Err(error) = agent.view.may_allocate(now.mono) {
        reasons.push(error.to_string());
    }
    if let Daemon::NotReady { why, .. } = &agent.view.daemon {
        reasons.push(format!("routing: {why}"));
    }
    if let Own::Foreign(_) = agent.view.own_lease() {
        reasons.push(format!("lease: {}", lease::own(agent, now)));
    }
    reasons
}
