//! Files of resources: YAML with any number of documents, or JSON; a List stands for its items.

use std::io::Read;

use buoy_core::store::{Key, Revision, Value};
use serde_json::{Map, Value as Json};

use crate::failure::Failure;
use crate::kind::KindName;

/// One resource in a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    /// Where it stands, for messages.
    pub origin: String,
    /// As it stands there.
    pub json: Json,
}

/// Which record a document is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its kind.
    pub kind: KindName,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// The record.
    pub(crate) fn key(&self) -> Key {
        self.kind.key(&self.namespace, &self.name)
    }
}

/// A document that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// Where it stands.
    pub origin: String,
    /// Which record.
    pub target: Target,
    /// What it shall be.
    pub value: Value,
    /// The revision it was made from, if the document says so: then nothing newer is overwritten.
    pub revision: Option<Revision>,
}

/// Reads files; `-` is `stdin`.
pub(crate) fn read(paths: &[String], mut stdin: impl Read) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        let (origin, text) = if path == "-" {
            let mut text = String::new();
            let read = stdin.read_to_string(&mut text);
            ("standard input", read.map(|_| text))
        } else {
            (path.as_str(), std::fs::read_to_string(path))
        };
        let text = text.map_err(|error| Failure::new(format!("cannot be read: {origin}: {error}")))?;
        documents.extend(parse(origin, &text)?);
    }
    if documents.is_empty() {
        return Err(Failure::new(format!(
            "no resource in {}\nwrite one with apiVersion, kind, metadata and spec",
            paths.join(", ")
        )));
    }
    Ok(documents)
}

/// Parses the text of one file.
pub(crate) fn parse(origin: &str, text: &str) -> Result<Vec<Document>, Failure> {
    // As in YAML 1.2: a label `y` is a text, not a truth value.
    let options = serde_saphyr::options! { strict_booleans: true };
    let roots: Vec<Json> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let error = error.to_string();
        let error = error.strip_prefix("error: ").unwrap_or(&error);
        Failure::new(format!(
            "{origin}: neither YAML nor JSON: {error}\nbuoyctl get KIND -o yaml shows how resources are written"
        ))
    })?;
    let many = roots.len() > 1;
    let mut documents = Vec::new();
    for (index, root) in roots.into_iter().enumerate() {
        let origin = if many {
            format!("{origin}, document {}", index + 1)
        } else {
            origin.to_owned()
        };
        flatten(origin, root, &mut documents)?;
    }
    Ok(documents)
}

/// A List stands for its items; an empty document for nothing.
fn flatten(origin: String, mut root: Json, into: &mut Vec<Document>) -> Result<(), Failure> {
    let is_list = root["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    if is_list && let Json::Array(items) = root["items"].take() {
        for (index, item) in items.into_iter().enumerate() {
            flatten(format!("{origin}, item {}", index + 1), item, into)?;
        }
        return Ok(());
    }
    match root {
        Json::Null => Ok(()),
        Json::Object(_) if !is_list => {
            into.push(Document { origin, json: root });
            Ok(())
        }
        _ => Err(Failure::new(format!(
            "{origin}: not a resource\nwrite it with apiVersion, kind, metadata and spec"
        ))),
    }
}

impl Document {
    /// Which record it is about; a namespaced one without a namespace is in `namespace`.
    pub(crate) fn target(&self, namespace: &str) -> Result<Target, Failure> {
        let missing = |field: &str| Failure::new(format!("{}: missing field: {field}", self.origin));
        let kind = self.json["kind"].as_str().ok_or_else(|| missing("kind"))?;
        let kind = KindName::ALL
            .into_iter()
            .find(|known| known.kind() == kind)
            .ok_or_else(|| {
                let hint = kind.parse::<KindName>().map_or_else(
                    |unknown| unknown,
                    |known| format!("unknown kind: {kind}\nwrite {}", known.kind()),
                );
                Failure::new(format!("{}: {hint}", self.origin))
            })?;
        let metadata = &self.json["metadata"];
        let name = metadata["name"]
            .as_str()
            .ok_or_else(|| missing("metadata.name"))?;
        let namespace = metadata["namespace"].as_str().unwrap_or(namespace);
        Ok(Target {
            kind,
            namespace: if kind.is_namespaced() {
                namespace.to_owned()
            } else {
                String::new()
            },
            name: name.to_owned(),
        })
    }

    /// The record it describes.
    pub(crate) fn decode(self, namespace: &str) -> Result<Wanted, Failure> {
        let target = self.target(namespace)?;
        let Self { origin, mut json } = self;
        let mut revision = None;
        if let Some(metadata) = json["metadata"].as_object_mut() {
            revision = take_revision(metadata).map_err(|failure| failure.of(&origin))?;
            // The datastore gives these; a copy from elsewhere must not bring its own.
            metadata.remove("uid");
            metadata.remove("creationTimestamp");
            if target.kind.is_namespaced() {
                metadata.insert("namespace".to_owned(), Json::from(target.namespace.clone()));
            }
        }
        let value = target
            .kind
            .decode(&json)
            .map_err(|error| Failure::new(format!("{origin}: {}", explain(target.kind, &json, &error))))?;
        Ok(Wanted {
            origin,
            target,
            value,
            revision,
        })
    }
}

fn take_revision(metadata: &mut Map<String, Json>) -> Result<Option<Revision>, Failure> {
    let Some(revision) = metadata.remove("resourceVersion") else {
        return Ok(None);
    };
    let number = revision
        .as_str()
        .map_or_else(|| revision.as_u64(), |text| text.parse().ok());
    match number {
        Some(number) => Ok(Some(Revision(number))),
        None => Err(Failure::new(format!(
            "metadata.resourceVersion: not a revision: {revision}\nleave it out"
        ))),
    }
}

/// Says which field does not decode: the one without which the record does; or else one without which it fails for
/// another reason, preferably not for the lack of the field.
fn explain(kind: KindName, json: &Json, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let mut guesses: Vec<(bool, String)> = Vec::new();
    for part in ["metadata", "spec"] {
        for field in json[part].as_object().into_iter().flat_map(Map::keys) {
            let mut without = json.clone();
            if let Some(map) = without[part].as_object_mut() {
                map.remove(field);
            }
            let path = format!("{part}.{field}");
            match kind.decode(&without).err().map(|error| error.to_string()) {
                None => return format!("{path}: {message}"),
                Some(other) if other != message => guesses.push((other.starts_with("missing field"), path)),
                Some(_) => {}
            }
        }
    }
    match guesses.into_iter().min() {
        Some((_, path)) => format!("{path}: {message}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOLS: &str = "
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: p, resourceVersion: \"7\", uid: x, creationTimestamp: 2026-01-01T00:00:00Z}
spec: {cidr: 10.65.0.0/16, later: {a: 1}}
---
# nothing
---
kind: IPPoolList
apiVersion: projectcalico.org/v3
items:
- {kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: q}, spec: {cidr: 10.66.0.0/16}}
- {kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: r}, spec: {cidr: 10.67.0.0/16}}
";

    fn decode(text: &str) -> Result<Wanted, Failure> {
        parse("f", text)?.remove(0).decode("default")
    }

    fn message(text: &str) -> String {
        decode(text).unwrap_err().to_string()
    }

    #[test]
    fn documents_and_lists_are_read_in_order() {
        let documents = parse("f.yaml", POOLS).unwrap();
        let names: Vec<&str> = documents
            .iter()
            .filter_map(|document| document.json["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names, ["p", "q", "r"]);
        assert_eq!(documents[2].origin, "f.yaml, document 2, item 2");
        let json = serde_json::to_string(&documents[0].json).unwrap();
        assert_eq!(parse("f.json", &json).unwrap()[0].json, documents[0].json);
    }

    #[test]
    fn what_the_datastore_gives_is_not_taken_from_a_file() {
        let wanted = decode(POOLS).unwrap();
        assert_eq!(wanted.revision, Some(Revision(7)));
        let Value::Pool(pool) = wanted.value else {
            panic!("a pool")
        };
        assert_eq!(pool.metadata, buoy_api::ObjectMeta::named("p"));
        assert_eq!(pool.spec.extra["later"]["a"], 1);
    }

    #[test]
    fn words_are_no_truth_values() {
        let text =
            "{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: on, labels: {x: y, n: no}},
            spec: {cidr: 10.0.0.0/16, disabled: true}}";
        let Value::Pool(pool) = decode(text).unwrap().value else {
            panic!("a pool")
        };
        assert_eq!(pool.name(), "on");
        assert_eq!(pool.metadata.labels["x"], "y");
        assert_eq!(pool.metadata.labels["n"], "no");
        assert!(pool.spec.disabled);
    }

    #[test]
    fn a_namespaced_resource_has_a_namespace() {
        let text = "{kind: WorkloadEndpoint, apiVersion: projectcalico.org/v3, metadata: {name: w}}";
        let wanted = decode(text).unwrap();
        assert_eq!(wanted.target.namespace, "default");
        let Value::Endpoint(endpoint) = wanted.value else {
            panic!("an endpoint")
        };
        assert_eq!(endpoint.metadata.namespace.as_deref(), Some("default"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let pool = |rest: &str| format!("{{kind: IPPool, apiVersion: projectcalico.org/v3, {rest}}}");
        assert!(
            parse("f", "a: [")
                .unwrap_err()
                .to_string()
                .starts_with("f: neither YAML nor JSON: line 1 column 4")
        );
        assert!(message("- 1\n").starts_with("f: not a resource"));
        assert_eq!(message("metadata: {}"), "f: missing field: kind");
        assert_eq!(message(&pool("spec: {}")), "f: missing field: metadata.name");
        assert!(message("kind: Pod").starts_with("f: unknown kind: Pod\nuse one of IPPool, "));
        assert_eq!(message("kind: ippool"), "f: unknown kind: ippool\nwrite IPPool");
        assert_eq!(
            message(&pool(
                "metadata: {name: p}, spec: {cidr: 10.0.0.0/16, natOutgoing: often}"
            )),
            "f: spec.natOutgoing: invalid type: string \"often\", expected a boolean"
        );
        assert_eq!(
            message(&pool(
                "metadata: {name: p}, spec: {cidr: 10.0.0.0/16, natOutgoing: often, blockSize: x}"
            )),
            "f: spec.blockSize: invalid type: string \"x\", expected u8"
        );
        assert_eq!(
            message(&pool("metadata: {name: p}, spec: {cidr: here}")),
            "f: spec.cidr: invalid IP address syntax"
        );
        assert_eq!(message(&pool("metadata: {name: p}")), "f: missing field `cidr`");
        assert!(
            message("{kind: IPPool, apiVersion: v1, metadata: {name: p}, spec: {cidr: 10.0.0.0/16}}")
                .contains("expected IPPool of projectcalico.org/v3, found IPPool of v1")
        );
        assert!(
            message(&pool(
                "metadata: {name: p, resourceVersion: new}, spec: {cidr: 10.0.0.0/16}"
            ))
            .starts_with("f: metadata.resourceVersion: not a revision")
        );
    }
}
