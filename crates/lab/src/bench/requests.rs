//! Requests for floating IPs, written into the records of workloads as `buoyctl fip attach` does it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use buoy_api::v3::{IpNat, WorkloadEndpoint};
use buoy_core::edit::{Change, Edit};
use buoy_core::store::{Key, Prefix, Reply, StoreOp, Value};
use buoy_datastore::{Datastore, drive};

/// Lets workloads, by the names of their pods, ask for these addresses and no others.
pub(super) fn ask_all(store: &dyn Datastore, wanted: &[(String, Vec<IpAddr>)]) -> Result<()> {
    let records = endpoints(store)?;
    for (name, wanted) in wanted {
        let record = records
            .get(name)
            .with_context(|| format!("no record of {name}"))?;
        ask(store, record, wanted)?;
    }
    Ok(())
}

/// The records of all workloads, by the names of their pods.
fn endpoints(store: &dyn Datastore) -> Result<BTreeMap<String, WorkloadEndpoint>> {
    let Reply::List(list, _) = store.run(&StoreOp::List(Prefix::Endpoints)) else {
        bail!("cannot list workload endpoints");
    };
    let endpoints = list.into_iter().filter_map(|record| match record.value {
        Ok(Value::Endpoint(endpoint)) => Some((endpoint.spec.pod.clone(), endpoint)),
        _ => None,
    });
    Ok(endpoints.collect())
}

fn ask(store: &dyn Datastore, record: &WorkloadEndpoint, wanted: &[IpAddr]) -> Result<()> {
    let own = record
        .spec
        .ip_networks
        .first()
        .context("a workload without an address")?;
    let requests: Vec<IpNat> = wanted
        .iter()
        .map(|floating| IpNat::new(own.addr(), *floating))
        .collect();
    let key = Key::Endpoint {
        namespace: record.metadata.namespace.clone().unwrap_or_default(),
        name: record.metadata.name.clone(),
    };
    let asking = |found: Option<&Value>| match found {
        Some(Value::Endpoint(found)) => {
            let mut asking = found.clone();
            asking.spec.ip_nats.clone_from(&requests);
            Change::Put(Box::new(Value::Endpoint(asking)))
        }
        _ => Change::Keep,
    };
    Ok(drive(store, Edit::new(key, asking))?)
}
