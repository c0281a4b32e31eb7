//! What clients ask for.

use std::time::Duration;

use buoy_cni_spec::agent::{AddRequest, Body, Inspect, PluginRequest, Response};
use buoy_cni_spec::netconf::Attachment as Wanted;
use buoy_cni_spec::{CniError, ErrorCode, NetConf};
use buoy_core::endpoint::{Attachment, AttachmentId, Netns, Phase};
use buoy_core::floating::candidates;
use buoy_core::time::{Mono, Now};
use buoy_core::view::Gate;
use serde_json::Value;

use super::Agent;
use super::life::ipam_error;
use crate::answers::{Adding, Waiter};
use crate::inputs::{Call, CallId};
use crate::request::{self, Removal};
use crate::{check, inspect};

/// How long a call waits for the records to be known.
pub(super) const EARLY: Duration = Duration::from_secs(5);

impl Agent {
    pub(super) fn call(&mut self, call: Call, now: Now) {
        match call.body.clone() {
            Body::Add(_) | Body::IpamAdd(_) if !self.contact.synced => {
                self.answers.early.push((now.mono, call));
            }
            Body::Add(add) => self.add(add, call, now),
            Body::IpamAdd(ipam) => self.ipam_add(ipam, call, now),
            Body::Del(del) => self.del(&Removal::new(del, true), call, now),
            Body::IpamDel(del) => self.del(&Removal::new(del, false), call, now),
            Body::Check(add) => {
                let response = self.check(&add, &call, now);
                Waiter::from(call).answer(response);
            }
            Body::Gc { network, valid } => {
                self.gc(&network, &valid, now);
                Waiter::from(call).answer(Ok(Value::Null));
            }
            Body::Status => {
                let response = self.status(now.mono);
                Waiter::from(call).answer(response);
            }
            Body::Inspect(question) => {
                let answer = match question {
                    Inspect::Plan => inspect::plan(self, now),
                    Inspect::Why { ip } => inspect::why(self, ip, now),
                    Inspect::NodeStatus => inspect::status(self, now),
                };
                Waiter::from(call).answer(Ok(answer));
            }
        }
    }

    fn add(&mut self, add: AddRequest, call: Call, now: Now) {
        let Some(netns) = &call.netns else {
            let error = CniError::new(
                ErrorCode::INVALID_NETNS,
                "no network namespace came with the request",
            );
            return Waiter::from(call).answer(Err(error));
        };
        let identity = netns.id();
        let at = Netns {
            path: add.netns_path.clone(),
            device: identity.device,
            inode: identity.inode,
        };
        self.admit(&add, at, true, call, now);
    }

    /// Addresses alone, for another plugin's link.
    fn ipam_add(&mut self, ipam: PluginRequest, call: Call, now: Now) {
        let at = Netns {
            path: ipam.netns_path.clone().unwrap_or_default(),
            device: 0,
            inode: 0,
        };
        let add = AddRequest {
            container_id: ipam.container_id,
            ifname: ipam.ifname,
            netns_path: at.path.clone(),
            args: ipam.args,
            path: ipam.path,
            config: ipam.config,
            delegated: None,
            deadline_ms: ipam.deadline_ms,
        };
        self.admit(&add, at, false, call, now);
    }

    fn admit(&mut self, add: &AddRequest, at: Netns, link: bool, call: Call, now: Now) {
        let gate = |configured: bool| self.gate(configured);
        let parsed = request::parse(add, at, &self.settings.node_name, &gate, now.wall);
        let mut parsed = match parsed.and_then(|parsed| {
            self.may_begin(Some(&parsed.attachment), now.mono)
                .map(|()| parsed)
        }) {
            Ok(parsed) => parsed,
            Err(error) => {
                if let Some(about) = request::pod_of(add) {
                    self.tell_not_attached(about, &error, now);
                }
                return Waiter::from(call).answer(Err(error));
            }
        };
        parsed.attachment.request.link = link;
        let id = parsed.attachment.id.clone();
        match self.view.attachment(&id) {
            Some(there) if there.is_leaving() => self.park(id, call),
            Some(there) if there.request == parsed.attachment.request => self.join(id, parsed.conf, call),
            // The same key for something else: what is there goes first.
            Some(_) => {
                self.take_down(&id, now);
                self.park(id, call);
            }
            None => self.begin(parsed.attachment, parsed.conf, call),
        }
    }

    fn gate(&self, configured: bool) -> bool {
        match self.view.settings.floating {
            Gate::On => true,
            Gate::Off => false,
            Gate::Auto => configured || candidates::felix_gate(&self.view),
        }
    }

    /// Whether the datastore is fit for new workloads, or for this one.
    fn may_begin(&self, attachment: Option<&Attachment>, now: Mono) -> Result<(), CniError> {
        let locked = |c: &buoy_api::v3::ClusterInformation| c.spec.datastore_ready == Some(false);
        if self.view.cluster.get("default").is_some_and(locked) {
            return Err(
                CniError::try_again("Calico is currently not ready to process requests").with_hint(
                    "the datastore is locked: ClusterInformation default says datastoreReady: false",
                ),
            );
        }
        let allowed = match attachment {
            Some(attachment) => self.may_assign(attachment, now),
            None => self.view.may_allocate(now),
        };
        allowed.map_err(|error| ipam_error(&error))
    }

    fn park(&mut self, id: AttachmentId, call: Call) {
        self.answers.parked.entry(id).or_default().push(call);
    }

    /// The same was asked before: whoever asks again gets the same answer.
    fn join(&mut self, id: AttachmentId, conf: NetConf, call: Call) {
        self.unanswered.remove(&id);
        let adding = self.answers.adding.entry(id);
        let adding = adding.or_insert(Adding {
            waiters: Vec::new(),
            conf,
            usable_since: None,
        });
        adding.waiters.push(call.into());
    }

    fn begin(&mut self, mut attachment: Attachment, conf: NetConf, mut call: Call) {
        if attachment.request.link
            && let Err(error) = check::link_is_free(&self.view, self.network.observed(), &attachment)
        {
            return Waiter::from(call).answer(Err(error));
        }
        self.released.forget(&attachment.id);
        self.order += 1;
        attachment.order = self.order;
        if let Err(error) = self.files.save(&attachment) {
            let error = CniError::new(ErrorCode::IO, format!("{error:#}"));
            return Waiter::from(call).answer(Err(error));
        }
        if let Some(netns) = call.netns.take() {
            self.kernel.know(netns);
        }
        self.join(attachment.id.clone(), conf, call);
        self.put(attachment);
    }

    fn del(&mut self, removal: &Removal, mut call: Call, now: Now) {
        let id = removal.id();
        let is_there = self
            .view
            .attachment(&id)
            .is_some_and(|attachment| attachment.phase != Phase::Down);
        if is_there && let Some(netns) = call.netns.take() {
            self.kernel.know(netns);
        }
        self.remove(removal, now);
        match self.answers.removing.get_mut(&id) {
            Some(removing) => removing.waiters.push(call.into()),
            None => Waiter::from(call).answer(Ok(Value::Null)),
        }
    }

    fn gc(&mut self, network: &str, valid: &[Wanted], now: Now) {
        let keep = |id: &AttachmentId| {
            valid
                .iter()
                .any(|v| v.container_id == id.container && v.ifname == id.ifname)
        };
        let stale: Vec<AttachmentId> = self
            .view
            .attachments()
            .filter(|a| a.request.network == network && a.phase == Phase::Up && !keep(&a.id))
            .map(|a| a.id.clone())
            .collect();
        for id in stale {
            self.take_down(&id, now);
        }
    }

    fn check(&self, add: &AddRequest, call: &Call, now: Now) -> Response {
        let id = AttachmentId {
            container: add.container_id.clone(),
            ifname: add.ifname.clone(),
        };
        let unknown = || CniError::new(ErrorCode::UNKNOWN_CONTAINER, format!("no such attachment: {id}"));
        let attachment = self
            .view
            .attachment(&id)
            .filter(|a| a.phase == Phase::Up)
            .ok_or_else(unknown)?;
        if !self
            .network
            .is_settled(&self.view, &self.keys_of(attachment), now.mono)
        {
            return Err(
                CniError::generic(format!("the network of {id} is not as it should be"))
                    .with_hint("buoyctl node plan shows what is missing"),
            );
        }
        check::inside(attachment, call.netns.as_ref())?;
        Ok(Value::Null)
    }

    fn status(&self, now: Mono) -> Response {
        match &self.contact.lost {
            Some(lost) => Err(
                CniError::new(ErrorCode::NOT_AVAILABLE, "no contact with the datastore")
                    .with_hint(lost.error.clone()),
            ),
            None if !self.contact.synced => Err(CniError::new(
                ErrorCode::NOT_AVAILABLE,
                "the datastore was not read yet",
            )),
            None => self.may_begin(None, now).map(|()| Value::Null),
        }
    }

    /// A client went away. An ADD that nobody waits for is undone.
    pub(super) fn client_gone(&mut self, call: CallId) {
        let Some(id) = self.answers.gone(call) else { return };
        self.answers.adding.remove(&id);
        if self.view.attachment(&id).is_some_and(|a| a.is_adding()) {
            self.take_down(&id, crate::clock::now());
        }
    }
}
