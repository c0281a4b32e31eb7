//! The definitions in `deploy/crds` are those of the Rust types. `BUOY_UPDATE_CRDS=1` writes them anew.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it cannot go on"
)]

use std::path::Path;

use buoy_api::Kind;
use buoy_api::binding::{BindingSpec, BindingStatus, EpochFloorSpec};
use buoy_datastore::codec::objects::ApiResource;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

/// Longest text of an address.
const LONGEST_ADDRESS: u32 = 45;

#[test]
fn the_definitions_are_those_of_the_types() {
    let (calico, buoy): (Vec<_>, Vec<_>) = ApiResource::CUSTOM
        .into_iter()
        .partition(|resource| !resource.is_strict());
    check(
        "calico.yaml",
        "Calico's records, for clusters without Calico: everything that it may say is kept.",
        calico,
    );
    check("buoy.yaml", "Buoy's records.", buoy);
}

fn check(file: &str, title: &str, resources: Vec<ApiResource>) {
    let mut text = format!("# {title} Generated: see crates/datastore/tests/crds.rs.\n");
    for resource in resources {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition(resource)).unwrap());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/crds")
        .join(file);
    if std::env::var_os("BUOY_UPDATE_CRDS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "deploy/crds/{file} is stale\nrun this test with BUOY_UPDATE_CRDS=1"
    );
}

fn definition(resource: ApiResource) -> Json {
    let (schema, more) = match resource.kind {
        BindingSpec::KIND => (binding_schema(), binding_extras()),
        EpochFloorSpec::KIND => (floor_schema(), json!({})),
        _ => (open_schema(), json!({})),
    };
    let mut version = json!({
        "name": resource.version,
        "served": true,
        "storage": true,
        "schema": {"openAPIV3Schema": schema},
    });
    merge(&mut version, &more["version"]);
    let mut names = json!({
        "kind": resource.kind,
        "listKind": format!("{}List", resource.kind),
        "plural": resource.plural,
        "singular": resource.kind.to_lowercase(),
    });
    if resource.is_strict() {
        names["categories"] = json!(["buoy"]);
    }
    merge(&mut names, &more["names"]);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.name()},
        "spec": {"group": resource.group, "names": names, "scope": "Cluster", "versions": [version]},
    })
}

fn merge(into: &mut Json, more: &Json) {
    for (key, value) in more.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

fn open_schema() -> Json {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({"type": "object", "properties": {"spec": open, "status": open}})
}

fn binding_extras() -> Json {
    let condition = |kind: &str, field: &str| format!(".status.conditions[?(@.type==\"{kind}\")].{field}");
    let column = |name: &str, kind: &str, path: &str, priority: u32| json!({"name": name, "type": kind, "jsonPath": path, "priority": priority});
    json!({
        "names": {"shortNames": ["fipb"]},
        "version": {
            "subresources": {"status": {}},
            "additionalPrinterColumns": [
                column("Address", "string", ".spec.address", 0),
                column("Namespace", "string", ".spec.namespace", 0),
                column("Owner", "string", ".spec.owner.workload", 0),
                column("Node", "string", ".spec.owner.node", 0),
                column("State", "string", &condition("Programmed", "reason"), 0),
                column("Epoch", "integer", ".spec.epoch", 0),
                column("Internal", "string", ".spec.owner.internalIP", 1),
                column("Accepted", "string", &condition("Accepted", "status"), 1),
                column("Programmed", "string", &condition("Programmed", "status"), 1),
                column("Advertised", "string", &condition("Advertised", "status"), 1),
                column("Age", "date", ".metadata.creationTimestamp", 0),
            ],
        },
    })
}

fn binding_schema() -> Json {
    let (mut spec, mut status) = (structural::<BindingSpec>(), structural::<BindingStatus>());
    spec["required"] = json!(["address", "epoch", "namespace"]);
    let address = json!({"type": "string", "maxLength": LONGEST_ADDRESS, "x-kubernetes-validations": [
        rule("isIP(self)", "not an IP address"),
        rule("self == oldSelf", "the address of a binding cannot change: make another binding"),
    ]});
    merge(&mut spec["properties"]["address"], &address);
    let epoch = json!({"x-kubernetes-validations": [rule("self >= oldSelf", "epochs never fall")]});
    merge(&mut spec["properties"]["epoch"], &epoch);
    let internal = json!({"maxLength": LONGEST_ADDRESS, "x-kubernetes-validations": [
        rule("isIP(self)", "not an IP address"),
    ]});
    merge(
        &mut spec["properties"]["owner"]["properties"]["internalIP"],
        &internal,
    );
    let keyed = |keys: &[&str]| json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys});
    merge(
        &mut status["properties"]["candidates"],
        &keyed(&["node", "workload", "endpoint"]),
    );
    merge(&mut status["properties"]["conditions"], &keyed(&["type"]));
    let (name, address) = ("self.metadata.name", "self.spec.address");
    // Without this bound the server takes the rules for too expensive.
    let metadata =
        json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": LONGEST_ADDRESS}}});
    let group = "(0|[1-9a-f][0-9a-f]{0,3})";
    let named = format!("{name} == {address}.replace('.', '-')");
    let spelled = format!(
        "{name}.matches('^{group}(-{group}){{7}}$') && ip({name}.replace('-', ':')) == ip({address})"
    );
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {"metadata": metadata, "spec": spec, "status": status},
        "x-kubernetes-validations": [rule(
            &format!("{address}.contains('.') ? {named} : ({spelled})"),
            "the name must be the address: 172-16-1-3 for 172.16.1.3, 2001-db8-0-0-0-0-0-1 for 2001:db8::1",
        )],
    })
}

fn floor_schema() -> Json {
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {"spec": structural::<EpochFloorSpec>()},
        "x-kubernetes-validations": [rule("self.metadata.name == 'default'", "there is one, named default")],
    })
}

fn rule(rule: &str, message: &str) -> Json {
    json!({"rule": rule, "message": message})
}

/// The schema of a type as definitions want it: in one piece, without defaults, each part with a type.
fn structural<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut schema = schema.as_value().clone();
    simplify(&mut schema);
    for field in ["$schema", "title", "description"] {
        schema.as_object_mut().expect("schemas are objects").remove(field);
    }
    schema
}

fn simplify(schema: &mut Json) {
    let Json::Object(fields) = schema else { return };
    fields.remove("default");
    match fields.get("format").and_then(Json::as_str) {
        Some("uint64") => drop(fields.insert("format".to_owned(), "int64".into())),
        Some("ip") => drop(fields.remove("format")),
        _ => {}
    }
    // Where a part is another type with a description of its own.
    if let Some(Json::Array(parts)) = fields.remove("allOf") {
        for part in parts {
            let Json::Object(part) = part else { continue };
            for (key, value) in part {
                fields.entry(key).or_insert(value);
            }
        }
    }
    if let Some(Json::Object(properties)) = fields.get_mut("properties") {
        for property in properties.values_mut() {
            simplify(property);
        }
        // Only text: two definitions of one field would differ by nothing else.
        let sorted: Map<String, Json> = std::mem::take(properties).into_iter().collect();
        *properties = sorted;
    }
    if let Some(items) = fields.get_mut("items") {
        simplify(items);
    }
}
