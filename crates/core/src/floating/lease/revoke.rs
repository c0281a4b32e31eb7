//! Taking a lease away from a node that does not renew it.

use buoy_api::binding::Term;
use buoy_api::lease::NodeLease;

use super::{Sighting, fresh, key, next};
use crate::store::{Next, Record, Reply, Revision, Steps, StoreError, StoreOp, Value};

/// Revokes a lease at the revision that was seen, or makes the one that is missing. Ends with the lease as it is then:
/// who finds it renewed has been told that its holder lives.
#[derive(Debug)]
pub struct RevokeLease {
    node: String,
    seen: Option<(NodeLease, Revision)>,
    writing: NodeLease,
}

impl RevokeLease {
    /// `owner` is the highest term among the owners that the lease stands for.
    pub fn new(node: String, seen: &Sighting, owner: Term) -> Self {
        let mut writing = seen
            .lease
            .as_ref()
            .map_or_else(|| fresh(&node), |(lease, _)| lease.clone());
        writing.spec.holder = None;
        writing.spec.term = next(writing.spec.term.max(owner));
        Self {
            node,
            seen: seen.lease.clone(),
            writing,
        }
    }
}

impl Steps for RevokeLease {
    type Out = Result<Option<(NodeLease, Revision)>, StoreError>;

    fn step(&mut self, reply: Reply) -> Next<Self::Out> {
        match reply {
            Reply::Start => {
                let value = Value::Lease(self.writing.clone());
                Next::Do(match &self.seen {
                    Some((_, revision)) => StoreOp::Update(key(&self.node), value, *revision),
                    None => StoreOp::Create(key(&self.node), value),
                })
            }
            Reply::Written(revision) => Next::Done(Ok(Some((self.writing.clone(), revision)))),
            Reply::Record(record) => Next::Done(lease_of(record)),
            Reply::Conflict | Reply::Unknown => Next::Do(StoreOp::Get(key(&self.node))),
            Reply::Failed(error) => Next::Done(Err(error)),
            Reply::Deleted | Reply::List(..) => Next::Do(StoreOp::Get(key(&self.node))),
        }
    }
}

/// A record as a lease.
pub fn lease_of(record: Option<Record>) -> Result<Option<(NodeLease, Revision)>, StoreError> {
    let Some(record) = record else { return Ok(None) };
    match record.value.and_then(NodeLease::try_from) {
        Ok(lease) => Ok(Some((lease, record.revision))),
        Err(bad) => Err(StoreError::unreadable(&record.key, &bad.reason)),
    }
}
