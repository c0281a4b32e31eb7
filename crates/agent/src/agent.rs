//! The loop: inputs change what is known, what follows from it is calculated, and the difference is carried out.
//!
//! One thread owns all of it. Whatever takes long happens behind the adapters.

mod calls;
mod contact;
mod life;
mod ownership;
mod released;
mod restored;
mod settle;
mod sight;
mod stop;
mod tell;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use buoy_api::FloatingIp;
use buoy_core::duty::{Duty, Work};
use buoy_core::endpoint::{AttachmentId, Phase};
use buoy_core::news::{Herald, Limits};
use buoy_core::subject::Subject;
use buoy_core::time::{Mono, Now};
use buoy_core::view::{Daemon, Routing, View};
use buoy_daemon::measured::Measured;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::{error, info, warn};

use self::contact::Contact;
use self::released::Released;
use crate::adapters::bird::{Condition, Report, Session};
use crate::adapters::kernel::KernelAdapter;
use crate::adapters::notes::Notes;
use crate::adapters::store::StoreAdapter;
use crate::answers::Answers;
use crate::attachments::Files;
use crate::clock;
use crate::inputs::{Input, Outcome};
use crate::inspect;
use crate::mark::Marks;
use crate::metrics::Metrics;
use crate::network::{Batch, Network};
use crate::node_ip;
use crate::secrets;
use crate::settings::{Given, Settings};

/// Inputs taken in before what follows from them is calculated.
const AT_ONCE: usize = 256;
/// How often everything that only time brings about is looked at.
const TICK: Duration = Duration::from_secs(10);

/// An agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) settings: Settings,
    given: Given,
    pub(crate) view: View,
    pub(crate) network: Network,
    pub(crate) work: Work,
    pub(crate) contact: Contact,
    answers: Answers,
    files: Files,
    kernel: KernelAdapter,
    store: StoreAdapter,
    dirty: BTreeSet<Subject>,
    unanswered: BTreeSet<AttachmentId>,
    withdrawing: BTreeSet<FloatingIp>,
    /// Addresses that were told to be lost by a restore of the datastore.
    lost: BTreeSet<FloatingIp>,
    released: Released,
    order: u64,
    /// What the routing daemon said of itself last.
    pub(crate) report: Option<Report>,
    started: Mono,
    next_tick: Mono,
    announced: bool,
    /// What the kernel had at the start was compared with the records: from here on the two count together.
    recollected: bool,
    metrics: Metrics,
    measured: Measured,
    waiting_inputs: usize,
    /// None until the first turn in which everything is known.
    herald: Option<Herald>,
    limits: Limits,
    notes: Notes,
    marks: Marks,
    /// The datastore was found to be restored before all its records were read for the first time.
    was_restored: bool,
}

/// What an agent is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) given: Given,
    pub(crate) files: Files,
    pub(crate) kernel: KernelAdapter,
    pub(crate) store: StoreAdapter,
    pub(crate) identity: String,
    pub(crate) metrics: Metrics,
    pub(crate) measured: Measured,
    pub(crate) notes: Notes,
    pub(crate) marks: Marks,
}

impl Agent {
    /// An agent that takes up what an earlier one left.
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let now = clock::mono();
        let mut agent = Self {
            view: View::new(parts.settings.for_view(&parts.identity)),
            settings: parts.settings,
            given: parts.given,
            network: Network::default(),
            work: Work::default(),
            contact: Contact::default(),
            answers: Answers::default(),
            files: parts.files,
            kernel: parts.kernel,
            store: parts.store,
            dirty: BTreeSet::from([Subject::Node]),
            unanswered: BTreeSet::new(),
            withdrawing: BTreeSet::new(),
            lost: BTreeSet::new(),
            released: Released::default(),
            order: 0,
            report: None,
            started: now,
            next_tick: now.after(TICK),
            announced: false,
            recollected: false,
            metrics: parts.metrics,
            measured: parts.measured,
            waiting_inputs: 0,
            herald: None,
            limits: Limits::default(),
            notes: parts.notes,
            marks: parts.marks,
            was_restored: false,
        };
        if agent.settings.routing == Routing::Bird {
            let why = "BIRD was not looked at yet".to_owned();
            agent
                .view
                .set_daemon(Daemon::NotReady { why, is_away: true }, now);
        }
        agent.look_at_addresses();
        agent.take_up()?;
        agent.network.distrust();
        Ok(agent)
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self, inputs: &Receiver<Input>) {
        loop {
            let first = match inputs.recv_timeout(self.patience()) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for input in first.into_iter().chain(inputs.try_iter().take(AT_ONCE)) {
                if matches!(input, Input::Stop) {
                    return self.stop(inputs);
                }
                self.take(input);
            }
            self.waiting_inputs = inputs.len();
            self.turn();
        }
    }

    fn patience(&self) -> Duration {
        let now = clock::mono();
        let dirty = (self.recollected && !self.dirty.is_empty()).then_some(now);
        let wakes = [
            dirty,
            self.network.wake(),
            self.work.wake(),
            self.settle_wake(),
            self.view.readiness_due(),
            self.view.held_until(),
            Some(self.next_tick),
        ];
        let wake = wakes.into_iter().flatten().min().unwrap_or(self.next_tick);
        wake.since(now).max(Duration::from_millis(u64::from(wake > now)))
    }

    fn take(&mut self, input: Input) {
        let now = clock::now();
        match input {
            Input::Call(call) => self.call(call, now),
            // Whoever asked has gone: many did, where the loop stood still.
            Input::Glance(reply) if reply.is_closed() => {}
            Input::Glance(reply) => drop(reply.send(inspect::glance(self, now))),
            Input::Gone(call) => self.client_gone(call),
            Input::Delta(delta) => self.changed(delta, now.mono),
            Input::Bird(report) => self.routed(report, now.mono),
            Input::Learnt(floating, is) => self.dirty.extend(self.view.set_learnt(floating, is)),
            Input::Synced => self.synced(now.mono),
            Input::Lost(error) => self.lost(error, now.mono),
            // What was read so far is no memory of another time.
            Input::Restored if !self.contact.synced => self.was_restored = true,
            Input::Restored => self.restored(),
            Input::Applied(results) => self.applied(results, now.mono),
            Input::Unlinked(name, index, Ok(())) => self.network.link_gone(&name, index),
            Input::Unlinked(name, _, Err(error)) => self.network.link_stays(&name, &error),
            Input::Read(read) => match *read {
                Ok(read) => {
                    self.metrics.node.read(true);
                    self.dirty.extend(self.view.replace_learnt(read.learnt));
                    self.network.read_back(read.observed, now.mono);
                }
                Err(error) => {
                    self.metrics.node.read(false);
                    error!("read back the kernel: {error}");
                    self.network.not_read(now.mono);
                }
            },
            Input::Performed(subject, outcome) => self.performed(&subject, outcome, now),
            Input::LinkGone(name, index) => self.network.link_gone(&name, index),
            Input::LinkDown(name, index) => self.network.link_down(name, index, now.mono),
            // With a link, also one that is set down, the kernel takes its routes away, which is no news.
            Input::RouteGone(index) if !self.network.is_staying(index) => {}
            Input::RouteGone(_) => self.foreign("our routes"),
            Input::Foreign(what) => self.foreign(what),
            Input::Reload => self.reload(),
            Input::Stop => {}
        }
    }

    /// Calculates what is dirty, answers, plans, and carries on with what is owed.
    fn turn(&mut self) {
        let now = clock::now();
        if now.mono >= self.next_tick {
            self.tick(now);
        }
        self.recollect(now);
        self.look_at_ownership(now.mono);
        self.look_at_hold(now);
        let mut dirty = BTreeSet::new();
        if self.recollected {
            dirty = std::mem::take(&mut self.dirty);
            for subject in &dirty {
                self.network.recalculate(&self.view, subject);
            }
        }
        self.settle(now);
        if self.network.begin_reading(now.mono) {
            self.kernel.read();
        } else if let Some(batch) = self.plan(now.mono) {
            self.kernel.apply(batch);
        }
        for (floating, programmed) in self.network.take_touched() {
            self.dirty.extend(self.view.set_programmed(floating, programmed));
        }
        // The kernel is busy by now; what is to be told, and what the datastore is owed, is found meanwhile.
        if self.recollected {
            self.tell_of(&dirty, now);
            self.work.look_at(dirty);
            self.perform_duties(now);
        }
        self.announce();
        self.metrics.node.turned(clock::mono().since(now.mono));
    }

    fn plan(&mut self, now: Mono) -> Option<Batch> {
        let begun = clock::mono();
        let batch = self.network.turn(&self.view, self.contact.synced, now)?;
        self.metrics.node.planned(clock::mono().since(begun));
        Some(batch)
    }

    /// Says once that the first full comparison is applied.
    fn announce(&mut self) {
        if !self.announced && self.contact.synced && self.network.is_at_rest() {
            self.announced = true;
            info!("ready");
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                warn!("tell the supervisor: {error}");
            }
        }
    }

    /// The routing daemon is like this now.
    fn routed(&mut self, report: Report, now: Mono) {
        let daemon = match &report.condition {
            Condition::Ready => Daemon::Ready,
            Condition::Recovering => Daemon::NotReady {
                why: "BIRD was restarted and waits for its peers".to_owned(),
                is_away: false,
            },
            Condition::Away(why) => Daemon::NotReady {
                why: why.clone(),
                is_away: true,
            },
        };
        if daemon != self.view.daemon {
            match &daemon {
                Daemon::Ready => info!("BIRD is ready"),
                Daemon::NotReady { why, .. } if self.view.daemon == Daemon::Ready => {
                    warn!("BIRD is not ready any more: {why}");
                }
                Daemon::NotReady { why, .. } => info!("BIRD is not ready yet: {why}"),
            }
        }
        self.dirty.extend(self.view.set_daemon(daemon, now));
        let heard = report.sessions.iter().any(Session::is_established);
        self.dirty.extend(self.view.set_heard(heard));
        self.report = Some(report);
    }

    fn look_at_secrets(&mut self) {
        let secrets = secrets::read(&self.settings.secrets, self.view.secrets_named());
        self.dirty.extend(self.view.set_secrets(secrets));
    }

    fn foreign(&mut self, what: &str) {
        info!("changed by somebody else: {what}");
        self.metrics.node.foreign.inc();
        self.network.distrust();
    }

    fn performed(&mut self, subject: &Subject, outcome: Outcome, now: Now) {
        match outcome {
            Outcome::Done => {
                let retired = matches!(self.work.ended(subject, None, now.mono), Some(Duty::Retire(_)));
                if retired {
                    self.retired(subject);
                }
            }
            Outcome::Failed(error) => self.failed(subject, error, now.mono),
            Outcome::Assigned(result) => self.assigned(subject, result, now),
            Outcome::Lease(own, ended) => self.lease_kept(subject, own, ended, now.mono),
            Outcome::Sighted(lease, ended) => self.lease_sighted(subject, *lease, ended),
        }
    }

    fn failed(&mut self, subject: &Subject, error: String, now: Mono) {
        let duty = self.work.ended(subject, Some(error), now);
        if let Some(Duty::RevokeLease { node, .. }) = duty {
            self.lease_not_revoked(&node, now);
        }
    }

    /// What nobody tells: requests that the CNI plugin left in the spool, this node's addresses, passwords, and how far the
    /// datastore is.
    fn tick(&mut self, now: Now) {
        self.next_tick = now.mono.after(TICK);
        self.drain_spool(now);
        self.look_at_addresses();
        self.look_at_secrets();
        self.note_mark();
    }

    fn look_at_addresses(&mut self) {
        match node_ip::find(&self.settings.node_ip) {
            Ok(addresses) if addresses != self.view.addresses => {
                self.dirty.extend(self.view.set_addresses(addresses));
            }
            Ok(_) => {}
            Err(error) => warn!("{error:#}"),
        }
    }

    fn reload(&mut self) {
        match Settings::load(&self.given) {
            Ok(settings) => {
                info!("settings read again: floating-ips, floating-ip-hold, floating-ip-yield");
                self.settings.floating = settings.floating;
                self.settings.hold = settings.hold;
                self.settings.yield_time = settings.yield_time;
                let identity = self.view.settings.identity.clone();
                self.view.settings = self.settings.for_view(&identity);
                self.dirty
                    .extend(self.view.floating_in_use().map(Subject::Binding));
            }
            Err(error) => error!("settings stay as they are: {error:#}"),
        }
    }

    fn set_phase(&mut self, id: &AttachmentId, phase: Phase) {
        if let Some(attachment) = self.view.attachment(id) {
            let mut attachment = attachment.clone();
            attachment.phase = phase;
            self.put(attachment);
        }
    }
}
