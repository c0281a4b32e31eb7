//! Clients that wait: for an endpoint to be settled, for one to be gone, or for a name to be free again.

use std::collections::{BTreeMap, BTreeSet};

use buoy_cni_spec::agent::Response;
use buoy_cni_spec::{CniError, NetConf};
use buoy_core::desired::RowKey;
use buoy_core::endpoint::AttachmentId;
use buoy_core::time::Mono;
use crossbeam_channel::Sender;
use serde_json::Value;

use crate::inputs::{Call, CallId};

/// An ADD that waits.
#[derive(Debug)]
pub(crate) struct Adding {
    /// Every client that asked for the same; one that asks again after a broken connection joins.
    pub(crate) waiters: Vec<Waiter>,
    /// How the answer is to be written.
    pub(crate) conf: NetConf,
    /// Since when it could be answered but for what is undecided.
    pub(crate) usable_since: Option<Mono>,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) id: CallId,
    pub(crate) reply: Sender<Response>,
}

/// A DEL that waits, or an attachment that is taken down without one.
#[derive(Debug)]
pub(crate) struct Removing {
    pub(crate) waiters: Vec<Waiter>,
    /// Rows that the kernel must not have any more.
    pub(crate) keys: BTreeSet<RowKey>,
    /// Since when.
    pub(crate) since: Mono,
}

/// All clients that wait.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) adding: BTreeMap<AttachmentId, Adding>,
    pub(crate) removing: BTreeMap<AttachmentId, Removing>,
    /// Calls for a key that is still being taken down.
    pub(crate) parked: BTreeMap<AttachmentId, Vec<Call>>,
    /// Calls from before the records were known, and since when they wait.
    pub(crate) early: Vec<(Mono, Call)>,
}

impl Waiter {
    /// Answers. A client that is gone is no loss.
    pub(crate) fn answer(self, response: Response) {
        self.reply.send(response).ok();
    }
}

impl From<Call> for Waiter {
    fn from(call: Call) -> Self {
        Self {
            id: call.id,
            reply: call.reply,
        }
    }
}

impl Answers {
    /// Answers an ADD to all who wait for it.
    pub(crate) fn added(&mut self, id: &AttachmentId, response: &Response) {
        for waiter in self
            .adding
            .remove(id)
            .into_iter()
            .flat_map(|adding| adding.waiters)
        {
            waiter.answer(response.clone());
        }
    }

    /// Answers a DEL to all who wait for it.
    pub(crate) fn removed(&mut self, id: &AttachmentId) {
        for waiter in self
            .removing
            .get_mut(id)
            .into_iter()
            .flat_map(|removing| std::mem::take(&mut removing.waiters))
        {
            waiter.answer(Ok(Value::Null));
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        let adding = self.adding.values().map(|adding| adding.waiters.len());
        let removing = self.removing.values().map(|removing| removing.waiters.len());
        let parked = self.parked.values().map(Vec::len);
        adding.chain(removing).chain(parked).sum::<usize>() + self.early.len()
    }

    /// A client went away. Says which ADD nobody waits for any more.
    pub(crate) fn gone(&mut self, call: CallId) -> Option<AttachmentId> {
        self.early.retain(|(_, early)| early.id != call);
        for parked in self.parked.values_mut() {
            parked.retain(|parked| parked.id != call);
        }
        for removing in self.removing.values_mut() {
            removing.waiters.retain(|waiter| waiter.id != call);
        }
        let (id, adding) = self
            .adding
            .iter_mut()
            .find(|(_, adding)| adding.waiters.iter().any(|waiter| waiter.id == call))?;
        adding.waiters.retain(|waiter| waiter.id != call);
        adding.waiters.is_empty().then(|| id.clone())
    }

    /// Tells early callers that have waited long enough.
    pub(crate) fn turn_away(&mut self, before: Mono, error: &CniError) {
        let (late, early) = std::mem::take(&mut self.early)
            .into_iter()
            .partition(|(since, _)| *since <= before);
        self.early = early;
        let late: Vec<(Mono, Call)> = late;
        for (_, call) in late {
            Waiter::from(call).answer(Err(error.clone()));
        }
    }
}
