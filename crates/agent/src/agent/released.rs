//! Attachments that were released a moment ago. Runtimes say DEL twice, and the second time there is nothing to look for.
//!
//! What is remembered is only what the datastore has confirmed, of ADDs that had come to their end: nothing that was written
//! for them is still under way. A restored datastore may have it again, so then all is forgotten.

use std::collections::VecDeque;

use buoy_core::endpoint::{Attachment, AttachmentId, EndpointId};

/// Most that are remembered: more than a node takes down between the two.
const MOST: usize = 512;

/// What was released last, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Released(VecDeque<Gone>);

/// What a DEL names.
#[derive(Debug, PartialEq, Eq)]
struct Gone {
    id: AttachmentId,
    endpoint: EndpointId,
    handle: String,
}

impl Gone {
    fn of(attachment: &Attachment) -> Self {
        Self {
            id: attachment.id.clone(),
            endpoint: attachment.endpoint.clone(),
            handle: attachment.request.handle(&attachment.id),
        }
    }
}

impl Released {
    /// All that an attachment had in the datastore is gone.
    pub(super) fn note(&mut self, attachment: &Attachment) {
        // One without addresses may be the end of an ADD that nobody knows the fate of.
        if attachment.addresses.is_none() {
            return;
        }
        self.0.push_back(Gone::of(attachment));
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// Whether there is nothing to release.
    pub(super) fn has(&self, attachment: &Attachment) -> bool {
        self.0.contains(&Gone::of(attachment))
    }

    /// It is asked for anew.
    pub(super) fn forget(&mut self, id: &AttachmentId) {
        self.0.retain(|gone| gone.id != *id);
    }

    /// Nothing is sure any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attachment(container: &str, network: &str) -> Attachment {
        serde_json::from_value(json!({
            "id": {"container": container, "ifname": "eth0"},
            "endpoint": {"namespace": "shop", "name": "n1-k8s-web--0-eth0"},
            "request": {
                "network": network, "orchestrator": "k8s", "workload": "web-0", "uid": "u1", "link": true,
                "host_ifname": "cali1", "netns": {"path": "", "device": 1, "inode": 2}, "mac": null, "mtu": null,
                "queues": 1, "forwarding": false, "floating": [], "gate": true, "priority": 0, "source_prefixes": [],
                "labels": {}, "addresses": {"Automatic": {"families": ["V4"], "ipv4_pools": [], "ipv6_pools": []}},
            },
            "order": 1, "since": "2026-01-01T00:00:00Z", "phase": "Down", "addresses": ["10.65.0.7/26"],
        }))
        .unwrap()
    }

    #[test]
    fn only_what_was_released_has_nothing_to_release() {
        let mut released = Released::default();
        let gone = attachment("c1", "pods");
        released.note(&gone);
        assert!(released.has(&gone));
        assert!(!released.has(&attachment("c2", "pods")));
        assert!(!released.has(&attachment("c1", "others")), "another handle");
        released.forget(&gone.id);
        assert!(!released.has(&gone));
        released.note(&gone);
        released.clear();
        assert!(!released.has(&gone));
        released.note(&Attachment {
            addresses: None,
            ..gone.clone()
        });
        assert!(!released.has(&gone), "nobody knows what it had");
    }

    #[test]
    fn few_are_remembered() {
        let mut released = Released::default();
        for number in 0..2 * MOST {
            released.note(&attachment(&format!("c{number}"), "pods"));
        }
        assert_eq!(released.0.len(), MOST);
        assert!(released.has(&attachment(&format!("c{}", 2 * MOST - 1), "pods")));
    }
}
