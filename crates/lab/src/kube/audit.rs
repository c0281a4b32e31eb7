//! Who asked the API server for what, as its audit log tells.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::ControlPlane;

impl ControlPlane {
    /// How often a user has asked until now, by verb and resource. Without leases, which are renewed whatever else happens,
    /// and with a watch once, when it begins.
    pub fn asked_by(&self, user: &str) -> Result<BTreeMap<(String, String), u64>> {
        let log = fs::read_to_string(self.audit_log()).context("cannot read the audit log")?;
        let mut asked = BTreeMap::new();
        // The last line may be half written.
        let events = log.lines().filter(|line| line.contains(user));
        for event in events.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if let Some(what) = request(&event, user) {
                *asked.entry(what).or_default() += 1;
            }
        }
        Ok(asked)
    }
}

/// What an event says was asked for, if it counts: each request has one that tells of its end, and a watch another of its
/// beginning.
fn request(event: &Value, user: &str) -> Option<(String, String)> {
    let verb = event["verb"].as_str()?;
    let stage = if verb == "watch" {
        "ResponseStarted"
    } else {
        "ResponseComplete"
    };
    let resource = event["objectRef"]["resource"].as_str()?;
    let counts = event["user"]["username"] == user && event["stage"] == stage && resource != "leases";
    let part = event["objectRef"]["subresource"].as_str();
    let resource = part.map_or_else(|| resource.to_owned(), |part| format!("{resource}/{part}"));
    counts.then(|| (verb.to_owned(), resource))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_request_counts_once() {
        let event = |verb: &str, stage: &str, resource: &str| {
            json!({"verb": verb, "stage": stage, "user": {"username": "agent"},
                "objectRef": {"resource": resource, "subresource": "status"}})
        };
        let patch = event("patch", "ResponseComplete", "pods");
        let asked = request(&patch, "agent").unwrap();
        assert_eq!(asked, ("patch".to_owned(), "pods/status".to_owned()));
        assert_eq!(request(&patch, "other"), None);
        assert!(request(&event("watch", "ResponseStarted", "pods"), "agent").is_some());
        assert_eq!(
            request(&event("watch", "ResponseComplete", "pods"), "agent"),
            None
        );
        assert_eq!(
            request(&event("update", "ResponseComplete", "leases"), "agent"),
            None
        );
    }
}
