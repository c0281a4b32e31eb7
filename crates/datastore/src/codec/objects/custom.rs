//! Custom resources that are resources elsewhere, too: Calico's, with its own metadata in an annotation, and Buoy's.

use std::collections::BTreeMap;

use buoy_api::Candidate;
use buoy_api::meta::Extra;
use buoy_api::resource::CALICO_V3;
use buoy_core::store::{Bad, Key};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::place::{self, ApiResource, BINDINGS};
use super::{bad, name, strings};

/// Where Calico keeps labels and annotations of its resources.
const METADATA: &str = "projectcalico.org/metadata";

/// Fields of metadata that are the server's.
const SERVER_S: [&str; 5] = [
    "managedFields",
    "generation",
    "selfLink",
    "resourceVersion",
    "namespace",
];

/// What Calico keeps in the annotation, as far as it is read.
#[derive(Default, Deserialize)]
struct Hidden {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Key and record of an object.
pub(super) fn read(resource: ApiResource, object: &Extra) -> Option<(Key, Option<Result<Extra, Bad>>)> {
    let key = place::named_key(resource.canonical(), name(object)?)?;
    let mut stored = object.clone();
    if let Some(Json::Object(metadata)) = stored.get_mut("metadata") {
        for field in SERVER_S {
            metadata.remove(field);
        }
    }
    let stored = if hides(resource) {
        revealed(object, stored)
    } else {
        if resource == BINDINGS {
            sort_candidates(&mut stored);
        }
        Ok(stored)
    };
    Some((key, Some(stored)))
}

/// The object of a record, of this resource.
pub(super) fn object(resource: ApiResource, mut record: Extra) -> Result<Extra, Bad> {
    record.insert("apiVersion".to_owned(), resource.api_version().into());
    if let Some(Json::Object(metadata)) = record.get_mut("metadata") {
        for field in SERVER_S.iter().chain(&["creationTimestamp"]) {
            metadata.remove(*field);
        }
        if hides(resource) {
            hide(metadata)?;
        }
    }
    if resource == BINDINGS {
        record.remove("status");
    }
    Ok(record)
}

/// Whether Calico hides a record's own metadata in an annotation. Where people see its records, they are what is written.
fn hides(resource: ApiResource) -> bool {
    resource.group == place::POOLS.group
}

/// The record of a resource of Calico's: what its annotation says, and what people wrote beside it.
fn revealed(object: &Extra, mut stored: Extra) -> Result<Extra, Bad> {
    stored.insert("apiVersion".to_owned(), CALICO_V3.into());
    let (labels, mut annotations) = (strings(object, "labels"), strings(object, "annotations"));
    let hidden = match annotations.remove(METADATA) {
        None => Hidden::default(),
        Some(text) => serde_json::from_str(&text)
            .map_err(|error| bad(format!("metadata.annotations.{METADATA}: {error}")))?,
    };
    // What somebody wrote on the object itself is newer than what was hidden.
    let merge = |hidden: Option<BTreeMap<String, String>>, shown: BTreeMap<String, String>| {
        let mut all = hidden.unwrap_or_default();
        all.extend(shown);
        json!(all)
    };
    if let Some(Json::Object(metadata)) = stored.get_mut("metadata") {
        metadata.insert("labels".to_owned(), merge(hidden.labels, labels));
        metadata.insert("annotations".to_owned(), merge(hidden.annotations, annotations));
    }
    Ok(stored)
}

/// Puts labels and annotations where Calico looks for them.
fn hide(metadata: &mut Extra) -> Result<(), Bad> {
    let mut hidden = Extra::new();
    let mut shown = Extra::new();
    for field in ["annotations", "labels"] {
        let Some(Json::Object(all)) = metadata.remove(field) else {
            continue;
        };
        let is_shown = |key: &String| {
            ["projectcalico.org/", "operator.tigera.io/", "kubernetes.io/"]
                .iter()
                .any(|part| key.contains(part))
        };
        let stays: Extra = all.iter().filter(|(key, _)| is_shown(key)).map(clone).collect();
        // The command line's own notes are nobody's metadata.
        let goes: Extra = all
            .iter()
            .filter(|(key, _)| !key.contains("kubectl.kubernetes.io/"))
            .map(clone)
            .collect();
        if !goes.is_empty() {
            hidden.insert(field.to_owned(), goes.into());
        }
        shown.insert(field.to_owned(), stays.into());
    }
    if !hidden.is_empty() {
        let text = serde_json::to_string(&hidden).map_err(|error| bad(error.to_string()))?;
        let annotations = shown.entry("annotations").or_insert_with(|| json!({}));
        annotations[METADATA] = text.into();
    }
    shown.retain(|_, map| map.as_object().is_some_and(|map| !map.is_empty()));
    metadata.append(&mut shown);
    Ok(())
}

fn clone((key, value): (&String, &Json)) -> (String, Json) {
    (key.clone(), value.clone())
}

/// The server keeps the order in which candidates came; elsewhere they are sorted.
fn sort_candidates(stored: &mut Extra) {
    let Some(candidates) = stored
        .get_mut("status")
        .and_then(|status| status.get_mut("candidates"))
    else {
        return;
    };
    if let Ok(mut sorted) = Vec::<Candidate>::deserialize(&*candidates) {
        sorted.sort();
        *candidates = json!(sorted);
    }
}
