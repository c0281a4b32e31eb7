//! `fip list`: bindings, and requests that have none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use buoy_api::v3::WorkloadEndpoint;
use buoy_api::{Binding, FloatingIp};
use jiff::Timestamp;
use serde::Serialize;

use super::{state, workload_name};
use crate::age::age;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::store::Store;
use crate::table::Table;

/// A floating IP that exists or is asked for.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    address: IpAddr,
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    state: String,
    epoch: u64,
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
    let rows = rows(&bindings.items, &endpoints.items, namespace);
    let output = Output::render(format, &rows, || {
        table(&rows, format == Format::Wide, now).columns()
    })?;
    Ok(output.warning(bindings.warnings).warning(endpoints.warnings))
}

fn rows(bindings: &[Binding], endpoints: &[WorkloadEndpoint], namespace: Option<&str>) -> Vec<Row> {
    let mut rows: Vec<Row> = bindings.iter().map(row).collect();
    let bound: BTreeSet<IpAddr> = rows.iter().map(|row| row.address).collect();
    let mut unbound: BTreeMap<(FloatingIp, String), Vec<String>> = BTreeMap::new();
    for endpoint in endpoints {
        let namespace = endpoint.metadata.namespace.clone().unwrap_or_default();
        for nat in &endpoint.spec.ip_nats {
            if let Ok(floating) = nat.external_ip.parse::<FloatingIp>()
                && !bound.contains(&floating.addr())
            {
                unbound
                    .entry((floating, namespace.clone()))
                    .or_default()
                    .push(workload_name(endpoint).to_owned());
            }
        }
    }
    rows.extend(unbound.into_iter().map(|((floating, namespace), standby)| Row {
        address: floating.addr(),
        namespace,
        owner: None,
        node: None,
        state: "Requested".to_owned(),
        epoch: 0,
        standby,
        created: None,
    }));
    rows.retain(|row| namespace.is_none_or(|namespace| row.namespace == namespace));
    rows.sort_by(|a, b| (a.address, &a.namespace).cmp(&(b.address, &b.namespace)));
    rows
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
        namespace: binding.spec.namespace.clone(),
        owner: owner.map(|owner| owner.workload.clone()),
        node: owner.map(|owner| owner.node.clone()),
        state: state(binding),
        epoch: binding.spec.epoch.0,
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
            row.namespace.clone(),
            or_dash(&row.owner),
            or_dash(&row.node),
            row.state.clone(),
            row.epoch.to_string(),
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
    use super::super::fixtures::{binding, endpoint};
    use super::*;

    #[test]
    fn what_is_bound_and_what_is_only_asked_for() {
        let bindings = [binding(&["web-0", "web-1"])];
        let endpoints = [
            endpoint(
                "web-0",
                "n1",
                &["10.65.0.7/32"],
                &["172.16.1.3", "172.16.1.2", "rubbish"],
            ),
            endpoint("web-1", "n1", &["10.65.0.8/32"], &["172.16.1.3"]),
        ];
        let rows = rows(&bindings, &endpoints, None);
        assert_eq!(
            table(&rows, true, Timestamp::UNIX_EPOCH).columns(),
            "\
ADDRESS      NAMESPACE   OWNER   NODE   STATE       EPOCH   AGE   STANDBY
172.16.1.2   shop        -       -      Requested   0       -     web-0
172.16.1.3   shop        web-0   n1     Owned       7       -     web-1
"
        );
        assert_eq!(super::rows(&bindings, &endpoints, Some("other")), []);
    }
}
