//! When clients get their answers.

use std::time::Duration;

use buoy_cni_spec::result::{CniResult, Interface, IpConfig, Route};
use buoy_cni_spec::{CniError, NetConf};
use buoy_core::desired::RowKey;
use buoy_core::endpoint::{AddressRequest, Attachment, AttachmentId, Phase};
use buoy_core::floating::standing::{Standing, standing};
use buoy_core::records::mac_text;
use buoy_core::subject::Subject;
use buoy_core::time::{Mono, Now};
use ipnet::IpNet;

use super::Agent;
use super::calls::EARLY;
use super::life::ASK_AGAIN;

/// How long an ADD waits for what depends on other records, once the workload's own addresses work.
const UNDECIDED: Duration = Duration::from_secs(2);
/// How long a DEL waits for the kernel. What it asks for is on record and goes on.
const LONGEST_DEL: Duration = Duration::from_secs(4);

/// How an ADD stands.
enum Settled {
    /// Everything is there.
    Yes,
    /// The workload's own addresses work; something else is not decided.
    Usable,
    /// Not yet.
    No,
    /// Never.
    Failed(CniError),
}

impl Agent {
    /// Answers whoever can be answered.
    pub(super) fn settle(&mut self, now: Now) {
        self.settle_adding(now);
        self.settle_removing(now.mono);
        self.undo_unanswered(now);
        let lost = self.contact.lost.as_ref().map(|lost| lost.error.as_str());
        let why = lost.unwrap_or("it was not read yet");
        let error = CniError::try_again("the agent has no contact with the datastore").with_hint(why);
        if let Some(before) = now.mono.0.checked_sub(EARLY) {
            self.answers.turn_away(Mono(before), &error);
        }
    }

    fn settle_adding(&mut self, now: Now) {
        let ids: Vec<AttachmentId> = self.answers.adding.keys().cloned().collect();
        for id in ids {
            match self.settled(&id, now.mono) {
                Settled::Yes => self.answer(&id),
                Settled::Usable => {
                    let Some(adding) = self.answers.adding.get_mut(&id) else {
                        continue;
                    };
                    let since = *adding.usable_since.get_or_insert(now.mono);
                    if now.mono >= since.after(UNDECIDED) {
                        self.answer(&id);
                    }
                }
                Settled::No => {}
                Settled::Failed(error) => self.fail(&id, &error, now),
            }
        }
    }

    fn settled(&self, id: &AttachmentId, now: Mono) -> Settled {
        let Some(attachment) = self.view.attachment(id) else {
            return Settled::No;
        };
        if attachment.addresses.is_none() {
            return Settled::No;
        }
        if !attachment.request.link {
            return Settled::Yes;
        }
        if !self.view.is_current(attachment) {
            return Settled::Failed(CniError::try_again("a newer ADD for the same workload took over"));
        }
        let link = RowKey::Link(attachment.request.host_ifname.clone());
        if let Some(trouble) = self.network.trouble(&link) {
            return Settled::Failed(link_error(&trouble.error.message));
        }
        // The newest rows must have been calculated before they can be compared.
        let dirty = self
            .dirty
            .contains(&Subject::Endpoint(attachment.endpoint.clone()));
        if dirty
            || !self
                .network
                .is_settled(&self.view, &self.keys_of(attachment), now)
        {
            return Settled::No;
        }
        let undecided = self
            .view
            .asked_by(&attachment.endpoint)
            .any(|floating| standing(&self.view, &attachment.endpoint, floating) == Standing::Undecided);
        if undecided || self.view.record_of(attachment).is_none() {
            Settled::Usable
        } else {
            Settled::Yes
        }
    }

    fn answer(&mut self, id: &AttachmentId) {
        let Some(attachment) = self.view.attachment(id).cloned() else {
            return;
        };
        let Some(adding) = self.answers.adding.get(id) else {
            return;
        };
        let result = result(&attachment, &adding.conf).render(adding.conf.version);
        self.kernel.forget(&attachment.request.netns);
        if attachment.is_adding() {
            self.set_phase(id, Phase::Up);
        }
        self.answers.added(id, &Ok(result));
    }

    fn settle_removing(&mut self, now: Mono) {
        let ids: Vec<AttachmentId> = self.answers.removing.keys().cloned().collect();
        for id in ids {
            let Some(removing) = self.answers.removing.get(&id) else {
                continue;
            };
            let late = now >= removing.since.after(LONGEST_DEL);
            if self.network.is_settled(&self.view, &removing.keys, now) {
                self.answers.removed(&id);
                self.answers.removing.remove(&id);
                if let Some(attachment) = self.view.attachment(&id) {
                    self.kernel.forget(&attachment.request.netns);
                }
                self.set_phase(&id, Phase::Down);
            } else if late {
                self.answers.removed(&id);
            }
        }
    }

    fn undo_unanswered(&mut self, now: Now) {
        if self.unanswered.is_empty() || now.mono < self.started.after(ASK_AGAIN) {
            return;
        }
        for id in std::mem::take(&mut self.unanswered) {
            self.take_down(&id, now);
        }
    }

    /// When somebody has to be answered although nothing happens.
    pub(super) fn settle_wake(&self) -> Option<Mono> {
        let adding = self
            .answers
            .adding
            .values()
            .filter_map(|a| Some(a.usable_since?.after(UNDECIDED)));
        let removing = self.answers.removing.values().filter(|r| !r.waiters.is_empty());
        let removing = removing.map(|r| r.since.after(LONGEST_DEL));
        let early = self.answers.early.iter().map(|(since, _)| since.after(EARLY));
        adding.chain(removing).chain(early).min()
    }
}

fn link_error(message: &str) -> CniError {
    let (msg, hint) = message.split_once('\n').unwrap_or((message, ""));
    CniError::generic(msg).with_hint(hint)
}

/// The CNI result of an attachment: Calico's shape.
fn result(attachment: &Attachment, conf: &NetConf) -> CniResult {
    let request = &attachment.request;
    if !request.link {
        return addresses_alone(attachment);
    }
    let inside = Interface {
        name: attachment.id.ifname.clone(),
        mac: request.mac.map(mac_text),
        mtu: conf.mtu,
        sandbox: Some(request.netns.path.clone()),
    };
    let host = Interface {
        name: request.host_ifname.0.clone(),
        mac: None,
        mtu: None,
        sandbox: None,
    };
    let ips = attachment.own_addresses().map(|address| IpConfig {
        address: IpNet::from(address),
        gateway: None,
        interface: Some(1),
    });
    let routes = match request.addresses {
        AddressRequest::Automatic { .. } => host_routes(attachment),
        AddressRequest::Specific(_) | AddressRequest::Given(_) => Vec::new(),
    };
    CniResult {
        interfaces: vec![host, inside],
        ips: ips.collect(),
        routes,
        ..CniResult::default()
    }
}

/// What `calico-ipam` answers: addresses with the prefix length of their block, and a route to each.
fn addresses_alone(attachment: &Attachment) -> CniResult {
    let addresses = attachment.addresses.iter().flatten();
    let ips = addresses.map(|address| IpConfig {
        address: *address,
        gateway: None,
        interface: None,
    });
    CniResult {
        ips: ips.collect(),
        routes: host_routes(attachment),
        ..CniResult::default()
    }
}

/// A route to each address alone. Its block's prefix would have host bits, which the kernel refuses to other plugins.
fn host_routes(attachment: &Attachment) -> Vec<Route> {
    attachment
        .own_addresses()
        .map(|address| Route::to(IpNet::from(address)))
        .collect()
}
