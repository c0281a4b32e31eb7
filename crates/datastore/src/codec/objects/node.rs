//! Nodes: Kubernetes', with Calico's annotations.

use std::collections::BTreeMap;

use buoy_api::meta::Extra;
use buoy_api::resource::{CALICO_V3, Kind};
use buoy_api::v3::{Node, NodeSpec};
use buoy_core::store::{Bad, Key};
use serde_json::{Value as Json, json};

use super::{bad, derived_metadata, name, native, strings};

/// Who keeps nodes.
pub(super) const OWNED: &str =
    "nodes are Kubernetes' own there\nits kubelet makes one; see kubectl get nodes";

/// Calico's annotations, and the fields of a Node that they stand for: within `spec.bgp`, or `spec`.
const FIELDS: [(&str, bool, &str); 10] = [
    ("projectcalico.org/IPv4Address", true, "ipv4Address"),
    ("projectcalico.org/IPv6Address", true, "ipv6Address"),
    (AS_NUMBER, true, "asNumber"),
    (
        "projectcalico.org/RouteReflectorClusterID",
        true,
        "routeReflectorClusterID",
    ),
    ("projectcalico.org/IPv4IPIPTunnelAddr", true, "ipv4IPIPTunnelAddr"),
    (
        "projectcalico.org/IPv4VXLANTunnelAddr",
        false,
        "ipv4VXLANTunnelAddr",
    ),
    (
        "projectcalico.org/IPv6VXLANTunnelAddr",
        false,
        "ipv6VXLANTunnelAddr",
    ),
    (
        "projectcalico.org/VXLANTunnelMACAddr",
        false,
        "vxlanTunnelMACAddr",
    ),
    (
        "projectcalico.org/VXLANTunnelMACAddrV6",
        false,
        "vxlanTunnelMACAddrV6",
    ),
    (
        "projectcalico.org/IPv4WireguardInterfaceAddr",
        false,
        "wireguardInterfaceIPv4Address",
    ),
];
const AS_NUMBER: &str = "projectcalico.org/ASNumber";

/// Key and record of a node.
pub(super) fn read(object: &Extra) -> Option<(Key, Option<Result<Extra, Bad>>)> {
    let name = name(object)?;
    Some((Key::Node(name.to_owned()), Some(stored(object, name))))
}

fn stored(object: &Extra, name: &str) -> Result<Extra, Bad> {
    let annotations = strings(object, "annotations");
    let (mut bgp, mut spec) = (Extra::new(), Extra::new());
    for (annotation, is_bgp, field) in FIELDS {
        let Some(text) = annotations.get(annotation).filter(|text| !text.is_empty()) else {
            continue;
        };
        let value = if annotation == AS_NUMBER {
            as_number(text)?.into()
        } else {
            Json::from(text.clone())
        };
        if is_bgp { &mut bgp } else { &mut spec }.insert(field.to_owned(), value);
    }
    if !bgp.is_empty() {
        spec.insert("bgp".to_owned(), bgp.into());
    }
    let mut metadata = derived_metadata(object, name);
    metadata.insert("labels".to_owned(), json!(strings(object, "labels")));
    metadata.insert("annotations".to_owned(), json!(own(&annotations)));
    Ok(Extra::from_iter([
        ("apiVersion".to_owned(), CALICO_V3.into()),
        ("kind".to_owned(), NodeSpec::KIND.into()),
        ("metadata".to_owned(), metadata.into()),
        ("spec".to_owned(), spec.into()),
    ]))
}

/// Annotations that stand for nothing else.
fn own(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_own = |key: &&String| FIELDS.iter().all(|(field, ..)| field != key);
    let own = annotations.iter().filter(|(key, _)| is_own(key));
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// `64512`, or `1.10` for an AS number of four bytes.
fn as_number(text: &str) -> Result<u32, Bad> {
    let wrong = || {
        bad(format!(
            "metadata.annotations.{AS_NUMBER}: not an AS number: {text}"
        ))
    };
    match text.split_once('.') {
        None => text.parse().map_err(|_| wrong()),
        Some((high, low)) => {
            let (high, low): (u16, u16) = (
                high.parse().map_err(|_| wrong())?,
                low.parse().map_err(|_| wrong())?,
            );
            Ok(u32::from(high) << 16 | u32::from(low))
        }
    }
}

/// What makes a node say what a record says: its annotations. Labels are for whoever runs Kubernetes.
pub(super) fn patch(node: &Node, into: Option<&Extra>) -> Result<Extra, Bad> {
    let Some(object) = into else {
        return Err(bad(OWNED));
    };
    if node.metadata.labels != strings(object, "labels") {
        return Err(bad(
            "labels of a node are Kubernetes' own\nkubectl label node sets them",
        ));
    }
    let present = strings(object, "annotations");
    let Json::Object(spec) = json!(node.spec) else {
        return Err(bad("not an object"));
    };
    let mut wanted: BTreeMap<String, String> = node.metadata.annotations.clone();
    for (annotation, is_bgp, field) in FIELDS {
        let value = if is_bgp {
            spec.get("bgp").and_then(|bgp| bgp.get(field))
        } else {
            spec.get(field)
        };
        match value {
            Some(Json::String(text)) => drop(wanted.insert(annotation.to_owned(), text.clone())),
            Some(value) if !value.is_null() => drop(wanted.insert(annotation.to_owned(), value.to_string())),
            _ => {}
        }
    }
    let gone = present
        .keys()
        .filter(|key| !wanted.contains_key(*key))
        .map(|key| (key.clone(), Json::Null));
    let news = wanted
        .iter()
        .filter(|(key, value)| present.get(*key) != Some(*value));
    let annotations: Extra = gone
        .chain(news.map(|(key, value)| (key.clone(), value.clone().into())))
        .collect();
    let mut metadata = json!({"annotations": annotations});
    if let Some(uid) = native::uid(object) {
        metadata["uid"] = uid.into();
    }
    Ok(Extra::from_iter([("metadata".to_owned(), metadata)]))
}
