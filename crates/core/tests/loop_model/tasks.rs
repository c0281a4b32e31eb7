//! Duties as the agent carries them out, one store operation at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use buoy_core::duty::Duty;
use buoy_core::edit::{Change, Edit};
use buoy_core::floating::claim;
use buoy_core::floating::collect::{Collect, Free};
use buoy_core::ipam::{ReserveFloating, ReserveRequest, Snapshot};
use buoy_core::records;
use buoy_core::store::{FailureKind, Key, Next, Part, Reply, Steps, StoreError, StoreOp, Value, Writer};
use buoy_core::subject::Subject;
use buoy_core::view::View;
use jiff::Timestamp;

use crate::store::StoreSim;
use crate::universe::NODE;

/// What becomes of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// It happened; nobody learns of it.
    AnswerLost,
    /// It did not happen; nobody learns of it.
    QuestionLost,
    /// The datastore is away.
    Refused,
}

enum Step {
    Do(Box<StoreOp>),
    /// Finished; whether what comes after it is done.
    Done(bool),
}

trait Machine {
    fn step(&mut self, reply: Reply) -> Step;
}

/// A protocol, and whether its end allows what comes after.
struct Of<S, F>(S, F);

impl<S: Steps, F: FnMut(S::Out) -> bool> Machine for Of<S, F> {
    fn step(&mut self, reply: Reply) -> Step {
        match self.0.step(reply) {
            Next::Do(operation) => Step::Do(Box::new(operation)),
            Next::Done(out) => Step::Done((self.1)(out)),
        }
    }
}

struct Once(Option<StoreOp>);

impl Machine for Once {
    fn step(&mut self, _: Reply) -> Step {
        self.0
            .take()
            .map_or(Step::Done(true), |operation| Step::Do(Box::new(operation)))
    }
}

/// A duty under way.
pub(crate) struct Task {
    pub(crate) subject: Subject,
    /// Its end is the end of an attachment.
    pub(crate) retires: bool,
    machines: VecDeque<Box<dyn Machine>>,
    reply: Option<Reply>,
}

/// How a task stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Running,
    Done,
    Failed,
}

impl Task {
    pub(crate) fn new(subject: Subject, duty: Duty, view: &View, now: Timestamp) -> Self {
        let retires = matches!(duty, Duty::Retire(_));
        Self {
            subject,
            retires,
            machines: machines(duty, view, now).into(),
            reply: None,
        }
    }

    /// Runs to its next operation and carries that out.
    pub(crate) fn step(&mut self, store: &mut StoreSim, fate: Fate) -> Progress {
        let Some(machine) = self.machines.front_mut() else {
            return Progress::Done;
        };
        match machine.step(self.reply.take().unwrap_or(Reply::Start)) {
            Step::Do(operation) => {
                self.reply = Some(carried_out(store, *operation, fate));
                Progress::Running
            }
            Step::Done(true) => {
                self.machines.pop_front();
                if self.machines.is_empty() {
                    Progress::Done
                } else {
                    Progress::Running
                }
            }
            Step::Done(false) => Progress::Failed,
        }
    }
}

fn carried_out(store: &mut StoreSim, operation: StoreOp, fate: Fate) -> Reply {
    match fate {
        Fate::Answered => store.run(operation),
        Fate::AnswerLost => {
            store.run(operation);
            Reply::Unknown
        }
        Fate::QuestionLost => Reply::Unknown,
        Fate::Refused => Reply::Failed(StoreError {
            kind: FailureKind::Unavailable,
            message: "away".to_owned(),
        }),
    }
}

fn machines(duty: Duty, view: &View, now: Timestamp) -> Vec<Box<dyn Machine>> {
    match duty {
        Duty::Node(addresses) => {
            let version = view.settings.version.clone();
            vec![edit(Key::Node(NODE.to_owned()), move |found| {
                records::node(found, NODE, &version, &addresses)
            })]
        }
        Duty::Cluster => {
            let key = Key::ClusterInformation("default".to_owned());
            vec![edit(key, |found| records::cluster(found, "guid"))]
        }
        // Own addresses are there already, and this node has a lease that nobody revokes.
        Duty::Allocate(_)
        | Duty::Reallocate(_)
        | Duty::Withdraw(_)
        | Duty::Restore(_)
        | Duty::KeepLease(_)
        | Duty::ProlongLease(_)
        | Duty::LeaveLease(_)
        | Duty::ReadLease { .. }
        | Duty::RevokeLease { .. } => Vec::new(),
        Duty::Publish(attachment) => {
            let key = records::endpoint_key(&attachment);
            vec![edit(key, move |found| {
                records::published(found, &attachment, NODE)
            })]
        }
        Duty::Republish(before) => {
            let key = records::key_of(&before);
            vec![edit(key, move |found| records::republished(found, &before))]
        }
        Duty::Reassert {
            floating,
            before,
            above,
            term,
            overrules,
        } => vec![
            reserve(floating, view, now),
            edit(claim::binding_key(floating), move |found| {
                claim::reasserted(found, &before, above, term, overrules)
            }),
        ],
        Duty::Retire(attachment) => {
            let key = records::endpoint_key(&attachment);
            vec![edit(key, move |found| records::retired(found, &attachment))]
        }
        Duty::FirstClaim {
            floating,
            namespace,
            owner,
            floor,
        } => {
            let first = claim::FirstClaim::new(floating, namespace, owner, floor);
            vec![
                reserve(floating, view, now),
                Box::new(Of(first, |out: Result<(), StoreError>| out.is_ok())),
            ]
        }
        Duty::Claim {
            floating,
            seen,
            owner,
            ..
        } => {
            let change =
                |seen: claim::Seen| move |found: Option<&Value>| claim::claimed(found, &seen.0, &owner);
            vec![reserve(floating, view, now), knowing(floating, *seen, change)]
        }
        Duty::Release { seen, .. } => vec![once(claim::given_away(&seen, None, now))],
        Duty::Restamp { floating, seen, term } => {
            let change =
                |seen: claim::Seen| move |found: Option<&Value>| claim::restamped(found, &seen.0, term);
            vec![knowing(floating, *seen, change)]
        }
        Duty::Offer { seen, offer, .. } => vec![once(claim::given_away(&seen, Some(&offer), now))],
        Duty::Candidates {
            floating,
            candidates,
            conditions,
        } => {
            let part = Part {
                candidates,
                conditions,
            };
            let apply = StoreOp::Apply(claim::binding_key(floating), Writer(NODE.to_owned()), part);
            vec![once(apply)]
        }
        Duty::Collect {
            floating,
            seen,
            reservation,
        } => {
            let collect = Collect::new(floating, seen.0, reservation);
            vec![Box::new(Of(collect, |out: Result<(), _>| out.is_ok()))]
        }
        Duty::Free { floating, stamp } => {
            vec![Box::new(Of(Free::new(floating, stamp), |out: Result<(), _>| {
                out.is_ok()
            }))]
        }
    }
}

type Floating = buoy_api::ip::FloatingIp;

fn once(operation: StoreOp) -> Box<dyn Machine> {
    Box::new(Once(Some(operation)))
}

fn edit(key: Key, change: impl FnMut(Option<&Value>) -> Change + 'static) -> Box<dyn Machine> {
    Box::new(Of(Edit::new(key, change), |out: Result<(), _>| out.is_ok()))
}

fn knowing<F: FnMut(Option<&Value>) -> Change + 'static>(
    floating: Floating,
    seen: claim::Seen,
    change: impl FnOnce(claim::Seen) -> F,
) -> Box<dyn Machine> {
    let known = Some((Value::Binding(seen.0.clone()), seen.1));
    let edit = Edit::knowing(claim::binding_key(floating), known, change(seen));
    Box::new(Of(edit, |out: Result<(), _>| out.is_ok()))
}

fn reserve(floating: Floating, view: &View, now: Timestamp) -> Box<dyn Machine> {
    let pools = view.pools.values().cloned().collect();
    let snapshot = Arc::new(Snapshot {
        pools,
        ..Snapshot::default()
    });
    let reserve = ReserveFloating::new(ReserveRequest {
        known: None,
        snapshot,
        address: floating,
        now,
    });
    Box::new(Of(reserve, |out: Result<_, buoy_core::ipam::IpamError>| {
        out.is_ok()
    }))
}
