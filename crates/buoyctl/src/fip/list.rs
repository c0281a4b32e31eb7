//! `fip list`: bindings, also those that cannot be read, and requests that have none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use buoy_api::v3::WorkloadEndpoint;
use buoy_api::{Binding, FloatingIp, names};
use buoy_core::store::Key;
use jiff::Timestamp;
use serde::Serialize;

use super::{state, workload_name};
use crate::age::age;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::store::{Listed, Store};
use crate::table::Table;

/// A floating IP that exists or is asked for.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    address: IpAddr,
    /// Whose it is, or who asks for it; `None` if nobody does and the binding cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    state: String,
    /// `None` if the binding cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// Workloads that ask for it and are not its owner.
    standby: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
}

/// Lists floating IPs, of one namespace or of all.
pub(crate) fn list(
    store: &Store,
    namespace: Option<&str>,
    format: Format,
    now: Timestamp,
) -> Result<Output, Failure> {
    let bindings = store.bindings()?;
    let endpoints = store.endpoints()?;
    let rows = rows(&bindings, &endpoints.items, namespace);
    let output = Output::render(format, &rows, || {
        table(&rows, format == Format::Wide, now).columns()
    })?;
    Ok(output.warning(bindings.warnings()).warning(endpoints.warnings()))
}

fn rows(bindings: &Listed<Binding>, endpoints: &[WorkloadEndpoint], namespace: Option<&str>) -> Vec<Row> {
    let mut rows: Vec<Row> = bindings.items.iter().map(row).collect();
    let bound: BTreeSet<IpAddr> = rows.iter().map(|row| row.address).collect();
    let mut requests = requests(endpoints);
    requests.retain(|(address, _), _| !bound.contains(address));
    let unreadable = unreadable(bindings);
    let asked: BTreeSet<IpAddr> = requests.keys().map(|(address, _)| *address).collect();
    let unasked = unreadable.difference(&asked);
    rows.extend(unasked.map(|address| without_owner(*address, None, true)));
    rows.extend(requests.into_iter().map(|((address, namespace), standby)| Row {
        standby,
        ..without_owner(address, Some(namespace), unreadable.contains(&address))
    }));
    rows.retain(|row| namespace.is_none() || row.namespace.as_deref() == namespace);
    rows.sort_by(|a, b| (a.address, &a.namespace).cmp(&(b.address, &b.namespace)));
    rows
}

/// Who asks for an address, by the address and the namespace.
fn requests(endpoints: &[WorkloadEndpoint]) -> BTreeMap<(IpAddr, String), Vec<String>> {
    let mut requests: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for endpoint in endpoints {
        let namespace = endpoint.metadata.namespace.clone().unwrap_or_default();
        for nat in &endpoint.spec.ip_nats {
            if let Ok(floating) = nat.external_ip.parse::<FloatingIp>() {
                requests
                    .entry((floating.addr(), namespace.clone()))
                    .or_default()
                    .push(workload_name(endpoint).to_owned());
            }
        }
    }
    requests
}

/// Addresses whose bindings cannot be read: their keys still name them.
fn unreadable(bindings: &Listed<Binding>) -> BTreeSet<IpAddr> {
    bindings
        .bad
        .iter()
        .filter_map(|(key, _)| match key {
            Key::Binding(name) => names::address_of_binding(name),
            _ => None,
        })
        .collect()
}

/// An address of which no owner is known: only asked for, or with a binding that cannot be read.
fn without_owner(address: IpAddr, namespace: Option<String>, unreadable: bool) -> Row {
    Row {
        address,
        namespace,
        owner: None,
        node: None,
        state: if unreadable { "Unreadable" } else { "Requested" }.to_owned(),
        epoch: (!unreadable).then_some(0),
        standby: Vec::new(),
        created: None,
    }
}

fn row(binding: &Binding) -> Row {
    let owner = binding.spec.owner.as_ref();
    let others = binding
        .status
        .candidates
        .iter()
        .filter(|candidate| !owner.is_some_and(|owner| candidate.is(owner)));
    Row {
        address: binding.spec.address,
        namespace: Some(binding.spec.namespace.clone()),
        owner: owner.map(|owner| owner.workload.clone()),
        node: owner.map(|owner| owner.node.clone()),
        state: state(binding),
        epoch: Some(binding.spec.epoch.0),
        standby: others.map(|candidate| candidate.workload.clone()).collect(),
        created: binding.metadata.creation_timestamp,
    }
}

fn table(rows: &[Row], wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["ADDRESS", "NAMESPACE", "OWNER", "NODE", "STATE", "EPOCH", "AGE"];
    if wide {
        header.push("STANDBY");
    }
    let mut table = Table::new(&header);
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for row in rows {
        let mut cells = vec![
            row.address.to_string(),
            or_dash(&row.namespace),
            or_dash(&row.owner),
            or_dash(&row.node),
            row.state.clone(),
            or_dash(&row.epoch.map(|epoch| epoch.to_string())),
            age(row.created, now),
        ];
        if wide {
            let standby = row.standby.join(",");
            cells.push(if standby.is_empty() {
                "-".to_owned()
            } else {
                standby
            });
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use buoy_core::store::Bad;

    use super::super::fixtures::{binding, endpoint};
    use super::*;

    #[test]
    fn what_is_bound_what_is_only_asked_for_and_what_is_garbage() {
        let bad = Bad {
            reason: "x".to_owned(),
        };
        let garbage = |name: &str| (Key::Binding(name.to_owned()), bad.clone());
        let bindings = Listed {
            items: vec![binding(&["web-0", "web-1"])],
            bad: vec![garbage("172-16-1-4"), garbage("172-16-1-5"), garbage("rubbish")],
        };
        let asked = ["172.16.1.3", "172.16.1.2", "172.16.1.4", "rubbish"];
        let endpoints = [
            endpoint("web-0", "n1", &["10.65.0.7/32"], &asked),
            endpoint("web-1", "n1", &["10.65.0.8/32"], &["172.16.1.3"]),
        ];
        let shown = |namespace| {
            let rows = rows(&bindings, &endpoints, namespace);
            table(&rows, true, Timestamp::UNIX_EPOCH).columns()
        };
        assert_eq!(
            shown(None),
            "\
ADDRESS      NAMESPACE   OWNER   NODE   STATE        EPOCH   AGE   STANDBY
172.16.1.2   shop        -       -      Requested    0       -     web-0
172.16.1.3   shop        web-0   n1     Owned        7       -     web-1
172.16.1.4   shop        -       -      Unreadable   -       -     web-0
172.16.1.5   -           -       -      Unreadable   -       -     -
"
        );
        assert_eq!(shown(Some("shop")).lines().count(), 4);
        assert_eq!(rows(&bindings, &endpoints, Some("other")), []);
    }
}
