//! What a user has asked for, the rights that were used for that, and those that a manifest grants.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;

use crate::ApiServer;

/// Group, resource with subresource, verb.
type Right = (String, String, String);

impl ApiServer {
    /// How often a user has asked for what, by verb and by resource with its group, whatever the answer. A watch counts again
    /// when it ends.
    pub fn asked_by(&self, user: &str) -> Result<BTreeMap<(String, String), u64>> {
        let mut asked = BTreeMap::new();
        let events = self.audit()?;
        for event in events.iter().filter(|event| event["user"]["username"] == user) {
            let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
            let resource = text(&event["objectRef"]["resource"]);
            let resource = match event["objectRef"]["apiGroup"].as_str() {
                Some(group) => format!("{resource}.{group}"),
                None => resource,
            };
            *asked.entry((text(&event["verb"]), resource)).or_default() += 1;
        }
        Ok(asked)
    }

    /// Sees that a user has used each right that a manifest grants, and no other. Error: what is amiss.
    pub fn uses_exactly(&self, user: &str, manifest: &Path) -> Result<()> {
        let events = self.audit()?;
        let own = events.iter().filter(|event| event["user"]["username"] == user);
        let denied = own
            .clone()
            .filter(|event| event["responseStatus"]["code"] == 403)
            .map(used);
        let denied: BTreeSet<Right> = denied.collect();
        ensure!(denied.is_empty(), "denied to {user}: {denied:?}");
        let used: BTreeSet<Right> = own.map(used).collect();
        let granted = granted(&std::fs::read_to_string(manifest)?)?;
        let unused: Vec<&Right> = granted.difference(&used).collect();
        ensure!(unused.is_empty(), "granted to {user} and not used: {unused:?}");
        let more: Vec<&Right> = used.difference(&granted).collect();
        ensure!(more.is_empty(), "used by {user} by way of other rights: {more:?}");
        Ok(())
    }
}

/// The right that a request was let through by.
fn used(event: &Json) -> Right {
    let of = &event["objectRef"];
    let text = |field: &str| of[field].as_str().unwrap_or_default().to_owned();
    let resource = match of["subresource"].as_str() {
        Some(part) => format!("{}/{part}", text("resource")),
        None => text("resource"),
    };
    let verb = event["verb"].as_str().unwrap_or_default().to_owned();
    (text("apiGroup"), resource, verb)
}

/// All rights that a manifest grants.
fn granted(manifest: &str) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for document in manifest.split("\n---\n") {
        let object: Json = serde_saphyr::from_str(document).context("a manifest")?;
        for rule in object["rules"].as_array().into_iter().flatten() {
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    let of = |verb| (group.clone(), resource.clone(), verb);
                    rights.extend(texts(rule, "verbs").map(of));
                }
            }
        }
    }
    Ok(rights)
}

fn texts(rule: &Json, field: &str) -> impl Iterator<Item = String> {
    let listed = rule[field].as_array().into_iter().flatten();
    listed.filter_map(|text| text.as_str().map(str::to_owned))
}
