//! Duties as the agent's store threads carry them out, one operation at a time.

use std::time::Duration;

use buoy_api::binding::{Binding, Target, Term};
use buoy_api::lease::NodeLease;
use buoy_core::duty::Duty;
use buoy_core::edit::{Change, Edit};
use buoy_core::floating::claim;
use buoy_core::floating::collect::Collect;
use buoy_core::floating::lease::{self, Holder, KeepLease, Kept, Own, RevokeLease, Sighting, lease_of};
use buoy_core::store::{Key, Next, Part, Reply, Revision, Steps, StoreError, StoreOp, Value, Writer};
use buoy_core::subject::Subject;
use buoy_core::time::{Mono, Now};

use super::run::Flaw;

/// What a thread tells the loop.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a few live at a time")]
pub(crate) enum Outcome {
    Done,
    Failed(String),
    Lease(Own, Mono),
    Sighted(Option<(NodeLease, Revision)>, Mono),
}

/// A protocol; what it ends with may depend on the clock.
pub(crate) type Machine = Box<dyn FnMut(Reply, Mono) -> Next<Outcome>>;

/// Where the one operation of a protocol is.
pub(crate) enum Stage {
    /// The thread has this answer.
    Answered(Reply),
    /// On its way to the datastore.
    Asked(StoreOp),
    /// On its way back, unless the link is cut.
    Returning(Reply),
}

/// The threads of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Lease,
    Sighting,
    Other,
}

/// A duty that waits for a thread.
pub(crate) struct Job {
    pub(crate) subject: Subject,
    pub(crate) duty: Duty,
    pub(crate) floor: Term,
    pub(crate) now: Now,
}

/// A duty under way.
pub(crate) struct Task {
    pub(crate) subject: Subject,
    pub(crate) lane: Lane,
    pub(crate) is_first_claim: bool,
    pub(crate) machine: Machine,
    pub(crate) stage: Stage,
    /// Until when it waits for a datastore that takes no writes.
    pub(crate) patience: Option<Duration>,
}

impl Task {
    /// Whether it is about to write.
    pub(crate) fn writes(&self) -> bool {
        matches!(&self.stage, Stage::Asked(operation) if is_write(operation))
    }
}

/// Whether an operation may change something.
pub(crate) fn is_write(operation: &StoreOp) -> bool {
    !matches!(operation, StoreOp::Get(_) | StoreOp::List(_))
}

pub(crate) fn lane(duty: &Duty) -> Lane {
    match duty {
        Duty::KeepLease(_) | Duty::ProlongLease(_) | Duty::LeaveLease(_) => Lane::Lease,
        Duty::ReadLease { .. } | Duty::RevokeLease { .. } => Lane::Sighting,
        _ => Lane::Other,
    }
}

/// The protocol of a duty that a thread begins now.
pub(crate) fn machine(job: Job, holder: Holder, flaw: Flaw) -> Machine {
    let node = holder.node.clone();
    match job.duty {
        Duty::FirstClaim {
            floating,
            namespace,
            owner,
            floor,
        } => steps(
            claim::FirstClaim::new(floating, namespace, owner, floor),
            |out, _| done(out),
        ),
        Duty::Claim { seen, owner, .. } => edit_seen(*seen, move |found, seen| match (flaw, found) {
            (Flaw::ClaimComparesNothing, Some(Value::Binding(found_now))) => {
                claim::claimed(found, found_now, &owner)
            }
            _ => claim::claimed(found, seen, &owner),
        }),
        Duty::Restamp { seen, term, .. } => {
            edit_seen(*seen, move |found, seen| claim::restamped(found, seen, term))
        }
        Duty::Reassert {
            floating,
            before,
            above,
            term,
            overrules,
        } => steps(
            Edit::new(claim::binding_key(floating), move |found: Option<&Value>| {
                claim::reasserted(found, &before, above, term, overrules)
            }),
            |out, _| done(out),
        ),
        Duty::Offer { seen, offer, .. } if flaw == Flaw::OwnerIsWrittenForOthers => {
            taken_over(*seen, &offer.to)
        }
        Duty::Offer { seen, offer, .. } => once(claim::given_away(&seen, Some(&offer), job.now.wall), given),
        Duty::Release { seen, .. } => once(claim::given_away(&seen, None, job.now.wall), given),
        Duty::Candidates {
            floating,
            candidates,
            conditions,
        } => {
            let part = Part {
                candidates,
                conditions,
            };
            once(
                StoreOp::Apply(claim::binding_key(floating), Writer(node), part),
                replied,
            )
        }
        Duty::Collect { floating, seen, .. } => {
            steps(Collect::new(floating, seen.0, None), |out, _| done(out))
        }
        Duty::KeepLease(known) => steps(KeepLease::new(holder, known, job.floor), kept),
        Duty::ProlongLease(held) => steps(KeepLease::prolong(holder, held), kept),
        Duty::LeaveLease(held) => once(lease::leave(&holder, &held), |reply, now| match reply {
            Reply::Failed(error) => Outcome::Failed(error.to_string()),
            _ => Outcome::Lease(Own::Nothing, now),
        }),
        Duty::ReadLease { node, .. } => once(StoreOp::Get(lease::key(&node)), |reply, now| match reply {
            Reply::Record(record) => sighted(lease_of(record), now),
            Reply::Failed(error) => Outcome::Failed(error.to_string()),
            _ => Outcome::Failed("no answer".to_owned()),
        }),
        Duty::RevokeLease { seen, .. } if flaw == Flaw::ClaimWithoutRevoking => pretended(*seen),
        Duty::RevokeLease { node, seen, owner } => steps(RevokeLease::new(node, &seen, owner), sighted),
        other => panic!("not a duty of ownership: {other:?}"),
    }
}

fn steps<S: Steps + 'static>(mut steps: S, end: impl Fn(S::Out, Mono) -> Outcome + 'static) -> Machine {
    Box::new(move |reply, now| match steps.step(reply) {
        Next::Do(operation) => Next::Do(operation),
        Next::Done(out) => Next::Done(end(out, now)),
    })
}

fn once(operation: StoreOp, end: impl Fn(Reply, Mono) -> Outcome + 'static) -> Machine {
    Box::new(move |reply, now| match reply {
        Reply::Start => Next::Do(operation.clone()),
        reply => Next::Done(end(reply, now)),
    })
}

fn edit_seen(seen: claim::Seen, change: impl Fn(Option<&Value>, &Binding) -> Change + 'static) -> Machine {
    let (binding, revision) = seen;
    let key = Key::Binding(binding.name().to_owned());
    let known = Some((Value::Binding(binding.clone()), revision));
    steps(
        Edit::knowing(key, known, move |found: Option<&Value>| change(found, &binding)),
        |out, _| done(out),
    )
}

/// Wrong on purpose: the owner writes who is next.
fn taken_over((mut binding, revision): claim::Seen, to: &Target) -> Machine {
    let next = binding
        .status
        .candidates
        .iter()
        .find(|candidate| candidate.matches(to));
    binding.spec.owner = next.map(|candidate| candidate.as_owner(Term(1)));
    binding.spec.epoch = binding.spec.epoch.next();
    let key = Key::Binding(binding.name().to_owned());
    once(StoreOp::Update(key, Value::Binding(binding), revision), given)
}

/// Wrong on purpose: says that the lease was revoked, and leaves it alone.
fn pretended(seen: Sighting) -> Machine {
    Box::new(move |_, now| {
        let revoked = seen.lease.clone().map(|(mut lease, revision)| {
            lease.spec.holder = None;
            lease.spec.term = Term(lease.spec.term.0 + 1);
            (lease, revision)
        });
        Next::Done(Outcome::Sighted(revoked, now))
    })
}

fn done<E: std::fmt::Display>(out: Result<(), E>) -> Outcome {
    out.map_or_else(|error| Outcome::Failed(error.to_string()), |()| Outcome::Done)
}

fn kept(out: Result<Kept, StoreError>, ended: Mono) -> Outcome {
    match out {
        Ok(Kept::Held(held)) => Outcome::Lease(Own::Held(held), ended),
        Ok(Kept::Foreign(holder)) => Outcome::Lease(Own::Foreign(holder), ended),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn sighted(out: Result<Option<(NodeLease, Revision)>, StoreError>, ended: Mono) -> Outcome {
    match out {
        Ok(lease) => Outcome::Sighted(lease, ended),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn given(reply: Reply, _: Mono) -> Outcome {
    match reply {
        Reply::Unknown => Outcome::Failed("the answer was lost".to_owned()),
        reply => replied(reply, Mono::default()),
    }
}

fn replied(reply: Reply, _: Mono) -> Outcome {
    match reply {
        Reply::Failed(error) => Outcome::Failed(error.to_string()),
        _ => Outcome::Done,
    }
}
