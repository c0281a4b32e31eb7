//! A node with its store, its people and its clock, one act after another.

use std::collections::BTreeMap;

use buoy_api::binding::{Epoch, Move, Owner, Target};
use buoy_api::ip::FloatingIp;
use buoy_api::meta::ObjectMeta;
use buoy_api::v3::{IpNat, IpPool, IpPoolSpec};
use buoy_core::duty::{self, Duty};
use buoy_core::endpoint::{AttachmentId, Phase};
use buoy_core::floating::claim;
use buoy_core::store::{Key, Value};
use buoy_core::subject::Subject;
use buoy_core::time::Mono;
use buoy_core::view::View;
use jiff::{SignedDuration, Timestamp};

use super::Act;
use crate::store::StoreSim;
use crate::tasks::{Fate, Progress, Task};
use crate::universe::{
    PODS, all_subjects, attachment, attachment_id, both, endpoint, floating, subset, time, view,
};

/// What an address's binding was last.
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) uid: Option<String>,
    pub(super) owner: Option<Owner>,
    pub(super) epoch: Epoch,
    pub(super) namespace: String,
}

pub(super) struct World {
    pub(super) store: StoreSim,
    pub(super) view: View,
    pub(super) learnt: usize,
    pub(super) tasks: Vec<Task>,
    pub(super) owed_since: BTreeMap<Subject, (Duty, Timestamp)>,
    pub(super) order: u64,
    pub(super) last: BTreeMap<FloatingIp, Last>,
    /// Highest epoch that an owner ever had.
    pub(super) highest: BTreeMap<FloatingIp, Epoch>,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            store: StoreSim {
                now: time(1_000_000),
                ..StoreSim::default()
            },
            view: view(),
            learnt: 0,
            tasks: Vec::new(),
            owed_since: BTreeMap::new(),
            order: 0,
            last: BTreeMap::new(),
            highest: BTreeMap::new(),
        };
        world.pool(0);
        let six = IpPoolSpec::new("2001:db8::/64".parse().unwrap());
        let key = Key::Pool("six".to_owned());
        world
            .store
            .write(key, Value::Pool(IpPool::new(ObjectMeta::named("six"), six)));
        world
    }

    pub(super) fn act(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Attach {
                pod,
                container,
                asks,
                priority,
            } => self.attach(*pod, *container, *asks, *priority),
            Act::Detach(pod, container) => self.detach(&attachment_id(*pod, *container)),
            Act::Ask(pod, asks) => self.ask(*pod, *asks),
            Act::Move(index, pod) => {
                let to = Target {
                    node: None,
                    workload: PODS[*pod].1.to_owned(),
                    endpoint: None,
                };
                let wish = Move {
                    id: "1".to_owned(),
                    to,
                    exclusive: false,
                    drain: None,
                };
                let key = claim::binding_key(floating(*index));
                self.store
                    .edit_binding(key, |binding| binding.spec.requested_move = Some(wish));
            }
            Act::EndHold(index) => {
                let key = claim::binding_key(floating(*index));
                self.store.edit_binding(key, |binding| {
                    if binding.spec.owner.is_none() {
                        binding.spec.released = Some(Timestamp::UNIX_EPOCH);
                    }
                });
            }
            Act::Pool(how) => self.pool(*how),
            Act::Pass(seconds) => self.pass(u64::from(*seconds)),
            Act::Learn(count) => self.learn(*count),
            Act::Begin => self.begin(),
            Act::Run(index, fate) => {
                if !self.tasks.is_empty() {
                    self.run(index.index(self.tasks.len()), *fate);
                }
            }
            Act::Crash => self.crash(),
        }
        self.check()
    }

    pub(super) fn attach(&mut self, pod: usize, container: usize, asks: u8, priority: i32) {
        if self.view.attachment(&attachment_id(pod, container)).is_some() {
            return;
        }
        self.order += 1;
        let mut made = attachment(pod, container);
        made.order = self.order;
        made.since = self.store.now;
        made.request.floating = subset(asks);
        made.request.priority = priority;
        self.view.put_attachment(made);
    }

    pub(super) fn detach(&mut self, id: &AttachmentId) {
        if let Some(found) = self.view.attachment(id) {
            let mut found = found.clone();
            found.phase = Phase::Down;
            self.view.put_attachment(found);
        }
    }

    fn ask(&mut self, pod: usize, asks: u8) {
        let id = endpoint(pod);
        let key = Key::Endpoint {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
        };
        let Some((_, Value::Endpoint(mut record))) = self.store.records.get(&key).cloned() else {
            return;
        };
        let own = record.spec.ip_networks.clone();
        let internal = |f: FloatingIp| {
            own.iter()
                .map(|p| p.addr())
                .find(|a| a.is_ipv4() == f.addr().is_ipv4())
        };
        let asks = subset(asks)
            .into_iter()
            .filter_map(|f| Some(IpNat::new(internal(f)?, f.addr())));
        record.spec.ip_nats = asks.collect();
        self.store.write(key, Value::Endpoint(record));
    }

    fn pool(&mut self, how: u8) {
        let key = Key::Pool("floating".to_owned());
        let mut spec = IpPoolSpec::new("172.16.1.0/24".parse().unwrap());
        match how {
            1 => spec.namespace_selector = Some("projectcalico.org/name == 'bank'".to_owned()),
            2 => return self.store.remove(&key),
            _ => {}
        }
        self.store
            .write(key, Value::Pool(IpPool::new(ObjectMeta::named("floating"), spec)));
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.store.now += SignedDuration::from_secs(seconds as i64);
    }

    fn learn(&mut self, count: usize) {
        for delta in self.store.log.iter().skip(self.learnt).take(count) {
            self.view.apply(delta.clone(), Mono::default());
            self.learnt += 1;
        }
    }

    /// Everything is looked at; which subjects are dirty is another test's business.
    fn begin(&mut self) {
        for subject in all_subjects() {
            if self.tasks.iter().any(|task| task.subject == subject) {
                continue;
            }
            let owed = duty::owed(&self.view, &subject, both(self.store.now));
            let Some(duty) = owed.duty else {
                self.owed_since.remove(&subject);
                continue;
            };
            let since = match self.owed_since.get(&subject) {
                Some((same, since)) if *same == duty => *since,
                _ => self.store.now,
            };
            self.owed_since.insert(subject.clone(), (duty.clone(), since));
            if self.store.now >= since + SignedDuration::try_from(owed.grace).unwrap() {
                self.tasks
                    .push(Task::new(subject, duty, &self.view, self.store.now));
            }
        }
    }

    fn run(&mut self, at: usize, fate: Fate) -> Progress {
        let progress = self.tasks[at].step(&mut self.store, fate);
        if progress != Progress::Running {
            let task = self.tasks.remove(at);
            if let Subject::Attachment(id) = &task.subject
                && task.retires
                && progress == Progress::Done
            {
                self.view.remove_attachment(id);
            }
        }
        progress
    }

    /// Attachments are files and stay; the rest is read again.
    fn crash(&mut self) {
        self.tasks.clear();
        self.owed_since.clear();
        let mut fresh = view();
        for attachment in self.view.attachments() {
            fresh.put_attachment(attachment.clone());
        }
        for delta in self.store.snapshot() {
            fresh.apply(delta, Mono::default());
        }
        self.view = fresh;
        self.learnt = self.store.log.len();
    }

    /// Lets everything come to its end.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..100 {
            self.learn(usize::MAX);
            self.begin();
            if self.tasks.is_empty() && self.learnt == self.store.log.len() {
                return Ok(());
            }
            while !self.tasks.is_empty() {
                self.run(0, Fate::Answered);
                self.check()?;
            }
        }
        let owed: Vec<_> = all_subjects()
            .iter()
            .map(|s| duty::owed(&self.view, s, both(self.store.now)))
            .filter_map(|o| o.duty)
            .collect();
        Err(format!("never at rest: {owed:#?}"))
    }
}
