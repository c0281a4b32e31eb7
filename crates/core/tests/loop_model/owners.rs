//! I3 on one node: a binding has one owner per epoch, epochs rise also across deletion, whoever is due gets the address,
//! and nothing is left in the end. Duties run as the agent runs them, in random interleavings, with late news, lost
//! answers and crashes.

use std::collections::BTreeMap;

use buoy_api::binding::{Epoch, Move, Owner, Target};
use buoy_api::ip::FloatingIp;
use buoy_api::meta::ObjectMeta;
use buoy_api::names::binding_name;
use buoy_api::v3::{IpNat, IpPool, IpPoolSpec};
use buoy_core::calc;
use buoy_core::desired::Row;
use buoy_core::duty::{self, Duty, ORPHAN_GRACE};
use buoy_core::endpoint::{AttachmentId, Phase};
use buoy_core::floating::{candidates, claim, order};
use buoy_core::store::{Key, Value};
use buoy_core::subject::Subject;
use buoy_core::view::View;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::cases;
use crate::inputs::{container, pod};
use crate::store::StoreSim;
use crate::tasks::{Fate, Progress, Task};
use crate::universe::{
    CONTAINERS, HOLD, NODE, PODS, all_floating, all_subjects, attachment, attachment_id, endpoint, floating,
    handle_of, subset, time, view,
};

#[derive(Clone, Debug)]
enum Act {
    Attach {
        pod: usize,
        container: usize,
        asks: u8,
        priority: i32,
    },
    Detach(usize, usize),
    /// `buoyctl fip attach` and `detach`.
    Ask(usize, u8),
    Move(usize, usize),
    /// `buoyctl fip release` of an address that nobody owns.
    EndHold(usize),
    /// The pool of the floating IPs: for everybody, for one namespace, gone.
    Pool(u8),
    Pass(u16),
    /// The agent learns of so many changes.
    Learn(usize),
    /// The agent begins what it owes.
    Begin,
    Run(Index, Fate),
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        1 => select(&[Fate::AnswerLost, Fate::QuestionLost, Fate::Refused][..]),
    ];
    prop_oneof![
        3 => (pod(), container(), any::<u8>(), 0..2i32)
            .prop_map(|(pod, container, asks, priority)| Act::Attach { pod, container, asks, priority }),
        2 => (pod(), container()).prop_map(|(p, c)| Act::Detach(p, c)),
        2 => (pod(), any::<u8>()).prop_map(|(p, asks)| Act::Ask(p, asks)),
        1 => (0..2usize, pod()).prop_map(|(f, p)| Act::Move(f, p)),
        1 => (0..2usize).prop_map(Act::EndHold),
        1 => (0..4u8).prop_map(Act::Pool),
        2 => select(&[1u16, 30, 300, 700][..]).prop_map(Act::Pass),
        6 => (1..5usize).prop_map(Act::Learn),
        6 => Just(Act::Begin),
        16 => (any::<Index>(), fate).prop_map(|(index, fate)| Act::Run(index, fate)),
        1 => Just(Act::Crash),
    ]
}

/// What an address's binding was last.
#[derive(Clone, Debug)]
struct Last {
    uid: Option<String>,
    owner: Option<Owner>,
    epoch: Epoch,
    namespace: String,
}

struct World {
    store: StoreSim,
    view: View,
    learnt: usize,
    tasks: Vec<Task>,
    owed_since: BTreeMap<Subject, (Duty, Timestamp)>,
    order: u64,
    last: BTreeMap<FloatingIp, Last>,
    /// Highest epoch that an owner ever had.
    highest: BTreeMap<FloatingIp, Epoch>,
}

impl World {
    fn new() -> Self {
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

    fn act(&mut self, act: &Act) -> Result<(), String> {
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

    fn attach(&mut self, pod: usize, container: usize, asks: u8, priority: i32) {
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

    fn detach(&mut self, id: &AttachmentId) {
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

    fn pass(&mut self, seconds: u64) {
        self.store.now += SignedDuration::from_secs(seconds as i64);
    }

    fn learn(&mut self, count: usize) {
        for delta in self.store.log.iter().skip(self.learnt).take(count) {
            self.view.apply(delta.clone());
            self.learnt += 1;
        }
    }

    /// Everything is looked at; which subjects are dirty is another test's business.
    fn begin(&mut self) {
        for subject in all_subjects() {
            if self.tasks.iter().any(|task| task.subject == subject) {
                continue;
            }
            let owed = duty::owed(&self.view, &subject, self.store.now);
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
            fresh.apply(delta);
        }
        self.view = fresh;
        self.learnt = self.store.log.len();
    }

    /// Lets everything come to its end.
    fn settle(&mut self) -> Result<(), String> {
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
            .map(|s| duty::owed(&self.view, s, self.store.now))
            .filter_map(|o| o.duty)
            .collect();
        Err(format!("never at rest: {owed:#?}"))
    }

    /// What holds after every single operation.
    fn check(&mut self) -> Result<(), String> {
        let mut now: BTreeMap<FloatingIp, Last> = BTreeMap::new();
        for binding in self.store.bindings() {
            let address = FloatingIp::try_from(binding.spec.address).unwrap();
            let spec = binding.spec.clone();
            let uid = binding.metadata.uid.clone();
            now.insert(
                address,
                Last {
                    uid,
                    owner: spec.owner,
                    epoch: spec.epoch,
                    namespace: spec.namespace,
                },
            );
        }
        for address in all_floating() {
            let (before, now) = (self.last.get(&address), now.get(&address));
            let before = before.filter(|before| now.is_none_or(|now| now.uid == before.uid));
            self.transition(address, before, now)
                .map_err(|e| format!("{address}: {e}\n{before:#?}\n{now:#?}"))?;
            if let Some(now) = now.filter(|now| now.owner.is_some()) {
                self.highest.insert(address, now.epoch);
            }
        }
        self.last = now;
        Ok(())
    }

    fn transition(
        &self,
        address: FloatingIp,
        before: Option<&Last>,
        now: Option<&Last>,
    ) -> Result<(), &'static str> {
        match (before, now) {
            (Some(before), None) if before.owner.is_some() => return Err("deleted under its owner"),
            (Some(before), Some(now)) => {
                if before.namespace != now.namespace {
                    return Err("another namespace's without having been free");
                }
                let rises = before.epoch < now.epoch;
                if before.owner != now.owner && !rises || before.epoch > now.epoch {
                    return Err("the epoch does not rise with the owner");
                }
            }
            (None, Some(now))
                if self
                    .highest
                    .get(&address)
                    .is_some_and(|highest| now.epoch <= *highest) =>
            {
                return Err("the epoch fell across deletion");
            }
            _ => {}
        }
        let Some((owner, namespace)) = now.and_then(|now| Some((now.owner.as_ref()?, &now.namespace))) else {
            return Ok(());
        };
        let pod = PODS.iter().find(|(_, name)| *name == owner.workload);
        if pod.is_none_or(|(of, _)| of != namespace) || owner.node != NODE {
            return Err("the owner is not of the binding's namespace");
        }
        if !self.is_reserved(address) {
            return Err("owned, and not reserved");
        }
        Ok(())
    }

    fn is_reserved(&self, address: FloatingIp) -> bool {
        self.store.records.values().any(|(_, value)| match value {
            Value::Block(block) => block.ordinals_of(&handle_of(address)).next().is_some(),
            _ => false,
        })
    }

    /// What holds when there is nothing left to do.
    fn check_rest(&self) -> Result<(), String> {
        for address in all_floating() {
            let Some(binding) = self.view.bindings.get(&address) else {
                if !candidates::namespaces(&self.view, address).is_empty() {
                    return Err(format!("{address}: somebody may have it and nobody does"));
                }
                continue;
            };
            let mine = candidates::of(&self.view, address, &binding.spec.namespace);
            let best = order::best(binding, &mine);
            if binding.spec.owner.as_ref().map(|o| &o.uid) != best.map(|b| &b.uid) {
                return Err(format!(
                    "{address}: {best:#?} is due, and not the owner of {binding:#?}"
                ));
            }
            let rows = calc::rows(&self.view, &Subject::Binding(address));
            let leads = rows.iter().find_map(|row| {
                if let Row::Nat(_, nat) = row {
                    Some(nat.internal)
                } else {
                    None
                }
            });
            if leads != best.map(|best| best.internal_ip) {
                return Err(format!("{address}: leads to {leads:?} and not to {best:#?}"));
            }
            let owed = duty::owed(&self.view, &Subject::Binding(address), self.store.now);
            if best.is_none() && owed.again.is_none() {
                return Err(format!("{address}: nobody's, and never collected"));
            }
        }
        Ok(())
    }

    /// All workloads go; then the holds end.
    fn wind_down(&mut self) -> Result<(), String> {
        for pod in 0..PODS.len() {
            for container in 0..CONTAINERS {
                self.detach(&attachment_id(pod, container));
            }
        }
        self.settle()?;
        self.pass(HOLD.as_secs());
        self.settle()?;
        self.pass(ORPHAN_GRACE.as_secs());
        self.settle()?;
        // The handle of a reservation that a crash cut short may stay: it gives nothing, and the next claim takes it up.
        let left = self.store.records.iter().find(|(_, (_, value))| match value {
            Value::Binding(_) | Value::Endpoint(_) => true,
            Value::Block(block) => !block.is_empty(),
            _ => false,
        });
        if let Some((key, (_, value))) = left {
            return Err(format!("left in the end: {key:?} {value:#?}"));
        }
        let floor = self.view.epoch_floor();
        match self.highest.values().max() {
            Some(highest) if *highest > floor => Err(format!("the floor is {floor:?} below {highest:?}")),
            _ => Ok(()),
        }
    }
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn i3_one_owner_whose_epoch_rises_and_nothing_left_in_the_end(
        acts in proptest::collection::vec(act(), 1..120),
    ) {
        let mut world = World::new();
        for act in &acts {
            world.act(act).map_err(TestCaseError::fail)?;
        }
        world.settle().map_err(TestCaseError::fail)?;
        world.check_rest().map_err(TestCaseError::fail)?;
        world.wind_down().map_err(TestCaseError::fail)?;
    }
}

#[test]
fn i3_an_address_made_again_has_a_higher_epoch() {
    let mut world = World::new();
    let epoch = |world: &World| {
        let binding = world.view.bindings.get(&floating(0)).unwrap();
        (binding.spec.epoch, binding.spec.owner.clone().unwrap().workload)
    };
    world.attach(0, 0, 1, 0);
    world.settle().unwrap();
    assert_eq!(epoch(&world), (Epoch(1), "web-0".to_owned()));
    world.wind_down().unwrap();
    assert!(
        !world
            .store
            .records
            .contains_key(&Key::Binding(binding_name(floating(0).addr())))
    );
    // Released at epoch 2, so the floor is 2.
    world.attach(2, 0, 1, 0);
    world.settle().unwrap();
    assert_eq!(epoch(&world), (Epoch(3), "db-0".to_owned()));
    world.check_rest().unwrap();
}
