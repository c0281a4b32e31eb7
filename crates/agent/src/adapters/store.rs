//! Carries out duties: drives the protocols against the datastore.
//!
//! Whatever assigns or releases own addresses runs on one thread, with what it wrote last at hand: so requests that come
//! by the dozen do not fight each other over one block; and so do claims of floating IPs that lie in one. Whoever gives an
//! address away, or takes it, does not wait until all is said that is to be said of others: a node that is drained has much
//! to say at once.

mod context;
mod lease;
mod own;
mod written;

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::Result;
use buoy_api::ip::FloatingIp;
use buoy_core::duty::{AT_ONCE, Duty};
use buoy_core::edit::{Change, Edit, EditError};
use buoy_core::floating::claim::{self, FirstClaim};
use buoy_core::floating::collect::{Collect, Free};
use buoy_core::floating::lease::{Holder, KeepLease, RevokeLease};
use buoy_core::ipam::{ReserveFloating, ReserveRequest};
use buoy_core::records;
use buoy_core::store::{Key, Part, Reply, StoreOp, Value, Writer};
use buoy_core::subject::Subject;
use buoy_core::time::Now;
use buoy_core::view::View;
use buoy_datastore::{Datastore, drive};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use tracing::debug;

use self::context::Context;
use self::written::Written;
use crate::clock;
use crate::inputs::{Input, Outcome};
use crate::metrics::Metrics;
use crate::metrics::datastore::Counts;

/// Threads for owners of floating IPs, and for everything else.
const THREADS: usize = 2;
/// Addresses that have all but these bits in common are in one block, where blocks have the default size.
const BLOCK_BITS: u32 = 6;

/// A duty with what its protocol needs to know.
#[derive(Debug)]
pub(crate) struct Job {
    subject: Subject,
    duty: Duty,
    context: Context,
}

/// A queue has all its places from the beginning, and a job is large.
type Boxed = Box<Job>;

/// The threads.
#[derive(Debug)]
pub(crate) struct StoreAdapter {
    own: Sender<Boxed>,
    lease: Sender<Boxed>,
    sighting: Sender<Boxed>,
    owner: Sender<Boxed>,
    claims: [Sender<Boxed>; THREADS],
    other: Sender<Boxed>,
}

impl StoreAdapter {
    /// Starts the threads, which end when this value goes.
    pub(crate) fn start(
        store: &Arc<dyn Datastore>,
        metrics: &Metrics,
        inputs: &Sender<Input>,
    ) -> Result<Self> {
        let spawn = |name: &str, jobs: Jobs| spawn(name, store, metrics.datastore.clone(), inputs, jobs);
        let (own, own_jobs) = bounded(AT_ONCE);
        let (lease, lease_jobs) = bounded(AT_ONCE);
        let (sighting, sighting_jobs) = bounded(AT_ONCE);
        let (owner, owner_jobs) = bounded(AT_ONCE);
        let (other, other_jobs) = bounded(AT_ONCE);
        let claims: [_; THREADS] = std::array::from_fn(|_| bounded(AT_ONCE));
        spawn("store-ipam", Box::new(own_jobs.into_iter()))?;
        spawn("store-lease", Box::new(lease_jobs.into_iter()))?;
        spawn("store-sighting", Box::new(sighting_jobs.into_iter()))?;
        for (n, (_, claim_jobs)) in claims.iter().enumerate() {
            spawn(&format!("store-owner-{n}"), either(&owner_jobs, claim_jobs))?;
            spawn(&format!("store-{n}"), Box::new(other_jobs.clone().into_iter()))?;
        }
        Ok(Self {
            own,
            lease,
            sighting,
            owner,
            claims: claims.map(|(claims, _)| claims),
            other,
        })
    }

    /// What waits for which thread.
    pub(crate) fn queues(&self) -> [(&'static str, usize); 5] {
        let claims: usize = self.claims.iter().map(Sender::len).sum();
        [
            ("store-ipam", self.own.len()),
            ("store-lease", self.lease.len()),
            ("store-sighting", self.sighting.len()),
            ("store-owner", self.owner.len() + claims),
            ("store", self.other.len()),
        ]
    }

    /// Hands a duty over.
    pub(crate) fn perform(&self, subject: Subject, duty: Duty, view: &View, now: Now) {
        let context = Context::of(&duty, view, now);
        let queue = match duty {
            Duty::Allocate(_) | Duty::Reallocate(_) | Duty::Retire(_) => &self.own,
            Duty::KeepLease(_) | Duty::ProlongLease(_) | Duty::LeaveLease(_) => &self.lease,
            Duty::ReadLease { .. } | Duty::RevokeLease { .. } => &self.sighting,
            Duty::FirstClaim { floating, .. }
            | Duty::Claim { floating, .. }
            | Duty::Reassert { floating, .. } => &self.claims[lane(floating)],
            Duty::Restamp { .. } | Duty::Offer { .. } | Duty::Release { .. } => &self.owner,
            _ => &self.other,
        };
        // The threads outlive the loop, and no more duties are under way than fit the queue.
        queue
            .send(Box::new(Job {
                subject,
                duty,
                context,
            }))
            .ok();
    }
}

/// What a thread has to do, as it comes.
type Jobs = Box<dyn Iterator<Item = Boxed> + Send>;

/// Jobs from two queues.
fn either(one: &Receiver<Boxed>, other: &Receiver<Boxed>) -> Jobs {
    let (one, other) = (one.clone(), other.clone());
    Box::new(std::iter::from_fn(move || {
        select! {
            recv(one) -> job => job.ok(),
            recv(other) -> job => job.ok(),
        }
    }))
}

/// Which thread claims an address. Those of one block have the same: of two writers of a block one fails.
fn lane(floating: FloatingIp) -> usize {
    let bits = match floating.addr() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    usize::try_from((bits >> BLOCK_BITS) % THREADS as u128).unwrap_or_default()
}

fn spawn(
    name: &str,
    store: &Arc<dyn Datastore>,
    counts: Counts,
    inputs: &Sender<Input>,
    jobs: Jobs,
) -> Result<()> {
    let mut performer = Performer {
        store: Arc::clone(store),
        written: Written::default(),
    };
    let inputs = inputs.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        for job in jobs {
            let subject = job.subject.clone();
            let (kind, begun) = (job.duty.kind(), Instant::now());
            let outcome = performer.perform(*job);
            counts.performed(kind, &outcome, begun.elapsed());
            if let Outcome::Failed(error) = &outcome {
                debug!("{subject}: {error}");
            }
            if inputs.send(Input::Performed(subject, outcome)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

struct Performer {
    store: Arc<dyn Datastore>,
    written: Written,
}

impl Performer {
    fn perform(&mut self, job: Job) -> Outcome {
        match job.duty {
            Duty::Node(addresses) => {
                let name = job.context.asker.host;
                let node = |found: Option<&Value>| records::node(found, &name, crate::VERSION, &addresses);
                self.edit(Key::Node(name.clone()), node)
            }
            Duty::Cluster => {
                let guid = uuid::Uuid::new_v4().simple().to_string();
                let key = Key::ClusterInformation("default".to_owned());
                self.edit(key, |found| records::cluster(found, &guid))
            }
            Duty::Free { floating, stamp } => outcome(drive(self.store.as_ref(), Free::new(floating, stamp))),
            Duty::Allocate(attachment) => Outcome::Assigned(self.allocate(&attachment, job.context)),
            Duty::Publish(attachment) => {
                let (node, known) = (job.context.asker.host, job.context.endpoint);
                let published = |found: Option<&Value>| records::published(found, &attachment, &node);
                // Where nothing is known there most likely is none: whoever is wrong about that meets a conflict.
                let edit = Edit::knowing(records::endpoint_key(&attachment), known, published);
                outcome(drive(self.store.as_ref(), edit))
            }
            Duty::Republish(before) => self.edit(records::key_of(&before), |found| {
                records::republished(found, &before)
            }),
            Duty::Reallocate(attachment) => outcome(self.reallocate(&attachment, job.context)),
            Duty::Retire(attachment) => self.retire(&attachment, job.context.restores),
            Duty::FirstClaim {
                floating,
                namespace,
                owner,
                floor,
            } => self.reserved(floating, job.context, |this| {
                let claimed = drive(
                    this.store.as_ref(),
                    FirstClaim::new(floating, namespace, owner, floor),
                );
                outcome(claimed)
            }),
            Duty::Claim {
                floating,
                seen,
                owner,
                ..
            } => self.reserved(floating, job.context, |this| {
                this.edit_seen(floating, *seen.clone(), |found| {
                    claim::claimed(found, &seen.0, &owner)
                })
            }),
            Duty::Restamp { floating, seen, term } => self.edit_seen(floating, *seen.clone(), |found| {
                claim::restamped(found, &seen.0, term)
            }),
            Duty::Reassert {
                floating,
                before,
                above,
                term,
                overrules,
            } => self.reserved(floating, job.context, |this| {
                this.edit(claim::binding_key(floating), |found| {
                    claim::reasserted(found, &before, above, term, overrules)
                })
            }),
            Duty::Offer { seen, offer, .. } => {
                let now = job.context.now.wall;
                given_away(self.store.run(&claim::given_away(&seen, Some(&offer), now)))
            }
            Duty::Release { seen, .. } => {
                let now = job.context.now.wall;
                given_away(self.store.run(&claim::given_away(&seen, None, now)))
            }
            // The loop itself does these.
            Duty::Withdraw(_) | Duty::Restore(_) => Outcome::Done,
            Duty::KeepLease(known) => {
                let holder = self.holder(&job.context);
                lease::kept(
                    &*self.store,
                    KeepLease::new(holder, known, job.context.term_floor),
                )
            }
            Duty::ProlongLease(held) => {
                let holder = self.holder(&job.context);
                lease::kept(&*self.store, KeepLease::prolong(holder, held))
            }
            Duty::LeaveLease(held) => lease::left(&*self.store, &self.holder(&job.context), &held),
            Duty::ReadLease { node, .. } => lease::read(&*self.store, &node),
            Duty::RevokeLease { node, seen, owner } => {
                lease::revoked(&*self.store, RevokeLease::new(node, &seen, owner))
            }
            Duty::Candidates {
                floating,
                candidates,
                conditions,
            } => {
                let writer = Writer(job.context.asker.host);
                let part = Part {
                    candidates,
                    conditions,
                };
                reply(
                    self.store
                        .run(&StoreOp::Apply(claim::binding_key(floating), writer, part)),
                )
            }
            Duty::Collect {
                floating,
                seen,
                reservation,
            } => outcome(drive(
                self.store.as_ref(),
                Collect::new(floating, seen.0, reservation),
            )),
        }
    }

    /// This agent, now: what waited in the queue began only now.
    fn holder(&self, context: &Context) -> Holder {
        let now = clock::now();
        Holder {
            node: context.asker.host.clone(),
            identity: context.identity.clone(),
            wall: now.wall,
            mono: now.mono,
        }
    }

    /// Reserves an address, or stamps its reservation anew, before something else.
    fn reserved(
        &mut self,
        floating: FloatingIp,
        context: Context,
        then: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        let restores = context.restores;
        let request = ReserveRequest {
            known: self.written.freshest(context.cached, restores).pop(),
            snapshot: context.snapshot,
            address: floating,
            now: context.now.wall,
        };
        match drive(self.store.as_ref(), ReserveFloating::new(request)) {
            Ok(reservation) => {
                self.written.remember(vec![reservation.written], restores);
                then(self)
            }
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    fn edit(&self, key: Key, change: impl FnMut(Option<&Value>) -> Change) -> Outcome {
        outcome(drive(self.store.as_ref(), Edit::new(key, change)))
    }

    fn edit_seen(
        &self,
        floating: FloatingIp,
        (binding, revision): claim::Seen,
        change: impl FnMut(Option<&Value>) -> Change,
    ) -> Outcome {
        let known = Some((Value::Binding(binding), revision));
        let edit = Edit::knowing(claim::binding_key(floating), known, change);
        outcome::<EditError>(drive(self.store.as_ref(), edit))
    }
}

fn outcome<E: std::fmt::Display>(result: Result<(), E>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn reply(reply: Reply) -> Outcome {
    match reply {
        Reply::Failed(error) => Outcome::Failed(error.to_string()),
        _ => Outcome::Done,
    }
}

/// A conflict is an end, too: what the record is now will say what to do.
fn given_away(answer: Reply) -> Outcome {
    match answer {
        Reply::Unknown => Outcome::Failed("the answer was lost".to_owned()),
        answer => reply(answer),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
