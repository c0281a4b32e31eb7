//! Blocks, handles and settings of IPAM: the other stores' JSON as `spec`, with a few fields under other names.

use buoy_api::meta::Extra;
use buoy_api::names::cidr_name;
use buoy_core::store::{Bad, Key};
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::place::{self, AFFINITIES, ApiResource, BLOCKS, HANDLES, IPAM_CONFIGS};
use super::{affinity, bad, name};

/// Fields of a specification, and what other stores call them.
const RENAMED: [(&str, &str); 3] = [
    ("affinityClaimTime", "affinity_claim_time"),
    ("strictAffinity", "strict_affinity"),
    ("autoAllocateBlocks", "auto_allocate_blocks"),
];

/// Key and record of an object.
pub(super) fn read(resource: ApiResource, object: &Extra) -> Option<(Key, Option<Result<Extra, Bad>>)> {
    let name = name(object)?;
    let spec = object.get("spec").and_then(Json::as_object);
    let text = |field: &str| spec?.get(field)?.as_str();
    let cidr = || {
        text("cidr")?
            .parse::<IpNet>()
            .ok()
            .filter(|cidr| *cidr == cidr.trunc())
    };
    let (key, expected) = match resource {
        BLOCKS => {
            let cidr = cidr()?;
            (Key::Block(cidr), cidr_name(&cidr))
        }
        AFFINITIES => {
            let owner = place::owner(
                text("type").filter(|kind| !kind.is_empty()).unwrap_or("host"),
                text("node")?,
            )?;
            let cidr = cidr()?;
            let expected = affinity::name(&owner, &cidr);
            (Key::Affinity { owner, cidr }, expected)
        }
        HANDLES => {
            let id = text("handleID")?;
            (Key::Handle(id.to_owned()), id.to_lowercase())
        }
        _ => (place::named_key(resource, name)?, name.to_owned()),
    };
    // One key has one object: another spelling would be a second record of the same block.
    let spec = spec.filter(|_| expected == name)?.clone();
    Some((key, Some(stored(resource, spec))))
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
