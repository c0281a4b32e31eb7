//! Blocks, handles and settings of IPAM: the other stores' JSON as `spec`, with a few fields under other names.

use buoy_api::meta::Extra;
use buoy_api::names::{cidr_name, cidr_of_name};
use buoy_core::store::{Bad, Key};
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::place::{self, AFFINITIES, ApiResource, BLOCKS, HANDLES, IPAM_CONFIGS};
use super::{affinity, bad, name, strings};

/// Fields of a specification, and what other stores call them.
const RENAMED: [(&str, &str); 3] = [
    ("affinityClaimTime", "affinity_claim_time"),
    ("strictAffinity", "strict_affinity"),
    ("autoAllocateBlocks", "auto_allocate_blocks"),
];

/// Key and record of an object. Its name decides: one key has one object, and where that does not say the same as its
/// name the record is bad, as nothing else can be put in its place.
pub(super) fn read(resource: ApiResource, object: &Extra) -> Option<(Key, Option<Result<Extra, Bad>>)> {
    let name = name(object)?;
    let spec = object.get("spec").and_then(Json::as_object);
    let spec = spec.cloned().unwrap_or_default();
    let said = said(resource, name, &spec).and_then(|key| {
        let expected = place::of(&key, &place::Layout::default())?.name;
        if expected == name {
            Ok(key)
        } else {
            Err(bad(format!(
                "spec: that of {expected} in the object named {name}"
            )))
        }
    });
    match said {
        Ok(key) => Some((key, Some(stored(resource, spec)))),
        Err(bad) => Some((of_name(resource, name, object)?, Some(Err(bad)))),
    }
}

/// The key that the specification of an object says.
fn said(resource: ApiResource, name: &str, spec: &Extra) -> Result<Key, Bad> {
    let text = |field: &str| match spec.get(field) {
        Some(Json::String(text)) => Ok(text.as_str()),
        Some(other) => Err(bad(format!("spec.{field}: not a text: {other}"))),
        None => Err(bad(format!("spec.{field}: missing"))),
    };
    let cidr = || {
        let text = text("cidr")?;
        let parsed = text.parse::<IpNet>().ok();
        parsed
            .filter(|cidr| *cidr == cidr.trunc())
            .ok_or_else(|| bad(format!("spec.cidr: not a prefix: {text}")))
    };
    Ok(match resource {
        BLOCKS => Key::Block(cidr()?),
        AFFINITIES => {
            // As old versions of Calico wrote it.
            let is_old = spec.get("type").is_none_or(|kind| kind == "");
            let (kind, node) = (if is_old { "host" } else { text("type")? }, text("node")?);
            let owner = place::owner(kind, node)
                .ok_or_else(|| bad(format!("spec: nobody who can own a block: {kind} {node:?}")))?;
            Key::Affinity { owner, cidr: cidr()? }
        }
        HANDLES => Key::Handle(text("handleID")?.to_owned()),
        _ => place::named_key(resource, name).ok_or_else(|| bad("nobody reads another than the default"))?,
    })
}

/// The key that the name of an object alone says.
fn of_name(resource: ApiResource, name: &str, object: &Extra) -> Option<Key> {
    match resource {
        BLOCKS => cidr_of_name(name).map(Key::Block),
        AFFINITIES => {
            let (owner, cidr) = affinity::of_name(name, &strings(object, "labels"))?;
            Some(Key::Affinity { owner, cidr })
        }
        HANDLES => Some(Key::Handle(name.to_owned())),
        _ => None,
    }
}

/// The object of a record.
pub(super) fn object(key: &Key, mut record: Extra) -> Result<Extra, Bad> {
    for (field, stored) in RENAMED {
        if let Some(value) = record.remove(stored) {
            record.insert(field.to_owned(), value);
        }
    }
    Ok(match key {
        Key::Block(cidr) => {
            // The schema wants it, and nobody reads it.
            record.entry("strictAffinity").or_insert(Json::Bool(false));
            envelope(BLOCKS, &cidr_name(cidr), None, record)
        }
        Key::Handle(id) => {
            record.insert("handleID".to_owned(), id.clone().into());
            envelope(HANDLES, &id.to_lowercase(), None, record)
        }
        Key::IpamConfig => envelope(IPAM_CONFIGS, "default", None, record),
        other => return Err(bad(format!("not a record of IPAM: {other}"))),
    })
}

/// The object as a resource of the group that Calico uses here.
pub(super) fn within(resource: ApiResource, mut object: Extra) -> Extra {
    if !resource.is_v3() {
        return object;
    }
    object.insert("apiVersion".to_owned(), resource.api_version().into());
    object.insert("kind".to_owned(), resource.kind.into());
    // Only the other group has an affinity's flag as text.
    if let Some(deleted) = object.get_mut("spec").and_then(|spec| spec.get_mut("deleted")) {
        *deleted = (*deleted == true || *deleted == "true").into();
    }
    object
}

/// An object with this specification.
pub(super) fn envelope(resource: ApiResource, name: &str, labels: Option<Json>, spec: Extra) -> Extra {
    let mut metadata = json!({"name": name});
    if let Some(labels) = labels {
        metadata["labels"] = labels;
    }
    Extra::from_iter([
        ("apiVersion".to_owned(), resource.api_version().into()),
        ("kind".to_owned(), resource.kind.into()),
        ("metadata".to_owned(), metadata),
        ("spec".to_owned(), spec.into()),
    ])
}

fn stored(resource: ApiResource, mut spec: Extra) -> Result<Extra, Bad> {
    match resource {
        AFFINITIES => {
            for field in ["node", "type", "cidr"] {
                spec.remove(field);
            }
            let deleted = match spec.remove("deleted") {
                None => false,
                Some(Json::Bool(deleted)) => deleted,
                Some(Json::String(text)) => text == "true",
                Some(other) => return Err(bad(format!("deleted: neither \"true\" nor \"false\": {other}"))),
            };
            spec.insert("deleted".to_owned(), deleted.into());
        }
        HANDLES => drop(spec.remove("handleID")),
        IPAM_CONFIGS | BLOCKS => {
            for (field, stored) in RENAMED {
                // A block's is no setting.
                let name = if resource == BLOCKS && field == "strictAffinity" {
                    field
                } else {
                    stored
                };
                if let Some(value) = spec.remove(field) {
                    spec.insert(name.to_owned(), value);
                }
            }
        }
        _ => {}
    }
    Ok(spec)
}
