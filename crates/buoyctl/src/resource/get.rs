//! Get.

use buoy_api::bgp::DEFAULT_AS_NUMBER;
use buoy_core::store::{Key, Record, Revision, Value};
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::delete::absent;
use super::tables::{Setting, table};
use crate::failure::Failure;
use crate::kind::{self, KindName};
use crate::manifest::Target;
use crate::output::{Format, Output};
use crate::store::Store;

/// Which records are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    /// Of this kind.
    pub kind: KindName,
    /// With these names; all, if there are none.
    pub names: &'a [String],
    /// In this namespace; in all, if `None`. It says nothing for kinds without namespaces.
    pub namespace: Option<&'a str>,
}

/// Reads records and shows them.
pub(crate) fn get(
    store: &Store,
    query: Query<'_>,
    format: Format,
    now: Timestamp,
) -> Result<Output, Failure> {
    let (records, revision) = read(store, query)?;
    let mut warnings = Vec::new();
    let mut good: Vec<(Value, Revision)> = Vec::new();
    for Record { key, value, revision } in records {
        match value {
            Ok(value) => good.push((value, revision)),
            Err(bad) => warnings.push(format!("{key}: {bad}\n{}", remedy(query.kind))),
        }
    }
    if good.is_empty() && !query.names.is_empty() {
        return Err(Failure::new(warnings.join("\n")));
    }
    let as_number = match (query.kind, format) {
        (KindName::Node, Format::Wide) => cluster_as_number(store)?,
        _ => DEFAULT_AS_NUMBER,
    };
    let document = document(query, &good, revision);
    let output = Output::render(format, &document, || {
        let values: Vec<&Value> = good.iter().map(|(value, _)| value).collect();
        let setting = Setting {
            wide: format == Format::Wide,
            all_namespaces: query.kind.is_namespaced() && query.namespace.is_none(),
            as_number,
            now,
        };
        table(query.kind, &values, setting).columns()
    })?;
    Ok(output.warning(warnings))
}

/// What to do about a record that does not decode.
fn remedy(kind: KindName) -> &'static str {
    match kind {
        KindName::Lease => "restore it from a copy of the datastore",
        KindName::Binding => "delete it; agents make it again",
        _ => "mend it with apply, or delete it",
    }
}

/// AS number of nodes that have none of their own.
fn cluster_as_number(store: &Store) -> Result<u32, Failure> {
    let record = store.get(&Key::BgpConfiguration("default".to_owned()))?;
    let configured = match record.map(|record| record.value) {
        Some(Ok(Value::BgpConfiguration(configuration))) => configuration.spec.as_number,
        _ => None,
    };
    Ok(configured.unwrap_or(DEFAULT_AS_NUMBER))
}

fn read(store: &Store, query: Query<'_>) -> Result<(Vec<Record>, Revision), Failure> {
    let Query {
        kind,
        names,
        namespace,
    } = query;
    if names.is_empty() {
        let (mut records, revision) = store.list(kind.prefix())?;
        if let Some(namespace) = namespace.filter(|_| kind.is_namespaced()) {
            // Whatever its name, the key of a record in this namespace is the one that the namespace gives.
            records.retain(|record| match &record.key {
                Key::Endpoint { namespace: own, .. } => own == namespace,
                _ => true,
            });
        }
        return Ok((records, revision));
    }
    let Some(namespace) = namespace.or((!kind.is_namespaced()).then_some("")) else {
        return Err(Failure::Usage(
            "a name and all namespaces exclude each other\nname the namespace with -n".to_owned(),
        ));
    };
    let records: Vec<Record> = names
        .iter()
        .map(|name| {
            let target = Target {
                kind,
                namespace: namespace.to_owned(),
                name: name.clone(),
            };
            store.get(&target.key())?.ok_or_else(|| absent(&target))
        })
        .collect::<Result<_, _>>()?;
    let revision = records
        .iter()
        .map(|record| record.revision)
        .max()
        .unwrap_or_default();
    Ok((records, revision))
}

/// One name gives the record itself, everything else a list.
fn document(query: Query<'_>, records: &[(Value, Revision)], revision: Revision) -> Json {
    let mut items: Vec<Json> = records
        .iter()
        .filter_map(|(value, revision)| {
            let mut document = kind::encode(value)?;
            document["metadata"]["resourceVersion"] = Json::from(revision.to_string());
            Some(document)
        })
        .collect();
    if query.names.len() == 1
        && let Some(only) = items.pop()
    {
        return only;
    }
    json!({
        "kind": format!("{}List", query.kind.kind()),
        "apiVersion": query.kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string()},
        "items": items,
    })
}
