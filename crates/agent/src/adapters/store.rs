//! Carries out duties: drives the protocols against the datastore.
//!
//! Whatever assigns or releases own addresses runs on one thread, with what it wrote last at hand: so requests that come
//! by the dozen do not fight each other over one block. And whoever gives an address away, or takes it, does not wait until
//! all is said that is to be said of others: a node that is drained has much to say at once.

mod lease;
mod own;
mod written;

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::Result;
use buoy_api::binding::Term;
use buoy_api::ip::FloatingIp;
use buoy_core::duty::{AT_ONCE, Duty};
use buoy_core::edit::{Change, Edit, EditError};
use buoy_core::floating::claim::{self, FirstClaim};
use buoy_core::floating::collect::{Collect, Free};
use buoy_core::floating::lease::{Holder, KeepLease, RevokeLease};
use buoy_core::ipam::{Asker, ReserveFloating, ReserveRequest, Snapshot};
use buoy_core::records;
use buoy_core::store::{Key, Part, Record, Reply, StoreOp, Value, Writer};
use buoy_core::subject::Subject;
use buoy_core::time::Now;
use buoy_core::view::View;
use buoy_datastore::{Datastore, drive};
use crossbeam_channel::{Receiver, Sender, bounded};
use ipnet::IpNet;
use tracing::debug;

use self::written::Written;
use crate::clock;
use crate::inputs::{Input, Outcome};
use crate::metrics::Metrics;
use crate::metrics::datastore::Counts;

/// Threads for owners of floating IPs, and for everything else.
const THREADS: usize = 2;

/// A duty with what its protocol needs to know.
#[derive(Debug)]
pub(crate) struct Job {
    subject: Subject,
    duty: Duty,
    context: Context,
}

#[derive(Clone, Debug)]
struct Context {
    snapshot: Arc<Snapshot>,
    asker: Asker,
    cached: Vec<Record>,
    /// How often the datastore was restored by then.
    restores: u64,
    identity: String,
    term_floor: Term,
    now: Now,
}

/// The threads.
#[derive(Debug)]
pub(crate) struct StoreAdapter {
    own: Sender<Job>,
    lease: Sender<Job>,
    sighting: Sender<Job>,
    owner: Sender<Job>,
    other: Sender<Job>,
}

impl StoreAdapter {
    /// Starts the threads, which end when this value goes.
    pub(crate) fn start(
        store: &Arc<dyn Datastore>,
        metrics: &Metrics,
        inputs: &Sender<Input>,
    ) -> Result<Self> {
        let spawn =
            |name: &str, jobs: Receiver<Job>| spawn(name, store, metrics.datastore.clone(), inputs, jobs);
        let (own, own_jobs) = bounded(AT_ONCE);
        let (lease, lease_jobs) = bounded(AT_ONCE);
        let (sighting, sighting_jobs) = bounded(AT_ONCE);
        let (owner, owner_jobs) = bounded(AT_ONCE);
        let (other, other_jobs) = bounded(AT_ONCE);
        spawn("store-ipam", own_jobs)?;
        spawn("store-lease", lease_jobs)?;
        spawn("store-sighting", sighting_jobs)?;
        for n in 0..THREADS {
            spawn(&format!("store-owner-{n}"), owner_jobs.clone())?;
            spawn(&format!("store-{n}"), other_jobs.clone())?;
        }
        Ok(Self {
            own,
            lease,
            sighting,
            owner,
            other,
        })
    }

    /// What waits for which thread.
    pub(crate) fn queues(&self) -> [(&'static str, usize); 5] {
        [
            ("store-ipam", self.own.len()),
            ("store-lease", self.lease.len()),
            ("store-sighting", self.sighting.len()),
            ("store-owner", self.owner.len()),
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
            Duty::FirstClaim { .. }
            | Duty::Claim { .. }
            | Duty::Restamp { .. }
            | Duty::Reassert { .. }
            | Duty::Offer { .. }
            | Duty::Release { .. } => &self.owner,
            _ => &self.other,
        };
        // The threads outlive the loop, and no more duties are under way than fit the queue.
        queue
            .send(Job {
                subject,
                duty,
                context,
            })
            .ok();
    }
}

fn spawn(
    name: &str,
    store: &Arc<dyn Datastore>,
    counts: Counts,
    inputs: &Sender<Input>,
    jobs: Receiver<Job>,
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
            let outcome = performer.perform(job);
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

impl Context {
    fn of(duty: &Duty, view: &View, now: Now) -> Self {
        let namespace = match duty {
            Duty::Allocate(attachment) | Duty::Reallocate(attachment) => Some(&attachment.endpoint.namespace),
            _ => None,
        };
        let needs_pools = matches!(
            duty,
            Duty::Allocate(_)
                | Duty::Reallocate(_)
                | Duty::FirstClaim { .. }
                | Duty::Claim { .. }
                | Duty::Reassert { .. }
        );
        let snapshot = if needs_pools {
            snapshot(view)
        } else {
            Snapshot::default()
        };
        let node = view.nodes.get(view.settings.node.as_str());
        Self {
            snapshot: Arc::new(snapshot),
            asker: Asker {
                host: view.settings.node.clone(),
                node_labels: node.map(|node| node.metadata.labels.clone()).unwrap_or_default(),
                namespace_labels: namespace.map(|n| view.namespace_labels(n)).unwrap_or_default(),
            },
            cached: match duty {
                Duty::Allocate(_) => own_blocks(view),
                Duty::FirstClaim { floating, .. }
                | Duty::Claim { floating, .. }
                | Duty::Reassert { floating, .. } => block_of(view, *floating).into_iter().collect(),
                _ => Vec::new(),
            },
            restores: view.restores(),
            identity: view.settings.identity.clone(),
            term_floor: view.term_floor(),
            now,
        }
    }
}

fn snapshot(view: &View) -> Snapshot {
    Snapshot {
        pools: view.pools.values().cloned().collect(),
        reserved: view
            .reservations
            .values()
            .flat_map(|r| r.spec.reserved_cidrs.clone())
            .collect(),
        config: view.ipam.get(&()).cloned().unwrap_or_default(),
    }
}

/// Blocks of this node as the view has them.
fn own_blocks(view: &View) -> Vec<Record> {
    let blocks = view.affinities.iter();
    blocks.filter_map(|(cidr, _)| block(view, cidr)).collect()
}

/// The block of an address, whoever has it.
fn block_of(view: &View, floating: FloatingIp) -> Option<Record> {
    block(view, &view.block_of(floating.addr())?.cidr)
}

fn block(view: &View, cidr: &IpNet) -> Option<Record> {
    let (block, revision) = view.blocks.versioned(cidr)?;
    Some(Record {
        key: Key::Block(*cidr),
        revision,
        value: Ok(Value::Block(block.clone())),
    })
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
                let node = job.context.asker.host;
                self.edit(records::endpoint_key(&attachment), |found| {
                    records::published(found, &attachment, &node)
                })
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
