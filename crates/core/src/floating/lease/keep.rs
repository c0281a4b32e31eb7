//! Taking, renewing and leaving this node's lease.

use std::time::Duration;

use buoy_api::binding::Term;
use buoy_api::lease::NodeLease;

use super::{DURATION, Held, Holder, LONG_DURATION, key, lease_of, next};
use crate::store::{Key, Next, Record, Reply, Revision, Steps, StoreError, StoreOp, Value};

/// Lost answers and conflicts after which it is left to the next turn.
const TRIES: u32 = 8;

/// What came of keeping a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is held. Another term than before means that it was revoked and taken anew.
    Held(Held),
    /// Somebody else holds it under this node's name.
    Foreign(String),
}

/// Takes this node's lease, or renews it. One of this agent's identity is renewed, however old it is: running out is
/// not losing.
#[derive(Debug)]
pub struct KeepLease {
    holder: Holder,
    known: Option<Held>,
    floor: Term,
    duration: Duration,
    writing: Term,
    tries: u32,
}

impl KeepLease {
    /// `known` is the lease as this process wrote or read it last; `floor` the highest term that an owner on this node
    /// has. A lease below it is a record that was deleted or restored: it is taken anew, above the floor.
    pub fn new(holder: Holder, known: Option<Held>, floor: Term) -> Self {
        Self {
            holder,
            duration: DURATION,
            writing: Term(0),
            known: known.filter(|held| held.term >= floor),
            floor,
            tries: 0,
        }
    }

    /// Makes the lease last while its agent is away on purpose.
    pub fn prolong(holder: Holder, held: Held) -> Self {
        Self {
            duration: LONG_DURATION,
            ..Self::new(holder, Some(held), Term(0))
        }
    }

    fn key(&self) -> Key {
        key(&self.holder.node)
    }

    fn read(&self) -> Next<Result<Kept, StoreError>> {
        Next::Do(StoreOp::Get(self.key()))
    }

    fn again(&mut self) -> Next<Result<Kept, StoreError>> {
        self.tries += 1;
        if self.tries < TRIES {
            return self.read();
        }
        Next::Done(Err(StoreError::contended(&self.key())))
    }

    fn write(&mut self, found: Option<(&NodeLease, Revision)>, term: Term) -> Next<Result<Kept, StoreError>> {
        self.writing = term;
        let lease = self
            .holder
            .hold(found.map(|(lease, _)| lease), term, self.duration);
        let value = Value::Lease(lease);
        Next::Do(match found {
            Some((_, revision)) => StoreOp::Update(self.key(), value, revision),
            None => StoreOp::Create(self.key(), value),
        })
    }

    fn found(&mut self, record: Option<Record>) -> Next<Result<Kept, StoreError>> {
        let (lease, revision) = match lease_of(record) {
            Ok(Some(found)) => found,
            Ok(None) => return self.write(None, next(self.floor.max(self.writing))),
            Err(error) => return Next::Done(Err(error)),
        };
        let found = Some((&lease, revision));
        match &lease.spec.holder {
            Some(holder) if *holder == self.holder.identity && lease.spec.term >= self.floor => {
                self.write(found, lease.spec.term)
            }
            Some(holder) if *holder == self.holder.identity => self.write(found, next(self.floor)),
            // Nobody: it was left, or somebody revoked it.
            None => self.write(found, next(lease.spec.term.max(self.floor))),
            Some(other) => Next::Done(Ok(Kept::Foreign(other.clone()))),
        }
    }
}

impl Steps for KeepLease {
    type Out = Result<Kept, StoreError>;

    fn step(&mut self, reply: Reply) -> Next<Self::Out> {
        match reply {
            Reply::Start => match self.known.take() {
                // What others wrote into the record is lost by this, and nothing of it is of use.
                Some(held) => {
                    self.writing = held.term;
                    let lease = self.holder.hold(None, held.term, self.duration);
                    Next::Do(StoreOp::Update(self.key(), Value::Lease(lease), held.revision))
                }
                None => self.read(),
            },
            Reply::Written(revision) => Next::Done(Ok(Kept::Held(Held {
                term: self.writing,
                revision,
                began: self.holder.mono,
            }))),
            Reply::Record(record) => self.found(record),
            Reply::Conflict | Reply::Unknown => self.again(),
            Reply::Failed(error) => Next::Done(Err(error)),
            Reply::Deleted | Reply::List(..) => self.again(),
        }
    }
}

/// Leaves a lease without holder, for this node owns nothing any more. A conflict means that somebody revoked it.
pub fn leave(holder: &Holder, held: &Held) -> StoreOp {
    let mut lease = holder.hold(None, held.term, DURATION);
    lease.spec.holder = None;
    StoreOp::Update(key(&holder.node), Value::Lease(lease), held.revision)
}
