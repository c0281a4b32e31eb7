//! The life of an attachment: from the ADD that brings it to the last record that it leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use buoy_cni_spec::{CniError, ErrorCode};
use buoy_core::desired::RowKey;
use buoy_core::endpoint::{Attachment, AttachmentId, Phase};
use buoy_core::ipam::IpamError;
use buoy_core::op::Op;
use buoy_core::subject::Subject;
use buoy_core::time::{Mono, Now};
use ipnet::IpNet;
use tracing::{info, warn};

use super::Agent;
use crate::answers::Removing;
use crate::inputs::Applied;
use crate::request::Removal;
use crate::{clock, spool};

/// How long after its start an agent waits to be asked again for what was never answered.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(30);

impl Agent {
    /// Takes up the attachments of an earlier agent. What was never answered is undone unless it is asked for again.
    pub(super) fn take_up(&mut self) -> Result<()> {
        for mut attachment in self.files.load()?.into_values() {
            self.order = self.order.max(attachment.order);
            match attachment.phase {
                Phase::Adding | Phase::Linked => {
                    attachment.phase = Phase::Adding;
                    self.network.suspect(attachment.request.host_ifname.clone());
                    self.unanswered.insert(attachment.id.clone());
                }
                Phase::Removing => self.removing(&attachment.id, BTreeSet::new(), clock::mono()),
                Phase::Up | Phase::Down => {}
            }
            self.dirty.extend(self.view.put_attachment(attachment));
        }
        self.drain_spool(clock::now());
        Ok(())
    }

    /// Carries out what the CNI plugin wrote down while no agent answered.
    pub(super) fn drain_spool(&mut self, now: Now) {
        for (removal, path) in spool::records(&self.settings.spool()) {
            info!("a DEL from the spool: {}", removal.id());
            self.remove(&removal, now);
            spool::done(&path);
        }
    }

    /// Takes an attachment down. One that is not known may have records in the datastore all the same: its file was lost,
    /// or the node was cleaned up.
    pub(super) fn remove(&mut self, removal: &Removal, now: Now) {
        let id = removal.id();
        if self.view.attachment(&id).is_some() {
            return self.take_down(&id, now);
        }
        match removal.attachment(&self.settings.node_name, now.wall) {
            Ok(attachment) if self.released.has(&attachment) => {}
            Ok(attachment) => self.put(attachment),
            Err(error) => warn!("a DEL that says too little to release anything: {id}: {error}"),
        }
    }

    /// Keeps an attachment as it is now, in a file and in the view.
    pub(super) fn put(&mut self, attachment: Attachment) {
        if let Err(error) = self.files.save(&attachment) {
            warn!("{error:#}");
        }
        self.dirty.extend(self.view.put_attachment(attachment));
    }

    /// Whether an attachment may be given addresses now. Those of another IPAM plugin are not the datastore's to give.
    pub(super) fn may_assign(&self, attachment: &Attachment, now: Mono) -> Result<(), IpamError> {
        if attachment.request.is_given() {
            return Ok(());
        }
        self.view.may_allocate(now)
    }

    /// The attachment's own addresses are assigned, or cannot be.
    pub(super) fn assigned(&mut self, subject: &Subject, result: Result<Vec<IpNet>, IpamError>, now: Now) {
        let Subject::Attachment(id) = subject else { return };
        self.work.ended(subject, None, now.mono);
        let Some(attachment) = self.view.attachment(id) else {
            return;
        };
        // What was assigned before the restore was noticed may be somebody else's.
        let result = result.and_then(|addresses| self.may_assign(attachment, now.mono).map(|()| addresses));
        match result {
            Ok(addresses) if attachment.phase == Phase::Adding => {
                let mut attachment = attachment.clone();
                attachment.addresses = Some(addresses);
                self.put(attachment);
            }
            Err(error) if attachment.phase == Phase::Adding => {
                let error = ipam_error(&error);
                self.fail(&id.clone(), &error, now);
            }
            // It was undone meanwhile: its handle is released with it.
            _ => {}
        }
    }

    /// An ADD cannot be granted: it is undone, and whoever waits is told why.
    pub(super) fn fail(&mut self, id: &AttachmentId, error: &CniError, now: Now) {
        self.tell_of_failure(id, error, now);
        self.answers.added(id, &Err(error.clone()));
        self.take_down(id, now);
    }

    /// Begins to take an attachment down. Nothing to do for one that is unknown or on its way out.
    pub(super) fn take_down(&mut self, id: &AttachmentId, now: Now) {
        let Some(attachment) = self.view.attachment(id).filter(|a| !a.is_leaving()) else {
            return;
        };
        let keys = self.keys_to_go(attachment);
        self.answers.added(
            id,
            &Err(CniError::try_again("the attachment was taken down meanwhile")),
        );
        self.unanswered.remove(id);
        self.set_phase(id, Phase::Removing);
        self.removing(id, keys, now.mono);
    }

    fn removing(&mut self, id: &AttachmentId, keys: BTreeSet<RowKey>, now: Mono) {
        self.network.compare(keys.iter().cloned());
        self.answers.removing.insert(
            id.clone(),
            Removing {
                waiters: Vec::new(),
                keys,
                since: now,
            },
        );
    }

    /// Rows that an attachment has now: its link, its routes, and the floating IPs it owns.
    pub(super) fn keys_of(&self, attachment: &Attachment) -> BTreeSet<RowKey> {
        let desired = self.network.desired();
        let floating = self.view.asked_by(&attachment.endpoint).filter(|floating| {
            desired
                .nat(*floating)
                .is_some_and(|nat| nat.endpoint == attachment.endpoint)
        });
        let floating = floating.map(Subject::Binding);
        let subjects = floating.chain([Subject::Endpoint(attachment.endpoint.clone())]);
        subjects
            .flat_map(|subject| desired.keys_of(&subject).cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Rows that must go with an attachment: its own, and what the kernel has behind its link whatever is desired. None,
    /// if a newer one has taken its place.
    fn keys_to_go(&self, attachment: &Attachment) -> BTreeSet<RowKey> {
        if !attachment.request.link || !self.view.is_current(attachment) {
            return BTreeSet::new();
        }
        let addresses: Vec<_> = attachment.own_addresses().collect();
        let mut keys = self
            .network
            .keys_behind(&attachment.request.host_ifname, &addresses);
        keys.append(&mut self.keys_of(attachment));
        keys
    }

    /// The kernel did, or did not do, what it was told.
    pub(super) fn applied(&mut self, results: Vec<Applied>, now: Mono) {
        let gone: Vec<AttachmentId> = results
            .iter()
            .filter(|applied| applied.result.as_ref().is_err_and(|error| error.namespace_gone))
            .filter_map(|applied| made_for(&applied.op))
            .collect();
        let linked: Vec<AttachmentId> = results
            .iter()
            .filter(|applied| applied.result.is_ok())
            .filter_map(|applied| made_for(&applied.op))
            .collect();
        self.network.applied(results, now);
        for id in linked {
            self.linked(&id);
        }
        for id in gone {
            if self.view.attachment(&id).is_some_and(|a| a.phase == Phase::Up) {
                info!("the namespace of {id} is gone: taken down");
                self.take_down(&id, clock::now());
            }
        }
    }

    /// The link of an attachment is there. The file need not know: an agent that comes back looks for itself.
    fn linked(&mut self, id: &AttachmentId) {
        let Some(attachment) = self.view.attachment(id).filter(|a| a.phase == Phase::Adding) else {
            return;
        };
        let linked = Attachment {
            phase: Phase::Linked,
            ..attachment.clone()
        };
        self.dirty.extend(self.view.put_attachment(linked));
    }

    /// The records of an attachment that is down are released: nothing of it is left.
    pub(super) fn retired(&mut self, subject: &Subject) {
        let Subject::Attachment(id) = subject else { return };
        let Some(attachment) = self.view.attachment(id).filter(|a| a.phase == Phase::Down) else {
            return;
        };
        self.released.note(attachment);
        self.dirty.extend(self.view.remove_attachment(id));
        self.dirty.remove(subject);
        self.work.forget(subject);
        self.files.remove(id);
        let now = clock::now();
        for call in self.answers.parked.remove(id).into_iter().flatten() {
            self.call(call, now);
        }
    }
}

/// The attachment that an operation makes a link for.
fn made_for(op: &Op) -> Option<AttachmentId> {
    match op {
        Op::AddLink(_, link) => Some(link.attachment.clone()),
        _ => None,
    }
}

/// What a runtime is told when IPAM refuses.
pub(super) fn ipam_error(error: &IpamError) -> CniError {
    let text = error.to_string();
    let (msg, hint) = text.split_once('\n').unwrap_or((&text, ""));
    let code = if error.is_retryable() {
        ErrorCode::TRY_AGAIN_LATER
    } else {
        ErrorCode::GENERIC
    };
    CniError::new(code, msg).with_hint(hint)
}
