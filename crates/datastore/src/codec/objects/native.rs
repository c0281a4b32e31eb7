//! Leases as Kubernetes' own, profiles from its namespaces, and one writer's part of a binding's status.

use buoy_api::binding::BindingSpec;
use buoy_api::lease::NodeLease;
use buoy_api::lease::NodeLeaseSpec;
use buoy_api::meta::Extra;
use buoy_api::names::namespace_profile;
use buoy_api::resource::{BUOY_V1ALPHA1, CALICO_V3, Kind};
use buoy_api::v3::ProfileSpec;
use buoy_core::store::{Bad, Key, Part, Writer};
use serde_json::{Map, Value as Json, json};

use super::place::LEASES;
use super::{bad, derived_metadata, metadata, name, strings};

/// Begins labels that a workload has from its namespace.
const NAMESPACE_LABEL: &str = "pcns.";
/// Who keeps profiles.
pub(super) const PROFILE_OWNED: &str =
    "profiles are those of namespaces in Kubernetes\nlabel the namespace instead: kubectl label namespace";

/// Tells the leases of nodes from others in the same namespace.
pub(super) const LEASE_LABEL: [&str; 2] = ["app.kubernetes.io/managed-by", "buoy"];
/// Fields of a lease that Kubernetes' own has no place for.
const LEASE_EXTRA: &str = "buoy.dev/lease";

/// The profile of a namespace.
pub(super) fn read_namespace(object: &Extra) -> Option<(Key, Option<Result<Extra, Bad>>)> {
    let name = namespace_profile(name(object)?);
    let labels: Map<String, Json> = strings(object, "labels")
        .into_iter()
        .map(|(key, value)| (format!("{NAMESPACE_LABEL}{key}"), value.into()))
        .collect();
    let stored = Extra::from_iter([
        ("apiVersion".to_owned(), CALICO_V3.into()),
        ("kind".to_owned(), ProfileSpec::KIND.into()),
        ("metadata".to_owned(), derived_metadata(object, &name).into()),
        ("spec".to_owned(), json!({"labelsToApply": labels})),
    ]);
    Some((Key::Profile(name), Some(Ok(stored))))
}

/// The lease of a node, if this is one.
pub(super) fn read_lease(object: &Extra) -> Option<(Key, Option<Result<Extra, Bad>>)> {
    let [label, ours] = LEASE_LABEL;
    if strings(object, "labels").get(label).map(String::as_str) != Some(ours) {
        return None;
    }
    let name = name(object)?;
    Some((Key::Lease(name.to_owned()), Some(stored_lease(object, name))))
}

fn stored_lease(object: &Extra, name: &str) -> Result<Extra, Bad> {
    let mut spec: Extra = match strings(object, "annotations").get(LEASE_EXTRA) {
        None => Extra::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| bad(format!("metadata.annotations.{LEASE_EXTRA}: {error}")))?,
    };
    for (field, stored) in LEASE_FIELDS {
        if let Some(value) = object
            .get("spec")
            .and_then(|spec| spec.get(field))
            .filter(|value| !value.is_null())
        {
            spec.insert(stored.to_owned(), value.clone());
        }
    }
    Ok(Extra::from_iter([
        ("apiVersion".to_owned(), BUOY_V1ALPHA1.into()),
        ("kind".to_owned(), NodeLeaseSpec::KIND.into()),
        ("metadata".to_owned(), derived_metadata(object, name).into()),
        ("spec".to_owned(), spec.into()),
    ]))
}

/// Fields of Kubernetes' leases, and what other stores call them.
const LEASE_FIELDS: [(&str, &str); 4] = [
    ("holderIdentity", "holder"),
    ("leaseDurationSeconds", "durationSeconds"),
    ("leaseTransitions", "term"),
    ("renewTime", "renewed"),
];

/// The object of a lease.
pub(super) fn lease(lease: &NodeLease) -> Result<Extra, Bad> {
    let own = &lease.spec;
    let number = |field: &str, value: u64| {
        i32::try_from(value).map_err(|_| bad(format!("{field}: Kubernetes has no room for: {value}")))
    };
    let mut spec = Extra::new();
    spec.insert("leaseTransitions".to_owned(), number("term", own.term.0)?.into());
    if let Some(holder) = &own.holder {
        spec.insert("holderIdentity".to_owned(), holder.clone().into());
    }
    if own.duration_seconds > 0 {
        let seconds = number("durationSeconds", own.duration_seconds)?;
        spec.insert("leaseDurationSeconds".to_owned(), seconds.into());
    }
    if let Some(renewed) = own.renewed {
        // Microseconds, and always six digits of them.
        spec.insert("renewTime".to_owned(), format!("{renewed:.6}").into());
    }
    let [label, ours] = LEASE_LABEL;
    let mut metadata = json!({"name": lease.name(), "labels": {label: ours}});
    if !own.extra.is_empty() {
        metadata["annotations"] = json!({LEASE_EXTRA: Json::Object(own.extra.clone()).to_string()});
    }
    Ok(Extra::from_iter([
        ("apiVersion".to_owned(), LEASES.api_version().into()),
        ("kind".to_owned(), LEASES.kind.into()),
        ("metadata".to_owned(), metadata),
        ("spec".to_owned(), spec.into()),
    ]))
}

/// One writer's part of a binding's status, to be applied by the server.
pub fn status_part(name: &str, writer: &Writer, part: &Part) -> Result<Extra, Bad> {
    let Writer(node) = writer;
    if let Some(other) = part.candidates.iter().find(|candidate| candidate.node != *node) {
        return Err(bad(format!(
            "candidate of node {} in the part of {node}",
            other.node
        )));
    }
    // Also none: a status of which nothing is left would be null, which no schema takes.
    let mut status = Extra::from_iter([("candidates".to_owned(), json!(part.candidates))]);
    if !part.conditions.is_empty() {
        status.insert("conditions".to_owned(), json!(part.conditions));
    }
    Ok(Extra::from_iter([
        ("apiVersion".to_owned(), BindingSpec::API_VERSION.into()),
        ("kind".to_owned(), BindingSpec::KIND.into()),
        ("metadata".to_owned(), json!({"name": name})),
        ("status".to_owned(), status.into()),
    ]))
}

/// The identity of an object.
pub fn uid(object: &Extra) -> Option<&str> {
    metadata(object)?.get("uid")?.as_str()
}
