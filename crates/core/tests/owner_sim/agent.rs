//! One agent: what it knows, its threads, its clock and its link to the datastore. What it does follows the agent's loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use buoy_api::ip::FloatingIp;
use buoy_core::calc;
use buoy_core::desired::{Hop, Row};
use buoy_core::duty::{Duty, Work};
use buoy_core::endpoint::{Attachment, Phase};
use buoy_core::floating::lease::{CONTACT, Holder, Own};
use buoy_core::observed::Claimed;
use buoy_core::store::{Reply, Revision};
use buoy_core::subject::Subject;
use buoy_core::time::{Mono, Now};
use buoy_core::view::{View, Withdrawal};
use jiff::{SignedDuration, Timestamp};

use super::run::Flaw;
use super::task::{Job, Lane, Outcome, Stage, Task, lane, machine};
use super::universe::settings;

/// How an agent's process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Running,
    /// Stopped by a signal: its clock runs on.
    Frozen,
    /// Told to stop in order: its threads end what they do.
    Stopping,
    Down,
}

/// What passes between an agent and the datastore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) requests: bool,
    pub(crate) answers: bool,
    pub(crate) watch: bool,
}

pub(crate) const WHOLE: Link = Link {
    requests: true,
    answers: true,
    watch: true,
};

/// How far the first listing has come, and the change up to which each kind is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    Nothing,
    AllButBindings,
    /// Bindings were read at this revision.
    All(u64),
}

pub(crate) struct Agent {
    pub(crate) identity: String,
    pub(crate) process: Process,
    pub(crate) link: Link,
    pub(crate) clock: Duration,
    /// How far its wall clock is from the others'.
    pub(crate) skew: SignedDuration,
    /// The machine is paused: its clock stands, and nothing on it moves.
    pub(crate) is_paused: bool,
    /// What the clock showed when the machine was paused last.
    pub(crate) paused_at: Option<Mono>,
    pub(crate) view: View,
    pub(crate) work: Work,
    pub(crate) dirty: BTreeSet<Subject>,
    pub(crate) listing: Listing,
    pub(crate) learnt: usize,
    pub(crate) waiting: VecDeque<Job>,
    pub(crate) tasks: Vec<Task>,
    /// What its node's kernel served when its last process ended.
    pub(crate) claimed: Vec<Claimed>,
    /// Its file says that the store went back meanwhile.
    pub(crate) was_restored: bool,
    pub(crate) inbox: VecDeque<(Subject, Outcome)>,
    pub(crate) withdrawing: BTreeSet<FloatingIp>,
    /// Since when the datastore has answered in every second, and when it did last; by this agent's clock.
    pub(crate) contact: (Mono, Mono),
    /// The same when it decided to revoke a lease.
    pub(crate) contact_before_revoking: (Mono, Mono),
    /// When this revision of a node's lease was read first, whatever came between. Only a broken rule asks for it.
    first_read: BTreeMap<String, (Option<Revision>, Mono)>,
}

impl Agent {
    pub(crate) fn new(node: &str, identity: &str, clock: Duration) -> Self {
        Self {
            identity: identity.to_owned(),
            process: Process::Running,
            link: WHOLE,
            clock,
            skew: SignedDuration::ZERO,
            is_paused: false,
            paused_at: None,
            view: View::new(settings(node, identity)),
            work: Work::default(),
            dirty: BTreeSet::new(),
            listing: Listing::Nothing,
            learnt: 0,
            waiting: VecDeque::new(),
            tasks: Vec::new(),
            claimed: Vec::new(),
            was_restored: false,
            inbox: VecDeque::new(),
            withdrawing: BTreeSet::new(),
            contact: (Mono::default(), Mono::default()),
            contact_before_revoking: (Mono::default(), Mono::default()),
            first_read: BTreeMap::new(),
        }
    }

    pub(crate) fn node(&self) -> &str {
        &self.view.settings.node
    }

    pub(crate) fn mono(&self) -> Mono {
        Mono(self.clock)
    }

    /// The datastore has answered.
    pub(crate) fn note_contact(&mut self) {
        let now = self.mono();
        let (since, last) = self.contact;
        self.contact = (if now <= last.after(CONTACT) { since } else { now }, now);
    }

    /// Whether its threads run.
    pub(crate) fn moves(&self) -> bool {
        !self.is_paused && matches!(self.process, Process::Running | Process::Stopping)
    }

    /// Whether its loop runs.
    pub(crate) fn loops(&self) -> bool {
        !self.is_paused && self.process == Process::Running
    }

    pub(crate) fn is_confirmed(&self, floating: FloatingIp) -> bool {
        self.process != Process::Down && self.view.is_confirmed(floating, self.mono())
    }

    /// Whether the clock stood since the last renewal began: then the epoch decides.
    pub(crate) fn was_paused(&self) -> bool {
        match (self.view.own_lease(), self.paused_at) {
            (Own::Held(held), Some(paused)) => held.began <= paused,
            _ => false,
        }
    }

    pub(crate) fn put(&mut self, attachment: Attachment) {
        self.dirty.extend(self.view.put_attachment(attachment));
    }

    /// Every ADD that is on its way comes to its end.
    pub(crate) fn link_all(&mut self) {
        let all: Vec<Attachment> = self.view.attachments().cloned().collect();
        for mut attachment in all {
            if attachment.phase == Phase::Adding {
                attachment.phase = Phase::Up;
                self.put(attachment);
            }
        }
    }

    /// A workload is made anew: the container that was the endpoint's goes.
    pub(crate) fn replace(&mut self, attachment: Attachment) {
        let same = |before: &&Attachment| before.endpoint == attachment.endpoint;
        let older: Vec<_> = self
            .view
            .attachments()
            .filter(same)
            .map(|a| a.id.clone())
            .collect();
        self.put(attachment);
        for id in older {
            self.dirty.extend(self.view.remove_attachment(&id));
        }
    }

    /// The process ends. What is in files stays.
    pub(crate) fn end(&mut self) {
        self.process = Process::Down;
        let attachments: Vec<Attachment> = self.view.attachments().cloned().collect();
        let fresh = Self::new(self.node(), &self.identity, self.clock);
        let before = std::mem::replace(self, fresh);
        self.process = Process::Down;
        self.skew = before.skew;
        self.link = before.link;
        self.is_paused = before.is_paused;
        self.paused_at = before.paused_at;
        self.claimed = match before.listing {
            Listing::All(_) => before.served(),
            _ => before.claimed,
        };
        for attachment in attachments {
            self.put(attachment);
        }
    }

    /// What it has programmed of the addresses that it owns.
    fn served(&self) -> Vec<Claimed> {
        let served = self.view.floating_in_use().filter_map(|floating| {
            let rows = calc::rows(&self.view, &Subject::Binding(floating));
            let epoch = rows.iter().find_map(|row| match row {
                Row::Route(key, Hop::Link(_)) => key.epoch(),
                _ => None,
            });
            let internal = rows.iter().find_map(|row| match row {
                Row::Nat(_, nat) => Some(nat.internal),
                _ => None,
            });
            Some(Claimed {
                floating,
                epoch: epoch?,
                internal: internal?,
            })
        });
        served.collect()
    }

    /// It knows all records, and compares them with what the kernel has. Says whether the store went back.
    pub(crate) fn listed(&mut self, revision: u64) -> bool {
        self.listing = Listing::All(revision);
        self.dirty.insert(Subject::Lease);
        let now = self.mono();
        let claimed = std::mem::take(&mut self.claimed);
        let concerned = self.view.recollect(claimed, self.was_restored, now);
        let is_restored = concerned.is_some();
        self.dirty.extend(concerned.into_iter().flatten());
        let used = self.view.floating_in_use().map(Subject::Binding);
        self.dirty.extend(used);
        is_restored
    }

    /// Takes in what its threads say, and hands on what is owed: one turn of the loop.
    pub(crate) fn turn(&mut self, wall: Timestamp, flaw: Flaw) {
        let now = Now {
            wall,
            mono: self.mono(),
        };
        while let Some((subject, outcome)) = self.inbox.pop_front() {
            self.performed(&subject, outcome, now.mono, flaw);
        }
        self.dirty.extend(self.view.look_at_readiness(now.mono));
        if self.view.held_until().is_some_and(|until| until <= now.mono) {
            self.dirty.extend(self.view.end_hold(now.mono));
        }
        self.dirty.extend(self.view.forget(now.mono));
        if matches!(self.listing, Listing::All(_)) {
            self.work.look_at(std::mem::take(&mut self.dirty));
            self.begin_duties(now, flaw);
            if self.work.wants_lease() != self.view.lease_wanted {
                self.view.lease_wanted = self.work.wants_lease();
                let node = self.view.settings.node.clone();
                // Another agent may hold it, and is watched then.
                self.work.look_at([Subject::Lease, Subject::OtherNode(node)]);
                self.begin_duties(now, flaw);
            }
        }
    }

    /// The kernel has nothing of an address any more.
    pub(crate) fn withdrawn(&mut self, floating: FloatingIp) {
        if self.withdrawing.remove(&floating) {
            self.dirty
                .extend(self.view.set_withdrawal(floating, Some(Withdrawal::Done)));
        }
    }

    fn begin_duties(&mut self, now: Now, flaw: Flaw) {
        for (subject, duty) in self.work.turn(&self.view, now) {
            match self.flawed(duty, now.mono, flaw) {
                Duty::Withdraw(floating) => {
                    self.withdrawing.insert(floating);
                    self.dirty
                        .extend(self.view.set_withdrawal(floating, Some(Withdrawal::Begun)));
                    self.work.ended(&subject, None, now.mono);
                }
                Duty::Restore(floating) => {
                    self.withdrawing.remove(&floating);
                    self.dirty.extend(self.view.set_withdrawal(floating, None));
                    self.work.ended(&subject, None, now.mono);
                }
                // Own records of a node and its workloads are not simulated here.
                Duty::Node(_)
                | Duty::Cluster
                | Duty::Publish(_)
                | Duty::Republish(_)
                | Duty::Reallocate(_) => {}
                duty => {
                    if let Duty::Offer { floating, .. } | Duty::Release { floating, .. } = &duty
                        && flaw != Flaw::ConfirmedWhileGiving
                    {
                        self.view.begin_giving(*floating);
                    }
                    if matches!(duty, Duty::RevokeLease { .. }) {
                        self.contact_before_revoking = self.contact;
                    }
                    self.perform(subject, duty, now);
                }
            }
        }
    }

    /// Wrong on purpose: a lease is revoked that was not watched as it must be.
    fn flawed(&mut self, duty: Duty, now: Mono, flaw: Flaw) -> Duty {
        let Duty::ReadLease { node, after } = &duty else {
            return duty;
        };
        let Some(seen) = self.view.sighting(node).filter(|_| after.is_some()) else {
            return duty;
        };
        let revision = seen.lease.as_ref().map(|(_, revision)| *revision);
        let first = self
            .first_read
            .entry(node.clone())
            .or_insert((revision, seen.since));
        if first.0 != revision {
            *first = (revision, seen.since);
        }
        let is_due = match flaw {
            Flaw::RevokesAtOnce => true,
            Flaw::GapsCount => now.since(first.1) >= seen.patience(),
            Flaw::RevokesUnproven | Flaw::OutagesCount => seen.is_revocable(now),
            _ => false,
        };
        let owners = self
            .view
            .awaited_of(node)
            .filter_map(|floating| self.view.bindings.get(&floating));
        match owners
            .filter_map(|binding| Some(binding.spec.owner.as_ref()?.term))
            .max()
        {
            Some(owner) if is_due => Duty::RevokeLease {
                node: node.clone(),
                seen: Box::new(seen.clone()),
                owner,
            },
            _ => duty,
        }
    }

    pub(crate) fn perform(&mut self, subject: Subject, duty: Duty, now: Now) {
        let floor = self.view.term_floor();
        self.waiting.push_back(Job {
            subject,
            duty,
            floor,
            now,
        });
    }

    /// Threads that are free begin what waits.
    pub(crate) fn employ(&mut self, wall: Timestamp, flaw: Flaw) {
        for of in [Lane::Lease, Lane::Sighting, Lane::Other] {
            while self.has_free(of) {
                let Some(at) = self.waiting.iter().position(|job| lane(&job.duty) == of) else {
                    break;
                };
                let Some(job) = self.waiting.remove(at) else { break };
                self.begin(job, of, wall, flaw);
            }
        }
    }

    /// Whether a thread of this kind has nothing to do.
    fn has_free(&self, lane: Lane) -> bool {
        let threads = if lane == Lane::Other { 2 } else { 1 };
        self.tasks.iter().filter(|task| task.lane == lane).count() < threads
    }

    fn begin(&mut self, job: Job, lane: Lane, wall: Timestamp, flaw: Flaw) {
        let holder = Holder {
            node: self.node().to_owned(),
            identity: self.identity.clone(),
            wall,
            mono: self.mono(),
        };
        self.tasks.push(Task {
            subject: job.subject.clone(),
            lane,
            is_first_claim: matches!(job.duty, Duty::FirstClaim { .. }),
            machine: machine(job, holder, flaw),
            stage: Stage::Answered(Reply::Start),
            patience: None,
        });
    }

    fn performed(&mut self, subject: &Subject, outcome: Outcome, now: Mono, flaw: Flaw) {
        match outcome {
            Outcome::Done => drop(self.work.ended(subject, None, now)),
            Outcome::Failed(error) => {
                let duty = self.work.ended(subject, Some(error), now);
                if let Some(Duty::RevokeLease { node, .. }) = duty
                    && flaw != Flaw::OutagesCount
                {
                    self.dirty.extend(self.view.not_revoked(&node, now));
                }
            }
            Outcome::Lease(own, ended) => {
                self.work.ended(subject, None, now);
                self.dirty.extend(self.view.own_lease_kept(own, ended));
                self.work.lease_is_here();
            }
            Outcome::Sighted(lease, ended) => {
                let duty = self.work.ended(subject, None, ended);
                let Subject::OtherNode(node) = subject else { return };
                let revoked = matches!(duty, Some(Duty::RevokeLease { .. })) && flaw != Flaw::OutagesCount;
                self.dirty.extend(if revoked {
                    self.view.revoked(node, lease, ended)
                } else {
                    self.view.sighted(node, lease, ended)
                });
            }
        }
    }

    /// When it moves again by itself, by its own clock.
    pub(crate) fn wake(&self) -> Option<Mono> {
        let waits = self.waiting.iter().any(|job| self.has_free(lane(&job.duty)));
        let busy = !self.inbox.is_empty() || waits || !self.withdrawing.is_empty();
        let dirty = busy || !self.dirty.is_empty();
        [
            dirty.then(Mono::default),
            self.work.wake(),
            self.view.readiness_due(),
            self.view.held_until(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
